"""The programs of a conformance run: upstream's test binaries and test images, a registry, and `kn`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tests.conformance.gomodule import GoModule

HERE: Final = Path(__file__).parent
SUITE: Final = GoModule(directory=HERE, name="conformance", pinned="knative.dev/serving", tags="e2e")
KN: Final = GoModule(directory=HERE / "kn", name="kn", pinned="knative.dev/client")
REGISTRY: Final = "registry"
TEST2JSON: Final = "test2json"
"""Of the Go distribution, which no longer ships it built."""
CONFIG: Final = "config"
"""Upstream's manifests of what its tests find installed."""
TEST_PACKAGES: Final = {
    "api/v1": "knative.dev/serving/test/conformance/api/v1",
    "api/v1beta1": "knative.dev/serving/test/conformance/api/v1beta1",
    "runtime": "knative.dev/serving/test/conformance/runtime",
}


def test_binary(suite: str) -> Path:
    """`suite` is a key of TEST_PACKAGES."""
    return SUITE.cache / (suite.replace("/", "-") + ".test")


def image_programs() -> dict[str, Path]:
    """Upstream's test images: name → static binary."""
    return {name: SUITE.cache / name for name in SUITE.tools() if name != REGISTRY}


def missing() -> list[str]:
    """What a conformance run still needs to be built."""
    names = [*SUITE.tools(), TEST2JSON, *(test_binary(suite).name for suite in TEST_PACKAGES)]
    absent = [name for name in names if not (SUITE.cache / name).is_file()]
    return absent if (SUITE.cache / CONFIG).is_dir() else [*absent, CONFIG]


def build() -> None:
    """Build what is missing. Raises CalledProcessError, Unavailable."""
    absent = missing()
    if absent:
        SUITE.fetch([*SUITE.tools().values(), *TEST_PACKAGES.values()])
    programs = [package for name, package in SUITE.tools().items() if name in absent]
    if programs:
        _say(f"building {len(programs)} test images and tools of {SUITE.pinned} {SUITE.version()}")
        SUITE.build(programs)
    for suite, package in TEST_PACKAGES.items():
        if test_binary(suite).name in absent:
            _say(f"building the tests {suite} of {SUITE.pinned} {SUITE.version()}")
            SUITE.build_tests(package, name=test_binary(suite).name)
    if TEST2JSON in absent:
        SUITE.build(["cmd/test2json"])
    if CONFIG in absent:
        SUITE.copy(f"test/{CONFIG}", CONFIG)


def find_kn() -> Path | None:
    """`kn` of the cache; None when it is not built."""
    return KN.cache / "kn" if (KN.cache / "kn").is_file() else None


def build_kn() -> Path:
    """`kn`, built if it is missing. Raises CalledProcessError, Unavailable."""
    if find_kn() is None:
        _say(f"building kn {KN.version()}")
        KN.fetch([KN.tools()["kn"]])
        KN.build([KN.tools()["kn"]])
    return KN.cache / "kn"


def _say(text: str) -> None:
    sys.stderr.write(f"{text} ...\n")
