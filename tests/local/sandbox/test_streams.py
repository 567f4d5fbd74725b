"""exec with streams, attach and connections to a pod's ports, on both rungs."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from serving.local.sandbox.descriptors import copy_in, copy_out
from serving.local.sandbox.process import ProcessRuntime
from serving.local.sandbox.protocol import Execution, Sandbox, SandboxError, Streams
from tests.local.sandbox import support

pytestmark = [pytest.mark.root, support.needs_root]
_IDLE = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture(params=["namespace", "process"])
async def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sandbox]:
    if request.param == "namespace":
        async with support.namespace_pod(tmp_path) as made:
            yield made
        return
    runtime = ProcessRuntime(tmp_path, support.instance())
    await runtime.start()
    try:
        yield await runtime.create(support.pod(tmp_path))
    finally:
        for held in runtime.held():
            await held.destroy()
        await runtime.stop()


async def _start(sandbox: Sandbox, tmp_path: Path, script: str = _IDLE, **fields: Any) -> None:
    await sandbox.start_container(support.shell(tmp_path, script, rootfs=support.machine_root(), **fields))


async def _shell(sandbox: Sandbox, script: str, *, tty: bool = False) -> Execution:
    argv = ("/bin/sh", "-c", script)
    return await sandbox.execute("main", argv, stdin=True, stdout=True, stderr=True, tty=tty)


async def _code(sandbox: Sandbox, program: str, *, tty: bool) -> int:
    execution = await sandbox.execute("main", (program,), stdin=True, stdout=True, stderr=True, tty=tty)
    try:
        return await execution.wait()
    finally:
        execution.streams.close()


async def _read_all(fd: int | None, ended: asyncio.Event) -> bytes:
    data = bytearray()

    async def take(piece: bytes) -> None:
        data.extend(piece)

    assert fd is not None
    await copy_out(fd, take, ended=ended)
    return bytes(data)


async def _finish(execution: Execution) -> tuple[int, bytes, bytes]:
    ended = asyncio.Event()
    streams = execution.streams
    try:
        async with asyncio.timeout(support.SECONDS), asyncio.TaskGroup() as group:
            out = group.create_task(_read_all(streams.stdout, ended))
            err = group.create_task(_read_all(streams.stderr, ended)) if streams.stderr is not None else None
            code = await execution.wait()
            ended.set()
        return code, out.result(), err.result() if err is not None else b""
    finally:
        streams.close()


async def test_streams_are_separate_and_the_exit_code_comes_last(sandbox: Sandbox, tmp_path: Path) -> None:
    await _start(sandbox, tmp_path)
    execution = await _shell(sandbox, "cat; echo problem >&2; exit 3")

    async def type_in() -> None:
        assert execution.streams.stdin is not None
        await copy_in(execution.streams.stdin, b"input\n" * 50_000)
        execution.streams.close_stdin()

    _, result = await asyncio.gather(type_in(), _finish(execution))
    assert result == (3, b"input\n" * 50_000, b"problem\n")


async def test_a_program_left_in_the_background_does_not_hold_up_the_end(sandbox: Sandbox, tmp_path: Path) -> None:
    await _start(sandbox, tmp_path)
    execution = await _shell(sandbox, "sleep 100 & echo started")
    async with asyncio.timeout(5):
        assert await _finish(execution) == (0, b"started\n", b"")


async def test_a_terminal(sandbox: Sandbox, tmp_path: Path) -> None:
    await _start(sandbox, tmp_path)
    execution = await _shell(sandbox, "read x; tty; stty size; echo got $x $TERM; exit 5", tty=True)
    master = execution.streams.stdin
    assert master is not None
    assert execution.streams.terminal
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 44, 0, 0))
    await copy_in(master, b"hello\n")
    code, out, err = await _finish(execution)
    assert (code, err) == (5, b"")
    lines = out.replace(b"\r", b"").decode().splitlines()
    assert lines[0] == "hello", "the terminal echoes"
    assert lines[1].startswith("/dev/pts/")
    assert lines[2:] == ["33 44", "got hello xterm"]


async def test_ctrl_c_reaches_the_program_and_not_the_container(sandbox: Sandbox, tmp_path: Path) -> None:
    await _start(sandbox, tmp_path)
    execution = await _shell(sandbox, "exec cat", tty=True)
    master = execution.streams.stdin
    assert master is not None
    await copy_in(master, b"up\n")
    seen = b""
    async with asyncio.timeout(support.SECONDS):
        while seen.count(b"up") < 2:  # the terminal's echo, and then the program's
            try:
                seen += os.read(master, 100)
            except BlockingIOError:
                await asyncio.sleep(0.01)
    await copy_in(master, b"\x03")
    code, _, _ = await _finish(execution)
    assert code == 130
    assert [state.exit for state in sandbox.containers()] == [None]


async def test_what_cannot_be_executed(sandbox: Sandbox, tmp_path: Path) -> None:
    await _start(sandbox, tmp_path)
    for tty in (False, True):
        with pytest.raises(SandboxError, match='exec: "nothing": executable file not found'):
            await _code(sandbox, "nothing", tty=tty)
    with pytest.raises(SandboxError, match="container other is not running"):
        await sandbox.attach("other")


async def test_a_program_of_another_user_may_reopen_its_streams(tmp_path: Path) -> None:
    async with support.namespace_pod(tmp_path) as sandbox:
        await _start(sandbox, tmp_path, user="2020:3030")
        for tty in (False, True):
            execution = await _shell(sandbox, "id -u; echo again > /dev/stdout", tty=tty)
            code, out, err = await _finish(execution)
            assert (code, out.replace(b"\r", b""), err) == (0, b"2020\nagain\n", b"")


async def test_many_programs_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    await _start(sandbox, tmp_path)
    before = len(os.listdir("/proc/self/fd"))

    async def one(number: int) -> tuple[int, bytes, bytes]:
        execution = await _shell(sandbox, f"echo {number}; exit {number}", tty=number % 2 == 0)
        code, out, err = await _finish(execution)
        return code, out.strip(), err

    results = await asyncio.gather(*(one(number) for number in range(30)))
    assert results == [(number, b"%d" % number, b"") for number in range(30)]
    assert len(os.listdir("/proc/self/fd")) <= before, "every descriptor is closed"


async def test_a_killed_program_ends_with_what_it_started(sandbox: Sandbox, tmp_path: Path) -> None:
    await _start(sandbox, tmp_path)
    execution = await _shell(sandbox, "sleep 1000")
    execution.kill()
    code, _, _ = await _finish(execution)
    assert code == 137
    execution.kill()


async def test_attach_follows_the_output_to_its_end(sandbox: Sandbox, tmp_path: Path) -> None:
    script = "read go; echo out; echo err >&2; read more; echo $more"
    await _start(sandbox, tmp_path, script, stdin=True)
    streams = await sandbox.attach("main")
    other = await sandbox.attach("main")
    other.close()
    try:
        assert streams.stdin is not None
        await copy_in(streams.stdin, b"go\nlast words\n")
        async with asyncio.timeout(support.SECONDS):
            ended = asyncio.Event()
            out, err = await asyncio.gather(_read_all(streams.stdout, ended), _read_all(streams.stderr, ended))
    finally:
        streams.close()
    assert (out, err) == (b"out\nlast words\n", b"err\n")
    await support.next_exit(sandbox)
    assert sorted(support.texts(tmp_path / "main.log")) == ["err", "last words", "out"], "the log has it as well"


async def test_the_end_of_a_container_s_input(sandbox: Sandbox, tmp_path: Path) -> None:
    await _start(sandbox, tmp_path, "cat; echo at end", stdin=True)
    streams = await sandbox.attach("main")
    streams.close()
    await sandbox.close_stdin("main")
    assert (await support.next_exit(sandbox)).exit_code == 0
    assert support.texts(tmp_path / "main.log") == ["at end"]


async def test_a_container_in_a_terminal(sandbox: Sandbox, tmp_path: Path) -> None:
    await _start(sandbox, tmp_path, "read go; tty; exit 4", stdin=True, tty=True)
    streams = await sandbox.attach("main")
    try:
        assert streams.terminal
        assert streams.stdin is not None
        await copy_in(streams.stdin, b"go\n")
        async with asyncio.timeout(support.SECONDS):
            out = await _read_all(streams.stdout, asyncio.Event())
    finally:
        streams.close()
    assert b"/dev/pts/" in out
    assert (await support.next_exit(sandbox)).exit_code == 4
    assert "/dev/pts/" in support.texts(tmp_path / "main.log")[-1]


async def test_somebody_who_does_not_read_is_cut_off(sandbox: Sandbox, tmp_path: Path) -> None:
    line = "0123456789" * 4
    script = f"read go; i=0; while [ $i -lt 30000 ]; do echo {line}; i=$((i+1)); done"
    await _start(sandbox, tmp_path, script, stdin=True)
    streams = await sandbox.attach("main")
    try:
        assert streams.stdin is not None
        await copy_in(streams.stdin, b"go\n")
        assert (await support.next_exit(sandbox)).exit_code == 0
    finally:
        streams.close()


async def test_a_connection_to_the_pod_s_own_loopback(tmp_path: Path) -> None:
    server = (
        "import socket; s = socket.create_server(('127.0.0.1', 8080)); print('up', flush=True); "
        "c, _ = s.accept(); c.sendall(b'hi'); c.close()"
    )
    async with support.namespace_pod(tmp_path) as sandbox:
        container = support.command(tmp_path, (support.python(), "-c", server))
        await sandbox.start_container(container)
        await support.wait_for_text(container.log_path, "up")
        loop = asyncio.get_running_loop()
        with await sandbox.tcp_socket() as client:
            await loop.sock_connect(client, ("127.0.0.1", 8080))
            assert await loop.sock_recv(client, 10) == b"hi"
        with await sandbox.tcp_socket() as client, pytest.raises(ConnectionRefusedError):
            await loop.sock_connect(client, ("127.0.0.1", 8081))


def test_streams_are_closed_once() -> None:
    read, write = os.pipe()
    streams = Streams(stdin=write, stdout=read)
    streams.close_stdin()
    assert os.read(read, 1) == b""
    streams.close_stdin()
    streams.close()
    streams.close()
    first, second = os.openpty()
    terminal = Streams(stdin=first, stdout=first, terminal=True)
    terminal.close_stdin()
    os.fstat(first)
    terminal.close()
    os.close(second)
