"""Run upstream's conformance suite and write what came of it.

make conformance                               # against `nodeless up`
python -m tests.conformance --run TestMust     # some tests, without a report
python -m tests.conformance --build            # only build what is needed, once
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.conformance import binaries, report, targets
from tests.conformance.gomodule import Unavailable
from tests.conformance.images import build_images, image_name
from tests.conformance.prerequisites import install_now, objects
from tests.conformance.registry import push, running_registry
from tests.conformance.results import SuiteResult, TestResult
from tests.conformance.suite import Target, run_suite

TARGETS: Final = {"embedded": targets.embedded, "cluster": targets.cluster}
UNAVAILABLE: Final = 3
"""Exit status: the suite is not to be had here. Nothing is known about nodeless then."""
_REPOSITORY: Final = "conformance"


def main() -> int:
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # everything that was started is stopped on the way out
    try:
        binaries.build()
        if options.build:
            binaries.build_kn()
            return 0
    except Unavailable as error:
        sys.stderr.write(f"upstream's conformance suite is left out: {error}\n")
        return UNAVAILABLE
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"error: cannot build upstream's suite: {error}\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="nodeless-conformance-") as scratch:
        directory: Path = (options.directory or Path(scratch)).absolute()
        directory.mkdir(parents=True, exist_ok=True)
        results, run = _run(options, directory)
    if options.report:
        report.update(options.report, run, results)
    return 0 if all(result.perfect for result in results) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__.partition("\n")[0])
    parser.add_argument("--target", choices=sorted(TARGETS), default="embedded")
    parser.add_argument("--suite", choices=list(binaries.TEST_PACKAGES), help="default: both")
    parser.add_argument("--run", default="", metavar="REGEXP", help="only tests whose name matches")
    parser.add_argument("--directory", type=Path, help="keep data and logs there; default: a temporary directory")
    parser.add_argument("--report", type=Path, help="Markdown file whose section of this target is replaced")
    parser.add_argument("--build", action="store_true", help="only build what a run needs, and kn")
    options = parser.parse_args()
    if options.report and (options.run or options.suite):
        parser.error("--report is for whole runs: it goes without --run and --suite")
    return options


def _run(options: argparse.Namespace, directory: Path) -> tuple[list[SuiteResult], report.Run]:
    store = binaries.SUITE.cache / "images"
    programs = binaries.image_programs()
    if not (store / "complete").exists():
        build_images(programs, store_data_dir=store)
        (store / "complete").touch()
    with (
        running_registry(binaries.SUITE.cache / binaries.REGISTRY, log=directory / "registry.log") as address,
        TARGETS[options.target](directory) as running,
    ):
        for name in programs:
            push(address, f"{_REPOSITORY}/{name}", store=store / "images", name=image_name(name))
        config = binaries.SUITE.cache / binaries.CONFIG
        install_now(running.kubeconfig, objects(config, gateway_port=running.gateway_port))
        target = Target(
            name=options.target,
            kubeconfig=running.kubeconfig,
            gateway_port=running.gateway_port,
            image_repository=f"{address}/{_REPOSITORY}",
        )
        suites = [options.suite] if options.suite else list(binaries.TEST_PACKAGES)
        results = []
        for suite in suites:
            _say(f"== {binaries.TEST_PACKAGES[suite]} on {running.server}")
            results.append(run_suite(target, suite, directory=directory, only=options.run, seen=_say_result))
            _say(report.summary(results[-1]))
    kernel = ".".join(platform.release().split(".")[:2])
    run = report.Run(
        target=options.target,
        server=running.server,
        sandbox=running.sandbox,
        suite_version=f"{binaries.SUITE.pinned} {binaries.SUITE.version()}",
        machine=f"{os.cpu_count()} CPUs, Linux {kernel}, Python {platform.python_version()}",
    )
    return results, run


def _say_result(result: TestResult) -> None:
    _say(f"{result.outcome:5} {result.name} ({result.seconds:.1f} s)")
    for line in result.output.splitlines():
        _say(f"      {line}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
