"""Items of one kind with their content: what is wanted, what is under way, what Envoy has. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from serving.gateway.xds.applier import Applier, Change
from serving.gateway.xds.snapshot import Item


class Collection:
    """An `Applier` of versions, and the items behind them.

    `known` are the items that Envoy acknowledged and whose content we know; an item that Envoy still has from an
    earlier agent, in a version that is not the wanted one, is in `acked` only.
    """

    def __init__(self) -> None:
        self.applier = Applier()
        self.wanted: dict[str, Item] = {}
        self.known: dict[str, Item] = {}
        self.sent: dict[str, Item] = {}

    def want(self, name: str, item: Item | None) -> None:
        old = self.wanted.get(name)
        if item is None:
            self.wanted.pop(name, None)
        else:
            self.wanted[name] = item
        if (old and old.version) != (item and item.version):
            self.applier.want(name, item.version if item else None)

    def want_all(self, items: Mapping[str, Item], *, keep: Callable[[str], bool] = lambda _name: False) -> None:
        """Exactly these, but items for which `keep` holds stay as they are."""
        for name in [name for name in self.wanted if name not in items and not keep(name)]:
            self.want(name, None)
        for name, item in items.items():
            self.want(name, item)

    def reset(self, acked: Mapping[str, str]) -> None:
        self.applier.reset(acked)
        self.sent = {}
        self.known = {
            name: item for name, item in self.wanted.items() if self.applier.acked.get(name) == item.version
        }

    def next(self, may: Callable[[str], bool]) -> Change | None:
        change = self.applier.next(may)
        if change is not None:
            self.sent = {name: self.wanted[name] for name in change.puts}
        return change

    def ack(self) -> Change:
        change = self.applier.ack()
        self.known |= self.sent
        for name in change.removals:
            self.known.pop(name, None)
        self.sent = {}
        return change

    def nack(self, error: str) -> list[str]:
        self.sent = {}
        return self.applier.nack(error)

    def forget(self, name: str) -> None:
        self.known.pop(name, None)
        self.applier.forget(name)
