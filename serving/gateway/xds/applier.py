"""Brings Envoy's copy of one kind of item to the wanted one, with at most one change under way. Pure.

An item is a cluster, an endpoint assignment, a listener, or one virtual host of a route configuration; it has a
name and a version (hash of its content). While a change waits for its ACK, later wishes gather and go out
together: there is no timer.

Envoy refuses a change as a whole. Then the items of the change are halved until the offender stands alone: it
is left out (Envoy keeps the version of it that it had, if any) and everything else goes on. An item may have been
refused only because of another one in the same change (a host moves between two virtual hosts), so those left
over are tried once more at the end, as long as that makes progress.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec


class Change(msgspec.Struct, frozen=True):
    """Items to put (name to version) and to remove."""

    puts: dict[str, str]
    removals: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.puts or self.removals)


class Refusal(msgspec.Struct, frozen=True):
    """Envoy's error for one version of one item."""

    version: str
    error: str


class Applier:
    """`acked` is what Envoy has accepted, as far as we know."""

    def __init__(self) -> None:
        self.acked: dict[str, str] = {}
        self.refused: dict[str, Refusal] = {}
        self.in_flight: Change | None = None
        self._wanted: dict[str, str] = {}
        self._dirty: set[str] = set()
        self._touched: set[str] = set()
        self._groups: list[list[str]] = []
        self._suspects: list[str] = []
        self._progress = False

    @property
    def wanted(self) -> Mapping[str, str]:
        return self._wanted

    @property
    def settled(self) -> bool:
        """Nothing to send and nothing to wait for. Refused items count as settled."""
        return self.in_flight is None and not self._dirty

    def want(self, name: str, version: str | None) -> None:
        """None = must not be there."""
        if version is None:
            self._wanted.pop(name, None)
            self._touched.discard(name)
            self.refused.pop(name, None)
        else:
            self._wanted[name] = version
            refusal = self.refused.get(name)
            if refusal is not None and refusal.version != version:
                del self.refused[name]
        self._mark(name)

    def touch(self, name: str) -> None:
        """Send the item again although Envoy may have it."""
        if name in self._wanted:
            self._touched.add(name)
            self._mark(name)

    def reset(self, acked: Mapping[str, str]) -> None:
        """A new stream began, with what Envoy says it has."""
        self.acked = dict(acked)
        self.in_flight = None
        self._groups, self._suspects, self._progress = [], [], False
        self._dirty, self._touched = set(), set()
        for name in self._wanted.keys() | self.acked.keys():
            self._mark(name)

    def forget(self, name: str) -> None:
        """Envoy dropped the item by itself."""
        self.acked.pop(name, None)
        self._mark(name)

    def next(self, may: Callable[[str], bool]) -> Change | None:
        """The next change to send, which is then under way; None = nothing now. `may(name)` says whether the
        item may be put or removed at this time."""
        if self.in_flight is not None:
            return None
        while True:
            grouped = bool(self._groups)
            change = self._change(self._groups.pop(0) if grouped else self._dirty, may)
            if change:
                self._touched.difference_update(change.puts)
                self.in_flight = change
                return change
            # A group may have become moot; what else is dirty must not wait for another event.
            if not grouped and not self._try_suspects():
                return None

    def ack(self) -> Change:
        """The change under way was accepted; returns it."""
        change = self._take()
        for name, version in change.puts.items():
            self.acked[name] = version
            self._progress = True
            self._mark(name)
        for name in change.removals:
            self.acked.pop(name, None)
            self._mark(name)
        return change

    def nack(self, error: str) -> list[str]:
        """The change under way was refused; returns the names now known to be at fault."""
        change = self._take()
        if change.removals:
            self._groups.insert(0, sorted(change.removals))
        if len(change.puts) == 1:
            return self._refuse(*next(iter(change.puts.items())), error)
        names = sorted(change.puts)
        middle = len(names) // 2
        self._groups[0:0] = [half for half in (names[:middle], names[middle:]) if half]
        if not change.puts:
            # Nothing can be wrong with a removal alone; believing it done avoids asking forever.
            for name in change.removals:
                self.acked.pop(name, None)
                self._mark(name)
        return []

    def _refuse(self, name: str, version: str, error: str) -> list[str]:
        if not self._suspects:
            self._progress = False
        self._suspects.append(name)
        self.refused[name] = Refusal(version, error)
        self._mark(name)
        return [name]

    def _try_suspects(self) -> bool:
        """At the end of a sweep: try the refused ones alone, if anything else was accepted meanwhile."""
        suspects, self._suspects = self._suspects, []
        progress, self._progress = self._progress, False
        again = [name for name in dict.fromkeys(suspects) if name in self.refused]
        if not again or not progress:
            return False
        for name in again:
            del self.refused[name]
            self._mark(name)
        self._groups = [[name] for name in again]
        return True

    def _change(self, names: Iterable[str], may: Callable[[str], bool]) -> Change:
        ready = [name for name in names if name in self._dirty and may(name)]
        puts = {name: self._wanted[name] for name in ready if name in self._wanted}
        return Change(puts, frozenset(name for name in ready if name not in self._wanted))

    def _mark(self, name: str) -> None:
        """File the item as dirty or clean."""
        wanted = self._wanted.get(name)
        refusal = self.refused.get(name)
        given_up = refusal is not None and refusal.version == wanted
        current = wanted == self.acked.get(name) and name not in self._touched
        if current or given_up:
            self._dirty.discard(name)
        else:
            self._dirty.add(name)

    def _take(self) -> Change:
        change, self.in_flight = self.in_flight, None
        if change is None:
            raise ValueError("no change is under way")
        return change
