"""`config-network`: host templates, TLS, HTTP redirect, rollouts, domain claims."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import yaml

from serving.api.config.reader import Reader
from serving.api.config.template import Template, TemplateError, Values, parse_template
from serving.api.names import quote

CONFIG_NAME: Final = "config-network"
DEFAULT_DOMAIN_TEMPLATE: Final = "{{.Name}}.{{.Namespace}}.{{.Domain}}"
DEFAULT_TAG_TEMPLATE: Final = "{{.Tag}}-{{.Name}}"
HTTP_ENABLED: Final = "enabled"
HTTP_DISABLED: Final = "disabled"
HTTP_REDIRECTED: Final = "redirected"

_MESH_MODES: Final = ("enabled", "disabled", "auto")


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True):
    ingress_class: str = "istio.ingress.networking.knative.dev"
    certificate_class: str = "cert-manager.certificate.networking.knative.dev"
    domain_template: Template = parse_template(DEFAULT_DOMAIN_TEMPLATE, name="domain-template")
    """Name, Namespace, Domain, Annotations, Labels to the host of a Route."""
    tag_template: Template = parse_template(DEFAULT_TAG_TEMPLATE, name="tag-template")
    """Name, Tag to the Name of a tag's host."""
    external_domain_tls: bool = False
    cluster_local_domain_tls: bool = False
    system_internal_tls: bool = False
    http_protocol: str = HTTP_ENABLED
    """enabled, disabled or redirected."""
    rollout_duration: int = 0
    """Seconds, >= 0."""
    autocreate_cluster_domain_claims: bool = False
    enable_mesh_pod_addressability: bool = False
    mesh_compatibility_mode: str = "auto"
    default_external_scheme: str = "http"
    namespace_wildcard_cert_selector: dict[str, Any] | None = None


def parse(data: Mapping[str, str]) -> NetworkConfig:
    """The configuration of a ConfigMap's `data`; upstream's old camelCase keys count where the new is absent.

    Raises ConfigError for the first value that is not allowed.
    """
    data = _with_current_keys(data)
    default = NetworkConfig()
    read = Reader(data)
    domain_template = read.text("domain-template", DEFAULT_DOMAIN_TEMPLATE)
    tag_template = read.text("tag-template", DEFAULT_TAG_TEMPLATE)
    rollout = read.integer("rollout-duration", default.rollout_duration)
    claims = read.flag("autocreate-cluster-domain-claims", default.autocreate_cluster_domain_claims)
    mesh = read.flag("enable-mesh-pod-addressability", default.enable_mesh_pod_addressability)
    internal = read.flag("internal-encryption", False)
    selector = _selector(read, data)
    if rollout < 0:
        message = f"rollout-duration must be a positive integer, but was {rollout}"
        raise read.refused(message, "rollout-duration", "0 or more seconds")
    return NetworkConfig(
        ingress_class=read.text("ingress-class", default.ingress_class),
        certificate_class=read.text("certificate-class", default.certificate_class),
        domain_template=_domain_template(read, domain_template),
        tag_template=_tag_template(read, tag_template),
        external_domain_tls=data.get("external-domain-tls", data.get("auto-tls", "")).lower() == "enabled",
        http_protocol=_http_protocol(read, data),
        system_internal_tls=_tls(read, data, "system-internal-tls", default=internal),
        cluster_local_domain_tls=_tls(read, data, "cluster-local-domain-tls", default=False),
        rollout_duration=rollout,
        autocreate_cluster_domain_claims=claims,
        enable_mesh_pod_addressability=mesh,
        mesh_compatibility_mode=read.choice("mesh-compatibility-mode", "auto", _MESH_MODES),
        default_external_scheme=read.text("default-external-scheme", default.default_external_scheme),
        namespace_wildcard_cert_selector=selector,
    )


_LEGACY_KEYS: Final = {
    "ingress-class": "ingress.class",
    "certificate-class": "certificate.class",
    "domain-template": "domainTemplate",
    "tag-template": "tagTemplate",
    "rollout-duration": "rolloutDuration",
    "autocreate-cluster-domain-claims": "autocreateClusterDomainClaims",
    "default-external-scheme": "defaultExternalScheme",
    "auto-tls": "autoTLS",
    "http-protocol": "httpProtocol",
}


def _with_current_keys(data: Mapping[str, str]) -> dict[str, str]:
    current = dict(data)
    for key, legacy in _LEGACY_KEYS.items():
        if key not in current and legacy in current:
            current[key] = current[legacy]
    return current


def _domain_template(read: Reader, text: str) -> Template:
    key = "domain-template"
    allowed = "text with {{.Name}}, {{.Namespace}}, {{.Domain}}, {{.Annotations.x}} or {{.Labels.x}}, a host"
    sample: Values = {"Name": "foo", "Namespace": "bar", "Domain": "baz.com", "Annotations": {}, "Labels": {}}
    try:
        template = parse_template(text, name=key)
        host = template.render(sample)
    except TemplateError as error:
        raise read.refused(str(error), key, allowed) from error
    bad = re.search(r"[\x00-\x20\x7f{}|\\^`%]", host.partition("/")[0])
    if bad:
        message = f"parse {quote('https://' + host)}: invalid character {quote(bad[0])} in host name"
        raise read.refused(message, key, allowed)
    name, slash, path = host.partition("/")
    if not name.partition(":")[0]:
        raise read.refused("empty hostname", key, allowed)
    if slash and path:
        raise read.refused(f"domain template has url path: /{path}", key, allowed)
    return template


def _tag_template(read: Reader, text: str) -> Template:
    try:
        template = parse_template(text, name="tag-template")
        template.render({"Name": "foo", "Tag": "v2"})
    except TemplateError as error:
        raise read.refused(str(error), "tag-template", "text with {{.Name}} and {{.Tag}}") from error
    return template


def _http_protocol(read: Reader, data: Mapping[str, str]) -> str:
    value = data.get("http-protocol", "").lower()
    if value not in ("", HTTP_ENABLED, HTTP_DISABLED, HTTP_REDIRECTED):
        given = data.get("http-protocol", "")
        message = f"httpProtocol {given} in config-network ConfigMap is not supported"
        raise read.refused(message, "http-protocol", "enabled or redirected")
    return value or HTTP_ENABLED


def _tls(read: Reader, data: Mapping[str, str], key: str, *, default: bool) -> bool:
    value = data.get(key, "").lower()
    if value in ("", "disabled"):
        return default
    if value == "enabled":
        return True
    message = f"{key} with value: {quote(data[key])} in config-network ConfigMap is not supported"
    raise read.refused(message, key, "enabled or disabled")


def _selector(read: Reader, data: Mapping[str, str]) -> dict[str, Any] | None:
    key = "namespace-wildcard-cert-selector"
    text = data.get(key, "")
    if not text:
        return None
    try:
        selector = yaml.safe_load(text)
    except yaml.YAMLError as error:
        first = str(error).splitlines()[0]
        message = f"error converting YAML to JSON: {key}: {first}"
        raise read.refused(message, key, "a label selector in YAML") from error
    if selector is not None and not isinstance(selector, dict):
        raise read.refused(f"{key} must be a label selector, was: {text}", key, "a label selector in YAML")
    return selector
