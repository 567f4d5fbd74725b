"""Core v1 Pod as far as we read it, shared by the pool (writes it), the node agent (runs it) and the gateway.

Quantities stay strings here; `serving.api.quantity` parses them.
"""

from __future__ import annotations

import msgspec

from serving.api.meta import Condition, JsonObject, Model, ObjectMeta, find_condition


class KeySelector(Model, frozen=True, kw_only=True):
    name: str = ""
    key: str = ""
    optional: bool = False


class FieldRef(Model, frozen=True, kw_only=True):
    field_path: str
    api_version: str = "v1"


class ResourceFieldRef(Model, frozen=True, kw_only=True):
    resource: str
    container_name: str = ""
    divisor: str = "0"


class EnvVarSource(Model, frozen=True, kw_only=True):
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None
    field_ref: FieldRef | None = None
    resource_field_ref: ResourceFieldRef | None = None


class EnvVar(Model, frozen=True, kw_only=True):
    name: str
    value: str | None = None
    value_from: EnvVarSource | None = None


class LocalRef(Model, frozen=True, kw_only=True):
    name: str = ""
    optional: bool = False


class EnvFromSource(Model, frozen=True, kw_only=True):
    prefix: str = ""
    config_map_ref: LocalRef | None = None
    secret_ref: LocalRef | None = None


class ContainerPort(Model, frozen=True, kw_only=True):
    container_port: int = 0
    name: str = ""
    protocol: str = "TCP"


class HttpHeader(Model, frozen=True, kw_only=True):
    name: str
    value: str = ""


class HttpGetAction(Model, frozen=True, kw_only=True):
    path: str = "/"
    port: int | str = 0
    host: str = ""
    scheme: str = "HTTP"
    http_headers: tuple[HttpHeader, ...] = ()


class TcpSocketAction(Model, frozen=True, kw_only=True):
    port: int | str = 0
    host: str = ""


class GrpcAction(Model, frozen=True, kw_only=True):
    port: int = 0
    service: str | None = None


class ExecAction(Model, frozen=True, kw_only=True):
    command: tuple[str, ...] = ()


class Probe(Model, frozen=True, kw_only=True):
    """A probe; exactly one handler is set. Zero periods and timeouts mean "not given"."""

    http_get: HttpGetAction | None = None
    tcp_socket: TcpSocketAction | None = None
    grpc: GrpcAction | None = None
    exec: ExecAction | None = None
    initial_delay_seconds: int = 0
    period_seconds: int = 0
    timeout_seconds: int = 0
    success_threshold: int = 0
    failure_threshold: int = 0


class ResourceRequirements(Model, frozen=True, kw_only=True):
    requests: dict[str, str | int | float] = {}
    limits: dict[str, str | int | float] = {}


class VolumeMount(Model, frozen=True, kw_only=True):
    name: str
    mount_path: str
    sub_path: str = ""
    read_only: bool = False


class Capabilities(Model, frozen=True, kw_only=True):
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class SeccompProfile(Model, frozen=True, kw_only=True):
    type: str = ""


class SecurityContext(Model, frozen=True, kw_only=True):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool | None = None
    privileged: bool = False
    allow_privilege_escalation: bool | None = None
    capabilities: Capabilities | None = None
    seccomp_profile: SeccompProfile | None = None


class Container(Model, frozen=True, kw_only=True):
    name: str = ""
    image: str = ""
    image_pull_policy: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFromSource, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    resources: ResourceRequirements = ResourceRequirements()
    volume_mounts: tuple[VolumeMount, ...] = ()
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    startup_probe: Probe | None = None
    security_context: SecurityContext | None = None
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


class PodSecurityContext(Model, frozen=True, kw_only=True):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    seccomp_profile: SeccompProfile | None = None


class HostAlias(Model, frozen=True, kw_only=True):
    ip: str = ""
    hostnames: tuple[str, ...] = ()


class DnsOption(Model, frozen=True, kw_only=True):
    name: str = ""
    value: str | None = None


class PodDnsConfig(Model, frozen=True, kw_only=True):
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[DnsOption, ...] = ()


class PodSpec(Model, frozen=True, kw_only=True):
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    volumes: tuple[JsonObject, ...] = ()
    """Raw: each kind of volume has its own decoder where it is mounted."""
    node_name: str = ""
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    service_account_name: str = ""
    image_pull_secrets: tuple[LocalRef, ...] = ()
    hostname: str = ""
    security_context: PodSecurityContext | None = None
    runtime_class_name: str | None = None
    host_aliases: tuple[HostAlias, ...] = ()
    dns_policy: str = "ClusterFirst"
    dns_config: PodDnsConfig | None = None


class StateWaiting(Model, frozen=True, kw_only=True):
    reason: str = ""
    message: str = ""


class StateRunning(Model, frozen=True, kw_only=True):
    started_at: str | None = None


class StateTerminated(Model, frozen=True, kw_only=True):
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None


class ContainerState(Model, frozen=True, kw_only=True):
    """Exactly one is set."""

    waiting: StateWaiting | None = None
    running: StateRunning | None = None
    terminated: StateTerminated | None = None


class ContainerStatus(Model, frozen=True, kw_only=True):
    name: str
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0
    image: str = ""
    image_id: str = msgspec.field(default="", name="imageID")
    container_id: str = msgspec.field(default="", name="containerID")


class PodStatus(Model, frozen=True, kw_only=True):
    phase: str = "Pending"
    conditions: tuple[Condition, ...] = ()
    reason: str = ""
    message: str = ""
    host_ip: str = msgspec.field(default="", name="hostIP")
    pod_ip: str = msgspec.field(default="", name="podIP")
    start_time: str | None = None
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(Model, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def ready(self) -> bool:
        condition = find_condition(self.status.conditions, "Ready")
        return condition is not None and condition.status == "True"

    @property
    def finished(self) -> bool:
        return self.status.phase in ("Succeeded", "Failed")
