"""The built-in kinds, as a table.

Some kinds are stored only (Deployments, RBAC, quotas): clients may write and read them, nothing acts on them.
"""

from __future__ import annotations

from serving.local.apiserver.kinds import OBJECT_VERBS, Kind, Scale, Subresource, status_subresource


def _kind(
    group: str,
    version: str,
    kind: str,
    plural: str,
    *short_names: str,
    namespaced: bool = True,
    status: bool = False,
    generation: bool = False,
    categories: tuple[str, ...] = (),
    extra: tuple[Subresource, ...] = (),
    scale: Scale | None = None,
    name_format: str = "subdomain",
    graceful: bool = False,
    create_on_update: bool = False,
    unconditional_update: bool = True,
    patch_status_metadata: bool = False,
    storage: str = "",
    storage_api_version: str = "",
    selectable: tuple[str, ...] = (),
    verbs: tuple[str, ...] | None = None,
) -> Kind:
    api_version = f"{group}/{version}" if group else version
    subs = (*extra, status_subresource(kind)) if status else extra
    built = Kind(
        group=group,
        version=version,
        plural=plural,
        singular=kind.lower(),
        kind=kind,
        list_kind=kind + "List",
        namespaced=namespaced,
        storage=storage or (f"{plural}.{group}" if group else plural),
        storage_api_version=storage_api_version or api_version,
        short_names=short_names,
        categories=categories,
        status=status,
        scale=scale,
        subresources=subs,
        generation=generation,
        name_format=name_format,
        graceful=graceful,
        create_on_update=create_on_update,
        unconditional_update=unconditional_update,
        patch_status_metadata=patch_status_metadata,
        selectable=selectable,
    )
    if verbs is None:
        return built
    return Kind(**{**{f: getattr(built, f) for f in built.__struct_fields__}, "verbs": verbs})


EVENTS_STORAGE = "events"
_STREAM = ("create", "get")
_POD_SUBRESOURCES = (
    Subresource(name="attach", kind="PodAttachOptions", verbs=_STREAM),
    Subresource(name="binding", kind="Binding", verbs=("create",)),
    Subresource(name="eviction", kind="Eviction", verbs=("create",), group="policy", version="v1"),
    Subresource(name="exec", kind="PodExecOptions", verbs=_STREAM),
    Subresource(name="log", kind="Pod", verbs=("get",)),
    Subresource(name="portforward", kind="PodPortForwardOptions", verbs=_STREAM),
)
_SCALE = Subresource(
    name="scale", kind="Scale", verbs=("get", "patch", "update"), group="autoscaling", version="v1"
)
_RBAC = "rbac.authorization.k8s.io"
_ADMISSION = "admissionregistration.k8s.io"
_EVENT_FIELDS = (
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
)
_NEW_EVENT_FIELDS = (
    *(name.replace("involvedObject", "regarding") for name in _EVENT_FIELDS[:7]),
    "reason",
    "reportingController",
    "type",
)
_POD_FIELDS = (
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
)
_CREATE_ONLY = ("create",)

CORE: tuple[Kind, ...] = (
    _kind("", "v1", "ConfigMap", "configmaps", "cm"),
    _kind("", "v1", "Endpoints", "endpoints", "ep"),
    _kind("", "v1", "Event", "events", "ev", selectable=_EVENT_FIELDS),
    _kind("", "v1", "LimitRange", "limitranges", "limits"),
    _kind(
        "",
        "v1",
        "Namespace",
        "namespaces",
        "ns",
        namespaced=False,
        status=True,
        name_format="label",
        selectable=("status.phase",),
        verbs=tuple(verb for verb in OBJECT_VERBS if verb != "deletecollection"),
        extra=(Subresource(name="finalize", kind="Namespace", verbs=("update",)),),
    ),
    _kind(
        "",
        "v1",
        "Node",
        "nodes",
        "no",
        namespaced=False,
        status=True,
        patch_status_metadata=True,
        selectable=("spec.unschedulable",),
    ),
    _kind(
        "",
        "v1",
        "Pod",
        "pods",
        "po",
        status=True,
        generation=True,
        categories=("all",),
        extra=_POD_SUBRESOURCES,
        graceful=True,
        patch_status_metadata=True,
        selectable=_POD_FIELDS,
    ),
    _kind("", "v1", "ResourceQuota", "resourcequotas", "quota", status=True),
    _kind("", "v1", "Secret", "secrets", selectable=("type",)),
    _kind(
        "",
        "v1",
        "ServiceAccount",
        "serviceaccounts",
        "sa",
        extra=(
            Subresource(
                name="token",
                kind="TokenRequest",
                verbs=_CREATE_ONLY,
                group="authentication.k8s.io",
                version="v1",
            ),
        ),
    ),
    _kind(
        "",
        "v1",
        "Service",
        "services",
        "svc",
        status=True,
        categories=("all",),
        name_format="dns1035",
        selectable=("spec.clusterIP", "spec.type"),
    ),
)

NAMED_GROUPS: tuple[Kind, ...] = (
    _kind(
        "apps",
        "v1",
        "Deployment",
        "deployments",
        "deploy",
        status=True,
        generation=True,
        categories=("all",),
        extra=(_SCALE,),
        scale=Scale(
            spec_replicas=".spec.replicas", status_replicas=".status.replicas", label_selector=".spec.selector"
        ),
    ),
    _kind(
        "events.k8s.io",
        "v1",
        "Event",
        "events",
        "ev",
        storage=EVENTS_STORAGE,
        storage_api_version="v1",
        selectable=_NEW_EVENT_FIELDS,
    ),
    _kind("coordination.k8s.io", "v1", "Lease", "leases", create_on_update=True, unconditional_update=False),
    _kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    _kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", status=True, generation=True),
    _kind(_RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False, name_format="path"),
    _kind(_RBAC, "v1", "ClusterRole", "clusterroles", namespaced=False, name_format="path"),
    _kind(_RBAC, "v1", "RoleBinding", "rolebindings", name_format="path"),
    _kind(_RBAC, "v1", "Role", "roles", name_format="path"),
    _kind(
        _ADMISSION,
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        namespaced=False,
        generation=True,
        categories=("api-extensions",),
    ),
    _kind(
        _ADMISSION,
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        namespaced=False,
        generation=True,
        categories=("api-extensions",),
    ),
    _kind(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "crd",
        "crds",
        namespaced=False,
        status=True,
        generation=True,
        categories=("api-extensions",),
    ),
)

REVIEWS: tuple[Kind, ...] = (
    _kind(
        "authentication.k8s.io",
        "v1",
        "SelfSubjectReview",
        "selfsubjectreviews",
        namespaced=False,
        verbs=_CREATE_ONLY,
    ),
    _kind("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", namespaced=False, verbs=_CREATE_ONLY),
    _kind(
        "authorization.k8s.io",
        "v1",
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        verbs=_CREATE_ONLY,
    ),
    _kind(
        "authorization.k8s.io",
        "v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        namespaced=False,
        verbs=_CREATE_ONLY,
    ),
    _kind(
        "authorization.k8s.io",
        "v1",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        namespaced=False,
        verbs=_CREATE_ONLY,
    ),
    _kind(
        "authorization.k8s.io",
        "v1",
        "SubjectAccessReview",
        "subjectaccessreviews",
        namespaced=False,
        verbs=_CREATE_ONLY,
    ),
)

BUILTIN: tuple[Kind, ...] = CORE + NAMED_GROUPS + REVIEWS
CRD_STORAGE = "customresourcedefinitions.apiextensions.k8s.io"
