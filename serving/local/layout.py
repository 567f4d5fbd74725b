"""Where `nodeless up` keeps things: one data directory per stack, and short paths for sockets.

Unix socket paths are limited to 107 bytes, so sockets live in a private run directory of their own.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import tempfile
from pathlib import Path

import msgspec
import platformdirs

RUN_DIR_VARIABLE = "NODELESS_RUN_DIR"
"""Names the run directory for a process whose user id is not that of the user outside (user namespaces)."""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Paths of one stack. `instance` (8 hex digits) names its network and cgroups on this machine."""

    data_dir: Path
    run_dir: Path
    instance: str

    @property
    def lock(self) -> Path:
        return self.data_dir / "up.lock"

    @property
    def state(self) -> Path:
        """JSON written by the supervisor: pids, ports, URLs."""
        return self.data_dir / "up.json"

    @property
    def logs(self) -> Path:
        return self.data_dir / "logs"

    @property
    def kubeconfig(self) -> Path:
        return self.data_dir / "kubeconfig"

    @property
    def token(self) -> Path:
        """File with the administrator's bearer token."""
        return self.data_dir / "token"

    def component_token(self, component: str) -> Path:
        """File with the bearer token of one of our own processes, which has only the rights that it needs."""
        return self.data_dir / "components" / f"{component}.token"

    @property
    def api_socket(self) -> Path:
        return self.run_dir / "api.sock"

    @property
    def reports_socket(self) -> Path:
        return self.run_dir / "reports.sock"

    @property
    def images(self) -> Path:
        return self.data_dir / "images"


def default_data_dir() -> Path:
    """`$NODELESS_DATA_DIR`, else `nodeless` in the XDG data directory."""
    given = os.environ.get("NODELESS_DATA_DIR")
    return Path(given) if given else Path(platformdirs.user_data_dir("nodeless"))


def open_layout(data_dir: Path) -> Layout:
    """The layout of a data directory, which is made (mode 0700) when it is missing.

    Raises OSError when a directory cannot be made, PermissionError when the run directory is somebody else's.
    """
    data_dir = data_dir.expanduser().resolve()
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    instance_file = data_dir / "instance"
    instance = instance_file.read_text().strip() if instance_file.exists() else ""
    if not instance:  # also when a machine died while it was written
        instance = secrets.token_hex(4)
        instance_file.write_text(instance + "\n")
    run_dir = _run_dir(data_dir, instance)
    layout = Layout(data_dir=data_dir, run_dir=run_dir, instance=instance)
    layout.logs.mkdir(exist_ok=True, mode=0o700)
    return layout


def _run_dir(data_dir: Path, instance: str) -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR")
    if not base or not os.access(base, os.W_OK):
        base = tempfile.gettempdir()
    digest = hashlib.sha256(str(data_dir).encode()).hexdigest()[:4]
    given = os.environ.get(RUN_DIR_VARIABLE, "")
    run_dir = Path(base) / f"nodeless-{os.getuid()}-{instance}{digest}"
    if given.endswith(f"-{instance}{digest}"):
        run_dir = Path(given)
    run_dir.mkdir(mode=0o700, exist_ok=True)
    found = run_dir.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{run_dir} must be a directory of user {os.getuid()} with mode 0700")
    return run_dir
