"""Field validation: what is unknown or given twice is ignored, warned of, or refused."""

from __future__ import annotations

from typing import Any, Final

from tests.differential.model import JSON_PATCH, STRATEGIC_PATCH, Scenario, Step, patch, post, put
from tests.differential.scenarios.bodies import (
    CONFIG_MAPS,
    PODS,
    config_map,
    gadget,
    gadgets,
    pod,
    with_definition,
)

_G: Final = gadgets("strictnesses")
_MODES: Final = ("Strict", "Warn", "Ignore", "")


def _each(id: str, make: Any) -> tuple[Step, ...]:
    """The same request under each mode; `make(id, query)`."""
    return tuple(make(f"{id} {mode or 'default'}", {"fieldValidation": mode} if mode else {}) for mode in _MODES)


_UNKNOWN: Final = {
    **config_map("a", {"k": "v"}),
    "bogus": 1,
    "metadata": {"name": "a", "bogus": {"x": 1}, "labels": {"l": "1"}},
}
_TWICE: Final = '{"metadata": {"name": "a", "name": "b"}, "data": {"k": "1", "k": "2"}}'
_DRY: Final = {"dryRun": "All"}
_POD: Final = pod(
    "p",
    bogus=1,
    containers=[{"name": "c", "image": "i", "imagePullPolice": "x", "ports": [{"containerPort": 80, "bogus": 1}]}],
)
_GADGET: Final = {
    **gadget(
        "Strictness",
        "g",
        bogus=1,
        nested={"must": "a", "bogus": 1},
        parts=[{"name": "a", "bogus": 1}],
        free={"ok": 1},
    ),
    "other": 1,
}
_GADGET_TWICE: Final = (
    '{"apiVersion": "diff.example.dev/v1", "kind": "Strictness", "metadata": {"name": "g"}, '
    '"spec": {"size": 1, "size": 2, "free": {"a": 1, "a": 2}}}'
)


SCENARIOS: Final = (
    Scenario(
        name="field validation",
        steps=(
            *_each("unknown", lambda id, query: post(id, CONFIG_MAPS, _UNKNOWN, query=query | _DRY)),
            *_each("twice", lambda id, query: post(id, CONFIG_MAPS, _TWICE, query=query | _DRY)),
            *_each(
                "unknown in a pod",
                lambda id, query: post(
                    id, PODS, _POD, query=query | _DRY, view=lambda body: body.get("message", body.get("kind"))
                ),
            ),
            *_each(
                "yaml twice",
                lambda id, query: post(
                    id,
                    CONFIG_MAPS,
                    "metadata:\n  name: a\ndata:\n  k: '1'\n  k: '2'\n",
                    media="application/yaml",
                    query=query | _DRY,
                ),
            ),
            post("unknown mode", CONFIG_MAPS, config_map("a"), query={"fieldValidation": "Bogus"}),
            post("create", CONFIG_MAPS, config_map("a", {"k": "v"})),
            *_each("replace", lambda id, query: put(id, f"{CONFIG_MAPS}/a", _UNKNOWN, query=query | _DRY)),
            *_each(
                "merge patch",
                lambda id, query: patch(
                    id, f"{CONFIG_MAPS}/a", {"bogus": 1, "metadata": {"other": 2}}, query=query | _DRY
                ),
            ),
            *_each(
                "merge patch twice",
                lambda id, query: patch(
                    id, f"{CONFIG_MAPS}/a", '{"data": {"k": "1", "k": "2"}}', query=query | _DRY
                ),
            ),
            *_each(
                "json patch",
                lambda id, query: patch(
                    id,
                    f"{CONFIG_MAPS}/a",
                    [{"op": "add", "path": "/bogus", "value": 1}],
                    JSON_PATCH,
                    query=query | _DRY,
                ),
            ),
            *_each(
                "json patch of unknown",
                lambda id, query: patch(
                    id,
                    f"{CONFIG_MAPS}/a",
                    [{"op": "add", "path": "/data/x", "value": "1", "bogus": 1}],
                    JSON_PATCH,
                    query=query | _DRY,
                ),
            ),
            *_each(
                "strategic patch",
                lambda id, query: patch(id, f"{CONFIG_MAPS}/a", {"bogus": 1}, STRATEGIC_PATCH, query=query | _DRY),
            ),
            post(
                "letter case",
                CONFIG_MAPS,
                {"Metadata": {"name": "c"}, "Data": {"k": "v"}},
                query={"fieldValidation": "Strict"},
            ),
        ),
    ),
    Scenario(
        name="field validation of custom objects",
        steps=with_definition(
            "strictnesses",
            "Strictness",
            *_each("unknown", lambda id, query: post(id, _G, _GADGET, query=query | _DRY)),
            *_each("twice", lambda id, query: post(id, _G, _GADGET_TWICE, query=query | _DRY)),
            *_each(
                "unknown metadata",
                lambda id, query: post(
                    id,
                    _G,
                    {**gadget("Strictness", "g"), "metadata": {"name": "g", "bogus": 1}},
                    query=query | _DRY,
                ),
            ),
            post("create", _G, gadget("Strictness", "g")),
            *_each(
                "merge patch", lambda id, query: patch(id, f"{_G}/g", {"spec": {"bogus": 1}}, query=query | _DRY)
            ),
            *_each(
                "json patch",
                lambda id, query: patch(
                    id,
                    f"{_G}/g",
                    [{"op": "add", "path": "/spec/bogus", "value": 1}],
                    JSON_PATCH,
                    query=query | _DRY,
                ),
            ),
            *_each(
                "status",
                lambda id, query: patch(id, f"{_G}/g/status", {"status": {"bogus": 1}}, query=query | _DRY),
            ),
        ),
    ),
)
