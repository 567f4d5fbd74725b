"""GKE Autopilot: pods say what they want in resources and node selectors; there are no annotations to set."""

from __future__ import annotations

from serving.api.pod import PodSpec
from serving.pool.providers.features import uses
from serving.pool.providers.model import Impossible, Instance, Mapped, ProviderSettings
from serving.pool.template import Placement

NAME = "gke-autopilot"
LEAST_VCPU = 0.25
LEAST_GIB = 0.5
GIB_PER_VCPU = (1.0, 6.5)
SPOT_GRACE_SECONDS = 15
COMPUTE_CLASSES = ("Balanced", "Scale-Out", "Performance", "Accelerator", "autopilot")


def place(instance: Instance, settings: ProviderSettings, spec: PodSpec) -> Mapped:
    problems = _problems(instance, settings, spec)
    if problems:
        return Impossible(provider=NAME, problems=tuple(problems))
    selector = dict(settings.node_selector)
    if settings.compute_class:
        selector["cloud.google.com/compute-class"] = settings.compute_class
    if instance.spot is not None:
        selector["cloud.google.com/gke-spot"] = "true"
    if instance.arch != "amd64":
        selector["kubernetes.io/arch"] = instance.arch
    if len(instance.zones) == 1:
        selector["topology.kubernetes.io/zone"] = instance.zones[0]
    return Placement(
        node_selector=selector,
        tolerations=settings.tolerations,
        cpu_millis=instance.cpu_millis,
        memory_mib=instance.memory_mib(),
        most_grace_seconds=SPOT_GRACE_SECONDS if instance.spot is not None else None,
    )


def _problems(instance: Instance, settings: ProviderSettings, spec: PodSpec) -> list[str]:
    used = uses(spec)
    problems = []
    if settings.compute_class and settings.compute_class not in COMPUTE_CLASSES:
        problems.append(f"compute_class: {settings.compute_class!r} is not of {', '.join(COMPUTE_CLASSES)}")
    problems += instance.fallback_problems()
    if len(instance.zones) > 1:
        problems.append("zones: one, or none for any; a pod cannot name several")
    for size in instance.sizes[:1]:
        ratio = size.gib / size.vcpu
        if size.vcpu < LEAST_VCPU or size.gib < LEAST_GIB:
            problems.append(f"sizes: {size} is below {LEAST_VCPU:g} vCPU and {LEAST_GIB:g} GiB")
        elif not GIB_PER_VCPU[0] <= ratio <= GIB_PER_VCPU[1]:
            problems.append(f"sizes: {size} has {ratio:.3g} GiB for each vCPU, possible are 1 to 6.5")
    problems += [f"{path}: Autopilot runs no privileged containers" for path in used.privileged]
    problems += [f"{path}: Autopilot mounts nothing of a node" for path in used.host_path]
    return problems
