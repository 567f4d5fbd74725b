"""What is asked: steps in order, as data. The same steps go to the embedded API server and to a real one.

In every string of a step `{ns}` stands for the scenario's namespace and `${name.path.to.value}` for a value of an
earlier answer that was kept under `save=name`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

JSON: Final = "application/json"
YAML: Final = "application/yaml"
JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"
TABLE: Final = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL: Final = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST: Final = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"

View = Callable[[Any], Any]
"""Projection of the body of a successful answer, where only a part is compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One request. `body`: JSON value, or text sent as it is. `media` None sends no Content-Type."""

    id: str
    method: str
    path: str
    body: Any = None
    query: Mapping[str, str] = field(default_factory=dict)
    media: str | None = JSON
    accept: str = JSON
    save: str = ""
    view: View | None = None
    terse: bool = False
    """Of a refusal only status and reason: the rest shows a name that was generated."""
    until: int = 0
    """Repeat until the answer has this status, for what the servers do in the background; 0 = ask once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWatch:
    """Starts a watch under a name."""

    id: str
    name: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    accept: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadWatch:
    """Reads events of a watch; `count` None = until the server ends it. `ordered` False sorts them by name."""

    id: str
    name: str
    count: int | None = None
    ordered: bool = True


AnyStep = Step | OpenWatch | ReadWatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Steps that share a namespace. `ownership` compares managedFields too."""

    name: str
    steps: tuple[AnyStep, ...]
    ownership: bool = False


def get(id: str, path: str, **more: Any) -> Step:
    return Step(id=id, method="GET", path=path, **more)


def post(id: str, path: str, body: Any, **more: Any) -> Step:
    return Step(id=id, method="POST", path=path, body=body, **more)


def put(id: str, path: str, body: Any, **more: Any) -> Step:
    return Step(id=id, method="PUT", path=path, body=body, **more)


def patch(id: str, path: str, body: Any, media: str = MERGE_PATCH, **more: Any) -> Step:
    return Step(id=id, method="PATCH", path=path, body=body, media=media, **more)


def apply(id: str, path: str, body: Any, manager: str = "one", **query: str) -> Step:
    """Server-side apply."""
    return Step(
        id=id,
        method="PATCH",
        path=path,
        body=body,
        media=APPLY_PATCH,
        query={"fieldManager": manager, **query},
    )


def delete(id: str, path: str, body: Any = None, **more: Any) -> Step:
    return Step(id=id, method="DELETE", path=path, body=body, **more)
