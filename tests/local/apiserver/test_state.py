"""Objects by revision: staging, publishing, history; and list + watch = state."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.api.meta import JsonObject
from serving.local.apiserver.encoders import WholeObjects
from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.feed import Feed, FeedOptions
from serving.local.apiserver.lists import ListOptions, take
from serving.local.apiserver.selectors import matcher, parse_labels
from serving.local.apiserver.state import Key, Stale, State
from tests.local.apiserver.objects import CONFIG_MAP


def key(name: str, namespace: str = "default") -> Key:
    return Key("configmaps", namespace, name)


def obj(name: str, value: str = "", namespace: str = "default") -> JsonObject:
    labels = {"value": value} if value else {}
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"v": value}}


def write(state: State, name: str, value: str | None, namespace: str = "default") -> None:
    at = key(name, namespace)
    state.stage(at, None if value is None else obj(name, value, namespace), expected=state.head(at))


def test_readers_see_only_what_is_published() -> None:
    state = State()
    write(state, "a", "1")
    assert state.get(key("a")) is None
    head = state.head(key("a"))
    assert head is not None
    assert [entry.key.name for entry in state.heads("configmaps")] == ["a"]
    state.publish(1)
    assert state.get(key("a")) is head
    assert state.revision == 2


def test_a_writer_builds_on_the_head() -> None:
    state = State()
    write(state, "a", "1")
    with pytest.raises(Stale):
        state.stage(key("a"), obj("a", "2"), expected=None)
    first = state.head(key("a"))
    state.stage(key("a"), obj("a", "2"), expected=first)
    with pytest.raises(Stale):
        state.stage(key("a"), None, expected=first)
    with pytest.raises(Stale):
        state.stage(key("b"), None, expected=None)


def test_discard_forgets_every_stage_and_its_revisions() -> None:
    state = State()
    write(state, "a", "1")
    state.publish(1)
    write(state, "a", "2")
    write(state, "b", "1")
    state.discard()
    assert state.head(key("a")) is state.get(key("a"))
    assert state.head(key("b")) is None
    write(state, "b", "1")
    state.publish(1)
    assert state.revision == 3


def test_deleted_carries_the_last_state_with_the_new_revision() -> None:
    state = State()
    write(state, "a", "1")
    write(state, "a", None)
    state.publish(2)
    event = state.since("configmaps", 2)[0]
    assert event.type == "DELETED"
    assert event.entry.obj["data"] == {"v": "1"}
    assert event.entry.obj["metadata"]["resourceVersion"] == "3"
    assert state.get(key("a")) is None


def test_recreation_within_one_batch() -> None:
    state = State()
    write(state, "a", "1")
    write(state, "a", None)
    write(state, "a", "2")
    write(state, "a", None)
    state.publish(1)
    assert state.head(key("a")) is None
    state.publish(1)
    assert state.get(key("a")) is None
    state.publish(2)
    assert state.get(key("a")) is None
    assert state.head(key("a")) is None


def test_history_is_bounded_and_says_so() -> None:
    state = State(history=4)
    for number in range(12):
        write(state, "a", str(number))
        state.publish(1)
    with pytest.raises(StatusError) as caught:
        state.since("configmaps", 2)
    assert caught.value.status()["message"].startswith("too old resource version: 2 (")
    assert (caught.value.code, caught.value.reason) == (410, "Expired")
    assert [event.revision for event in state.since("configmaps", 11)] == [12, 13]
    state.compact()
    with pytest.raises(StatusError):
        state.since("configmaps", 12)
    assert state.since("configmaps", 13) == []


def test_a_storage_without_events_remembers_nothing_from_before_the_start() -> None:
    state = State(revision=50)
    with pytest.raises(StatusError):
        state.since("pods", 49)
    assert state.since("pods", 50) == []


def test_future_revisions() -> None:
    with pytest.raises(StatusError) as caught:
        State().check_reached(7)
    assert (caught.value.code, caught.value.headers) == (504, {"Retry-After": "1"})


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.sampled_from(["default", "other"]),
        st.sampled_from(["1", "2", "3", None]),
        st.integers(0, 3),
    ),
    max_size=40,
)


def apply(events: list[bytes], into: dict[str, Any]) -> list[str]:
    """What an informer does; the types that it saw."""
    seen: list[str] = []
    for line in events:
        event = msgspec.json.decode(line)
        found = event["object"]
        name = f"{found['metadata']['namespace']}/{found['metadata']['name']}"
        seen.append(event["type"])
        if event["type"] == "DELETED":
            del into[name]
            continue
        assert (event["type"] == "ADDED") == (name not in into)
        into[name] = found
    return seen


@settings(max_examples=150)
@given(
    operations=OPERATIONS,
    begin=st.integers(0, 40),
    selector=st.sampled_from(["", "value=1", "value!=2", "value in (1,2)"]),
    namespace=st.sampled_from(["", "default"]),
)
def test_list_and_watch_are_the_state(
    operations: list[tuple[str, str, str | None, int]], begin: int, selector: str, namespace: str
) -> None:
    """From any moment on, a list plus the events after it equal a later list, with any selector."""
    state = State()
    matches = matcher(parse_labels(selector), ())
    options = ListOptions(namespace=namespace, matches=matches)
    feed: Feed | None = None
    seen: dict[str, Any] = {}
    snapshots: list[tuple[int, list[str]]] = []

    def listed() -> dict[str, Any]:
        page = take(state, CONFIG_MAP, options)
        return {f"{e.key.namespace}/{e.key.name}": e.obj for e in page.entries}

    def start() -> Feed:
        seen.update(listed())
        made = Feed(
            state,
            CONFIG_MAP,
            FeedOptions(namespace=namespace, matches=matches, revision=state.revision),
            WholeObjects(CONFIG_MAP),
        )
        assert made.initial() == []
        return made

    for number, (name, where, value, batch) in enumerate(operations):
        if number == begin:
            feed = start()
        if value is not None or state.head(key(name, where)) is not None:
            write(state, name, value, where)
        if batch == 0:
            state.publish(3)
            snapshots.append((state.revision, [f"{e.key}{e.revision}" for e in state.select("configmaps")]))
            if feed is not None:
                apply(feed.advance(), seen)
                assert seen == listed()
    state.publish(100)
    for revision, names in snapshots:
        assert [f"{e.key}{e.revision}" for e in state.select_at("configmaps", "", revision)] == names
    feed = feed or start()
    apply(feed.advance(), seen)
    assert seen == listed()
    synthetic: dict[str, Any] = {}
    fresh = Feed(state, CONFIG_MAP, FeedOptions(namespace=namespace, matches=matches), WholeObjects(CONFIG_MAP))
    assert set(apply(fresh.initial(), synthetic)) <= {"ADDED"}
    assert synthetic == seen


def test_pages_are_one_snapshot() -> None:
    state = State()
    for name in "abcde":
        write(state, name, "1")
    state.publish(5)
    first = take(state, CONFIG_MAP, ListOptions(limit=2))
    assert (len(first.entries), first.remaining) == (2, 3)
    write(state, "d", None)
    write(state, "aa", "1")
    write(state, "e", "2")
    state.publish(3)
    second = take(state, CONFIG_MAP, ListOptions(limit=10, continue_token=first.continue_token))
    assert second.revision == first.revision
    assert [(entry.key.name, entry.obj["data"]["v"]) for entry in second.entries] == [
        ("c", "1"),
        ("d", "1"),
        ("e", "1"),
    ]
    exact = take(state, CONFIG_MAP, ListOptions(revision=first.revision, match="Exact"))
    assert [entry.key.name for entry in exact.entries] == list("abcde")
    state.compact()
    with pytest.raises(StatusError) as caught:
        take(state, CONFIG_MAP, ListOptions(continue_token=first.continue_token))
    assert caught.value.code == 410


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (ListOptions(continue_token="%%"), 400),
        (ListOptions(match="Exact"), 422),
        (ListOptions(match="Exact", revision=0), 422),
        (ListOptions(match="What", revision=1), 422),
        (ListOptions(revision=99), 504),
        (ListOptions(revision=99, match="Exact"), 504),
    ],
)
def test_bad_list_options(options: ListOptions, code: int) -> None:
    with pytest.raises(StatusError) as caught:
        take(State(), CONFIG_MAP, options)
    assert caught.value.code == code


def test_revision_zero_ignores_the_limit() -> None:
    state = State()
    for name in "abc":
        write(state, name, "1")
    state.publish(3)
    assert len(take(state, CONFIG_MAP, ListOptions(limit=1, revision=0)).entries) == 3
