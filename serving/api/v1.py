"""The kinds of serving.knative.dev/v1 as we read them.

`template` of Service and Configuration and `spec` of Revision stay raw JSON: they are copied verbatim from one
object to the next, unknown fields included. `Revision.view()` gives the typed reading.
"""

from __future__ import annotations

import msgspec

from serving.api.meta import Condition, JsonObject, Model, ObjectMeta, find_condition
from serving.api.pod import Container, ContainerPort, PodSpec


class TrafficTarget(Model, frozen=True, kw_only=True):
    """One entry of `spec.traffic` or `status.traffic`; in status `revision_name` is resolved."""

    revision_name: str = ""
    configuration_name: str = ""
    latest_revision: bool | None = None
    percent: int | None = None
    tag: str = ""
    url: str = ""


class Address(Model, frozen=True, kw_only=True):
    url: str = ""


class _TemplateMeta(Model, frozen=True, kw_only=True):
    name: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Template(Model, frozen=True, kw_only=True):
    """What every reader of a template relies on. Raising here makes the whole object undecodable."""

    metadata: _TemplateMeta | None = None
    spec: JsonObject | None = None


class ServiceSpec(Model, frozen=True, kw_only=True):
    template: JsonObject = {}
    traffic: tuple[TrafficTarget, ...] = ()

    def __post_init__(self) -> None:
        msgspec.convert(self.template, _Template)


class ServiceStatus(Model, frozen=True, kw_only=True):
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    latest_created_revision_name: str = ""
    latest_ready_revision_name: str = ""
    url: str = ""
    address: Address | None = None
    traffic: tuple[TrafficTarget, ...] = ()
    annotations: dict[str, str] = {}


class Service(Model, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class ConfigurationSpec(Model, frozen=True, kw_only=True):
    template: JsonObject = {}

    def __post_init__(self) -> None:
        msgspec.convert(self.template, _Template)


class ConfigurationStatus(Model, frozen=True, kw_only=True):
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    latest_created_revision_name: str = ""
    latest_ready_revision_name: str = ""


class Configuration(Model, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: ConfigurationSpec = ConfigurationSpec()
    status: ConfigurationStatus = ConfigurationStatus()


class RevisionSpec(PodSpec, frozen=True, kw_only=True):
    """Typed reading of a Revision's spec: a pod spec plus Knative's own fields."""

    container_concurrency: int | None = None
    timeout_seconds: int | None = None
    response_start_timeout_seconds: int | None = None
    idle_timeout_seconds: int | None = None

    def serving_container(self) -> Container:
        """The container with a port, or the only one.

        Raises ValueError when several containers declare no port.
        """
        if len(self.containers) == 1:
            return self.containers[0]
        for container in self.containers:
            if container.ports:
                return container
        raise ValueError("spec.containers: none of several containers declares a port")

    def serving_port(self) -> ContainerPort:
        """The port that requests go to; containerPort defaults to 8080."""
        container = self.serving_container()
        port = container.ports[0] if container.ports else ContainerPort()
        return port if port.container_port else msgspec.structs.replace(port, container_port=8080)


class ContainerImageStatus(Model, frozen=True, kw_only=True):
    name: str = ""
    image_digest: str = ""


class RevisionStatus(Model, frozen=True, kw_only=True):
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerImageStatus, ...] = ()
    init_container_statuses: tuple[ContainerImageStatus, ...] = ()
    log_url: str = ""
    actual_replicas: int | None = None
    desired_replicas: int | None = None


class Revision(Model, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: JsonObject = {}
    status: RevisionStatus = RevisionStatus()

    def view(self) -> RevisionSpec:
        """Typed spec. Raises msgspec.ValidationError on a shape that admission would have refused."""
        return msgspec.convert(self.spec, RevisionSpec)

    @property
    def ready(self) -> bool:
        condition = find_condition(self.status.conditions, "Ready")
        return condition is not None and condition.status == "True"


class RouteSpec(Model, frozen=True, kw_only=True):
    traffic: tuple[TrafficTarget, ...] = ()


class RouteStatus(Model, frozen=True, kw_only=True):
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    url: str = ""
    address: Address | None = None
    traffic: tuple[TrafficTarget, ...] = ()
    annotations: dict[str, str] = {}


class Route(Model, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: RouteSpec = RouteSpec()
    status: RouteStatus = RouteStatus()


class ConfigMap(Model, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    data: dict[str, str] = {}
