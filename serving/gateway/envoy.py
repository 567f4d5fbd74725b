"""The Envoy that runs for a data directory: how to recognise it. Light; imported by the supervisor too."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

import msgspec

log = logging.getLogger(__name__)

STATE_FILE: Final = "envoy.json"


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """One run of Envoy. `start_ticks` is field 22 of /proc/pid/stat, since process ids are used again;
    `config_hash` stands for all that it was started with; `nonce` is its secret; `ports` are its listeners',
    public first, empty until they are open."""

    pid: int
    start_ticks: int
    config_hash: str
    nonce: str
    ports: tuple[int, ...] = ()


def read_boot(data_dir: Path) -> Boot | None:
    """The Envoy last started for this directory, dead or alive; None when there was none."""
    path = data_dir / STATE_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Boot)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        log.warning("%s is not readable (%s); a new Envoy is started", path, error)
        return None


def write_boot(data_dir: Path, boot: Boot) -> None:
    """Replace the state file. Only its owner may read it: it holds the secret."""
    path = data_dir / STATE_FILE
    replacement = path.with_suffix(".new")
    replacement.touch(mode=0o600)
    replacement.write_bytes(msgspec.json.encode(boot))
    replacement.replace(path)


def adopted_ports(data_dir: Path) -> set[int]:
    """Ports on which a living Envoy of this directory listens."""
    boot = read_boot(data_dir)
    return set(boot.ports) if boot is not None and alive(boot) else set()


def last_ports(data_dir: Path) -> tuple[int, int]:
    """Ports of the Envoy last started for this directory, public and cluster-local; 0 where unknown."""
    boot = read_boot(data_dir)
    return (boot.ports[0], boot.ports[1]) if boot is not None and len(boot.ports) == 2 else (0, 0)


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when there is none, or only its zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def alive(boot: Boot) -> bool:
    return start_ticks(boot.pid) == boot.start_ticks


async def ended(boot: Boot) -> None:
    """Wait for the end of a process that is not our child."""
    try:
        handle = os.pidfd_open(boot.pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    try:
        if not alive(boot):
            return
        loop.add_reader(handle, gone.set)
        await gone.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
