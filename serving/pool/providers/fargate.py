"""AWS Fargate on EKS.

A Fargate profile (namespace and labels) takes the pod; a label names the profile. The size is what the containers
request, rounded up by Fargate with 256 MiB for itself; requests must equal limits. EKS sells x86 on demand only.
"""

from __future__ import annotations

from serving.api.pod import PodSpec
from serving.pool.providers.features import uses
from serving.pool.providers.model import Impossible, Instance, Mapped, ProviderSettings
from serving.pool.template import Placement

NAME = "aws-fargate"
OVERHEAD_GIB = 0.25
PROFILE_LABEL = "eks.amazonaws.com/fargate-profile"


def place(instance: Instance, settings: ProviderSettings, spec: PodSpec) -> Mapped:
    problems = _problems(instance, settings, spec)
    if problems:
        return Impossible(provider=NAME, problems=tuple(problems))
    return Placement(
        labels={PROFILE_LABEL: settings.fargate_profile},
        node_selector=settings.node_selector,
        tolerations=settings.tolerations,
        cpu_millis=instance.cpu_millis,
        memory_mib=instance.memory_mib(overhead_gib=OVERHEAD_GIB),
    )


def _problems(instance: Instance, settings: ProviderSettings, spec: PodSpec) -> list[str]:
    used = uses(spec)
    problems = []
    if not settings.fargate_profile:
        problems.append("fargate_profile: no profile is configured")
    if instance.spot is not None:
        problems.append("spot: EKS Fargate sells on demand only")
    if instance.arch != "amd64":
        problems.append(f"arch: {instance.arch} is not sold on EKS Fargate, only amd64")
    problems += instance.fallback_problems()
    problems += [f"{path}: Fargate has no GPUs" for path in used.gpu]
    problems += [f"{path}: Fargate runs no privileged containers" for path in used.privileged]
    problems += [f"{path}: there is no host to mount" for path in used.host_path]
    return problems
