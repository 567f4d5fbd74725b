"""What pods find in /etc/resolv.conf and /etc/hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serving.local.node.containers import sandbox_spec
from serving.local.sandbox import pod_files
from tests.local.node.pods import make_pod

CLUSTER = "search default.svc.cluster.local svc.cluster.local cluster.local"
OWN = "nameserver 198.18.0.1"


def _files(**spec: Any) -> tuple[list[str], list[str]]:
    sandbox = sandbox_spec(
        make_pod(**spec), state_dir=Path("/nowhere"), cluster_domain="cluster.local", dns_server="", max_pids=1
    )
    resolv = pod_files.resolv_conf(sandbox, "198.18.0.1").splitlines()
    return resolv, pod_files.hosts(sandbox, "198.18.0.9").splitlines()


@pytest.mark.parametrize(
    ("spec", "lines"),
    [
        ({}, [OWN, CLUSTER, "options ndots:5"]),
        ({"dnsPolicy": "ClusterFirst"}, [OWN, CLUSTER, "options ndots:5"]),
        ({"dnsPolicy": "Default"}, [OWN]),
        (
            {
                "dnsPolicy": "None",
                "dnsConfig": {
                    "nameservers": ["192.0.2.53", "192.0.2.54"],
                    "searches": ["corp.example"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}],
                },
            },
            [
                "nameserver 192.0.2.53",
                "nameserver 192.0.2.54",
                "search corp.example",
                "options ndots:2 rotate",
            ],
        ),
        (
            {
                "dnsConfig": {
                    "nameservers": ["192.0.2.53"],
                    "searches": ["corp.example", "cluster.local"],
                    "options": [{"name": "ndots", "value": "1"}],
                }
            },
            [OWN, "nameserver 192.0.2.53", f"{CLUSTER} corp.example", "options ndots:1"],
        ),
    ],
)
def test_resolv_conf(spec: dict[str, Any], lines: list[str]) -> None:
    assert _files(**spec)[0] == lines


def test_host_aliases() -> None:
    aliases = [{"ip": "192.0.2.1", "hostnames": ["a.example", "b.example"]}]
    assert _files(hostAliases=aliases)[1][-3:] == [
        "# Entries added by HostAliases.",
        "192.0.2.1\ta.example",
        "192.0.2.1\tb.example",
    ]
