"""Pods to endpoints: who is listed in Envoy, and how. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import msgspec

from serving.activator.model import PodEndpoint
from serving.api import timestamps
from serving.api.keys import DRAINING, POD_PORT, REVISION, STAGES
from serving.api.pod import Pod
from serving.gateway.ir import Endpoint, Endpoints, Mode, RevisionCluster

_stages = msgspec.json.Decoder(dict[str, float])


def revision_of(pod: Pod) -> str | None:
    """Key of the Revision that a Pod belongs to; None when it belongs to none."""
    name = pod.metadata.labels.get(REVISION)
    return f"{pod.metadata.namespace}/{name}" if name else None


def pod_endpoint(pod: Pod, *, port: int) -> PodEndpoint | None:
    """What the data path needs of a Pod; None when it has finished. `port`: the revision's container port, which
    the pod's own annotation overrides."""
    if pod.finished:
        return None
    meta = pod.metadata
    own = meta.annotations.get(POD_PORT, "")
    number = int(own) if own.isascii() and own.isdigit() and 0 < int(own) < 65536 else port
    return PodEndpoint(
        uid=meta.uid,
        name=meta.name,
        address=_address(pod.status.pod_ip, number),
        draining=DRAINING in meta.annotations,
        terminating=meta.deletion_timestamp is not None,
        kube_ready=pod.ready,
        created_at=_created(meta.creation_timestamp),
        stages=_read_stages(meta.annotations.get(STAGES)),
    )


def endpoints_of(
    cluster: RevisionCluster,
    pods: Iterable[PodEndpoint],
    *,
    ready: Collection[str],
    listed: Collection[str],
    contested: Collection[str],
    in_flight: Callable[[str], int],
) -> Endpoints:
    """The rows of one revision.

    `ready`: uids that answered a probe. `listed`: uids that Envoy was given before; they keep a row until they
    are gone, so that load reports go on counting their requests. `contested`: addresses that two live pods
    claim; neither is listed. `in_flight(uid)`: requests that the activator released to the pod; with a per-host
    limit a pod enters only without any, or both together could exceed the limit.
    """
    if cluster.mode is Mode.SLOTS:
        return Endpoints(revision=cluster.key, h2c=cluster.config.h2c)
    healthy, draining = [], []
    for pod in sorted(pods, key=lambda pod: (pod.created_at, pod.uid)):
        if not pod.address or pod.address in contested:
            continue
        row = Endpoint(pod.uid, pod.address)
        leaving = pod.draining or pod.terminating
        may_enter = cluster.mode is Mode.DIRECT or pod.uid in listed or in_flight(pod.uid) == 0
        if pod.uid in ready and not leaving and may_enter:
            healthy.append(row)
        elif leaving or pod.uid in listed:
            draining.append(row)
    return Endpoints(
        revision=cluster.key, h2c=cluster.config.h2c, healthy=tuple(healthy), draining=tuple(draining)
    )


def _address(ip: str, port: int) -> str:
    if not ip:
        return ""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _created(text: str | None) -> float:
    try:
        return timestamps.parse(text) if text else 0.0
    except ValueError:
        return 0.0


def _read_stages(text: str | None) -> dict[str, float]:
    """Stages are only for the budget: a broken annotation costs nothing else."""
    try:
        return _stages.decode(text) if text else {}
    except msgspec.DecodeError:
        return {}
