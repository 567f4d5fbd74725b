"""EROFS files: whether they work here, and making one. Blocking.

Whether a mount works is found out by mounting, in a private mount namespace of a child process so that nothing
is left behind. The answer is kept per boot and per mkfs.erofs: kernels and packages change.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from serving.local.images.content import ContentStore, read_json, sync_file
from serving.local.images.errors import pull_failed

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PROBE_SECONDS = 20.0
_MKFS_SECONDS = 900.0
_MARKER = "mounted"
_MOUNT = Path(__file__).with_name("mount_probe.py")


class ErofsReport(msgspec.Struct, frozen=True, kw_only=True):
    works: bool
    why: str
    """How it was proved, or what is missing and how to get it."""
    mkfs: str = ""
    boot_id: str = ""


def boot_id() -> str:
    return _BOOT_ID.read_text().strip()


def probe(content: ContentStore) -> ErofsReport:
    """Whether EROFS files can be made and mounted here. Proved once per boot."""
    mkfs = shutil.which("mkfs.erofs") or ""
    kept = content.root / f"erofs-probe-{os.geteuid()}.json"
    known = read_json(kept, ErofsReport)
    if known is not None and (known.mkfs, known.boot_id) == (mkfs, boot_id()):
        return known
    works, why = _try(content, mkfs)
    report = ErofsReport(works=works, why=why, mkfs=mkfs, boot_id=boot_id())
    content.write_json(kept, report)
    return report


def _try(content: ContentStore, mkfs: str) -> tuple[bool, str]:
    if not mkfs:
        return False, "mkfs.erofs is not installed (apt-get install erofs-utils)"
    if os.geteuid() != 0:
        return False, "mounting EROFS needs root"
    with content.scratch() as directory:
        tree, image, target = directory / "tree", directory / "image", directory / "target"
        tree.mkdir()
        target.mkdir()
        (tree / _MARKER).write_text("yes\n")
        try:
            make_erofs(tree, image, what="probe", mkfs=mkfs)
            subprocess.run(
                [sys.executable, "-I", str(_MOUNT), str(image), str(target), _MARKER],
                check=True, capture_output=True, text=True, timeout=_PROBE_SECONDS,
            )  # fmt: skip
        except subprocess.CalledProcessError as error:
            return False, (error.stderr.strip().splitlines() or ["mounting EROFS failed"])[-1]
        except (subprocess.TimeoutExpired, OSError) as error:
            return False, f"mounting EROFS failed: {error}"
    return True, "an EROFS file was made and mounted"


def make_erofs(tree: Path, image: Path, *, what: str, mkfs: str = "mkfs.erofs") -> None:
    """An EROFS file of `tree`, uncompressed (page cache and speed count more than disk), times kept because
    `.pyc` files name their source's. Raises ImageError."""
    command = [mkfs, "--quiet", "-U", "00000000-0000-0000-0000-000000000000", str(image), str(tree)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_MKFS_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise pull_failed(f"{what}: mkfs.erofs failed: {error}") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise pull_failed(f"{what}: mkfs.erofs failed: {last}")
    sync_file(image)
