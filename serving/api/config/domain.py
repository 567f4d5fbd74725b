"""`config-domain`: which domain a Route's hosts are in, chosen by its labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from serving.api.config.reader import EXAMPLE_KEY, label_selector
from serving.api.keys import VISIBILITY, VISIBILITY_CLUSTER_LOCAL

CONFIG_NAME: Final = "config-domain"
CLUSTER_DOMAIN: Final = "cluster.local"
LOCAL_DOMAIN: Final = f"svc.{CLUSTER_DOMAIN}"
"""Domain of routes that only the cluster sees, and the default when no other default is configured."""


class DomainConfig(msgspec.Struct, frozen=True):
    """Domain to the labels that a Route must have; no labels = default domain. Never empty."""

    domains: dict[str, dict[str, str]] = msgspec.field(default_factory=lambda: {LOCAL_DOMAIN: {}})

    def domain_for(self, labels: Mapping[str, str]) -> str:
        """The domain with the most matching labels; of equals the one that sorts first.

        A Route that is labelled cluster-local gets the cluster's own domain. Empty if nothing matches, which
        cannot happen with a parsed configuration.
        """
        if labels.get(VISIBILITY) == VISIBILITY_CLUSTER_LOCAL:
            return LOCAL_DOMAIN
        matching = [
            (-len(selector), domain)
            for domain, selector in self.domains.items()
            if all(labels.get(label) == value for label, value in selector.items())
        ]
        return min(matching)[1] if matching else ""


def parse(data: Mapping[str, str]) -> DomainConfig:
    """The domains of a ConfigMap's `data`. Raises ConfigError for a value that is no selector."""
    domains = {key: label_selector(key, text) for key, text in data.items() if key != EXAMPLE_KEY}
    if all(domains.values()):
        domains[LOCAL_DOMAIN] = {}
    return DomainConfig(domains)
