"""Kubernetes' own Service, as far as we read it: placeholders of Routes, and what a DomainMapping may name."""

from __future__ import annotations

from serving.api.meta import Model, ObjectMeta


class KubeServicePort(Model, frozen=True, kw_only=True):
    name: str = ""
    port: int = 0
    app_protocol: str = ""


class KubeServiceSpec(Model, frozen=True, kw_only=True):
    type: str = ""
    external_name: str = ""
    ports: tuple[KubeServicePort, ...] = ()


class KubeService(Model, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: KubeServiceSpec = KubeServiceSpec()
