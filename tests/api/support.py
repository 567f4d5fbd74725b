"""Reads the golden files and builds configurations from ConfigMap data."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from serving.api.config.store import ApiConfig, with_config_map
from serving.api.meta import JsonObject

TESTDATA = Path(__file__).parent / "testdata"
VERSIONS = {"DomainMapping": "serving.knative.dev/v1beta1"}


@cache
def golden(name: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = yaml.load((TESTDATA / name).read_text(), Loader=yaml.CSafeLoader)
    return cases


def config_of(config_maps: dict[str, dict[str, str]] | None) -> ApiConfig:
    config = ApiConfig()
    for name, data in (config_maps or {}).items():
        config = with_config_map(config, name, data)
    return config


def object_of(kind: str, metadata: JsonObject, spec: Any) -> JsonObject:
    version = VERSIONS.get(kind, "serving.knative.dev/v1")
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def case_object(case: dict[str, Any]) -> JsonObject:
    return object_of(case["kind"], case["metadata"], case["spec"])


def case_old(case: dict[str, Any]) -> JsonObject | None:
    if "oldSpec" not in case:
        return None
    return object_of(case["kind"], case.get("oldMetadata", case["metadata"]), case["oldSpec"])
