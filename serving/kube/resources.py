"""Re-export: the resources are values of the model."""

from serving.api.resources import (
    CONFIG_MAPS as CONFIG_MAPS,
    CONFIGURATIONS as CONFIGURATIONS,
    CRDS as CRDS,
    EVENTS as EVENTS,
    KSERVICES as KSERVICES,
    LEASES as LEASES,
    MUTATING_WEBHOOKS as MUTATING_WEBHOOKS,
    NAMESPACES as NAMESPACES,
    NODES as NODES,
    PODS as PODS,
    REVISIONS as REVISIONS,
    ROUTES as ROUTES,
    SECRETS as SECRETS,
    SERVICES as SERVICES,
    VALIDATING_WEBHOOKS as VALIDATING_WEBHOOKS,
    Resource as Resource,
)
