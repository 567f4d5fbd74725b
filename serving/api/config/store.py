"""All `config-*` ConfigMaps together, and the rule for editing them live.

A bad edit never takes anything down: `Store.update` keeps the last good value of that ConfigMap and raises, so
that the shell that watches can log it. `parse_config_map` is what the admission webhook asks before it is stored.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from serving.api.config import (
    autoscaler,
    defaults,
    deployment,
    domain,
    features,
    gc,
    leader_election,
    network,
    observability,
)
from serving.api.config.autoscaler import AutoscalerConfig
from serving.api.config.defaults import DefaultsConfig
from serving.api.config.deployment import DeploymentConfig
from serving.api.config.domain import DomainConfig
from serving.api.config.errors import ConfigError
from serving.api.config.features import FeaturesConfig
from serving.api.config.gc import GcConfig
from serving.api.config.leader_election import LeaderElectionConfig
from serving.api.config.network import NetworkConfig
from serving.api.config.observability import ObservabilityConfig
from serving.api.config.reader import EXAMPLE_KEY
from serving.api.names import quote

EXAMPLE_CHECKSUM: Final = "knative.dev/example-checksum"
"""Annotation with the CRC-32 of `_example`: a guard against edits below it, where they do nothing."""


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One consistent set of configurations; without arguments upstream's defaults."""

    autoscaler: AutoscalerConfig = AutoscalerConfig()
    defaults: DefaultsConfig = DefaultsConfig()
    deployment: DeploymentConfig = DeploymentConfig()
    domain: DomainConfig = DomainConfig()
    features: FeaturesConfig = FeaturesConfig()
    gc: GcConfig = GcConfig()
    leader_election: LeaderElectionConfig = LeaderElectionConfig()
    network: NetworkConfig = NetworkConfig()
    observability: ObservabilityConfig = ObservabilityConfig()


_PARSERS: Final[dict[str, tuple[str, Callable[[Mapping[str, str]], Any]]]] = {
    autoscaler.CONFIG_NAME: ("autoscaler", autoscaler.parse),
    defaults.CONFIG_NAME: ("defaults", defaults.parse),
    deployment.CONFIG_NAME: ("deployment", deployment.parse),
    domain.CONFIG_NAME: ("domain", domain.parse),
    features.CONFIG_NAME: ("features", features.parse),
    gc.CONFIG_NAME: ("gc", gc.parse),
    leader_election.CONFIG_NAME: ("leader_election", leader_election.parse),
    network.CONFIG_NAME: ("network", network.parse),
    observability.CONFIG_NAME: ("observability", observability.parse),
}
CONFIG_NAMES: Final = tuple(_PARSERS)


def with_config_map(config: ApiConfig, name: str, data: Mapping[str, str] | None) -> ApiConfig:
    """`config` with one ConfigMap's data; None = the ConfigMap is gone, its defaults hold.

    Names that are not ours are ignored. Raises ConfigError, then nothing changed.
    """
    if name not in _PARSERS:
        return config
    field, parse = _PARSERS[name]
    return msgspec.structs.replace(config, **{field: parse(data or {})})


def config_map_problem(name: str, data: Mapping[str, str], annotations: Mapping[str, str]) -> str | None:
    """Why the ConfigMap cannot be stored, or None. Names that are not ours are always fine."""
    if name not in _PARSERS:
        return None
    example, checksum = data.get(EXAMPLE_KEY), annotations.get(EXAMPLE_CHECKSUM)
    if example is not None and checksum is not None and checksum != example_checksum(example):
        return (
            f"the update modifies a key in {quote(EXAMPLE_KEY)} which is probably not what you want. Instead, "
            'copy the respective setting to the top-level of the ConfigMap, directly below "data"'
        )
    try:
        _PARSERS[name][1](data)
    except ConfigError as error:
        return str(error)
    return None


def example_checksum(example: str) -> str:
    r"""CRC-32 in hexadecimal of the `_example` text, each run of line ends written as the two characters `\n`."""
    normal = re.sub(r"(?:\r?\n)+", r"\\n", example.strip())
    return f"{zlib.crc32(normal.encode()):08x}"


class Store:
    """The current configuration of a process, replaced as a whole; read it once per decision."""

    def __init__(self, config: ApiConfig | None = None) -> None:
        self.config = config or ApiConfig()

    def update(self, name: str, data: Mapping[str, str] | None) -> bool:
        """Take one ConfigMap's data; whether anything changed. Raises ConfigError, the last good value stays."""
        config = with_config_map(self.config, name, data)
        changed = config != self.config
        self.config = config
        return changed
