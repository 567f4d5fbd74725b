"""DomainMapping and ClusterDomainClaim as we read them."""

from __future__ import annotations

from typing import Final

from serving.api.meta import Condition, Model, ObjectMeta
from serving.api.v1 import Address

TARGET_ANNOTATION: Final = "nodeless.dev/target"
"""In `status.annotations` of a DomainMapping: what gateways serve under its name, `<route>` or `<route>/<tag>` in
its namespace. Absent = nothing, because the domain is not claimed or the reference leads nowhere."""


class KReference(Model, frozen=True, kw_only=True):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    api_version: str = ""


class SecretTls(Model, frozen=True, kw_only=True):
    secret_name: str = ""


class DomainMappingSpec(Model, frozen=True, kw_only=True):
    ref: KReference = KReference()
    tls: SecretTls | None = None


class DomainMappingStatus(Model, frozen=True, kw_only=True):
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    url: str = ""
    address: Address | None = None
    annotations: dict[str, str] = {}


class DomainMapping(Model, frozen=True, kw_only=True):
    """Its name is the domain."""

    metadata: ObjectMeta = ObjectMeta()
    spec: DomainMappingSpec = DomainMappingSpec()
    status: DomainMappingStatus = DomainMappingStatus()

    def target(self) -> tuple[str, str] | None:
        """Key of the Route that is served under the domain, and its tag (empty: the Route's own traffic)."""
        text = self.status.annotations.get(TARGET_ANNOTATION, "")
        if not text or self.metadata.deletion_timestamp is not None:
            return None
        route, _, tag = text.partition("/")
        return f"{self.metadata.namespace}/{route}", tag

    @property
    def programmed_key(self) -> str:
        """Under which gateways report it, beside the keys of Routes."""
        return f"domainmapping/{self.metadata.key}"


class ClusterDomainClaimSpec(Model, frozen=True, kw_only=True):
    namespace: str = ""


class ClusterDomainClaim(Model, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: ClusterDomainClaimSpec = ClusterDomainClaimSpec()
