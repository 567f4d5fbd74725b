"""Tables: JSONPath, ages, the cells of built-in kinds and of definitions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from serving.api.meta import JsonObject
from serving.local.apiserver import table
from serving.local.apiserver.columns import PRINTERS
from serving.local.apiserver.columns_pod import pod_cells, pod_status
from serving.local.apiserver.durations import age, human
from serving.local.apiserver.jsonpath import PathError, compile_path, first, matches
from tests.local.apiserver.objects import POD, WIDGET, pod, widget

NOW = datetime(2026, 11, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (0.4, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (600, "10m"),
        (10_799, "179m"),
        (10_800, "3h"),
        (11_000, "3h3m"),
        (28_800, "8h"),
        (172_800, "2d"),
        (180_000, "2d2h"),
        (700_000, "8d"),
        (63_158_400, "2y1d"),
        (9 * 31_536_000, "9y"),
    ],
)
def test_human_durations(seconds: float, text: str) -> None:
    assert human(seconds) == text


def test_ages() -> None:
    assert age("2026-11-01T11:59:30Z", NOW) == "30s"
    assert age(None, NOW) == age("yesterday", NOW) == "<unknown>"


OBJ: JsonObject = {
    "metadata": {"labels": {"serving.knative.dev/service": "s"}},
    "status": {
        "conditions": [{"type": "A", "status": "False"}, {"type": "Ready", "status": "True", "n": 1}],
        "url": "u",
        "on": True,
    },
    "items": [{"n": 1}, {"n": 2}],
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (".status.url", ["u"]),
        ("{.status.url}", ["u"]),
        ("$.status.url", ["u"]),
        ("status.url", ["u"]),
        (".metadata.labels['serving\\.knative\\.dev/service']", ["s"]),
        (".metadata.labels.serving\\.knative\\.dev/service", ["s"]),
        (".status.conditions[?(@.type=='Ready')].status", ["True"]),
        ('.status.conditions[?(@.type == "Ready")].status', ["True"]),
        (".status.conditions[?(@.type!='Ready')].status", ["False"]),
        (".status.conditions[?(@.n==1)].type", ["Ready"]),
        (".items[1].n", [2]),
        (".items[-1].n", [2]),
        (".items[*].n", [1, 2]),
        (".items[9].n", []),
        (".nope.url", []),
    ],
)
def test_jsonpath(path: str, expected: list[Any]) -> None:
    assert list(matches(OBJ, path)) == expected
    assert first(OBJ, path) == (expected[0] if expected else None)


@pytest.mark.parametrize("path", [".a[", ".a[?(@.b)]", "..a", ".a[b]"])
def test_bad_jsonpath(path: str) -> None:
    with pytest.raises(PathError):
        compile_path(path)


def state(**state: Any) -> JsonObject:
    return {"name": "c", "state": state}


@pytest.mark.parametrize(
    ("status", "deleting", "word"),
    [
        ({"phase": "Pending"}, False, "Pending"),
        ({"phase": "Running", "containerStatuses": [{**state(running={}), "ready": True}]}, False, "Running"),
        (
            {"phase": "Pending", "containerStatuses": [state(waiting={"reason": "ErrImagePull"})]},
            False,
            "ErrImagePull",
        ),
        (
            {"phase": "Running", "containerStatuses": [state(waiting={"reason": "CrashLoopBackOff"})]},
            False,
            "CrashLoopBackOff",
        ),
        (
            {"phase": "Succeeded", "containerStatuses": [state(terminated={"reason": "Completed"})]},
            False,
            "Completed",
        ),
        ({"phase": "Failed", "containerStatuses": [state(terminated={"exitCode": 3})]}, False, "ExitCode:3"),
        ({"phase": "Failed", "containerStatuses": [state(terminated={"signal": 9})]}, False, "Signal:9"),
        ({"phase": "Failed", "reason": "Evicted"}, False, "Evicted"),
        ({"phase": "Running"}, True, "Terminating"),
        ({"phase": "Succeeded"}, True, "Succeeded"),
        (
            {"phase": "Pending", "initContainerStatuses": [state(running={})]},
            False,
            "Init:0/2",
        ),
        (
            {"phase": "Pending", "initContainerStatuses": [state(terminated={"exitCode": 1, "reason": "Error"})]},
            False,
            "Init:Error",
        ),
        (
            {
                "phase": "Running",
                "initContainerStatuses": [state(terminated={"exitCode": 0})],
                "containerStatuses": [{**state(running={}), "ready": True}],
            },
            False,
            "Running",
        ),
    ],
)
def test_pod_status(status: JsonObject, deleting: bool, word: str) -> None:
    obj = {**pod("p", initContainers=[{"name": "i"}, {"name": "j"}]), "status": status}
    if deleting:
        obj["metadata"]["deletionTimestamp"] = "2026-11-01T12:00:00Z"
    assert pod_status(obj) == word


def test_pod_cells() -> None:
    obj = pod("p", nodeName="n")
    obj["metadata"]["creationTimestamp"] = "2026-11-01T11:59:00Z"
    obj["status"] = {
        "phase": "Running",
        "podIP": "198.18.0.7",
        "containerStatuses": [
            {
                **state(running={}),
                "ready": True,
                "restartCount": 2,
                "lastState": {"terminated": {"finishedAt": "2026-11-01T11:59:30Z"}},
            }
        ],
    }
    cells = ["1/1", "Running", "2 (30s ago)", "60s", "198.18.0.7", "n", "<none>", "<none>"]
    assert pod_cells(obj, NOW) == cells
    made = table.build(POD, [obj], {"resourceVersion": "1"}, include="Metadata", now=NOW)
    assert [column["name"] for column in made["columnDefinitions"]][:5] == [
        "Name",
        "Ready",
        "Status",
        "Restarts",
        "Age",
    ]
    assert made["rows"][0]["cells"] == ["p", *cells]
    assert made["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    assert table.row(POD, obj, include="None", now=NOW)["object"] is None


def test_cells_of_a_definition() -> None:
    obj = widget("w", colour="red", size=3, parts=[{"name": "a"}])
    obj["metadata"]["creationTimestamp"] = "2026-11-01T11:59:00Z"
    obj["status"] = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
    assert table.row(WIDGET, obj, include="Metadata", now=NOW)["cells"] == [
        "w",
        "red",
        3,
        "Unknown",
        "60s",
        '[{"name":"a"}]',
    ]
    assert table.row(WIDGET, widget("w", size="x"), include="None", now=NOW)["cells"][1:4] == [None, None, None]


@pytest.mark.parametrize("storage", PRINTERS)
def test_every_printer_fills_its_columns_for_an_empty_object(storage: str) -> None:
    printer = PRINTERS[storage]
    assert len(printer.cells({"metadata": {"name": "x"}, "kind": "X"}, NOW)) == len(printer.columns)
