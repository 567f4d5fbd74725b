"""The parts of the spawner that decide without doing."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.local.sandbox.spawner import accounts, capabilities, plain, seccomp, wire
from serving.local.sandbox.spawner.logs import MAX_LINE, LineFramer, LogFile

STAMP = b"T"


def _parse(out: bytes) -> list[tuple[str, str, bytes]]:
    rows = [line.split(b" ", 3) for line in out.split(b"\n")[:-1]]
    return [(row[1].decode(), row[2].decode(), row[3]) for row in rows]


@given(st.lists(st.binary(max_size=3 * MAX_LINE), max_size=6))
def test_framing_keeps_every_byte(chunks: list[bytes]) -> None:
    framer = LineFramer("stdout")
    out = b"".join(framer.feed(chunk, STAMP) for chunk in chunks) + framer.finish(STAMP)
    joined, previous_partial = b"", False
    for stream, tag, text in _parse(out):
        assert stream == "stdout"
        assert len(text) <= MAX_LINE
        joined += text + (b"\n" if tag == "F" else b"")
        previous_partial = tag == "P"
    data = b"".join(chunks)
    assert joined.removesuffix(b"\n") == data.removesuffix(b"\n")
    assert not previous_partial or len(data) % MAX_LINE == 0


def test_log_rotates_by_size(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogFile(str(path), max_bytes=100)
    for number in range(30):
        log.write(b"%09d\n" % number)
    log.close()
    kept = (tmp_path / "log.1").read_bytes() + path.read_bytes()
    numbers = [int(line) for line in kept.splitlines()]
    assert numbers == list(range(numbers[0], 30))
    assert len(path.read_bytes()) <= 100
    assert len((tmp_path / "log.1").read_bytes()) == 100


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers(), max_size=3), max_size=5), st.data())
def test_messages_survive_any_split(messages: list[dict[str, int]], data: st.DataObject) -> None:
    stream = b"".join(wire.encode(message) for message in messages)
    decoder = wire.Decoder()
    received: list[dict[str, int]] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += decoder.feed(stream[:size])
        stream = stream[size:]
    assert received == messages


def test_an_absurd_length_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 8388608 are allowed"):
        wire.Decoder().feed(struct.pack("!I", 1 << 31))


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], set(capabilities.DEFAULT)),
        ([], ["ALL"], set()),
        (["NET_BIND_SERVICE"], ["ALL"], {"NET_BIND_SERVICE"}),
        (["CAP_NET_RAW"], ["chown"], set(capabilities.DEFAULT) - {"CHOWN"} | {"NET_RAW"}),
        (["ALL"], [], set(capabilities.NAMES)),
    ],
)
def test_capability_mask(add: list[str], drop: list[str], expected: set[str]) -> None:
    assert capabilities.names_in(capabilities.mask(add=add, drop=drop)) == expected


PASSWD = "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\nbroken\n"
GROUP = "app:x:1001:\nweb:x:50:app,other\n"


@pytest.mark.parametrize(
    ("user", "extra", "expected"),
    [
        ("", [], (0, 0, [], "/root")),
        ("app", [], (1000, 1001, [50], "/home/app")),
        ("1000", [7], (1000, 1001, [7, 50], "/home/app")),
        ("app:web", [], (1000, 50, [50], "/home/app")),
        ("4321", [], (4321, 0, [], "/")),
        ("4321:9", [], (4321, 9, [], "/")),
    ],
)
def test_accounts(tmp_path: Path, user: str, extra: list[int], expected: tuple[int, int, list[int], str]) -> None:
    (tmp_path / "passwd").write_text(PASSWD)
    (tmp_path / "group").write_text(GROUP)
    account = accounts.resolve(
        user, extra, users_file=str(tmp_path / "passwd"), groups_file=str(tmp_path / "group")
    )
    assert (account.uid, account.gid, account.groups, account.home) == expected


def test_image_without_accounts() -> None:
    account = accounts.resolve("", [], users_file="/nonexistent", groups_file="/nonexistent")
    assert (account.uid, account.gid, account.home) == (0, 0, "/root")
    with pytest.raises(LookupError, match="group 'g' is not in the image"):
        accounts.resolve("0:g", [], users_file="/nonexistent", groups_file="/nonexistent")


def _evaluate(program: bytes, *, number: int, architecture: int, argument: int = 0) -> int:
    """A classic BPF interpreter for what our filters use."""
    instructions = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    words = {0: number, 4: architecture, 16: argument & 0xFFFFFFFF, 20: argument >> 32}
    accumulator = position = 0
    while True:
        code, when_true, when_false, value = instructions[position]
        position += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            accumulator = words[value]
        else:
            taken = {
                0x15: accumulator == value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[code]
            position += when_true if taken else when_false


ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000


@pytest.mark.parametrize("architecture", sorted(seccomp.ARCHITECTURES))
def test_seccomp_denies_its_list_and_nothing_else(architecture: str) -> None:
    audit = seccomp.ARCHITECTURES[architecture]
    program = seccomp.program(architecture)
    denied = set(seccomp.denied(architecture).values())
    clone, socket = (56, 41) if architecture == "x86_64" else (220, 198)
    for number in range(460):
        verdict = _evaluate(program, number=number, architecture=audit)
        expected = EPERM if number in denied else ENOSYS if number == 435 else ALLOW
        assert verdict == expected, number
    assert _evaluate(program, number=clone, architecture=audit, argument=0x10000000) == EPERM
    assert _evaluate(program, number=clone, architecture=audit, argument=0x003D0F00) == ALLOW
    assert _evaluate(program, number=socket, architecture=audit, argument=40) == EPERM
    assert _evaluate(program, number=socket, architecture=audit, argument=2) == ALLOW
    assert _evaluate(program, number=0, architecture=0x40000003) == KILL
    if architecture == "x86_64":
        assert _evaluate(program, number=0x40000000 + 1, architecture=audit) == EPERM


def test_a_capability_gives_its_calls_back() -> None:
    plain_list = seccomp.denied("x86_64")
    with_ptrace = seccomp.denied("x86_64", frozenset({"SYS_PTRACE"}))
    assert set(plain_list) - set(with_ptrace) == {"kcmp", "process_vm_readv", "process_vm_writev", "ptrace"}
    assert {"mount", "bpf", "kexec_load", "keyctl", "unshare", "setns", "ptrace"} <= set(plain_list)


def test_paths_stay_inside_the_image(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "escape").symlink_to("../../../../etc")
    (root / "absolute").symlink_to("/usr/bin")
    (root / "loop").symlink_to("loop")
    assert plain.resolve_in(str(root), "/bin/sh") == f"{root}/usr/bin/sh"
    assert plain.resolve_in(str(root), "/escape/passwd") == f"{root}/etc/passwd"
    assert plain.resolve_in(str(root), "/absolute/x") == f"{root}/usr/bin/x"
    assert plain.resolve_in(str(root), "/../../x") == f"{root}/x"
    with pytest.raises(FileNotFoundError, match="too many links"):
        plain.resolve_in(str(root), "/loop")


def test_static_programs_run_in_place(tmp_path: Path) -> None:
    (tmp_path / "hello").write_bytes(b"\x7fELF\x02\x01" + bytes(58))
    os.chmod(tmp_path / "hello", 0o755)
    command = plain.command(str(tmp_path), ["/hello", "x"], {}, cwd="/work")
    assert command.argv == [f"{tmp_path}/hello", "x"]
    assert command.cwd == f"{tmp_path}/work"
