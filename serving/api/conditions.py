"""The algebra of `status.conditions`: dependents decide one *happy* condition (`Ready` or `Succeeded`).

Invariants: conditions are sorted by type; a dependent and the happy condition have the default severity (error,
omitted on the wire), every other one has severity `Info` and never touches the happy condition; a condition's
`lastTransitionTime` moves exactly when its status, reason, message or severity changes, so marking what already
holds returns equal conditions and costs no write.

Values in, values out: each method takes the conditions and returns new ones. `now` is an RFC 3339 time of whole
seconds in UTC (`serving.api.timestamps.format_seconds`); such strings sort like the times they denote.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from serving.api.meta import Condition, find_condition

TRUE: Final = "True"
FALSE: Final = "False"
UNKNOWN: Final = "Unknown"
READY: Final = "Ready"
SUCCEEDED: Final = "Succeeded"
INFO: Final = "Info"

Conditions: TypeAlias = tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class ConditionSet:
    """Which conditions a kind has: `dependents` (their conjunction is `happy`). Others may be marked freely."""

    dependents: tuple[str, ...] = ()
    happy: str = READY

    def initialise(self, conditions: Conditions, *, now: str) -> Conditions:
        """Add the missing conditions: Unknown, or True for a dependent of an object that is already happy."""
        happy = find_condition(conditions, self.happy)
        if happy is None:
            happy = Condition(type=self.happy, status=UNKNOWN)
            conditions = set_condition(conditions, happy, now=now)
        status = TRUE if happy.status == TRUE else UNKNOWN
        for kind in self.dependents:
            if find_condition(conditions, kind) is None:
                conditions = set_condition(conditions, Condition(type=kind, status=status), now=now)
        return conditions

    def mark_true(
        self, conditions: Conditions, kind: str, *, now: str, reason: str = "", message: str = ""
    ) -> Conditions:
        """`kind` becomes True; the happy condition becomes True unless a dependent is not.

        Then it copies that dependent: the False one, else the Unknown one, that transitioned last.
        """
        conditions = self._set(conditions, kind, TRUE, reason, message, now)
        unhappy = self._unhappy_dependent(conditions)
        if unhappy is not None:
            return self._set(conditions, self.happy, unhappy.status, unhappy.reason, unhappy.message, now)
        if kind != self.happy:
            return self._set(conditions, self.happy, TRUE, "", "", now)
        return conditions

    def mark_false(self, conditions: Conditions, kind: str, *, now: str, reason: str, message: str) -> Conditions:
        """`kind` becomes False, and with it the happy condition if `kind` is a dependent."""
        conditions = self._set(conditions, kind, FALSE, reason, message, now)
        if kind in self.dependents:
            conditions = self._set(conditions, self.happy, FALSE, reason, message, now)
        return conditions

    def mark_unknown(
        self, conditions: Conditions, kind: str, *, now: str, reason: str = "", message: str = ""
    ) -> Conditions:
        """`kind` becomes Unknown, and with it the happy condition if `kind` is a dependent and none is False."""
        conditions = self._set(conditions, kind, UNKNOWN, reason, message, now)
        if any(_status(conditions, dependent) == FALSE for dependent in self.dependents):
            if _status(conditions, self.happy) != FALSE:
                conditions = self._set(conditions, self.happy, FALSE, reason, message, now)
            return conditions
        if kind in self.dependents:
            conditions = self._set(conditions, self.happy, UNKNOWN, reason, message, now)
        return conditions

    def mark(self, conditions: Conditions, kind: str, source: Condition | None, *, now: str) -> Conditions:
        """`kind` takes status, reason and message of another object's condition; None reads as Unknown."""
        if source is None:
            return self.mark_unknown(conditions, kind, now=now)
        if source.status == TRUE:
            return self.mark_true(conditions, kind, now=now, reason=source.reason, message=source.message)
        if source.status == FALSE:
            return self.mark_false(conditions, kind, now=now, reason=source.reason, message=source.message)
        return self.mark_unknown(conditions, kind, now=now, reason=source.reason, message=source.message)

    def clear(self, conditions: Conditions, kind: str) -> Conditions:
        """Without `kind`. Raises ValueError for a dependent or the happy condition: these always exist."""
        if kind == self.happy or kind in self.dependents:
            raise ValueError(f"condition {kind!r} decides {self.happy!r} and cannot be cleared")
        return tuple(condition for condition in conditions if condition.type != kind)

    def is_happy(self, conditions: Conditions) -> bool:
        return _status(conditions, self.happy) == TRUE

    def _set(
        self, conditions: Conditions, kind: str, status: str, reason: str, message: str, now: str
    ) -> Conditions:
        terminal = kind == self.happy or kind in self.dependents
        condition = Condition(
            type=kind, status=status, reason=reason, message=message, severity="" if terminal else INFO
        )
        return set_condition(conditions, condition, now=now)

    def _unhappy_dependent(self, conditions: Conditions) -> Condition | None:
        if not self.dependents:
            return None
        dependents = [c for c in conditions if not c.severity and c.type != self.happy]
        dependents.sort(key=lambda c: c.last_transition_time or "", reverse=True)
        for status in (FALSE, UNKNOWN):
            found = next((c for c in dependents if c.status == status), None)
            if found is not None:
                return found
        if len(dependents) < len(self.dependents):
            return Condition(type="", status=UNKNOWN)
        return None


def set_condition(conditions: Conditions, condition: Condition, *, now: str) -> Conditions:
    """Replace or add one condition. The time moves only if anything else of it changes; sorted by type."""
    old = find_condition(conditions, condition.type)
    if old is not None:
        same = msgspec.structs.replace(condition, last_transition_time=old.last_transition_time)
        if same == old:
            return conditions
    new = msgspec.structs.replace(condition, last_transition_time=now)
    return sort_conditions((*(c for c in conditions if c.type != condition.type), new))


def sort_conditions(conditions: Iterable[Condition]) -> Conditions:
    return tuple(sorted(conditions, key=lambda condition: condition.type))


def _status(conditions: Conditions, kind: str) -> str:
    condition = find_condition(conditions, kind)
    return condition.status if condition is not None else UNKNOWN
