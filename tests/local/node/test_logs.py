"""Logs: the CRI format, tails, rotation, followers, and the API that serves them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.local.node.kubelet_api import log_options
from serving.local.node.log_files import read_log
from serving.local.node.logs import LogFilter, LogOptions, parse_line, tail_text
from serving.local.node.paths import NodePaths
from serving.local.node.storage import prune_logs
from tests.local.node.harness import Node, node
from tests.local.node.pods import container, pod_json


def line(number: int, text: str, *, stream: str = "stdout", tag: str = "F") -> str:
    return f"2026-01-01T00:00:{number:02d}.5Z {stream} {tag} {text}\n"


SAMPLE = "".join(line(n, f"line {n}") for n in range(10))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"t stdout F hello world", (b"t", b"stdout", False, b"hello world")),
        (b"t stderr P ", (b"t", b"stderr", True, b"")),
        (b"t stdout F", (b"t", b"stdout", False, b"")),
        (b"torn", None),
        (b"t stdin F x", None),
    ],
)
def test_lines(raw: bytes, expected: Any) -> None:
    assert parse_line(raw) == expected


@given(st.lists(st.integers(1, 30)))
def test_chunks_do_not_matter(cuts: list[int]) -> None:
    raw, out = SAMPLE.encode(), b""
    log_filter = LogFilter(LogOptions())
    for cut in cuts:
        out += log_filter.feed(raw[:cut])
        raw = raw[cut:]
    out += log_filter.feed(raw)
    assert out.decode() == "".join(f"line {n}\n" for n in range(10))


def test_partial_lines_timestamps_since_and_limit() -> None:
    raw = (line(1, "one") + line(2, "tw", tag="P") + line(2, "o") + line(3, "three")).encode()
    assert LogFilter(LogOptions()).feed(raw) == b"one\ntwo\nthree\n"
    stamped = LogFilter(LogOptions(timestamps=True)).feed(raw).decode().splitlines()
    assert stamped[1] == "2026-01-01T00:00:02.5Z two"
    since = log_options({"sinceTime": "2026-01-01T00:00:03Z"}, now=0.0)
    assert LogFilter(since).feed(raw) == b"three\n"
    limited = LogFilter(LogOptions(limit_bytes=5))
    assert limited.feed(raw) == b"one\nt"
    assert limited.done


def test_tail_text() -> None:
    assert tail_text(SAMPLE.encode(), lines=2) == "line 8\nline 9\n"


def never_ends(_: Callable[[], None]) -> Callable[[], None]:
    return lambda: None


async def read(path: Path, **options: Any) -> str:
    chunks = read_log(path, LogOptions(**options), running=lambda: False, listen=never_ends)
    async with aclosing(chunks):
        return b"".join([chunk async for chunk in chunks]).decode()


@pytest.mark.parametrize(("tail", "expected"), [(None, 20), (0, 0), (1, 1), (3, 3), (10, 10), (13, 13), (99, 20)])
async def test_tail_reaches_into_the_rotated_file(tmp_path: Path, tail: int | None, expected: int) -> None:
    (tmp_path / "0.log.1").write_text("".join(line(n, f"old {n}") for n in range(10)))
    (tmp_path / "0.log").write_text(SAMPLE)
    got = (await read(tmp_path / "0.log", tail_lines=tail)).splitlines()
    every = [f"old {n}" for n in range(10)] + [f"line {n}" for n in range(10)]
    assert got == every[20 - expected :]


async def test_tail_of_a_large_file(tmp_path: Path) -> None:
    (tmp_path / "0.log").write_text("".join(line(0, f"{n} {'x' * 100}") for n in range(5000)))
    got = (await read(tmp_path / "0.log", tail_lines=1500)).splitlines()
    assert [text.split()[0] for text in got] == [str(n) for n in range(3500, 5000)]


async def test_follow_across_rotation_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text(line(0, "a"))
    alive, callbacks = [True], list[Callable[[], None]]()

    def listen(callback: Callable[[], None]) -> Callable[[], None]:
        callbacks.append(callback)
        return lambda: callbacks.remove(callback)

    async def follow() -> str:
        chunks = read_log(path, LogOptions(follow=True), running=lambda: alive[0], listen=listen)
        async with aclosing(chunks):
            return b"".join([chunk async for chunk in chunks]).decode()

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.05)
    with path.open("a") as file:
        file.write(line(1, "b"))
        file.flush()
        await asyncio.sleep(0.05)
        file.write(line(2, "c"))
    path.rename(tmp_path / "0.log.1")
    path.write_text(line(3, "d"))
    await asyncio.sleep(0.05)
    with path.open("a") as file:
        file.write(line(4, "e"))
    await asyncio.sleep(0.05)
    assert not following.done()
    alive[0] = False
    for callback in list(callbacks):
        callback()
    assert (await asyncio.wait_for(following, 2)).split() == ["a", "b", "c", "d", "e"]
    assert callbacks == []


@pytest.mark.parametrize("query", [{"tailLines": "-1"}, {"follow": "maybe"}, {"sinceTime": "noon"}])
def test_bad_queries(query: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"tailLines|follow|noon"):
        log_options(query, now=0.0)


def test_old_logs_go_first(tmp_path: Path) -> None:
    import os

    paths = NodePaths(data_dir=tmp_path)
    for number, name in enumerate(["oldest", "middle", "newest", "alive"]):
        file = paths.logs / name / "app" / "0.log"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x" * 10_000)
        os.utime(file, (1000 + number, 1000 + number))
        for directory in (file.parent, file.parent.parent):
            os.utime(directory, (1000 + number, 1000 + number))
    prune_logs(paths, live={"alive"}, max_bytes=30_000, max_age=1e9, now=2000)
    assert sorted(entry.name for entry in paths.logs.iterdir()) == ["alive", "middle", "newest"]
    prune_logs(paths, live={"alive"}, max_bytes=10**9, max_age=10, now=2000)
    assert sorted(entry.name for entry in paths.logs.iterdir()) == ["alive"]


async def fetch(it: Node, path: str, method: str = "GET") -> tuple[int, str]:
    connector = aiohttp.UnixConnector(path=str(it.settings.socket))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, f"http://node{path}") as response,
    ):
        return response.status, await response.text()


async def test_the_kubelet_api() -> None:
    async with node() as it:
        it.add(pod_json(containers=[container()]))
        await it.ready()
        log = it.sandbox().started[0].log_path
        log.write_text(SAMPLE)
        logs = "/containerLogs/default/p/app"
        assert await fetch(it, f"{logs}?tailLines=1") == (200, "line 9\n")
        assert await fetch(it, f"{logs}?previous=true") == (
            400,
            'previous terminated container "app" in pod "p" not found',
        )
        assert (await fetch(it, "/containerLogs/default/p/nope"))[0] == 400
        assert (await fetch(it, "/containerLogs/default/none/app"))[0] == 404
        assert (await fetch(it, "/containerLogs/default/..%2f..%2fetc/app"))[0] == 404
        assert (await fetch(it, f"{logs}?tailLines=x")) == (
            400,
            "tailLines: 'x' must be a whole number, 0 or more",
        )
        assert await fetch(it, "/healthz") == (200, "ok")
        assert '"name":"p"' in (await fetch(it, "/pods"))[1]
        assert '"usageCoreNanoSeconds": 1500000000' in (await fetch(it, "/stats/summary"))[1]
        assert "nodeless_node_pods 1.0" in (await fetch(it, "/metrics"))[1]
        assert await fetch(it, "/run/default/p/app?cmd=echo+hi", "POST") == (200, "echo hi")
        following = asyncio.create_task(fetch(it, f"{logs}?follow=true&tailLines=1"))
        await asyncio.sleep(0.1)
        assert not following.done()
        it.sandbox().finish("app", 1)
        assert (await asyncio.wait_for(following, 2))[1] == "line 9\n"
        await it.kube.until(lambda: len(it.sandbox().started) == 2)
        assert await fetch(it, f"{logs}?previous=true&tailLines=1") == (200, "line 9\n")
        assert (it.settings.socket.stat().st_mode & 0o777) == 0o600
        from serving.api.resources import PODS

        it.kube.remove(PODS, "p", "default")
        await it.kube.until(lambda: it.runtime.created[0].destroyed)
        await asyncio.sleep(0.05)
        status, text = await fetch(it, f"{logs}?tailLines=1")
        assert (status, text) == (200, "line 9\n")


async def test_a_container_that_never_ran_has_no_log() -> None:
    async with node() as it:
        it.images.seconds = 60
        it.add(pod_json())
        await it.kube.until(lambda: it.runtime.created)
        assert await fetch(it, "/containerLogs/default/p/app") == (
            400,
            'container "app" in pod "p" is waiting to start: ContainerCreating',
        )
