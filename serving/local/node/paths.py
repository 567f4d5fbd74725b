"""Where the node agent keeps what on disk, below its data directory.

pods/<uid>/sandbox              the sandbox's own state
pods/<uid>/volumes/<volume>     files of volumes, empty directories
logs/<ns>_<pod>_<uid>/<container>/<attempt>.log
"""

from __future__ import annotations

from pathlib import Path

import msgspec


class NodePaths(msgspec.Struct, frozen=True):
    data_dir: Path
    memory_dir: Path | None = None
    """On a memory file system: secrets and volumes with medium Memory. None = they go below `data_dir`."""

    @property
    def pods(self) -> Path:
        return self.data_dir / "pods"

    @property
    def logs(self) -> Path:
        return self.data_dir / "logs"

    def pod(self, uid: str) -> Path:
        return self.pods / uid

    def sandbox(self, uid: str) -> Path:
        return self.pods / uid / "sandbox"

    def volume(self, uid: str, name: str, *, in_memory: bool) -> Path:
        base = self.memory_dir if in_memory and self.memory_dir is not None else self.pods
        return base / uid / "volumes" / name

    def pod_logs(self, namespace: str, name: str, uid: str) -> Path:
        return self.logs / f"{namespace}_{name}_{uid}"

    def log(self, namespace: str, name: str, uid: str, container: str, attempt: int) -> Path:
        return self.pod_logs(namespace, name, uid) / container / f"{attempt}.log"
