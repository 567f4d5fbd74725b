"""Tables of Knative's kinds and ClusterDomainClaim, `spec` and `status`."""

from __future__ import annotations

from typing import Final

from serving.api.schema.core import OBJECT_META, POD_SPEC
from serving.api.schema.nodes import (
    BOOL,
    INT32,
    INT64,
    STRING,
    URL,
    Array,
    Dictionary,
    Field,
    Node,
    Scalar,
    Special,
    Struct,
    described,
    inline,
    pointer,
    struct,
)

CONDITION = struct(
    "apis.Condition",
    type=described(Scalar("string", "apis.ConditionType"), "Type of condition."),
    status=described(Scalar("string", "v1.ConditionStatus"), "True, False or Unknown."),
    severity=described(Scalar("string", "apis.ConditionSeverity"), "How to treat a failure; empty means error."),
    lastTransitionTime=described(Special("time"), "When the condition last changed."),
    reason=described(STRING, "Why, as one word."),
    message=described(STRING, "Why, for people."),
    required=("status", "type"),
)
DUCK_STATUS = struct(
    "v1.Status",
    observedGeneration=described(INT64, "Generation of the spec that the status describes."),
    conditions=described(Array(CONDITION, go="v1.Conditions"), "Current state, one entry per aspect."),
    annotations=described(Dictionary(STRING), "Further facts from the controller."),
)
ADDRESSABLE = struct(
    "v1.Addressable",
    name=pointer(STRING),
    url=pointer(URL),
    CACerts=pointer(STRING),
    audience=pointer(STRING),
)
TRAFFIC_TARGET = struct(
    "v1.TrafficTarget",
    tag=described(STRING, "Gives the target a host of its own."),
    revisionName=described(STRING, "Revision to send to; excludes configurationName."),
    configurationName=described(STRING, "Configuration whose latest ready Revision to send to."),
    latestRevision=described(pointer(BOOL), "True: follow the latest ready Revision."),
    percent=described(pointer(INT64), "Share of the traffic; all shares sum to 100."),
    url=described(pointer(URL, go="URL"), "URL of the tag; only in status."),
)
TRAFFIC = Array(TRAFFIC_TARGET)

REVISION_SPEC = struct(
    "v1.RevisionSpec",
    inline("PodSpec", POD_SPEC),
    containerConcurrency=described(pointer(INT64), "Requests in flight per pod; 0 is unlimited."),
    timeoutSeconds=described(pointer(INT64), "Longest time to wait for the first byte of an answer."),
    responseStartTimeoutSeconds=described(pointer(INT64), "Longest time to wait for any byte of an answer."),
    idleTimeoutSeconds=described(pointer(INT64), "Longest time without any byte of an answer."),
    required=("containers",),
)
REVISION_TEMPLATE = struct(
    "v1.RevisionTemplateSpec", metadata=Field(OBJECT_META, go="ObjectMeta"), spec=REVISION_SPEC
)
CONFIGURATION_SPEC = struct(
    "v1.ConfigurationSpec",
    template=described(REVISION_TEMPLATE, "The Revision to create; each change creates another one."),
)
ROUTE_SPEC = struct("v1.RouteSpec", traffic=described(TRAFFIC, "Which Revisions get which share of the traffic."))
SERVICE_SPEC = struct(
    "v1.ServiceSpec",
    inline("ConfigurationSpec", CONFIGURATION_SPEC),
    inline("RouteSpec", ROUTE_SPEC),
)

CONFIGURATION_STATUS_FIELDS = struct(
    "v1.ConfigurationStatusFields",
    latestReadyRevisionName=described(STRING, "Latest Revision that became ready."),
    latestCreatedRevisionName=described(STRING, "Latest Revision that was created."),
)
ROUTE_STATUS_FIELDS = struct(
    "v1.RouteStatusFields",
    url=described(pointer(URL, go="URL"), "Where the service answers."),
    address=described(pointer(ADDRESSABLE), "Where it answers inside the cluster."),
    traffic=described(TRAFFIC, "Traffic as it is assigned now."),
)
CONTAINER_STATUS = struct("v1.ContainerStatus", name=STRING, imageDigest=STRING)
REVISION_STATUS = struct(
    "v1.RevisionStatus",
    inline("Status", DUCK_STATUS),
    logUrl=described(Field(STRING, go="LogURL"), "Where the Revision's logs are found."),
    containerStatuses=described(Array(CONTAINER_STATUS), "Images that run, by digest."),
    initContainerStatuses=described(Array(CONTAINER_STATUS), "Images of init containers, by digest."),
    actualReplicas=described(pointer(INT32), "Pods that run."),
    desiredReplicas=described(pointer(INT32), "Pods that the autoscaler wants."),
)
CONFIGURATION_STATUS = struct(
    "v1.ConfigurationStatus",
    inline("Status", DUCK_STATUS),
    inline("ConfigurationStatusFields", CONFIGURATION_STATUS_FIELDS),
)
ROUTE_STATUS = struct(
    "v1.RouteStatus", inline("Status", DUCK_STATUS), inline("RouteStatusFields", ROUTE_STATUS_FIELDS)
)
SERVICE_STATUS = struct(
    "v1.ServiceStatus",
    inline("Status", DUCK_STATUS),
    inline("ConfigurationStatusFields", CONFIGURATION_STATUS_FIELDS),
    inline("RouteStatusFields", ROUTE_STATUS_FIELDS),
)
K_REFERENCE = struct(
    "v1.KReference",
    kind=STRING,
    namespace=STRING,
    name=STRING,
    apiVersion=STRING,
    group=STRING,
    address=pointer(STRING),
    required=("kind", "name"),
)
DOMAIN_MAPPING_SPEC = struct(
    "v1beta1.DomainMappingSpec",
    ref=described(K_REFERENCE, "What the domain maps to: a Service, a Route or a Kubernetes Service."),
    tls=described(
        pointer(struct("v1beta1.SecretTLS", secretName=STRING, required=("secretName",)), go="TLS"),
        "An existing certificate for the domain.",
    ),
    required=("ref",),
)
DOMAIN_MAPPING_STATUS = struct(
    "v1beta1.DomainMappingStatus",
    inline("Status", DUCK_STATUS),
    url=described(pointer(URL, go="URL"), "Where the domain answers."),
    address=described(pointer(ADDRESSABLE), "Where it answers inside the cluster."),
)
DOMAIN_CLAIM_SPEC = struct(
    "v1alpha1.ClusterDomainClaimSpec",
    namespace=described(STRING, "Namespace that may map this domain."),
    required=("namespace",),
)


def _kind(go: str, about: str, spec: Node, status: Node | None = None) -> Struct:
    fields: dict[str, Field] = {
        "kind": Field(STRING),
        "apiVersion": Field(STRING),
        "metadata": Field(OBJECT_META),
        "spec": Field(spec),
    }
    if status is not None:
        fields["status"] = Field(status)
    return Struct(go, fields, about=about)


KINDS: Final = {
    "Service": _kind(
        "v1.Service", "One network service: a Configuration and a Route.", SERVICE_SPEC, SERVICE_STATUS
    ),
    "Configuration": _kind(
        "v1.Configuration",
        "The latest wanted code and settings; each change is kept as a Revision.",
        CONFIGURATION_SPEC,
        CONFIGURATION_STATUS,
    ),
    "Revision": _kind(
        "v1.Revision", "One immutable version of code and settings.", REVISION_SPEC, REVISION_STATUS
    ),
    "Route": _kind("v1.Route", "Hosts, and the Revisions behind them.", ROUTE_SPEC, ROUTE_STATUS),
    "DomainMapping": _kind(
        "v1beta1.DomainMapping",
        "A domain of one's own for a Service.",
        DOMAIN_MAPPING_SPEC,
        DOMAIN_MAPPING_STATUS,
    ),
    "ClusterDomainClaim": _kind(
        "v1alpha1.ClusterDomainClaim", "Reserves a domain for one namespace.", DOMAIN_CLAIM_SPEC
    ),
}
"""Root table of each kind."""
