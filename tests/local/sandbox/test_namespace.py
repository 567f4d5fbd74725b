"""Real sandboxes in namespaces: what runs inside, and what comes out."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path

import pytest

from serving.local.sandbox.protocol import Mount, SandboxError
from tests.local.sandbox import support

pytestmark = [pytest.mark.root, support.needs_root]


async def test_output_exit_code_and_log_format(tmp_path: Path) -> None:
    async with support.namespace_pod(tmp_path) as sandbox:
        container = support.shell(tmp_path, "echo out; echo err >&2; printf unfinished; exit 7")
        exit, lines = await support.run(sandbox, container)
        assert (exit.exit_code, exit.signal, exit.oom_killed) == (7, 0, False)
        assert exit.started_at <= exit.finished_at
        assert sorted(lines) == ["err", "out", "unfinished"]
        stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"
        for line in container.log_path.read_text().splitlines():
            assert re.fullmatch(rf"{stamp} (stdout|stderr) F \w+", line)


async def test_what_a_container_sees(tmp_path: Path) -> None:
    script = """
    echo host=$(hostname 2>/dev/null || cat /etc/hostname)
    echo pid=$$
    echo others=$(ls /proc | grep -c '^[0-9]')
    cat; echo stdin-at-end
    for f in fd full null ptmx random stdin stdout stderr tty urandom zero shm; do
      test -e /dev/$f || echo missing $f
    done
    test -e /dev/console && echo console
    stat -c 'tmp=%a' /tmp
    stat -c 'resolv=%A' /etc/resolv.conf
    echo x 2>/dev/null > /proc/sys/kernel/hostname && echo sysctl-written
    mount -t tmpfs none /tmp 2>/dev/null && echo mounted
    grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'
    grep CapBnd /proc/self/status | tr -d '\\t'
    test -r /proc/kcore && head -c 1 /proc/kcore | wc -c
    find /sys/fs/cgroup -name 'cgroup.procs' -maxdepth 2 | head -1 | while read f; do
      (echo 0 > $f) 2>/dev/null && echo joined
    done
    cat /proc/self/cgroup | cut -d: -f3 | sort -u
    cat /etc/resolv.conf
    """
    async with support.namespace_pod(tmp_path) as sandbox:
        exit, lines = await support.run(sandbox, support.shell(tmp_path, script))
    assert exit.exit_code == 0
    assert "host=pod" in lines
    assert "pid=1" in lines
    assert "stdin-at-end" in lines
    assert "tmp=1777" in lines
    assert "resolv=-rw-r--r--" in lines
    assert "NoNewPrivs:1" in lines
    assert "Seccomp:2" in lines
    assert "CapBnd:00000000800405fb" in lines
    assert not [line for line in lines if line.startswith(("missing", "console", "mounted", "sysctl", "joined"))]
    assert "/" in lines
    assert any(line.startswith("nameserver 198.1") for line in lines)


async def test_environment_directory_user_and_groups(tmp_path: Path) -> None:
    async with support.namespace_pod(tmp_path) as sandbox:
        container = support.shell(
            tmp_path,
            'pwd; echo "$GREETING $HOME"; id -u; id -g; id -G; echo x > /dev/stdout',
            env=(("GREETING", "hello"),),
            cwd="/made/for/you",
            user="2020:3030",
            groups=(4040,),
        )
        exit, lines = await support.run(sandbox, container)
    assert exit.exit_code == 0
    assert lines == ["/made/for/you", "hello /", "2020", "3030", "3030 4040", "x"]


async def test_user_by_name_comes_from_the_image(tmp_path: Path) -> None:
    etc = support.empty_rootfs(tmp_path).directory
    assert etc is not None
    (etc / "etc").mkdir()
    (etc / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:1234:2345::/home/app:/bin/sh\n")
    (etc / "etc/group").write_text("app:x:2345:\nextra:x:99:app\n")
    async with support.namespace_pod(tmp_path) as sandbox:
        exit, lines = await support.run(sandbox, support.shell(tmp_path, "id -u; id -G; echo $HOME", user="app"))
        assert (exit.exit_code, lines) == (0, ["1234", "2345 99", "/home/app"])
        with pytest.raises(SandboxError, match="user 'nobodyhere' is not in the image") as caught:
            await sandbox.start_container(support.shell(tmp_path, "true", name="other", user="nobodyhere"))
        assert caught.value.reason == "CreateContainerConfigError"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("no-such-program",), 'exec: "no-such-program": executable file not found in $PATH'),
        (("/no/such",), 'exec: "/no/such": stat /no/such: no such file or directory'),
        (("/etc/hostname",), 'exec: "/etc/hostname": permission denied'),
    ],
)
async def test_a_program_that_cannot_be_executed(tmp_path: Path, argv: tuple[str, ...], message: str) -> None:
    async with support.namespace_pod(tmp_path) as sandbox:
        with pytest.raises(SandboxError) as caught:
            await sandbox.start_container(support.command(tmp_path, argv))
        assert caught.value.reason == "RunContainerError"
        assert caught.value.message == message
        assert sandbox.containers() == []
        exit, _ = await support.run(sandbox, support.shell(tmp_path, "exit 0"))  # the same name and attempt again
        assert exit.exit_code == 0


async def test_containers_of_a_pod_share_its_network_and_not_its_files(tmp_path: Path) -> None:
    server = (
        "import socket\ns=socket.create_server(('127.0.0.1',9000))\n"
        "print('up',flush=True)\ns.accept()[0].sendall(b'hi')"
    )
    client = "import socket\nprint(socket.create_connection(('localhost',9000)).recv(9).decode())"
    async with support.namespace_pod(tmp_path) as sandbox:
        first = support.command(tmp_path, (support.python(), "-c", server), name="server")
        await sandbox.start_container(first)
        await support.wait_for_text(first.log_path, "up")
        second = support.command(tmp_path, (support.python(), "-c", client), name="client")
        await sandbox.start_container(second)
        names = {(await support.next_exit(sandbox)).name for _ in range(2)}
        assert names == {"server", "client"}
        assert support.texts(second.log_path) == ["hi"]


async def test_mounts_and_read_only_root(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    file = tmp_path / "config"
    file.write_text("from outside\n")
    mounts = (
        *support.programs(),
        Mount(source=shared, target="/data", read_only=False),
        Mount(source=file, target="/etc/app/config"),
    )
    script = """
    cat /etc/app/config
    echo written > /data/file
    (echo x > /etc/app/config) 2>/dev/null || echo refused
    (echo x > /new) 2>/dev/null || echo ro
    """
    async with support.namespace_pod(tmp_path) as sandbox:
        exit, lines = await support.run(
            sandbox, support.shell(tmp_path, script, mounts=mounts, read_only_rootfs=True)
        )
    assert exit.exit_code == 0
    assert lines == ["from outside", "refused", "ro"]
    assert (shared / "file").read_text() == "written\n"


async def test_a_volume_in_memory_has_its_size_and_is_the_pod_s(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o777)
    mounts = (
        *support.programs(),
        Mount(source=volume, target="/memory", read_only=False, memory_bytes=256 * 1024),
    )
    script = """
    test -e /memory/kept && cat /memory/kept
    echo yes > /memory/kept
    head -c 1000000 /dev/zero 2>/dev/null > /memory/big || echo full
    """
    async with support.namespace_pod(tmp_path) as sandbox:
        for attempt in (0, 1):
            _, lines = await support.run(sandbox, support.shell(tmp_path, script, attempt=attempt, mounts=mounts))
        assert lines == ["full", "yes", "full"]
        assert list(volume.iterdir()) == []  # nothing of it is seen from outside
    volume.rmdir()


async def test_links_in_an_image_do_not_lead_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = support.empty_rootfs(tmp_path).directory
    assert root is not None
    (root / "etc").symlink_to(outside)
    (root / "dev").symlink_to(outside)
    async with support.namespace_pod(tmp_path) as sandbox:
        with pytest.raises(SandboxError) as caught:
            await sandbox.start_container(support.shell(tmp_path, "true"))
        assert caught.value.reason == "CreateContainerError"
    assert list(outside.iterdir()) == []


async def test_memory_limit_kills_and_says_so(tmp_path: Path) -> None:
    async with support.namespace_pod(tmp_path) as sandbox:
        greedy = (support.python(), "-c", "b = bytearray(200 << 20); print(len(b))")
        exit, lines = await support.run(sandbox, support.command(tmp_path, greedy, memory_bytes=64 << 20))
    assert (exit.exit_code, exit.signal, exit.oom_killed) == (137, 9, True)
    assert lines == []


async def test_limits_are_visible_inside_and_stats_count(tmp_path: Path) -> None:
    script = """
    cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max
    cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max
    sleep 60
    """
    async with support.namespace_pod(tmp_path) as sandbox:
        container = support.shell(tmp_path, script, memory_bytes=64 << 20, cpu_millis=250, cpu_shares=256)
        await sandbox.start_container(container)
        await support.wait_for_text(container.log_path, "25000")
        assert support.texts(container.log_path)[0] == str(64 << 20)
        stats = await sandbox.stats()
        assert stats.pids >= 1
        assert 0 < stats.memory_bytes < 64 << 20
        assert stats.cpu_seconds > 0


async def test_sigterm_ends_a_program_without_a_handler(tmp_path: Path) -> None:
    async with support.namespace_pod(tmp_path) as sandbox:
        await sandbox.start_container(support.shell(tmp_path, "while :; do sleep 60; done"))
        await sandbox.signal("main", signal.SIGTERM)
        exit = await support.next_exit(sandbox)
        assert (exit.exit_code, exit.signal) == (143, 15)
        await sandbox.signal("main", signal.SIGTERM)  # gone: no error


async def test_sigterm_handlers_run(tmp_path: Path) -> None:
    async with support.namespace_pod(tmp_path) as sandbox:
        script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
        container = support.shell(tmp_path, script)
        await sandbox.start_container(container)
        await support.wait_for_text(container.log_path, "ready")
        await sandbox.signal("main", signal.SIGTERM)
        exit = await support.next_exit(sandbox)
        assert exit.exit_code == 3
        assert support.texts(container.log_path) == ["ready", "bye"]


async def test_kill_takes_every_process_of_the_container_only(tmp_path: Path) -> None:
    async with support.namespace_pod(tmp_path) as sandbox:
        await sandbox.start_container(support.shell(tmp_path, "setsid sleep 61 & sleep 62", name="a"))
        other = await sandbox.start_container(support.shell(tmp_path, "sleep 63", name="b"))
        await sandbox.kill("a")
        exit = await support.next_exit(sandbox)
        assert (exit.name, exit.exit_code, exit.signal) == ("a", 137, 9)
        os.kill(other.pid, 0)


async def test_restart_gets_a_fresh_file_system(tmp_path: Path) -> None:
    async with support.namespace_pod(tmp_path) as sandbox:
        script = "test -e /mark && echo seen || echo fresh; touch /mark"
        for attempt in (0, 1):
            _, lines = await support.run(sandbox, support.shell(tmp_path, script, attempt=attempt))
        assert lines == ["fresh", "fresh"]
        assert [(state.name, state.attempt) for state in sandbox.containers()] == [("main", 0), ("main", 1)]


async def test_termination_message(tmp_path: Path) -> None:
    async with support.namespace_pod(tmp_path) as sandbox:
        exit, _ = await support.run(
            sandbox, support.shell(tmp_path, "echo why > /dev/termination-log; exit 1", user="1000")
        )
        assert exit.termination_message == "why\n"


async def test_exec(tmp_path: Path) -> None:
    async with support.namespace_pod(tmp_path) as sandbox:
        await sandbox.start_container(support.shell(tmp_path, "echo 1 > /tmp/mark; sleep 60", user="1000"))
        script = "cat; cat /tmp/mark; id -u; grep Seccomp: /proc/self/status >&2; exit 5"
        result = await sandbox.exec("main", ("/bin/sh", "-c", script), timeout_seconds=10)
        assert result.exit_code == 5
        assert result.stdout.split() == [b"1", b"1000"]
        assert b"2" in result.stderr
        with pytest.raises(SandboxError, match="executable file not found"):
            await sandbox.exec("main", ("nothing",), timeout_seconds=10)
        with pytest.raises(SandboxError, match="other is not running"):
            await sandbox.exec("other", ("true",), timeout_seconds=10)
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="did not end within"):
            await sandbox.exec("main", ("sleep", "30"), timeout_seconds=0.2)
        assert time.monotonic() - began < 10


async def test_freeze_and_thaw(tmp_path: Path) -> None:
    async with support.namespace_pod(tmp_path) as sandbox:
        container = support.shell(tmp_path, "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done")
        await sandbox.start_container(container)
        await support.wait_for_text(container.log_path, " 3\n")
        await sandbox.freeze()
        await asyncio.sleep(0.05)
        before = len(support.texts(container.log_path))
        await asyncio.sleep(0.1)
        assert len(support.texts(container.log_path)) == before
        await sandbox.thaw()
        await support.wait_for_text(container.log_path, f" {before + 2}\n")
        await sandbox.freeze()  # destroying a frozen pod must work, too


async def test_destroy_leaves_nothing_and_is_idempotent(tmp_path: Path) -> None:
    name = support.instance()
    async with support.namespace_runtime(tmp_path, name=name) as runtime:
        sandbox = await runtime.create(support.pod(tmp_path))
        state = await sandbox.start_container(support.shell(tmp_path, "sleep 60"))
        await sandbox.destroy()
        await sandbox.destroy()
        assert [exit.exit_code async for exit in sandbox.exits()] in ([], [137])
        assert not sandbox.spec.state_dir.exists()
        with pytest.raises(ProcessLookupError):
            os.kill(state.pid, 0)
        with pytest.raises(SandboxError):
            await sandbox.start_container(support.shell(tmp_path, "true"))
    assert not [line for line in Path("/proc/net/dev").read_text().splitlines() if name in line]
    assert not list(Path("/sys/fs/cgroup").glob(f"*/nodeless-{name}"))
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


async def test_destroy_during_a_start_of_many(tmp_path: Path) -> None:
    async with support.namespace_runtime(tmp_path, spare=2) as runtime:

        async def one(index: int) -> int:
            sandbox = await runtime.create(support.pod(tmp_path, f"pod-{index}"))
            container = support.shell(tmp_path, f"exit {index}", log_path=tmp_path / f"{index}.log")
            await sandbox.start_container(container)
            exit = await support.next_exit(sandbox)
            await sandbox.destroy()
            return exit.exit_code

        assert await asyncio.gather(*(one(index) for index in range(8))) == list(range(8))


async def test_capabilities_as_asked(tmp_path: Path) -> None:
    async with support.namespace_pod(tmp_path) as sandbox:
        container = support.shell(
            tmp_path,
            "grep CapEff /proc/self/status",
            drop_capabilities=("ALL",),
            add_capabilities=("NET_BIND_SERVICE",),
        )
        _, lines = await support.run(sandbox, container)
        assert lines == ["CapEff:\t0000000000000400"]
        with pytest.raises(SandboxError, match="capability 'FLY' is unknown"):
            await sandbox.start_container(support.shell(tmp_path, "true", name="b", add_capabilities=("FLY",)))


async def test_mounts_make_nothing_outside_of_the_container(tmp_path: Path) -> None:
    outside, volume, shared = (tmp_path / name for name in ("outside", "volume", "shared"))
    for directory in (outside, volume, shared):
        directory.mkdir()
    file = tmp_path / "file"
    file.write_text("content\n")
    (shared / "link").symlink_to(f"/..{outside}/by-link")
    (shared / "dangling").symlink_to(f"/../..{outside}/nothing")
    mounts = (
        *support.programs(),
        Mount(source=shared, target="/shared", read_only=False),
        Mount(source=volume, target=f"/..{outside}/directory"),
        Mount(source=file, target=f"/../..{outside}/sub/file"),
        Mount(source=volume, target="/shared/link/below"),
        Mount(source=file, target="/shared/dangling"),
    )
    script = f"cat {outside}/sub/file /shared/dangling; ls {outside}; ls -d /shared/link/below"
    async with support.namespace_pod(tmp_path) as sandbox:
        exit, lines = await support.run(sandbox, support.shell(tmp_path, script, mounts=mounts))
    assert exit.exit_code == 0
    assert lines == ["content", "content", "by-link", "directory", "sub", "/shared/link/below"]
    assert list(outside.iterdir()) == []


async def test_a_source_that_became_a_link_is_not_mounted(tmp_path: Path) -> None:
    volume = tmp_path.resolve() / "volume"
    volume.mkdir()
    (volume / "part").symlink_to("/etc")
    mount = Mount(source=volume / "part", target="/part", read_only=False, exact=True)
    async with support.namespace_pod(tmp_path) as sandbox:
        with pytest.raises(SandboxError, match="leads elsewhere"):
            await sandbox.start_container(support.shell(tmp_path, "ls", mounts=(*support.programs(), mount)))
        (volume / "part").unlink()
        (volume / "part").mkdir()
        exit, _ = await support.run(
            sandbox, support.shell(tmp_path, "ls /part", mounts=(*support.programs(), mount), attempt=1)
        )
        assert exit.exit_code == 0
