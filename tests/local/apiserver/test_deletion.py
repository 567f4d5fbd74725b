"""What a delete request does to an object."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from serving.api.meta import JsonObject
from serving.local.apiserver import meta
from serving.local.apiserver.deletion import Action, DeleteOptions, decide, is_finished, parse_options
from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.kinds import Kind
from tests.local.apiserver.objects import CONFIG_MAP, NAMESPACE, POD, WIDGET, config_map, pod, widget

NOW = datetime(2026, 11, 1, 12, 0, 0, 500_000, tzinfo=UTC)


def create(obj: JsonObject, kind: Kind) -> JsonObject:
    return meta.prepare_create(obj, kind, namespace="default", now=NOW, uid="u", suffix="abcde")


def stored(obj: JsonObject, kind: Kind, **metadata: Any) -> JsonObject:
    made = create(obj, kind)
    return {**made, "metadata": {**made["metadata"], **metadata}}


@pytest.mark.parametrize(
    ("obj", "kind", "options", "action", "grace"),
    [
        (config_map("c"), CONFIG_MAP, DeleteOptions(), Action.REMOVE, None),
        (config_map("c"), CONFIG_MAP, DeleteOptions(propagation="Foreground"), Action.MARK, 0),
        (config_map("c"), CONFIG_MAP, DeleteOptions(propagation="Orphan"), Action.MARK, 0),
        (config_map("c"), CONFIG_MAP, DeleteOptions(propagation="Background"), Action.REMOVE, None),
        (pod("p"), POD, DeleteOptions(), Action.REMOVE, 0),
        (pod("p", nodeName="n"), POD, DeleteOptions(), Action.MARK, 30),
        (pod("p", nodeName="n", terminationGracePeriodSeconds=7), POD, DeleteOptions(), Action.MARK, 7),
        (pod("p", nodeName="n"), POD, DeleteOptions(grace_period_seconds=1), Action.MARK, 1),
        (pod("p", nodeName="n"), POD, DeleteOptions(grace_period_seconds=0), Action.REMOVE, 0),
    ],
)
def test_first_delete(
    obj: JsonObject, kind: Kind, options: DeleteOptions, action: Action, grace: int | None
) -> None:
    done, left = decide(stored(obj, kind), kind, options, NOW)
    assert done is action
    assert left["metadata"].get("deletionGracePeriodSeconds") == grace
    if grace is not None:
        assert left["metadata"]["deletionTimestamp"] == meta.timestamp(NOW + timedelta(seconds=grace))


def test_later_deletes_of_a_pod_only_shorten_its_grace() -> None:
    _, marked = decide(stored(pod("p", nodeName="n"), POD), POD, DeleteOptions(), NOW)
    assert not is_finished(marked, POD)
    assert decide(marked, POD, DeleteOptions(grace_period_seconds=60), NOW)[0] is Action.NOTHING
    action, shorter = decide(marked, POD, DeleteOptions(grace_period_seconds=5), NOW)
    assert (action, shorter["metadata"]["deletionGracePeriodSeconds"]) == (Action.MARK, 5)
    assert decide(shorter, POD, DeleteOptions(grace_period_seconds=0), NOW)[0] is Action.REMOVE
    done = {**pod("p", nodeName="n"), "status": {"phase": "Succeeded"}}
    assert decide({**stored(done, POD), "status": done["status"]}, POD, DeleteOptions(), NOW)[0] is Action.REMOVE


def test_finalizers_hold_an_object() -> None:
    held = stored(widget("w"), WIDGET, finalizers=["example.dev/hold"])
    action, marked = decide(held, WIDGET, DeleteOptions(), NOW)
    assert action is Action.MARK
    assert marked["metadata"]["generation"] == 2
    assert decide(marked, WIDGET, DeleteOptions(), NOW)[0] is Action.NOTHING
    assert not is_finished(marked, WIDGET)
    free = {**marked, "metadata": {**marked["metadata"], "finalizers": []}}
    assert is_finished(free, WIDGET)


def test_a_namespace_is_held_by_its_content() -> None:
    namespace = stored({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}, NAMESPACE)
    namespace["spec"] = {"finalizers": ["kubernetes"]}
    action, marked = decide(namespace, NAMESPACE, DeleteOptions(), NOW)
    assert (action, marked["status"]["phase"]) == (Action.MARK, "Terminating")
    assert is_finished({**marked, "spec": {"finalizers": []}}, NAMESPACE)


@pytest.mark.parametrize(
    ("body", "query", "expected"),
    [
        ({}, {}, DeleteOptions()),
        ({"gracePeriodSeconds": 3}, {"gracePeriodSeconds": "9"}, DeleteOptions(grace_period_seconds=3)),
        ({}, {"gracePeriodSeconds": "9"}, DeleteOptions(grace_period_seconds=9)),
        ({"propagationPolicy": "Orphan"}, {}, DeleteOptions(propagation="Orphan")),
        ({"orphanDependents": True}, {}, DeleteOptions(propagation="Orphan")),
        (
            {"preconditions": {"uid": "u", "resourceVersion": "5"}},
            {},
            DeleteOptions(uid="u", resource_version="5"),
        ),
        ({"dryRun": ["All"]}, {}, DeleteOptions(dry_run=True)),
    ],
)
def test_delete_options(body: JsonObject, query: dict[str, str], expected: DeleteOptions) -> None:
    assert parse_options(body, query) == expected


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"propagationPolicy": "Sideways"}, 422),
        ({"propagationPolicy": "Orphan", "orphanDependents": True}, 422),
        ({"dryRun": ["Some"]}, 422),
        ({"gracePeriodSeconds": "soon"}, 400),
    ],
)
def test_bad_delete_options(body: JsonObject, code: int) -> None:
    with pytest.raises(StatusError) as caught:
        parse_options(body, {})
    assert caught.value.code == code
