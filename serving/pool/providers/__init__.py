"""Providers: how a wish for an instance becomes labels, annotations, selectors and resources of a Pod. Pure.

A provider that cannot do what is wished says so, with the field and what is possible (`Impossible`): that becomes
a condition of the Revision instead of a pod that never starts. None of these mappings was run on its cloud: they
are what the providers document, fixed by golden files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from serving.api.pod import PodSpec
from serving.pool.providers import aci, autopilot, cluster, eci, fargate
from serving.pool.providers.model import Instance, Mapped, ProviderKind, ProviderSettings

_PROVIDERS: Mapping[ProviderKind, Callable[[Instance, ProviderSettings, PodSpec], Mapped]] = {
    "alibaba-eci": eci.place,
    "aws-fargate": fargate.place,
    "azure-aci": aci.place,
    "azure-aci-v2": aci.place,
    "gke-autopilot": autopilot.place,
    "runtime-class": cluster.place,
    "nodes": cluster.place,
}


def place_on(instance: Instance, settings: ProviderSettings, spec: PodSpec) -> Mapped:
    """What a pod of `spec` must say so that this provider runs it on such an instance."""
    return _PROVIDERS[settings.kind](instance, settings, spec)
