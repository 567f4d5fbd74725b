"""Events: two groups, one store."""

from __future__ import annotations

from typing import Any, Final

from tests.differential.model import Scenario, Step, get, patch, post, put
from tests.differential.scenarios.bodies import CORE

_EVENTS: Final = f"{CORE}/events"
_NEW: Final = "/apis/events.k8s.io/v1/namespaces/{ns}/events"
_TIME: Final = "2001-01-01T00:00:00Z"
_MICRO: Final = "2001-01-01T00:00:00.000000Z"


def _event(name: str, /, **fields: Any) -> Any:
    about = {"kind": "Pod", "namespace": "{ns}", "name": "p", "apiVersion": "v1"}
    return {
        "metadata": {"name": name},
        "involvedObject": about,
        "reason": "Why",
        "message": "What",
        "type": "Normal",
        "source": {"component": "me"},
        "firstTimestamp": _TIME,
        "lastTimestamp": _TIME,
        "count": 1,
        **fields,
    }


def _new(name: str, /, **fields: Any) -> Any:
    return {
        "metadata": {"name": name},
        "regarding": {"kind": "Pod", "namespace": "{ns}", "name": "p", "apiVersion": "v1"},
        "reason": "Why",
        "note": "What",
        "type": "Normal",
        "action": "Doing",
        "eventTime": _MICRO,
        "reportingController": "x.dev/me",
        "reportingInstance": "me-1",
        **fields,
    }


def _names(body: Any) -> Any:
    return [item["metadata"]["name"] for item in body["items"]] if "items" in body else body


def _fields(selector: str, path: str = _EVENTS) -> Step:
    kind = "new" if path == _NEW else "core"
    return get(f"{kind} {selector}", path, query={"fieldSelector": selector}, view=_names)


SCENARIOS: Final = (
    Scenario(
        name="events",
        steps=(
            post("create", _EVENTS, _event("a")),
            post("create a new one", _NEW, _new("b")),
            get("a as a new one", f"{_NEW}/a"),
            get("b as an old one", f"{_EVENTS}/b"),
            get("both", _EVENTS, view=_names),
            get("both as new ones", _NEW, view=_names),
            post(
                "other namespace",
                _EVENTS,
                _event("c", involvedObject={"kind": "Pod", "namespace": "other", "name": "p"}),
            ),
            post("no object", _EVENTS, {"metadata": {"name": "d"}, "reason": "x"}),
            post(
                "cluster object",
                "/api/v1/namespaces/default/events",
                {
                    "metadata": {"generateName": "diff-"},
                    "involvedObject": {"kind": "Node", "name": "n"},
                    "reason": "x",
                    "source": {"component": "diff"},
                },
            ),
            post("new one without a time", _NEW, _new("e", eventTime=None)),
            post("new one without a controller", _NEW, _new("e", reportingController=None)),
            post("new one without an action", _NEW, _new("e", action=None)),
            post("new one without a reason", _NEW, _new("e", reason=None)),
            post("new one of another type", _NEW, _new("e", type="Bogus")),
            post("series", _NEW, _new("f", series={"count": 2, "lastObservedTime": _MICRO})),
            patch("count", f"{_EVENTS}/a", {"count": 2}),
            put("replace", f"{_EVENTS}/a", _event("a", count=3)),
            patch("count of a new one", f"{_NEW}/b", {"deprecatedCount": 2}),
            patch("series of a new one", f"{_NEW}/b", {"series": {"count": 2, "lastObservedTime": _MICRO}}),
            *map(
                _fields,
                (
                    "involvedObject.name=p",
                    "involvedObject.kind=Pod,reason=Why",
                    "type=Warning",
                    "involvedObject.namespace=",
                    "source=me",
                    "reportingComponent=x.dev/me",
                    "involvedObject.uid=",
                    "reason!=Why",
                    "note=x",
                ),
            ),
            _fields("regarding.name=p", _NEW),
            _fields("reportingController=x.dev/me", _NEW),
            _fields("involvedObject.name=p", _NEW),
        ),
    ),
)
