"""Run one of upstream's test binaries against a target."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from serving.api.keys import SYSTEM_NAMESPACE
from tests.cluster.control_plane import end_with_parent
from tests.conformance.binaries import SUITE, TEST2JSON, test_binary
from tests.conformance.prerequisites import GATEWAY_SERVICE
from tests.conformance.results import Collector, SuiteResult, TestResult

PARALLEL: Final = 12
"""As upstream's own runs."""
TIMEOUT: Final = "40m"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A running nodeless. The gateway listens on 127.0.0.1."""

    name: str
    kubeconfig: Path
    gateway_port: int
    image_repository: str
    """Images are `<repository>/<program>:latest`."""


def run_suite(
    target: Target, suite: str, *, directory: Path, only: str, seen: Callable[[TestResult], None]
) -> SuiteResult:
    """Run until it ends. `directory` gets the log; `only` is a Go regular expression of names, or empty."""
    collector = Collector(suite)
    log = directory / f"{suite.replace('/', '-')}.jsonl"
    with (
        log.open("wb") as file,
        subprocess.Popen(
            _command(target, suite, only),
            cwd=directory,
            env={
                **os.environ,
                "GATEWAY_OVERRIDE": GATEWAY_SERVICE,
                "GATEWAY_NAMESPACE_OVERRIDE": SYSTEM_NAMESPACE,
                "SYSTEM_NAMESPACE": SYSTEM_NAMESPACE,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=end_with_parent,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                file.flush()
                result = collector.feed(line)
                if result is not None:
                    seen(result)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)  # test2json and its child, the tests
            raise
    return collector.finish()


def _command(target: Target, suite: str, only: str) -> Sequence[str | Path]:
    return [
        *(SUITE.cache / TEST2JSON, "-t", "-p", suite, test_binary(suite)),
        *("-test.v=test2json", "-test.count=1", f"-test.timeout={TIMEOUT}", f"-test.parallel={PARALLEL}"),
        *([f"-test.run={only}"] if only else []),
        *("-kubeconfig", target.kubeconfig, "-ingressendpoint", "127.0.0.1"),
        *("-dockerrepo", target.image_repository, "-tag", "latest"),
        *("-imagetemplate", "{{.Repository}}/{{.Name}}:{{.Tag}}"),
        *("-enable-alpha", "-enable-beta"),
    ]
