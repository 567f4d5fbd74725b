"""What every provider is asked for, and what it answers. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from serving.api.meta import JsonObject
from serving.pool.template import Placement
from sizing.catalog.lattice import Shape

ProviderKind = Literal[
    "alibaba-eci", "aws-fargate", "azure-aci", "azure-aci-v2", "gke-autopilot", "runtime-class", "nodes"
]


class Spot(msgspec.Struct, frozen=True, kw_only=True):
    """Buy at the market. `price_limit`: most per hour, in the provider's currency; None takes every price.
    `fall_back`: pay the full price when there is no stock. `protected_hours`: 0 to 6, where there is such."""

    price_limit: float | None = None
    fall_back: bool = False
    protected_hours: int = 1


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """What the plan wants a pod to run on. `sizes` are tried in order; none leaves it to the pod's requests."""

    sizes: tuple[Shape, ...] = ()
    category: str = ""
    """Price class, e.g. ECI's `economy`."""
    spot: Spot | None = None
    arch: str = "amd64"
    zones: tuple[str, ...] = ()
    image_cache: str = ""
    """Identifier of an image cache to use; empty lets the provider match."""
    temporary_gib: int = 0
    """More temporary storage than the provider gives by itself."""

    @property
    def cpu_millis(self) -> int | None:
        """Of the first size; None leaves it to the pod's requests."""
        return round(self.sizes[0].vcpu * 1000) if self.sizes else None

    def memory_mib(self, *, overhead_gib: float = 0.0) -> int | None:
        """Of the first size, without what the platform takes for itself."""
        return round((self.sizes[0].gib - overhead_gib) * 1024) if self.sizes else None

    def fallback_problems(self) -> list[str]:
        """For a provider that takes one size from the pod's resources."""
        return ["sizes: one is possible, there is no fallback"] if len(self.sizes) > 1 else []


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one provider is set up in this cluster."""

    kind: ProviderKind
    subnets: Mapping[str, str] = {}
    """ECI: vSwitch of each zone. ACI: subnet of each zone."""
    security_groups: tuple[str, ...] = ()
    fargate_profile: str = ""
    runtime_class: str = ""
    compute_class: str = ""
    node_selector: Mapping[str, str] = {}
    tolerations: tuple[JsonObject, ...] = ()


class Impossible(msgspec.Struct, frozen=True, kw_only=True):
    """The provider cannot run this pod so. `problems` name the field of the Revision or of the instance wish, the
    value, and what is possible; they go to ResourcesAvailable=False."""

    provider: str
    problems: tuple[str, ...]

    @property
    def message(self) -> str:
        return f"{self.provider} cannot run this revision: " + "; ".join(self.problems)


Mapped = Placement | Impossible
