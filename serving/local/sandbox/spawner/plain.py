"""How the process rung runs a program out of an unpacked image without changing its root.

The program, its interpreter and its dynamic loader are taken from the image's directory; everything else that the
program opens by an absolute path is the host's. So this rung fits static programs and self-contained runtimes:

* static ELF: executed in place;
* dynamic ELF: started by the image's own loader with the image's library directories;
* script: its `#!` interpreter (also through `env`) is looked up in the image;
* absolute paths inside arguments, users, mounts, /etc files and read-only roots are *not* translated.
"""

from __future__ import annotations

import os
import struct

_PT_INTERP = 3
_MAX_LINKS = 40
_MAX_INTERPRETERS = 4
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TRIPLETS = ("x86_64-linux-gnu", "aarch64-linux-gnu")


class Command:
    __slots__ = ("argv", "cwd")

    def __init__(self, argv: list[str], cwd: str) -> None:
        self.argv = argv
        self.cwd = cwd


def resolve_in(root: str, path: str) -> str:
    """`path` as a process with root directory `root` would see it: no link and no `..` leads outside.

    Raises FileNotFoundError for a loop of links; a missing file is returned as the path it would have.
    """
    pending = path.split("/")[::-1]
    resolved: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if resolved:
                resolved.pop()
            continue
        candidate = os.path.join(root, *resolved, part)
        if not os.path.islink(candidate):
            resolved.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise FileNotFoundError(f"{path}: too many links")
        target = os.readlink(candidate)
        if target.startswith("/"):
            resolved = []
        pending.extend(target.split("/")[::-1])
    return os.path.join(root, *resolved)


def command(root: str, argv: list[str], env: dict[str, str], *, cwd: str) -> Command:
    """Raises FileNotFoundError naming the program."""
    program = find(root, argv[0], env.get("PATH", _DEFAULT_PATH), cwd=cwd)
    directory = resolve_in(root, cwd)
    if not os.path.isdir(directory):
        os.makedirs(directory, exist_ok=True)
    return Command(_runnable(root, program, argv, env, _MAX_INTERPRETERS), directory)


def find(root: str, program: str, search: str, *, cwd: str) -> str:
    if "/" in program:
        path = resolve_in(root, program if program.startswith("/") else os.path.join(cwd, program))
        if not os.path.exists(path):
            raise FileNotFoundError(2, f'exec: "{program}": stat {program}: no such file or directory')
        return path
    for part in search.split(":"):
        path = resolve_in(root, os.path.join(part or cwd, program))
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise FileNotFoundError(2, f'exec: "{program}": executable file not found in $PATH')


def _runnable(root: str, program: str, argv: list[str], env: dict[str, str], depth: int) -> list[str]:
    with open(program, "rb") as file:
        head = file.read(4096)
        if head.startswith(b"#!") and depth:
            return _script(root, program, head, argv, env, depth)
        loader = _interpreter(head)
    if loader is None:
        return [program, *argv[1:]]
    path = resolve_in(root, loader)
    if not os.path.exists(path):
        raise FileNotFoundError(2, f'exec: "{argv[0]}": its loader {loader} is missing in the image')
    return [path, "--library-path", ":".join(library_directories(root)), "--argv0", program, program, *argv[1:]]


def _script(root: str, program: str, head: bytes, argv: list[str], env: dict[str, str], depth: int) -> list[str]:
    words = os.fsdecode(head[2:].split(b"\n", 1)[0]).split(None, 1)
    if words and os.path.basename(words[0]) == "env" and len(words) > 1:
        words = words[1].removeprefix("-S ").split()
    if not words:
        raise FileNotFoundError(2, f'exec: "{argv[0]}": its first line names no interpreter')
    interpreter = find(root, words[0], env.get("PATH", _DEFAULT_PATH), cwd="/")
    return _runnable(root, interpreter, [words[0], *words[1:], program, *argv[1:]], env, depth - 1)


def _interpreter(head: bytes) -> str | None:
    """PT_INTERP of a 64-bit little-endian ELF; None for a static program or another format."""
    if not head.startswith(b"\x7fELF\x02\x01"):
        return None
    (offset,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    for index in range(count):
        start = offset + index * size
        if start + 56 > len(head):
            return None
        kind, _, where = struct.unpack_from("<IIQ", head, start)
        (length,) = struct.unpack_from("<Q", head, start + 32)
        if kind == _PT_INTERP:
            return os.fsdecode(head[where : where + length].rstrip(b"\0"))
    return None


def library_directories(root: str) -> list[str]:
    """The image's library directories that exist, in the loader's usual order."""
    wanted = ["/usr/local/lib"]
    wanted += _configured(root)
    for triplet in _TRIPLETS:
        wanted += [f"/lib/{triplet}", f"/usr/lib/{triplet}"]
    wanted += ["/lib64", "/usr/lib64", "/lib", "/usr/lib"]
    found = [resolve_in(root, path) for path in dict.fromkeys(wanted)]
    return [path for path in dict.fromkeys(found) if os.path.isdir(path)]


def _configured(root: str) -> list[str]:
    directory = resolve_in(root, "/etc/ld.so.conf.d")
    lines: list[str] = []
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".conf"))
        for name in names:
            with open(resolve_in(root, f"/etc/ld.so.conf.d/{name}"), encoding="utf-8", errors="replace") as file:
                lines += file.read().splitlines()
    except OSError:
        return []
    return [line.strip() for line in lines if line.strip().startswith("/")]
