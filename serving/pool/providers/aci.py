"""Azure Container Instances through AKS: the virtual node add-on, and virtual nodes version 2.

Both take whatever the containers request. Spot groups cannot join a network, so no pod of a cluster can be one.
"""

from __future__ import annotations

from serving.api.pod import PodSpec
from serving.pool.providers.features import uses
from serving.pool.providers.model import Impossible, Instance, Mapped, ProviderSettings
from serving.pool.template import Placement

NAME = "azure-aci"
MOST_VCPU = 4
MOST_GIB = 16
_LEGACY_SELECTOR = {"kubernetes.io/role": "agent", "kubernetes.io/os": "linux", "type": "virtual-kubelet"}
_LEGACY_TOLERATIONS = (
    {"key": "virtual-kubelet.io/provider", "operator": "Exists"},
    {"key": "azure.com/aci", "effect": "NoSchedule"},
)
_V2_SELECTOR = {"virtualization": "virtualnode2"}
_V2_TOLERATIONS = ({"key": "virtual-kubelet.io/provider", "operator": "Exists", "effect": "NoSchedule"},)
_V2_PREFIX = "microsoft.containerinstance.virtualnode."


def place(instance: Instance, settings: ProviderSettings, spec: PodSpec) -> Mapped:
    problems = _problems(instance, settings, spec)
    if problems:
        return Impossible(provider=NAME, problems=tuple(problems))
    second = settings.kind == "azure-aci-v2"
    annotations = {}
    if second and instance.zones:
        annotations[f"{_V2_PREFIX}zones"] = ",".join(instance.zones)
    if second and settings.subnets:
        zones = instance.zones or tuple(settings.subnets)
        annotations[f"{_V2_PREFIX}subnets"] = ",".join(dict.fromkeys(settings.subnets[zone] for zone in zones))
    return Placement(
        annotations=annotations,
        node_selector={**settings.node_selector, **(_V2_SELECTOR if second else _LEGACY_SELECTOR)},
        tolerations=((*_V2_TOLERATIONS,) if second else (*_LEGACY_TOLERATIONS,)) + settings.tolerations,
        cpu_millis=instance.cpu_millis,
        memory_mib=instance.memory_mib(),
    )


def _problems(instance: Instance, settings: ProviderSettings, spec: PodSpec) -> list[str]:
    used = uses(spec)
    problems = []
    if instance.spot is not None:
        problems.append("spot: spot groups cannot join a virtual network, so no virtual node offers them")
    if instance.arch != "amd64":
        problems.append(f"arch: {instance.arch} is not offered, only amd64")
    problems += instance.fallback_problems()
    problems += [
        f"sizes: {size} is above {MOST_VCPU} vCPU and {MOST_GIB} GiB"
        for size in instance.sizes
        if size.vcpu > MOST_VCPU or size.gib > MOST_GIB
    ]
    if instance.zones and settings.kind == "azure-aci":
        problems.append("zones: the virtual node add-on has none; virtual nodes version 2 have")
    if settings.kind == "azure-aci-v2" and settings.subnets:
        problems += [f"zones: {zone} has no subnet" for zone in instance.zones if zone not in settings.subnets]
    problems += [f"{path}: there is no host to mount" for path in used.host_path]
    return problems
