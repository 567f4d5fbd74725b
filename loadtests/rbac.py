"""How long one decision of the embedded API server's RBAC takes, with many bindings.

    python -m loadtests.rbac [--namespaces 1000]

Three bindings (admin, edit, view) to a user and a group in each namespace; requests of a user who is admin, one
who may only view, and one who may nothing, of verbs and resources that are allowed and that are not. Counted is
the processor's time, so that other processes on the machine do not matter.
"""

from __future__ import annotations

import time
from itertools import product

from loadtests.common import CONSOLE, parser_of
from serving.api.meta import JsonObject
from serving.local.apiserver.access.aggregation import aggregated_rules
from serving.local.apiserver.access.attributes import Attributes
from serving.local.apiserver.access.bootstrap_roles import cluster_role_bindings, cluster_roles
from serving.local.apiserver.access.policy import Policy
from serving.local.apiserver.request import User

_ROUNDS = 300
_ASKED = (
    ("", "pods", ""),
    ("", "pods", "log"),
    ("apps", "deployments", "scale"),
    ("", "secrets", ""),
    ("x", "y", ""),
)
_VERBS = ("get", "list", "watch", "create", "update", "delete")


def policy(namespaces: int) -> Policy:
    roles = cluster_roles()
    for _ in range(3):  # aggregates of aggregates
        for role in roles:
            if "aggregationRule" in role:
                role["rules"] = aggregated_rules(role, roles)
    made = Policy()
    for role in roles:
        made.set_role("", role["metadata"]["name"], role)
    for binding in cluster_role_bindings():
        made.set_binding("", binding["metadata"]["name"], binding)
    for number, role_name in product(range(namespaces), ("admin", "edit", "view")):
        subjects: list[JsonObject] = [
            {"kind": "User", "name": f"{role_name}-{number}"},
            {"kind": "Group", "name": f"{role_name}s-{number}"},
        ]
        reference = {"kind": "ClusterRole", "name": role_name}
        made.set_binding(f"ns-{number}", role_name, {"roleRef": reference, "subjects": subjects})
    return made


def times(made: Policy) -> list[float]:
    """Sorted, in seconds."""
    found = []
    users = [User(name=f"{name}-5", groups=("system:authenticated",)) for name in ("admin", "view", "nobody")]
    for _, user, verb, (group, resource, subresource) in product(range(_ROUNDS), users, _VERBS, _ASKED):
        asked = Attributes(
            user=user,
            verb=verb,
            group=group,
            resource=resource,
            subresource=subresource,
            namespace="ns-5",
        )
        began = time.thread_time()
        made.decide(asked)
        found.append(time.thread_time() - began)
    return sorted(found)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--namespaces", type=int, default=1000)
    namespaces: int = parser.parse_args().namespaces
    found = times(policy(namespaces))
    p50, p99 = (found[int(len(found) * share)] * 1e6 for share in (0.5, 0.99))
    CONSOLE.print(f"{len(found)} decisions, {3 * namespaces} bindings: p50 {p50:.1f} µs, p99 {p99:.1f} µs (≤ 50)")


if __name__ == "__main__":
    main()
