"""Upstream's test programs as OCI images, made by `nodeless image build`.

The root is what ko's base image gives them: the program at /ko-app/NAME, users root and nonroot, a /tmp for all,
and USER 65532.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

USER: Final = "65532"
_ACCOUNTS: Final = {
    "passwd": "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n",
    "group": "root:x:0:\nnonroot:x:65532:\n",
}


def image_name(program: str) -> str:
    return f"dev.local/{program}:latest"


def build_images(programs: Mapping[str, Path], *, store_data_dir: Path) -> None:
    """Build each program's image into the store of a data directory; what is there already is built again.

    Raises CalledProcessError.
    """
    with tempfile.TemporaryDirectory(prefix="nodeless-conformance-") as scratch:
        for name, program in programs.items():
            root = Path(scratch) / name
            _make_root(root, program)
            subprocess.run(
                [
                    *(sys.executable, "-m", "serving.cli.main", "--data-dir", store_data_dir),
                    *("image", "build", root, "--name", image_name(name), "--user", USER),
                    *("--workdir", "/", "--env", "PATH=/usr/bin:/bin:/ko-app"),
                    *("--entrypoint", f"/ko-app/{name}"),
                ],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            shutil.rmtree(root)


def _make_root(root: Path, program: Path) -> None:
    for directory in ("etc", "ko-app", "home/nonroot", "root", "var/run"):
        (root / directory).mkdir(parents=True)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    for name, text in _ACCOUNTS.items():
        (root / "etc" / name).write_text(text)
    shutil.copy(program, root / "ko-app" / program.name)
    (root / "ko-app" / program.name).chmod(0o755)
