"""What the pods of each node ask for together, kept as pods come and go. Pure.

A create must not look at every pod: summing a thousand takes longer than all the rest of a cold start's decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from serving.api.pod import Pod
from serving.pool.placement import Usage, usage_by_node


class NodeUsage:
    """Feed it every change of every pod; the same answer as `usage_by_node` over all of them."""

    def __init__(self) -> None:
        self._sums: dict[str, Usage] = {}

    @property
    def by_node(self) -> Mapping[str, Usage]:
        return MappingProxyType(self._sums)

    def change(self, old: Pod | None, new: Pod | None) -> None:
        """One pod came (`old` None), went (`new` None) or is another than before."""
        if old is not None and new is not None and old.spec == new.spec and old.finished == new.finished:
            return
        for pod, sign in ((old, -1), (new, 1)):
            for node, share in usage_by_node((pod,) if pod is not None else ()).items():
                self._add(node, share, sign)

    def _add(self, node: str, share: Usage, sign: int) -> None:
        before = self._sums.get(node, Usage())
        after = Usage(
            pods=before.pods + sign * share.pods,
            cpu_millis=before.cpu_millis + sign * share.cpu_millis,
            memory_bytes=before.memory_bytes + sign * share.memory_bytes,
        )
        if after == Usage():
            self._sums.pop(node, None)
        else:
            self._sums[node] = after
