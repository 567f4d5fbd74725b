"""Where a pod of the local pool runs: the Ready node of the pool with the most room.

Only requests count against a node (a pod without requests takes a place but no CPU or memory), as in Kubernetes.
A refusal says per node what is missing, in the scheduler's manner, so that it can stand on the Revision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from serving.api import keys
from serving.api.meta import Condition, Model, ObjectMeta, find_condition
from serving.api.pod import Container, Pod, PodSpec
from serving.api.quantity import QuantityError, parse_int, parse_milli
from serving.api.v1 import Revision
from serving.pool.template import Placement

UNSCHEDULABLE: Final = "Unschedulable"


class Taint(Model, frozen=True, kw_only=True):
    key: str
    value: str = ""
    effect: str = ""


class NodeSpec(Model, frozen=True, kw_only=True):
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeStatus(Model, frozen=True, kw_only=True):
    allocatable: dict[str, str | int | float] = {}
    capacity: dict[str, str | int | float] = {}
    conditions: tuple[Condition, ...] = ()


class Node(Model, frozen=True, kw_only=True):
    """Core v1 Node as far as placement reads it."""

    metadata: ObjectMeta = ObjectMeta()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def ready(self) -> bool:
        condition = find_condition(self.status.conditions, "Ready")
        return condition is not None and condition.status == "True"


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """Room or need. A node that does not state a resource has no limit of it (None)."""

    pods: int | None = None
    cpu_millis: int | None = None
    memory_bytes: int | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What the pods of one node ask for together."""

    pods: int = 0
    cpu_millis: int = 0
    memory_bytes: int = 0

    def plus(self, need: Usage) -> Usage:
        return Usage(
            pods=self.pods + need.pods,
            cpu_millis=self.cpu_millis + need.cpu_millis,
            memory_bytes=self.memory_bytes + need.memory_bytes,
        )


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """No node can take the pod. For ResourcesAvailable=False."""

    message: str
    reason: str = UNSCHEDULABLE


def needs(spec: PodSpec) -> Usage:
    """What one pod asks for: the sum of its containers, or the largest init container where that is more.

    A container's limit stands in for a missing request, as Kubernetes defaults it. Raises QuantityError.
    """

    def amount(container: Container, resource: str) -> str | int | float:
        resources = container.resources
        return resources.requests.get(resource, resources.limits.get(resource, 0))

    cpu = [parse_milli(amount(container, "cpu")) for container in spec.containers]
    memory = [parse_int(amount(container, "memory")) for container in spec.containers]
    init_cpu = [parse_milli(amount(container, "cpu")) for container in spec.init_containers]
    init_memory = [parse_int(amount(container, "memory")) for container in spec.init_containers]
    return Usage(pods=1, cpu_millis=max(sum(cpu), *init_cpu, 0), memory_bytes=max(sum(memory), *init_memory, 0))


def spec_problem(revision: Revision) -> str | None:
    """Why no pod can be made of the Revision, in words for its status; None = one can.

    Admission refuses such a Revision; one may have been stored before a rule existed, or past the webhook.
    """
    try:
        view = revision.view()
        view.serving_port()
        needs(view)
    except ValueError as error:  # of msgspec too
        return f"spec cannot be used: {error}"
    return None


def usage_by_node(pods: Iterable[Pod]) -> dict[str, Usage]:
    """Sum of what the unfinished pods of each node ask for. A pod being deleted still takes its place."""
    usage: dict[str, Usage] = {}
    for pod in pods:
        node = pod.spec.node_name
        if not node or pod.finished:
            continue
        try:
            need = needs(pod.spec)
        except QuantityError:
            need = Usage(pods=1)  # somebody else's malformed pod must not stop placement
        usage[node] = usage.get(node, Usage()).plus(need)
    return usage


def place(
    need: Usage,
    nodes: Sequence[Node],
    usage: Mapping[str, Usage],
    *,
    siblings: Mapping[str, int] | None = None,
    pool: str = keys.LOCAL_NODE_POOL,
) -> Placement | Refusal:
    """A node for one pod.

    `siblings`: pods of the same revision by node; fewer is better, so that a node's loss takes few. Among equal
    nodes the one with the largest free share wins, then the name, so that the choice can be repeated.
    """
    return _place(need, _offers(nodes, pool), usage, siblings or {}, pool)


def place_many(
    count: int,
    need: Usage,
    nodes: Sequence[Node],
    usage: Mapping[str, Usage],
    *,
    siblings: Mapping[str, int] | None = None,
    pool: str = keys.LOCAL_NODE_POOL,
) -> tuple[list[Placement], Refusal | None]:
    """Up to `count` placements, each counting against the next, and why there are fewer."""
    offers, taken, spread = _offers(nodes, pool), dict(usage), dict(siblings or {})
    placements: list[Placement] = []
    for _ in range(count):
        placement = _place(need, offers, taken, spread, pool)
        if isinstance(placement, Refusal):
            return placements, placement
        name = placement.node_name
        taken[name] = taken.get(name, Usage()).plus(need)
        spread[name] = spread.get(name, 0) + 1
        placements.append(placement)
    return placements, None


def room(node: Node) -> Resources:
    """What a node offers in total."""
    offered = {**node.status.capacity, **node.status.allocatable}
    return Resources(
        pods=parse_int(offered["pods"]) if "pods" in offered else None,
        cpu_millis=parse_milli(offered["cpu"]) if "cpu" in offered else None,
        memory_bytes=parse_int(offered["memory"]) if "memory" in offered else None,
    )


class _Offer(msgspec.Struct, frozen=True):
    """A node of the pool, read once for many placements. `closed`: why it takes nobody, else empty."""

    name: str
    room: Resources
    closed: str = ""


def _offers(nodes: Sequence[Node], pool: str) -> list[_Offer]:
    return [_offer(node) for node in nodes if node.metadata.labels.get(keys.POOL_LABEL) == pool]


def _offer(node: Node) -> _Offer:
    name = node.metadata.name
    if not node.ready:
        return _Offer(name, Resources(), "node(s) were not ready")
    if node.spec.unschedulable:
        return _Offer(name, Resources(), "node(s) were unschedulable")
    if node.metadata.deletion_timestamp is not None:
        return _Offer(name, Resources(), "node(s) are being deleted")
    try:
        return _Offer(name, room(node))
    except QuantityError as error:
        return _Offer(name, Resources(), f"node(s) state a malformed capacity ({error})")


def _place(
    need: Usage, offers: Sequence[_Offer], usage: Mapping[str, Usage], siblings: Mapping[str, int], pool: str
) -> Placement | Refusal:
    fitting: list[tuple[int, float, str]] = []
    reasons: dict[str, int] = {}
    for offer in offers:
        after = usage.get(offer.name, Usage()).plus(need)
        why = offer.closed or _lacks(offer.room, need, after)
        if why:
            reasons[why] = reasons.get(why, 0) + 1
        else:
            fitting.append((siblings.get(offer.name, 0), -_free_share(offer.room, after), offer.name))
    if fitting:
        return Placement(node_name=min(fitting)[2])
    return Refusal(message=_explain(len(offers), reasons, pool))


def _lacks(offered: Resources, need: Usage, after: Usage) -> str:
    """Empty if the pod fits; otherwise the scheduler's words."""
    if offered.pods is not None and after.pods > offered.pods:
        return "Too many pods"
    if offered.cpu_millis is not None and need.cpu_millis and after.cpu_millis > offered.cpu_millis:
        return "Insufficient cpu"
    if offered.memory_bytes is not None and need.memory_bytes and after.memory_bytes > offered.memory_bytes:
        return "Insufficient memory"
    return ""


def _free_share(offered: Resources, after: Usage) -> float:
    """Smallest share of a resource that stays free with the pod on the node; at most 1."""
    shares = [
        1 - asked / limit
        for asked, limit in (
            (after.pods, offered.pods),
            (after.cpu_millis, offered.cpu_millis),
            (after.memory_bytes, offered.memory_bytes),
        )
        if limit
    ]
    return min(shares, default=1.0)


def _explain(count: int, reasons: Mapping[str, int], pool: str) -> str:
    """In the words of Kubernetes' scheduler: `0/2 nodes are available: 1 Insufficient cpu, 1 Too many pods.`"""
    if not count:
        return f"0/0 nodes are available: no node has the label {keys.POOL_LABEL}={pool}."
    listed = ", ".join(f"{number} {why}" for why, number in sorted(reasons.items()))
    return f"0/{count} nodes are available: {listed}."
