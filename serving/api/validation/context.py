"""What rules for a pod spec depend on: the cluster's configuration and where a container stands."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from serving.api.config.defaults import DefaultsConfig
from serving.api.config.features import FeaturesConfig
from serving.api.errors import FieldError, disallowed_fields
from serving.api.meta import JsonObject
from serving.api.schema.nodes import Struct, is_set


class Role(Enum):
    SERVING = "serving"
    SIDECAR = "sidecar"
    INIT = "init"


@dataclass(frozen=True, slots=True)
class PodRules:
    features: FeaturesConfig
    defaults: DefaultsConfig


def only_fields(table: Struct, value: JsonObject, allowed: Collection[str]) -> list[FieldError]:
    """One finding that lists every field which is set and not allowed; none if there is no such field."""
    fields = table.fields
    bad = [
        key for key, inner in value.items() if key in fields and key not in allowed and is_set(fields[key], inner)
    ]
    return [disallowed_fields(*sorted(bad))] if bad else []
