"""A real control plane to try things on, until Ctrl-C or SIGTERM:

python -m tests.cluster.up [--directory DIR] [--install]

Prints `export KUBECONFIG=...` and a PATH with the kubectl of the same release. `--install` applies nodeless'
manifests but starts none of its processes.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.cluster.assets import build_assets
from tests.cluster.control_plane import ControlPlane
from tests.cluster.install import install


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.up", description="A real control plane.")
    parser.add_argument("--directory", type=Path, help="state and logs; default: a temporary directory")
    parser.add_argument("--install", action="store_true", help="apply nodeless' manifests")
    options = parser.parse_args()
    signals = {signal.SIGINT, signal.SIGTERM}
    assets = build_assets()
    with tempfile.TemporaryDirectory(prefix="nodeless-cluster-") as scratch:
        control_plane = ControlPlane(assets=assets, directory=(options.directory or Path(scratch)).absolute())
        control_plane.start()
        # After the children exist: a blocked signal would be blocked in them too.
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        try:
            if options.install:
                install(control_plane)
            sys.stdout.write(f"export KUBECONFIG={control_plane.kubeconfig}\nexport PATH={assets}:$PATH\n")
            sys.stdout.flush()
            signal.sigwait(signals)
        finally:
            control_plane.stop()


if __name__ == "__main__":
    main()
