"""hypothesis strategies for objects of the kinds: well-typed ones from the tables, and any JSON at all."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

from serving.api.schema.kinds import KINDS
from serving.api.schema.nodes import Array, Dictionary, Node, Opaque, Scalar, Struct

KINDS_UNDER_TEST: Final = ["Service", "Configuration", "Revision", "Route", "DomainMapping"]

WORDS: Final = st.sampled_from(
    [
        "",
        "svc",
        "svc-1",
        "Bad_Name",
        "a.b",
        "busybox",
        "h2c",
        "http",
        "PORT",
        "/data",
        "/",
        "TCP",
        "user-container",
    ]
)
TEXTS: Final = WORDS | st.text(max_size=6)
NUMBERS: Final = st.sampled_from([0, 1, -1, 50, 100, 300, 601, 8012, 8080, 65536])
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ANNOTATIONS: Final = st.dictionaries(
    st.sampled_from(
        [
            "autoscaling.knative.dev/min-scale",
            "autoscaling.knative.dev/max-scale",
            "autoscaling.knative.dev/window",
            "autoscaling.knative.dev/target",
            "serving.knative.dev/rollout-duration",
            "serving.knative.dev/progress-deadline",
            "queue.sidecar.serving.knative.dev/cpu-resource-request",
            "networking.knative.dev/x",
        ]
    )
    | st.text(max_size=5),
    st.sampled_from(["0", "1", "-1", "10s", "1h", "x", ""]) | st.text(max_size=5),
    max_size=3,
)


def objects(kind: str) -> st.SearchStrategy[Any]:
    """Objects of the right types, most of them not valid."""
    table = KINDS[kind]
    fields = {key: table.fields[key] for key in ("metadata", "spec")}
    parts = {key: value_of(item.node, 0) for key, item in fields.items()}
    return st.fixed_dictionaries({"kind": st.just(kind), **parts})


def value_of(node: Node, depth: int) -> st.SearchStrategy[Any]:
    if isinstance(node, Struct):
        optional = {key: _field(key, item.node, depth) for key, item in node.fields.items()}
        likely = [key for key in ("template", "spec", "containers", "traffic", "name", "image") if key in optional]
        required: dict[str, st.SearchStrategy[Any]] = {key: optional.pop(key) for key in likely}
        return _some_of(required, optional)
    if isinstance(node, Array):
        return st.lists(value_of(node.item, depth + 1), max_size=2)
    if isinstance(node, Dictionary):
        return st.dictionaries(TEXTS, value_of(node.value, depth + 1), max_size=2)
    if isinstance(node, Opaque):
        return st.just({})
    if isinstance(node, Scalar):
        return {"string": TEXTS, "bool": st.booleans()}.get(node.kind, NUMBERS)
    return {
        "quantity": st.sampled_from(["1", "100m", "1Gi", 2]),
        "time": st.just("2026-01-01T00:00:00Z"),
        "int-or-string": st.sampled_from([0, 80, "http", ""]),
        "url": st.sampled_from(["", "http://x"]),
    }[node.kind]


def _field(key: str, node: Node, depth: int) -> st.SearchStrategy[Any]:
    return ANNOTATIONS if key == "annotations" else value_of(node, depth + 1)


@st.composite
def _some_of(
    draw: st.DrawFn, required: dict[str, st.SearchStrategy[Any]], optional: dict[str, st.SearchStrategy[Any]]
) -> dict[str, Any]:
    """All of `required` but seldom one, and few of `optional`: an object with every field says little."""
    out = {key: draw(strategy) for key, strategy in required.items() if draw(st.integers(0, 7))}
    for key in draw(st.lists(st.sampled_from(sorted(optional)), max_size=2, unique=True)) if optional else ():
        out[key] = draw(optional[key])
    return out
