"""`config-defaults`: what a Revision gets where its template says nothing, and the limits of what it may say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from serving.api.config.reader import Reader
from serving.api.config.template import Template, TemplateError, Values, parse_template
from serving.api.meta import JsonObject

CONFIG_NAME: Final = "config-defaults"
MAX_INT32: Final = 2**31 - 1

_CONTAINER_NAME: Final = "container-name-template"
_INIT_CONTAINER_NAME: Final = "init-container-name-template"


class DefaultsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Times are whole seconds; quantities keep their text, None = not set."""

    revision_timeout_seconds: int = 300
    """[…, max_revision_timeout_seconds]."""
    max_revision_timeout_seconds: int = 600
    revision_response_start_timeout_seconds: int = 300
    """Up to revision_timeout_seconds, which is its default. 0 = none."""
    revision_idle_timeout_seconds: int = 0
    """Up to revision_timeout_seconds. 0 = none."""
    container_name: Template = parse_template("user-container", name="container-template")
    init_container_name: Template = parse_template("init-container", name="container-template")
    container_concurrency: int = 0
    """[0, container_concurrency_max_limit]."""
    container_concurrency_max_limit: int = 1000
    """>= 1."""
    allow_container_concurrency_zero: bool = True
    enable_service_links: bool | None = False
    """None: leave it to Kubernetes."""
    cpu_request: str | None = None
    cpu_limit: str | None = None
    memory_request: str | None = None
    memory_limit: str | None = None
    ephemeral_storage_request: str | None = None
    ephemeral_storage_limit: str | None = None

    def user_container_name(self, parent: JsonObject) -> str:
        """Name of an unnamed container below an object with this metadata."""
        return self.container_name.render(_metadata(parent))

    def user_init_container_name(self, parent: JsonObject) -> str:
        return self.init_container_name.render(_metadata(parent))


def parse(data: Mapping[str, str]) -> DefaultsConfig:
    """The configuration of a ConfigMap's `data`. Raises ConfigError for the first value that is not allowed."""
    default = DefaultsConfig()
    read = Reader(data)
    init_container_name = _template(read, data, _INIT_CONTAINER_NAME, default.init_container_name)
    container_name = _template(read, data, _CONTAINER_NAME, default.container_name)
    timeout = read.integer("revision-timeout-seconds", default.revision_timeout_seconds)
    config = DefaultsConfig(
        revision_timeout_seconds=timeout,
        max_revision_timeout_seconds=read.integer(
            "max-revision-timeout-seconds", default.max_revision_timeout_seconds
        ),
        revision_response_start_timeout_seconds=read.integer("revision-response-start-timeout-seconds", timeout),
        revision_idle_timeout_seconds=read.integer(
            "revision-idle-timeout-seconds", default.revision_idle_timeout_seconds
        ),
        container_name=container_name,
        init_container_name=init_container_name,
        container_concurrency=read.integer("container-concurrency", default.container_concurrency),
        container_concurrency_max_limit=read.integer(
            "container-concurrency-max-limit", default.container_concurrency_max_limit
        ),
        allow_container_concurrency_zero=read.flag(
            "allow-container-concurrency-zero", default.allow_container_concurrency_zero
        ),
        enable_service_links=_tri_state(data.get("enable-service-links"), default.enable_service_links),
        cpu_request=read.quantity("revision-cpu-request", None),
        cpu_limit=read.quantity("revision-cpu-limit", None),
        memory_request=read.quantity("revision-memory-request", None),
        memory_limit=read.quantity("revision-memory-limit", None),
        ephemeral_storage_request=read.quantity("revision-ephemeral-storage-request", None),
        ephemeral_storage_limit=read.quantity("revision-ephemeral-storage-limit", None),
    )
    _check_timeouts(config, read)
    _check_concurrency(config, read)
    for key, template in ((_CONTAINER_NAME, container_name), (_INIT_CONTAINER_NAME, init_container_name)):
        try:
            template.render(_metadata({}))
        except TemplateError as error:
            raise read.refused(f"error executing template: {error}", key, _TEMPLATE_ALLOWED) from error
    return config


_TEMPLATE_ALLOWED: Final = "text with {{.Name}}, {{.Namespace}}, {{.Labels.x}} or {{.Annotations.x}}"


def _check_timeouts(config: DefaultsConfig, read: Reader) -> None:
    timeout, longest = config.revision_timeout_seconds, config.max_revision_timeout_seconds
    if timeout > longest:
        raise read.refused(
            f"revision-timeout-seconds ({timeout}) cannot be greater than "
            f"max-revision-timeout-seconds ({longest})",
            "revision-timeout-seconds",
            f"up to {longest}",
        )
    for key, value in (
        ("revision-response-start-timeout-seconds", config.revision_response_start_timeout_seconds),
        ("revision-idle-timeout-seconds", config.revision_idle_timeout_seconds),
    ):
        if value > 0 and value > timeout:
            message = f"{key} ({value}) cannot be greater than revision-timeout-seconds ({timeout})"
            raise read.refused(message, key, f"up to {timeout}")


def _check_concurrency(config: DefaultsConfig, read: Reader) -> None:
    limit, value = config.container_concurrency_max_limit, config.container_concurrency
    if limit < 1:
        key = "container-concurrency-max-limit"
        raise read.refused(f"expected 1 <= {limit} <= {MAX_INT32}: {key}", key, f"1 to {MAX_INT32}")
    if not 0 <= value <= limit:
        key = "container-concurrency"
        raise read.refused(f"expected 0 <= {value} <= {limit}: {key}", key, f"0 to {limit}")


def _tri_state(text: str | None, default: bool | None) -> bool | None:
    if text is None:
        return default
    return {"true": True, "false": False}.get(text.lower())


def _template(read: Reader, data: Mapping[str, str], key: str, default: Template) -> Template:
    if key not in data:
        return default
    try:
        return parse_template(data[key], name="container-template")
    except TemplateError as error:
        raise read.refused(str(error), key, _TEMPLATE_ALLOWED) from error


def _metadata(meta: JsonObject) -> Values:
    return {
        "Name": str(meta.get("name") or ""),
        "GenerateName": str(meta.get("generateName") or ""),
        "Namespace": str(meta.get("namespace") or ""),
        "UID": str(meta.get("uid") or ""),
        "Labels": meta.get("labels") or {},
        "Annotations": meta.get("annotations") or {},
    }
