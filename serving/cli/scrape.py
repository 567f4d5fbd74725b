"""Samples of the stack's own Prometheus endpoints, read over their Unix sockets."""

from __future__ import annotations

from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

_SECONDS = 5.0

Samples = dict[str, dict[str, float]]
"""Metric name → `namespace/revision` → value; a counter's name ends in `_total`."""


async def scrape(socket: Path) -> Samples:
    """Samples by revision of the process that serves `/metrics` there; empty when none does (it is being started
    again)."""
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    connector = aiohttp.UnixConnector(str(socket))
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get("http://metrics/metrics") as response,
        ):
            response.raise_for_status()
            return by_revision(await response.text())
    except (aiohttp.ClientError, TimeoutError):
        return {}


def by_revision(text: str) -> Samples:
    """The samples of an exposition that have the labels of a revision."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            namespace, name = sample.labels.get("namespace_name"), sample.labels.get("revision_name")
            if namespace and name:
                found.setdefault(sample.name, {})[f"{namespace}/{name}"] = sample.value
    return found
