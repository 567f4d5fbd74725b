"""Label, annotation, header and finalizer keys, each with who sets it and what it means."""

from typing import Final

SERVING_GROUP: Final = "serving.knative.dev"
AUTOSCALING_GROUP: Final = "autoscaling.knative.dev"
NETWORKING_GROUP: Final = "networking.knative.dev"

# Labels and annotations of serving.knative.dev (see docs/compatibility.md).
SERVICE: Final = "serving.knative.dev/service"
SERVICE_UID: Final = "serving.knative.dev/serviceUID"
CONFIGURATION: Final = "serving.knative.dev/configuration"
CONFIGURATION_UID: Final = "serving.knative.dev/configurationUID"
CONFIGURATION_GENERATION: Final = "serving.knative.dev/configurationGeneration"
REVISION: Final = "serving.knative.dev/revision"
REVISION_UID: Final = "serving.knative.dev/revisionUID"
ROUTE: Final = "serving.knative.dev/route"
ROUTING_STATE: Final = "serving.knative.dev/routingState"
ROUTING_STATE_MODIFIED: Final = "serving.knative.dev/routingStateModified"
ROUTES: Final = "serving.knative.dev/routes"
CREATOR: Final = "serving.knative.dev/creator"
LAST_MODIFIER: Final = "serving.knative.dev/lastModifier"
ROLLOUT_DURATION: Final = "serving.knative.dev/rollout-duration"
PROGRESS_DEADLINE: Final = "serving.knative.dev/progress-deadline"
NO_GC: Final = "serving.knative.dev/no-gc"
VISIBILITY: Final = "networking.knative.dev/visibility"
VISIBILITY_CLUSTER_LOCAL: Final = "cluster-local"
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
SAFE_TO_EVICT: Final = "cluster-autoscaler.kubernetes.io/safe-to-evict"

ROUTE_FINALIZER: Final = "routes.serving.knative.dev"
DOMAIN_MAPPING_FINALIZER: Final = "domainmappings.serving.knative.dev"

# Our own. On a Pod:
DRAINING: Final = "nodeless.dev/draining"
"""RFC 3339 time at which the controller decided to drain the pod. Present = no new request may go to it;
removed again = the drain was cancelled."""
AWAIT_DRAIN: Final = "nodeless.dev/await-drain"
"""On a Pod, `true`: whoever runs it waits with SIGTERM after a deletion until `DRAINED` is set, for at most the
grace period. Set by the pool, so that a deletion that we did not start loses no request either."""
DRAINED: Final = "nodeless.dev/drained"
"""RFC 3339 time at which the controller knew that no gateway has a request in flight on the pod."""
POD_PORT: Final = "nodeless.dev/port"
"""Decimal port on which the pod serves when it differs from the revision's container port (the `process`
sandbox gives each pod a port of its own). Set by the node agent before `status.podIP`."""
STAGES: Final = "nodeless.dev/stages"
"""JSON object of Unix times in seconds (float): when the node agent saw the pod (`seen`), had its network
(`network`), its image mounted (`image`) and its process started (`started`). Set with the first status."""
SANDBOX: Final = "nodeless.dev/sandbox"
"""Rung that runs the pod: kvm, tcg, namespace or process. Set by the node agent."""
POOL_LABEL: Final = "nodeless.dev/pool"
"""On a Node: the pool it offers capacity to, e.g. `local`."""

# Request and response headers.
HEADER_REVISION: Final = "knative-serving-revision"
HEADER_NAMESPACE: Final = "knative-serving-namespace"
HEADER_TAG: Final = "knative-serving-tag"
HEADER_DEFAULT_ROUTE: Final = "knative-serving-default-route"
HEADER_PROXY_REQUEST: Final = "k-proxy-request"
HEADER_ORIGINAL_HOST: Final = "k-original-host"
HEADER_NETWORK_PROBE: Final = "k-network-probe"
HEADER_BUDGET: Final = "nodeless-server-timing"
"""Request header: any value asks for a `Server-Timing` response header on a held request."""
ANNOTATION_BUDGET: Final = "nodeless.dev/server-timing"
"""Template annotation `enabled`: every held request of the revision gets a `Server-Timing` header."""

SYSTEM_NAMESPACE: Final = "knative-serving"
LOCAL_NODE_POOL: Final = "local"
