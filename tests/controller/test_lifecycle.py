"""Service, Configuration, Revision and Route together, as a user sees them."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from serving.api import keys
from serving.api.meta import Condition, JsonObject, Model, ObjectMeta, find_condition
from serving.api.resources import CONFIGURATIONS, KSERVICES, REVISIONS, ROUTES
from serving.api.v1 import Configuration, Revision, Route, Service
from serving.controller.configuration import reconcile_routes_annotation
from serving.controller.naming import name_conflict
from tests.controller.world import World, ksvc


def service(world: World, name: str = "hello") -> Service:
    found = world.get(KSERVICES, name, Service)
    assert found is not None
    return found


def route(world: World, name: str = "hello") -> Route:
    found = world.get(ROUTES, name, Route)
    assert found is not None
    return found


def condition(item: Model, kind: str) -> tuple[str, str, str]:
    found = find_condition(item.status.conditions, kind)  # type: ignore[attr-defined]
    assert isinstance(found, Condition)
    return found.status, found.reason, found.message


@pytest.fixture
def world() -> World:
    world = World()
    world.put(KSERVICES, ksvc())
    world.settle()
    return world


def test_children_have_knative_labels_owners_and_names(world: World) -> None:
    configuration = world.get(CONFIGURATIONS, "hello", Configuration)
    revision = world.get(REVISIONS, "hello-00001", Revision)
    assert configuration is not None
    assert revision is not None
    owner = service(world)
    assert configuration.metadata.is_controlled_by(owner.metadata.uid)
    assert route(world).metadata.is_controlled_by(owner.metadata.uid)
    assert revision.metadata.is_controlled_by(configuration.metadata.uid)
    assert configuration.metadata.labels == {
        keys.SERVICE: "hello",
        keys.SERVICE_UID: owner.metadata.uid,
    }
    assert configuration.metadata.annotations == {keys.ROUTES: "hello"}
    assert revision.metadata.labels[keys.CONFIGURATION_GENERATION] == "1"
    assert revision.metadata.labels[keys.ROUTING_STATE] == "active"
    assert revision.spec == owner.spec.template["spec"]
    assert route(world).spec.traffic[0].configuration_name == "hello"


def test_not_ready_until_the_revision_is(world: World) -> None:
    assert condition(service(world), "Ready")[0] == "Unknown"
    assert condition(route(world), "AllTrafficAssigned") == (
        "Unknown",
        "RevisionMissing",
        'Configuration "hello" is waiting for a Revision to become ready.',
    )
    world.set_ready("hello-00001")
    world.settle()
    ready = service(world)
    assert condition(ready, "Ready") == ("True", "", "")
    assert ready.status.url == "http://hello.default.localhost"
    assert ready.status.latest_ready_revision_name == "hello-00001"
    assert [(t.revision_name, t.percent, t.latest_revision) for t in ready.status.traffic] == [
        ("hello-00001", 100, True)
    ]
    assert ready.status.address is not None
    assert ready.status.address.url == "http://hello.default.svc.cluster.local"


def test_nothing_is_written_when_nothing_changed(world: World) -> None:
    world.set_ready("hello-00001")
    world.settle()
    before = world.writes
    world.step()
    assert world.writes == before


def test_route_waits_for_the_gateways(world: World) -> None:
    world.programmed = False
    world.set_ready("hello-00001")
    world.settle()
    assert condition(route(world), "IngressReady")[:2] == ("Unknown", "Uninitialized")
    assert condition(service(world), "RoutesReady")[0] == "Unknown"
    world.programmed = True
    world.settle()
    assert condition(service(world), "Ready")[0] == "True"


def test_a_failing_second_revision_leaves_traffic_on_the_first(world: World) -> None:
    world.set_ready("hello-00001")
    world.settle()
    template = {"spec": {"containers": [{"image": "broken", "name": "user-container"}]}}
    world.edit(KSERVICES, "hello", {"spec": {"template": template}})
    world.settle()
    world.set_ready("hello-00002", "False", reason="ExitCode1", message="Container failed with: boom")
    world.settle()
    expected = (
        "False",
        "RevisionFailed",
        'Revision "hello-00002" failed with message: Container failed with: boom.',
    )
    assert condition(service(world), "ConfigurationsReady") == expected
    assert condition(service(world), "Ready") == expected
    assert condition(route(world), "Ready")[0] == "True"
    assert route(world).status.traffic[0].revision_name == "hello-00001"
    assert service(world).status.latest_created_revision_name == "hello-00002"
    assert service(world).status.latest_ready_revision_name == "hello-00001"


def test_first_revision_fails_everything(world: World) -> None:
    world.set_ready("hello-00001", "False", reason="ContainerMissing", message="no such image")
    world.settle()
    assert condition(route(world), "AllTrafficAssigned") == (
        "False",
        "RevisionMissing",
        'Configuration "hello" does not have any ready Revision.',
    )
    assert condition(service(world), "Ready")[0] == "False"


def test_labels_and_annotations_follow_and_go(world: World) -> None:
    world.edit(KSERVICES, "hello", {"metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}}})
    world.settle()
    configuration = world.get(CONFIGURATIONS, "hello", Configuration)
    assert configuration is not None
    assert configuration.metadata.labels["team"] == "a"
    assert route(world).metadata.annotations["note"] == "b"
    revision = world.get(REVISIONS, "hello-00001", Revision)
    assert revision is not None
    assert "team" not in revision.metadata.labels
    world.edit(KSERVICES, "hello", {"metadata": {"labels": {"team": None}, "annotations": {"note": None}}})
    world.settle()
    assert "team" not in route(world).metadata.labels
    assert "note" not in route(world).metadata.annotations


def test_a_deleted_latest_revision_is_made_again(world: World) -> None:
    del world.objects[("revisions.serving.knative.dev", "hello-00001")]
    world.settle()
    assert world.get(REVISIONS, "hello-00001", Revision) is not None


def test_a_foreign_configuration_is_left_alone() -> None:
    world = World()
    world.put(CONFIGURATIONS, {"metadata": {"name": "hello"}, "spec": {"template": {"spec": {"containers": []}}}})
    world.put(KSERVICES, ksvc())
    world.settle()
    expected = ("False", "NotOwned", 'There is an existing Configuration "hello" that we do not own.')
    assert condition(service(world), "ConfigurationsReady") == expected
    assert world.get(ROUTES, "hello", Route) is None


def test_rollback_by_revision_name() -> None:
    world = World()
    first = {"metadata": {"name": "hello-a"}, "spec": {"containers": [{"image": "one"}]}}
    second = {"metadata": {"name": "hello-b"}, "spec": {"containers": [{"image": "two"}]}}
    world.put(KSERVICES, ksvc(template=first))
    world.settle()
    world.set_ready("hello-a")
    world.edit(KSERVICES, "hello", {"spec": {"template": second}})
    world.settle()
    world.set_ready("hello-b")
    world.settle()
    assert service(world).status.latest_ready_revision_name == "hello-b"
    world.edit(KSERVICES, "hello", {"spec": {"template": first}})
    world.settle()
    assert service(world).status.latest_ready_revision_name == "hello-a"
    assert route(world).status.traffic[0].revision_name == "hello-a"


def test_a_taken_revision_name_migrates_nothing(world: World) -> None:
    world.set_ready("hello-00001")
    world.settle()
    world.put(REVISIONS, {"metadata": {"name": "hello-mine"}, "spec": {"containers": []}})
    template = {"metadata": {"name": "hello-mine"}}
    world.edit(KSERVICES, "hello", {"spec": {"template": template}})
    world.settle()
    assert condition(service(world), "RoutesReady")[:2] == ("False", "RevisionNameTaken")
    message = 'Revision creation failed with message: revisions.serving.knative.dev "hello-mine" already exists.'
    assert condition(service(world), "ConfigurationsReady") == ("False", "RevisionFailed", message)
    assert route(world).status.traffic[0].revision_name == "hello-00001"


TRAFFIC_CASES = {
    "missing revision": (
        [{"revisionName": "hello-none", "percent": 100}],
        ("False", "RevisionMissing", 'Revision "hello-none" referenced in traffic not found.'),
    ),
    "foreign revision": (
        [{"revisionName": "other-00001", "percent": 100}],
        ("False", "RevisionNotOwned", 'Revision "other-00001" belongs to Service "other", not Service "hello".'),
    ),
    "false beats unknown": (
        [{"latestRevision": True, "percent": 50}, {"revisionName": "hello-none", "percent": 50}],
        ("False", "RevisionMissing", 'Revision "hello-none" referenced in traffic not found.'),
    ),
}


@pytest.mark.parametrize(("traffic", "expected"), TRAFFIC_CASES.values(), ids=TRAFFIC_CASES.keys())
def test_bad_targets(traffic: list[dict[str, object]], expected: tuple[str, str, str]) -> None:
    world = World()
    world.put(KSERVICES, ksvc("other"))
    world.put(KSERVICES, ksvc(traffic=traffic))
    world.settle()
    assert condition(route(world), "AllTrafficAssigned") == expected


def test_split_with_tags(world: World) -> None:
    world.set_ready("hello-00001")
    template = {"spec": {"containers": [{"image": "two", "name": "user-container"}]}}
    world.edit(KSERVICES, "hello", {"spec": {"template": template}})
    world.settle()
    world.set_ready("hello-00002")
    traffic = [
        {"revisionName": "hello-00001", "percent": 50, "tag": "blue"},
        {"latestRevision": True, "percent": 50},
        {"revisionName": "hello-00001", "percent": 0, "tag": "old"},
    ]
    world.edit(KSERVICES, "hello", {"spec": {"traffic": traffic}})
    world.settle()
    assert [(t.tag, t.revision_name, t.percent, t.url) for t in service(world).status.traffic] == [
        ("blue", "hello-00001", 50, "http://blue-hello.default.localhost"),
        ("", "hello-00002", 50, ""),
        ("old", "hello-00001", 0, "http://old-hello.default.localhost"),
    ]
    assert condition(service(world), "Ready")[0] == "True"


def test_targets_that_say_the_same_count_together(world: World) -> None:
    world.set_ready("hello-00001")
    traffic = [{"revisionName": "hello-00001", "percent": 50}, {"revisionName": "hello-00001", "percent": 50}]
    world.edit(KSERVICES, "hello", {"spec": {"traffic": traffic}})
    world.settle()
    assert [(t.revision_name, t.percent) for t in service(world).status.traffic] == [("hello-00001", 100)]
    assert condition(service(world), "Ready")[0] == "True"


def test_a_revision_name_that_others_use_is_told_and_taken_when_it_is_free() -> None:
    world = World()
    world.put(REVISIONS, {"metadata": {"name": "hello-00001"}, "spec": {"containers": []}})
    world.put(KSERVICES, ksvc())
    world.settle()
    message = 'Revision creation failed with message: revisions.serving.knative.dev "hello-00001" already exists.'
    assert condition(service(world), "ConfigurationsReady") == ("False", "RevisionFailed", message)
    del world.objects[("revisions.serving.knative.dev", "hello-00001")]
    world.settle()
    revision = world.get(REVISIONS, "hello-00001", Revision)
    assert revision is not None
    assert revision.metadata.labels[keys.SERVICE] == "hello"


def test_a_revision_of_an_earlier_service_of_the_same_name_is_waited_for() -> None:
    world = World()
    owner = {"apiVersion": "serving.knative.dev/v1", "kind": "Configuration", "name": "hello", "uid": "earlier"}
    meta = {"name": "hello-00001", "ownerReferences": [owner | {"controller": True}]}
    world.put(REVISIONS, {"metadata": meta, "spec": {"containers": []}})
    configuration = msgspec.convert(
        {"metadata": {"name": "hello", "namespace": "default", "uid": "present", "generation": 1}}, Configuration
    )
    assert not name_conflict(configuration, world.get(REVISIONS, "hello-00001", Revision))


def test_routes_of_others_are_noted_on_the_configuration(world: World) -> None:
    other = Route(metadata=ObjectMeta(name="other"))
    going = Route(metadata=ObjectMeta(name="going", deletion_timestamp="2026-01-01T00:00:00Z"))

    def noted(*routes: Route) -> str:
        configuration = world.get(CONFIGURATIONS, "hello", Configuration)
        assert configuration is not None
        world.apply(reconcile_routes_annotation(configuration, routes=routes))
        world.settle()
        configuration = world.get(CONFIGURATIONS, "hello", Configuration)
        assert configuration is not None
        return configuration.metadata.annotations[keys.ROUTES]

    assert noted(other, going) == "hello,other"
    assert noted() == "hello"


def test_a_latest_revision_that_broke_later_is_told_and_recovers(world: World) -> None:
    world.set_ready("hello-00001")
    world.settle()
    world.set_ready("hello-00001", "False", reason="ExitCode1", message="Container failed with: boom")
    world.settle()
    assert condition(route(world), "AllTrafficAssigned") == (
        "False",
        "RevisionMissing",
        'Revision "hello-00001" failed to become ready.',
    )
    assert condition(service(world), "Ready")[0] == "False"
    assert route(world).status.traffic[0].revision_name == "hello-00001", "it is still routed to"
    world.set_ready("hello-00001")
    world.settle()
    assert condition(service(world), "Ready")[0] == "True"


def test_a_rollout_goes_on_step_by_step_from_what_is_stored(world: World) -> None:
    world.rollout_seconds = 10
    world.set_ready("hello-00001")
    world.settle()
    assert condition(service(world), "Ready")[0] == "True"
    template = {"spec": {"containers": [{"image": "next", "name": "user-container"}]}}
    world.edit(KSERVICES, "hello", {"spec": {"template": template}})
    world.settle()
    world.set_ready("hello-00002")
    world.settle()
    seen = []
    for _ in range(20):
        shares = {target.revision_name: target.percent or 0 for target in route(world).status.traffic}
        seen.append(shares.get("hello-00002", 0))
        if seen[-1] < 100:
            assert condition(route(world), "IngressReady")[:2] == ("Unknown", "RolloutInProgress")
            assert condition(service(world), "Ready")[:2] == ("Unknown", "RolloutInProgress")
        world.now_ns += 1_000_000_000
        world.settle()
    assert seen[0] == 1
    assert seen[-1] == 100
    assert seen == sorted(seen)
    assert all(after - before <= 11 for before, after in pairwise(seen))
    assert condition(service(world), "Ready")[0] == "True"
    assert route(world).status.annotations == {}


def test_a_default_that_came_later_makes_no_new_revision(world: World) -> None:
    world.set_ready("hello-00001")
    world.settle()

    def defaulted(spec: JsonObject) -> JsonObject:
        template = spec["template"]
        return {"template": template | {"spec": {"timeoutSeconds": 300} | template["spec"]}}

    world.defaulted = defaulted
    world.edit(KSERVICES, "hello", {"spec": {"template": {"spec": {"timeoutSeconds": 300}}}})
    world.settle()
    assert [revision.metadata.name for revision in world.all(REVISIONS, Revision)] == ["hello-00001"]
    assert condition(service(world), "Ready")[0] == "True"
    world.edit(KSERVICES, "hello", {"spec": {"template": {"spec": {"timeoutSeconds": 200}}}})
    world.settle()
    assert len(world.all(REVISIONS, Revision)) == 2
