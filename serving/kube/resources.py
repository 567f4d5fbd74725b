"""Re-export: the resources are values of the model."""

from serving.api.resources import (
    CONFIG_MAPS,
    CONFIGURATIONS,
    CRDS,
    EVENTS,
    KSERVICES,
    LEASES,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    NODES,
    PODS,
    REVISIONS,
    ROUTES,
    SECRETS,
    SERVICES,
    VALIDATING_WEBHOOKS,
    Resource,
)

__all__ = [
    "CONFIGURATIONS",
    "CONFIG_MAPS",
    "CRDS",
    "EVENTS",
    "KSERVICES",
    "LEASES",
    "MUTATING_WEBHOOKS",
    "NAMESPACES",
    "NODES",
    "PODS",
    "REVISIONS",
    "ROUTES",
    "SECRETS",
    "SERVICES",
    "VALIDATING_WEBHOOKS",
    "Resource",
]
