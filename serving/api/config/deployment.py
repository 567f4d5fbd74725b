"""`config-deployment`: deadlines, digest resolution, runtime classes and the size of Knative's sidecar.

nodeless runs no sidecar; the `queue-sidecar-*` keys are read and checked so that a ConfigMap of upstream stays
valid, and `queue-sidecar-image`, which upstream requires, may be absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import yaml

from serving.api.config.reader import Reader, selector_of
from serving.api.duration import SECOND, format_duration, is_whole_seconds
from serving.api.names import dns1123_subdomain_problems, quote

CONFIG_NAME: Final = "config-deployment"
SPREAD_OVER_NODES: Final = "prefer-spread-revision-over-nodes"
NO_AFFINITY: Final = "none"

_SIDECAR: Final = {
    f"queue-sidecar-{resource}-{kind}": f"queueSidecar{name}{kind.title()}"
    for resource, name in (("cpu", "CPU"), ("memory", "Memory"), ("ephemeral-storage", "EphemeralStorage"))
    for kind in ("request", "limit")
}


class DeploymentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Times are seconds."""

    progress_deadline: float = 600.0
    """> 0, whole: how long a Revision may take to become ready."""
    digest_resolution_timeout: float = 10.0
    """> 0."""
    registries_skipping_tag_resolving: frozenset[str] = frozenset({"kind.local", "ko.local", "dev.local"})
    default_affinity_type: str = SPREAD_OVER_NODES
    runtime_class_names: dict[str, dict[str, str]] = {}
    """RuntimeClass to the labels that a Revision must have."""
    pod_is_always_schedulable: bool = False
    queue_sidecar_image: str = ""
    queue_sidecar_resources: dict[str, str] = msgspec.field(
        default_factory=lambda: {"queue-sidecar-cpu-request": "25m"}
    )
    """Key to quantity."""

    def runtime_class_for(self, labels: Mapping[str, str]) -> str | None:
        """The class with the most matching labels; of equals the one that sorts first."""
        matching = [
            (-len(selector), name)
            for name, selector in self.runtime_class_names.items()
            if all(labels.get(label) == value for label, value in selector.items())
        ]
        return (min(matching)[1] or None) if matching else None


def parse(data: Mapping[str, str]) -> DeploymentConfig:
    """The configuration of a ConfigMap's `data`. Raises ConfigError for the first value that is not allowed."""
    default = DeploymentConfig()
    read = Reader(data)
    deadline = _either(
        read.nanoseconds, "progress-deadline", "progressDeadline", round(default.progress_deadline * SECOND)
    )
    digest = _either(
        read.nanoseconds,
        "digest-resolution-timeout",
        "digestResolutionTimeout",
        round(default.digest_resolution_timeout * SECOND),
    )
    skipping = _either(
        read.names,
        "registries-skipping-tag-resolving",
        "registriesSkippingTagResolving",
        default.registries_skipping_tag_resolving,
    )
    image = read.text("queue-sidecar-image", read.text("queueSidecarImage", ""))
    sidecar = dict(default.queue_sidecar_resources)
    for key, legacy in _SIDECAR.items():
        value = read.quantity(key, read.quantity(legacy, sidecar.get(key)))
        if value is not None:
            sidecar[key] = value
    schedulable = read.flag("pod-is-always-schedulable", default.pod_is_always_schedulable)
    _check(read, data, deadline=deadline, digest=digest, image=image)
    return DeploymentConfig(
        progress_deadline=deadline / SECOND,
        digest_resolution_timeout=digest / SECOND,
        registries_skipping_tag_resolving=skipping,
        default_affinity_type=data.get("default-affinity-type", SPREAD_OVER_NODES),
        runtime_class_names=_runtime_classes(read, data.get("runtime-class-name", "")),
        pod_is_always_schedulable=schedulable,
        queue_sidecar_image=image,
        queue_sidecar_resources=sidecar,
    )


def _either(read: Any, key: str, legacy: str, default: Any) -> Any:
    return read(key, read(legacy, default))


def _check(read: Reader, data: Mapping[str, str], *, deadline: int, digest: int, image: str) -> None:
    if "queue-sidecar-image" in data and not image:
        message = "queue-sidecar-image cannot be empty or unset"
        raise read.refused(message, "queue-sidecar-image", "an image reference, or leave the key out")
    if deadline <= 0:
        message = f"progress-deadline cannot be a non-positive duration, was {format_duration(deadline)}"
        raise read.refused(message, "progress-deadline", "above 0s, whole seconds")
    if not is_whole_seconds(deadline):
        message = f"progress-deadline must be rounded to a whole second, was: {format_duration(deadline)}"
        raise read.refused(message, "progress-deadline", "above 0s, whole seconds")
    if digest <= 0:
        message = f"digest-resolution-timeout cannot be a non-positive duration, was {format_duration(digest)}"
        raise read.refused(message, "digest-resolution-timeout", "above 0s")
    key = "default-affinity-type"
    if data.get(key, NO_AFFINITY) not in (NO_AFFINITY, SPREAD_OVER_NODES):
        message = f"unsupported {key} value: {quote(data[key])}"
        raise read.refused(message, key, f"{NO_AFFINITY} or {SPREAD_OVER_NODES}")


def _runtime_classes(read: Reader, text: str) -> dict[str, dict[str, str]]:
    key, allowed = "runtime-class-name", "YAML: RuntimeClass names, each empty or with `selector:` below it"
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        first = str(error).splitlines()[0]
        message = f"{key} cannot be parsed, please check the format: {first}"
        raise read.refused(message, key, allowed) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        message = f"{key} cannot be parsed, please check the format: expected names with selectors"
        raise read.refused(message, key, allowed)
    classes = {str(name): selector_of(key, text, value) for name, value in document.items()}
    for name in classes:
        problems = dns1123_subdomain_problems(name)
        if problems:
            message = f"{key} {name} selector not valid DNSSubdomain: [{' '.join(problems)}]"
            raise read.refused(message, key, allowed)
    return classes
