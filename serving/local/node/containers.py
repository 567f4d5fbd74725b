"""A container as the sandbox takes it, put together from the pod, its image and its volumes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from serving.api.pod import Container, Pod
from serving.local.images.protocol import Image
from serving.local.node.command import argv, identity, working_dir
from serving.local.node.envvars import ConfigError, KeyedObjects, PodFacts, environment, with_image
from serving.local.node.podnames import dns_of
from serving.local.node.probes import serving_port
from serving.local.node.resources import container_limits, pod_limits
from serving.local.sandbox.protocol import ContainerSpec, Mount, PodAddress, PodSandboxSpec

PORT_ENV = "PORT"


def container_spec(
    container: Container,
    pod: Pod,
    image: Image,
    *,
    attempt: int,
    objects: KeyedObjects,
    facts: PodFacts,
    address: PodAddress,
    mounts: Sequence[Mount],
    log_path: Path,
    services: Mapping[str, str] | None = None,
) -> ContainerSpec:
    """`services`: variables below the pod's own.

    Raises ConfigError (with its waiting reason) and QuantityError.
    """
    values = environment(container, pod, objects, facts, services=services)
    if address.port is not None and _serves(container, pod):
        values[PORT_ENV] = str(address.port)
    who = identity(container, pod, image.config)
    limits = container_limits(container)
    security = container.security_context
    capabilities = security.capabilities if security else None
    return ContainerSpec(
        name=container.name,
        rootfs=image.rootfs,
        argv=argv(container, image.config, values),
        env=with_image((f"HOSTNAME={hostname(pod)}", *image.config.env), values),
        cwd=working_dir(container, image.config),
        user=who.user,
        groups=who.groups,
        cpu_millis=limits.cpu_millis,
        cpu_shares=limits.cpu_shares,
        memory_bytes=limits.memory_bytes,
        mounts=tuple(mounts),
        read_only_rootfs=bool(security and security.read_only_root_filesystem),
        drop_capabilities=capabilities.drop if capabilities else (),
        add_capabilities=capabilities.add if capabilities else (),
        no_new_privs=not (security and security.allow_privilege_escalation),
        seccomp=not _unconfined(container, pod),
        log_path=log_path,
        termination_message_path=container.termination_message_path,
        attempt=attempt,
        stdin=container.stdin,
        tty=container.tty,
    )


def sandbox_spec(
    pod: Pod, *, state_dir: Path, cluster_domain: str, dns_server: str, max_pids: int
) -> PodSandboxSpec:
    """The pod as a sandbox. Raises QuantityError."""
    limits = pod_limits(pod.spec)
    names = dns_of(pod, cluster_domain)
    namespace = pod.metadata.namespace
    return PodSandboxSpec(
        pod_uid=pod.metadata.uid,
        pod_name=pod.metadata.name,
        namespace=namespace,
        hostname=hostname(pod),
        state_dir=state_dir,
        cpu_millis=limits.cpu_millis,
        memory_bytes=limits.memory_bytes,
        pids=max_pids,
        dns_search=names.search,
        dns_server=dns_server,
        dns_own_resolver=pod.spec.dns_policy != "None",
        dns_more_servers=names.servers,
        dns_options=names.options,
        host_aliases=tuple((alias.ip, name) for alias in pod.spec.host_aliases for name in alias.hostnames),
    )


def _unconfined(container: Container, pod: Pod) -> bool:
    """The container's profile, else the pod's. Every other profile is the sandbox's own."""
    own, shared = container.security_context, pod.spec.security_context
    profile = (own and own.seccomp_profile) or (shared and shared.seccomp_profile)
    return bool(profile and profile.type == "Unconfined")


def hostname(pod: Pod) -> str:
    """Also `$HOSTNAME` of every container, as container runtimes set it: below the image's own environment."""
    return pod.spec.hostname or pod.metadata.name[:63].rstrip("-.")


def volume_mounts(
    container: Container,
    sources: Mapping[tuple[str, str], Path],
    *,
    writable: Set[str] = frozenset(),
    memory_limits: Mapping[str, int] | None = None,
) -> list[Mount]:
    """`sources`: where each (volume, subPath) lies on the host; `memory_limits`: bytes, by volume.

    Only volumes in `writable` can be mounted for writing. The others are files that the agent keeps current, with
    its own rights: a container that could put a link among them would have the agent write anywhere.

    Raises ConfigError on an unknown volume.
    """
    limits = memory_limits or {}
    mounts = []
    for mount in container.volume_mounts:
        source = sources.get((mount.name, mount.sub_path))
        if source is None:
            raise ConfigError(f'volumeMount "{mount.name}" has no matching volume')
        mounts.append(
            Mount(
                source=source,
                target=mount.mount_path,
                read_only=mount.read_only or mount.name not in writable,
                exact=bool(mount.sub_path),
                memory_bytes=limits.get(mount.name),
            )
        )
    return mounts


def _serves(container: Container, pod: Pod) -> bool:
    """Whether this is the container that requests go to."""
    serving = serving_port(pod)
    if serving is None:
        return container.name == pod.spec.containers[0].name
    return any(port.container_port == serving for port in container.ports)
