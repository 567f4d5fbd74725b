"""Nodes of the cluster itself: as they are, or in a sandbox of a RuntimeClass (Kata Containers, gVisor)."""

from __future__ import annotations

from serving.api.pod import PodSpec
from serving.pool.providers.features import uses
from serving.pool.providers.model import Impossible, Instance, Mapped, ProviderSettings
from serving.pool.template import Placement

CAPACITY_LABEL = "karpenter.sh/capacity-type"


def place(instance: Instance, settings: ProviderSettings, spec: PodSpec) -> Mapped:
    sandboxed = settings.kind == "runtime-class"
    problems = []
    if sandboxed and not settings.runtime_class:
        problems.append("runtime_class: none is configured")
    problems += instance.fallback_problems()
    if len(instance.zones) > 1:
        problems.append("zones: one, or none for any; a pod cannot name several")
    if instance.category:
        problems.append(f"category: {instance.category!r} is given, nodes have none")
    if sandboxed:
        problems += [f"{path}: a sandbox mounts nothing of its host" for path in uses(spec).host_path]
    if problems:
        return Impossible(provider=settings.kind, problems=tuple(problems))
    selector = dict(settings.node_selector)
    if instance.spot is not None:
        selector[CAPACITY_LABEL] = "spot"
    if instance.arch != "amd64":
        selector["kubernetes.io/arch"] = instance.arch
    if instance.zones:
        selector["topology.kubernetes.io/zone"] = instance.zones[0]
    return Placement(
        runtime_class_name=settings.runtime_class,
        node_selector=selector,
        tolerations=settings.tolerations,
        cpu_millis=instance.cpu_millis,
        memory_mib=instance.memory_mib(),
    )
