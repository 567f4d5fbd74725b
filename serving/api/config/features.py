"""`config-features`: which optional fields and behaviours users may have.

A flag is Enabled, Disabled or Allowed, in any case; an unknown value keeps the default silently, as upstream's
does, so that a newer ConfigMap does not stop an older release.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from serving.api.config.reader import Reader

CONFIG_NAME: Final = "config-features"
ENABLED: Final = "Enabled"
DISABLED: Final = "Disabled"
ALLOWED: Final = "Allowed"
ALLOW_ROOT_BOUNDED: Final = "AllowRootBounded"

_FLAG: Final = (ENABLED, ALLOWED, DISABLED)
_SECURE_POD_DEFAULTS: Final = (DISABLED, ALLOW_ROOT_BOUNDED, ENABLED)


class FeaturesConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One field per flag; the fields `podspec_*` gate the pod spec's field of that name."""

    multi_container: str = ENABLED
    multi_container_probing: str = DISABLED
    autodetect_http2: str = DISABLED
    domainmapping_direct_route_traffic: str = DISABLED
    """Enabled: applications behind a DomainMapping see its host, not that of the Service."""
    tag_header_based_routing: str = DISABLED
    secure_pod_defaults: str = DISABLED
    """Disabled, AllowRootBounded or Enabled."""
    queueproxy_mount_podinfo: str = DISABLED
    queueproxy_resource_defaults: str = DISABLED
    containerspec_addcapabilities: str = DISABLED
    podspec_affinity: str = DISABLED
    podspec_topologyspreadconstraints: str = DISABLED
    podspec_hostaliases: str = DISABLED
    podspec_nodeselector: str = DISABLED
    podspec_tolerations: str = DISABLED
    podspec_fieldref: str = DISABLED
    podspec_runtimeclassname: str = DISABLED
    podspec_dnspolicy: str = DISABLED
    podspec_dnsconfig: str = DISABLED
    podspec_securitycontext: str = DISABLED
    podspec_shareprocessnamespace: str = DISABLED
    podspec_hostipc: str = DISABLED
    podspec_hostpid: str = DISABLED
    podspec_hostnetwork: str = DISABLED
    podspec_priorityclassname: str = DISABLED
    podspec_schedulername: str = DISABLED
    podspec_init_containers: str = DISABLED
    podspec_persistent_volume_claim: str = DISABLED
    podspec_persistent_volume_write: str = DISABLED
    podspec_volumes_emptydir: str = ENABLED
    podspec_volumes_hostpath: str = DISABLED
    podspec_volumes_csi: str = DISABLED
    podspec_volumes_ephemeral: str = DISABLED
    podspec_volumes_image: str = DISABLED
    podspec_volumes_mount_propagation: str = DISABLED

    @property
    def secures_pods(self) -> bool:
        return self.secure_pod_defaults in (ENABLED, ALLOW_ROOT_BOUNDED)


_UNPREFIXED: Final = {
    "multi_container": "multi-container",
    "multi_container_probing": "multi-container-probing",
    "autodetect_http2": "autodetect-http2",
    "domainmapping_direct_route_traffic": "domainmapping-direct-route-traffic",
    "tag_header_based_routing": "tag-header-based-routing",
    "secure_pod_defaults": "secure-pod-defaults",
    "queueproxy_mount_podinfo": "queueproxy.mount-podinfo",
    "queueproxy_resource_defaults": "queueproxy.resource-defaults",
}
KEYS: Final = {
    name: _UNPREFIXED.get(name) or "kubernetes." + name.replace("_", "-")
    for name in FeaturesConfig.__struct_fields__
}
"""Field of FeaturesConfig to key of the ConfigMap."""


def parse(data: Mapping[str, str]) -> FeaturesConfig:
    """The flags of a ConfigMap's `data`; never refuses."""
    default = FeaturesConfig()
    read = Reader(data)
    flags = {}
    for name, key in KEYS.items():
        allowed = _SECURE_POD_DEFAULTS if name == "secure_pod_defaults" else _FLAG
        flags[name] = read.choice(key, getattr(default, name), allowed)
    return FeaturesConfig(**flags)
