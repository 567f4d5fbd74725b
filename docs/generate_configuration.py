"""Writes docs/configuration.md: the text of configuration.md.in with tables made from the code and the shipped
ConfigMaps: `python docs/generate_configuration.py`. A test says when it is stale."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

HERE = Path(__file__).parent
SOURCE = HERE / "configuration.md.in"
PAGE = HERE / "configuration.md"
CONFIG = HERE.parent / "manifests" / "config"

# Read and checked as in Knative, so that no manifest is refused, but without effect here and now.
WITHOUT_EFFECT = {
    "autoscaler": {"activator-capacity", "target-burst-capacity"},
    "features": {"autodetect-http2"},
    "deployment": {
        "default-affinity-type",
        "runtime-class-name",
        "queue-sidecar-image",
        "queue-sidecar-cpu-request",
        "queue-sidecar-cpu-limit",
        "queue-sidecar-memory-request",
        "queue-sidecar-memory-limit",
        "queue-sidecar-ephemeral-storage-request",
        "queue-sidecar-ephemeral-storage-limit",
        "queue-sidecar-token-audiences",
        "queue-sidecar-rootca",
    },
    "network": {
        "ingress-class",
        "certificate-class",
        "external-domain-tls",
        "cluster-local-domain-tls",
        "system-internal-tls",
        "namespace-wildcard-cert-selector",
        "enable-mesh-pod-addressability",
        "mesh-compatibility-mode",
    },
}
_SETTING = re.compile(r"^(?P<key>[a-z][a-z0-9.-]*): ?(?P<value>.*)$")


def page() -> str:
    """The whole page."""

    def table(match: re.Match[str]) -> str:
        return "\n".join(config_table(match["name"]))

    return re.sub(r"^<!-- config (?P<name>\S+) -->$", table, SOURCE.read_text(), flags=re.MULTILINE)


def config_table(name: str) -> Iterator[str]:
    """The keys that a ConfigMap's example shows."""
    yield "| key | example | meaning |\n|---|---|---|"
    for key, value, meaning in examples(name):
        note = " **No effect.**" if key in WITHOUT_EFFECT.get(name, set()) else ""
        yield f"| `{key}` | `{value}` | {meaning}{note} |"


def examples(name: str) -> Iterator[tuple[str, str, str]]:
    """(key, value, comment above it) of `_example`. A comment counts for the keys up to the next one."""
    body = yaml.safe_load((CONFIG / f"{name}.yaml").read_text())
    comment: list[str] = []
    fresh = True
    for line in body["data"]["_example"].splitlines():
        if line.startswith("##") or (line.strip("#") != line.strip("# ") and line.endswith("#")):
            continue
        if line.startswith("#"):
            comment = [*([] if fresh else comment), line.lstrip("# ")]
            fresh = False
        elif found := _SETTING.match(line):
            value = found["value"].strip().strip('"')
            yield found["key"], "a YAML text" if value == "|" else value, " ".join(comment)
            fresh = True


if __name__ == "__main__":
    PAGE.write_text(page())
