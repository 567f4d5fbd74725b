"""Creating, reading and replacing; names; dry runs."""

from __future__ import annotations

from typing import Final

from tests.differential.model import Scenario, delete, get, patch, post, put
from tests.differential.scenarios.bodies import CONFIG_MAPS, LEASES, SERVICES, config_map

_A: Final = f"{CONFIG_MAPS}/a"
_LONG: Final = "a" * 254

SCENARIOS: Final = (
    Scenario(
        name="replace",
        steps=(
            post("create", CONFIG_MAPS, config_map("a", {"k": "1"}), save="a"),
            get("get", _A),
            post("create again", CONFIG_MAPS, config_map("a", {"k": "1"})),
            put("replace", _A, config_map("a", {"k": "2"})),
            put("replace, nothing changed", _A, config_map("a", {"k": "2"})),
            put(
                "replace an old version",
                _A,
                config_map("a", {"k": "3"}, resourceVersion="${a.metadata.resourceVersion}"),
            ),
            get("read for a version", _A, save="b"),
            put(
                "replace this version",
                _A,
                config_map("a", {"k": "3"}, resourceVersion="${b.metadata.resourceVersion}"),
            ),
            put("replace with resourceVersion 0", _A, config_map("a", {"k": "4"}, resourceVersion="0")),
            put("resourceVersion is no number", _A, config_map("a", {}, resourceVersion="x")),
            put("other uid", _A, config_map("a", {}, uid="00000000-0000-0000-0000-000000000000")),
            put("own uid", _A, config_map("a", {"k": "5"}, uid="${a.metadata.uid}")),
            put("replace what is absent", f"{CONFIG_MAPS}/none", config_map("none", {})),
            put(
                "replace what is absent, with a version",
                f"{CONFIG_MAPS}/none",
                config_map("none", {}, resourceVersion="5"),
            ),
            put(
                "replace what is absent, with a uid",
                f"{CONFIG_MAPS}/none",
                config_map("none", {}, uid="00000000-0000-0000-0000-000000000000"),
            ),
            put("labels and annotations", _A, config_map("a", {}, labels={"l": "1"}, annotations={"n": "1"})),
            put(
                "system fields cannot be set",
                _A,
                config_map("a", {}, creationTimestamp="2001-01-01T00:00:00Z", generation=7, selfLink="/x"),
            ),
            put(
                "deletion cannot be set",
                _A,
                config_map("a", {}, deletionTimestamp="2001-01-01T00:00:00Z", deletionGracePeriodSeconds=3),
            ),
            put("without apiVersion and kind", _A, {"metadata": {"name": "a"}, "data": {"x": "y"}}),
            put("without a name", _A, {"apiVersion": "v1", "kind": "ConfigMap", "data": {"x": "z"}}),
            put("immutable is set", _A, {**config_map("a", {"k": "1"}), "immutable": True}),
            put("immutable data", _A, {**config_map("a", {"k": "2"}), "immutable": True}),
            put("immutable is unset", _A, config_map("a", {"k": "1"})),
            patch("immutable labels may change", _A, {"metadata": {"labels": {"x": "y"}}}),
            delete("delete", _A),
            get("get what is gone", _A),
        ),
    ),
    Scenario(
        name="create",
        steps=(
            post("without apiVersion and kind", CONFIG_MAPS, {"metadata": {"name": "bare"}}),
            post("namespace is filled in", CONFIG_MAPS, config_map("n1")),
            post("namespace is given", CONFIG_MAPS, config_map("n2", namespace="{ns}")),
            post("namespace is another", CONFIG_MAPS, config_map("n3", namespace="other")),
            post("namespace is absent", "/api/v1/namespaces/nowhere/configmaps", config_map("n4")),
            post("collection of all namespaces", "/api/v1/configmaps", config_map("n5")),
            post(
                "system fields are overwritten",
                CONFIG_MAPS,
                config_map(
                    "s1",
                    uid="x",
                    creationTimestamp="2001-01-01T00:00:00Z",
                    generation=7,
                    selfLink="/x",
                    deletionTimestamp="2001-01-01T00:00:00Z",
                ),
            ),
            post("a version is refused", CONFIG_MAPS, config_map("s2", resourceVersion="1")),
            post("generateName", CONFIG_MAPS, {"metadata": {"generateName": "gen-"}}),
            post("generateName and name", CONFIG_MAPS, {"metadata": {"generateName": "gen-", "name": "given"}}),
            post(
                "generateName is long",
                CONFIG_MAPS,
                {"metadata": {"generateName": "g" * 300}},
                terse=True,
            ),
            post(
                "generateName is invalid",
                CONFIG_MAPS,
                {"metadata": {"generateName": "Gen_"}},
                terse=True,
            ),
            post("no name", CONFIG_MAPS, {"metadata": {}}),
            post("no metadata", CONFIG_MAPS, {"data": {}}),
            post("name has capitals", CONFIG_MAPS, config_map("Bad")),
            post("name has underscores", CONFIG_MAPS, config_map("a_b")),
            post("name has dots", CONFIG_MAPS, config_map("a.b")),
            post("name is too long", CONFIG_MAPS, config_map(_LONG)),
            post(
                "service name has dots", SERVICES, {"metadata": {"name": "a.b"}, "spec": {"ports": [{"port": 80}]}}
            ),
            post(
                "service name is too long",
                SERVICES,
                {"metadata": {"name": "a" * 64}, "spec": {"ports": [{"port": 80}]}},
            ),
            post("namespace name has dots", "/api/v1/namespaces", {"metadata": {"name": "a.b"}}),
            post("namespace name is too long", "/api/v1/namespaces", {"metadata": {"name": "a" * 64}}),
            post("label key", CONFIG_MAPS, config_map("l1", labels={"-bad": "x"})),
            post("label key with two slashes", CONFIG_MAPS, config_map("l1", labels={"a/b/c": "x"})),
            post("label key prefix", CONFIG_MAPS, config_map("l1", labels={"A_B/c": "x"})),
            post("label key is too long", CONFIG_MAPS, config_map("l1", labels={"a" * 64: "x"})),
            post("label value", CONFIG_MAPS, config_map("l1", labels={"a": "not allowed"})),
            post("label value is too long", CONFIG_MAPS, config_map("l1", labels={"a": "b" * 64})),
            post("label value is a number", CONFIG_MAPS, config_map("l1", labels={"a": 1})),
            post("annotation key", CONFIG_MAPS, config_map("l1", annotations={"-bad": "x"})),
            post("annotation value is null", CONFIG_MAPS, config_map("l2", annotations={"a": None})),
            post("annotations are too large", CONFIG_MAPS, config_map("l1", annotations={"a": "b" * 262145})),
            post("finalizer", CONFIG_MAPS, config_map("f1", finalizers=["bad"])),
            post("finalizer name", CONFIG_MAPS, config_map("f1", finalizers=["example.dev/_bad"])),
            post(
                "owner without uid",
                CONFIG_MAPS,
                config_map("o1", ownerReferences=[{"apiVersion": "v1", "kind": "ConfigMap", "name": "a"}]),
            ),
            post("owner without anything", CONFIG_MAPS, config_map("o1", ownerReferences=[{}])),
            post(
                "two controllers",
                CONFIG_MAPS,
                config_map(
                    "o1",
                    ownerReferences=[
                        {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": name, "controller": True}
                        for name in "ab"
                    ],
                ),
            ),
            post(
                "owner is an event",
                CONFIG_MAPS,
                config_map("o1", ownerReferences=[{"apiVersion": "v1", "kind": "Event", "name": "a", "uid": "a"}]),
            ),
            post("key of data", CONFIG_MAPS, config_map("d1", {"a b": "c"})),
            post("value of data is a number", CONFIG_MAPS, config_map("d1", {"a": 1})),
            post("binary data", CONFIG_MAPS, {**config_map("d2"), "binaryData": {"a": "AAEC"}}),
            post("binary data is not base64", CONFIG_MAPS, {**config_map("d1"), "binaryData": {"a": "?"}}),
            post(
                "key in data and binary data",
                CONFIG_MAPS,
                {**config_map("d1", {"a": "b"}), "binaryData": {"a": "AAEC"}},
            ),
            post("data is too large", CONFIG_MAPS, config_map("d1", {"a": "b" * 1048577})),
            post("data is empty", CONFIG_MAPS, config_map("d3", {})),
            post("data is null", CONFIG_MAPS, {**config_map("d4"), "data": None}),
            post("yaml", CONFIG_MAPS, "metadata:\n  name: y1\ndata:\n  a: 'b'\n", media="application/yaml"),
            post(
                "yaml with a duplicate key",
                CONFIG_MAPS,
                "metadata:\n  name: y2\ndata:\n  a: 'b'\n  a: 'c'\n",
                media="application/yaml",
            ),
            post("no content type", CONFIG_MAPS, config_map("m1"), media=None),
            post("lease creates by PUT", LEASES, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}}),
            put(
                "lease that is absent",
                f"{LEASES}/l2",
                {"metadata": {"name": "l2"}, "spec": {"holderIdentity": "me"}},
            ),
        ),
    ),
    Scenario(
        name="dry run",
        steps=(
            post("create", CONFIG_MAPS, config_map("a", {"k": "1"}), query={"dryRun": "All"}),
            get("nothing was stored", _A),
            post("generateName", CONFIG_MAPS, {"metadata": {"generateName": "gen-"}}, query={"dryRun": "All"}),
            post("other value", CONFIG_MAPS, config_map("a"), query={"dryRun": "Some"}),
            post("really", CONFIG_MAPS, config_map("a", {"k": "1"})),
            post("create what exists", CONFIG_MAPS, config_map("a"), query={"dryRun": "All"}),
            put("replace", _A, config_map("a", {"k": "2"}), query={"dryRun": "All"}),
            put("replace with an error", _A, config_map("a", {"k k": "2"}), query={"dryRun": "All"}),
            patch("patch", _A, {"data": {"k": "3"}}, query={"dryRun": "All"}),
            delete("delete", _A, query={"dryRun": "All"}),
            delete("delete, in the body", _A, {"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"]}),
            delete("delete, other value", _A, {"dryRun": ["Some"]}),
            delete("delete collection", CONFIG_MAPS, query={"dryRun": "All", "labelSelector": "a=b"}),
            get("nothing changed", _A),
        ),
    ),
)
