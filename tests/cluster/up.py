"""A real control plane to try things on, until Ctrl-C or SIGTERM:

python -m tests.cluster.up [--directory DIR] [--install | --nodeless]

Prints `export KUBECONFIG=...` and a PATH with the kubectl of the same release. `--install` applies nodeless'
manifests but starts none of its processes; `--nodeless` starts them too, with a node agent for this machine, and
prints where the gateway listens.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.cluster.assets import build_assets
from tests.cluster.components import Components
from tests.cluster.control_plane import ControlPlane
from tests.cluster.install import install


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.up", description="A real control plane.")
    parser.add_argument("--directory", type=Path, help="state and logs; default: a temporary directory")
    parser.add_argument("--install", action="store_true", help="apply nodeless' manifests")
    parser.add_argument("--nodeless", action="store_true", help="apply them and run the processes, all here")
    parser.add_argument("--domain", default="localhost", help="default domain of Routes with --nodeless")
    options = parser.parse_args()
    signals = {signal.SIGINT, signal.SIGTERM}
    assets = build_assets()
    with tempfile.TemporaryDirectory(prefix="nodeless-cluster-") as scratch:
        control_plane = ControlPlane(assets=assets, directory=(options.directory or Path(scratch)).absolute())
        # Only from here on: what ends it before the children exist need not be handled, and `end_with_parent`
        # unblocks the signals in the children.
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        control_plane.start()
        components = Components(control_plane, control_plane.directory / "nodeless")
        try:
            if options.install or options.nodeless:
                install(control_plane)
            lines = [f"export KUBECONFIG={control_plane.kubeconfig}", f"export PATH={assets}:$PATH"]
            if options.nodeless:
                components.start_all(domain=options.domain)
                lines += [
                    f"export NODELESS_URL={components.url}",
                    f"export NODELESS_DATA_DIR={components.data_dir}",
                ]
            sys.stdout.write("\n".join([*lines, ""]))
            sys.stdout.flush()
            signal.sigwait(signals)
        finally:
            components.close()
            control_plane.stop()


if __name__ == "__main__":
    main()
