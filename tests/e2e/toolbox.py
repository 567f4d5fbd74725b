"""An image with a shell and a few programs of this machine: what `kubectl exec` and `cp` need in a container."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

PROGRAMS: Final = ("sh", "cat", "head", "ls", "mkdir", "seq", "sha256sum", "sleep", "stty", "tar", "test", "tty")
_LIBRARY: Final = re.compile(r"(/\S+)")


def make(directory: Path) -> Path:
    """The image's files. Blocking."""
    root = directory / "toolbox"
    (root / "bin").mkdir(parents=True)
    for name in PROGRAMS:
        found = shutil.which(name)
        assert found is not None, f"{name} is not on this machine"
        shutil.copy(Path(found).resolve(), root / "bin" / name)
        listed = subprocess.run(["ldd", found], capture_output=True, text=True, check=False).stdout
        for library in _LIBRARY.findall(listed):
            target = root / library.lstrip("/")
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(Path(library).resolve(), target)
    return root
