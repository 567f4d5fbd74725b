"""What a pod spec uses that some platforms do not have. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from serving.api.pod import Container, PodSpec

_GPU_SUFFIX = "/gpu"


class Uses(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of the pod spec, by what they need of the platform. Each value is a path, for messages."""

    privileged: tuple[str, ...] = ()
    gpu: tuple[str, ...] = ()
    host_path: tuple[str, ...] = ()
    containers: int = 0
    volumes: int = 0


def uses(spec: PodSpec) -> Uses:
    privileged, gpu = [], []
    for path, container in _containers(spec):
        context = container.security_context
        if context is not None and context.privileged:
            privileged.append(f"{path}.securityContext.privileged")
        for kind in ("requests", "limits"):
            gpu += [
                f"{path}.resources.{kind}[{name}]"
                for name in getattr(container.resources, kind)
                if name.endswith(_GPU_SUFFIX)
            ]
    host_path = [
        f"volumes[{number}].hostPath" for number, volume in enumerate(spec.volumes) if "hostPath" in volume
    ]
    return Uses(
        privileged=tuple(privileged),
        gpu=tuple(gpu),
        host_path=tuple(host_path),
        containers=len(spec.containers),
        volumes=len(spec.volumes),
    )


def _containers(spec: PodSpec) -> Iterator[tuple[str, Container]]:
    for field, containers in (("initContainers", spec.init_containers), ("containers", spec.containers)):
        for number, container in enumerate(containers):
            yield f"{field}[{number}]", container
