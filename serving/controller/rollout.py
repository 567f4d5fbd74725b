"""Gradual rollout: a new latest revision takes its predecessor's traffic in steps, never in a jump.

The first percent moves at once. How long it took until every gateway served that (t0 seconds) says how fast steps
can be: with m = max(1, t0), D = max(1, duration - m) and p the target's percentage there are
n = min(max(1, D / m), p - 1) steps of round((p - 1) / n) percent, D / n seconds apart. Example: p = 100, duration
60 s, t0 = 1 s gives 59 steps of 2 %, one a second. A revision that appears during a rollout takes from the newest
of the former ones first, and the timing begins anew.

Pure: `step` is a function of the goal, the state before and the time (Unix nanoseconds).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from serving.api.rollout import RevisionShare, Rollout, StepParams, TargetRollout

SECOND: Final = 1_000_000_000

_replace = msgspec.structs.replace


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """One target that follows the latest revision of a configuration; `percent` of its tag's traffic."""

    configuration: str
    tag: str
    revision: str
    percent: int


def steady(goals: Iterable[Goal]) -> Rollout:
    """The state in which every goal is reached. Goals of one target add up to its revisions, oldest first; a tag
    that names several counts the last."""
    targets: dict[tuple[str, str], TargetRollout] = {}
    for goal in goals:
        if goal.percent <= 0:
            continue
        key = (goal.configuration, goal.tag)
        former = targets.get(key)
        share = RevisionShare(revision_name=goal.revision, percent=goal.percent)
        shares = (*former.revisions, share) if former is not None and not goal.tag else (share,)
        targets[key] = TargetRollout(
            configuration_name=goal.configuration,
            tag=goal.tag,
            percent=sum(one.percent for one in shares),
            revisions=shares,
        )
    return _sorted(targets.values())


def observe_ready(before: Rollout, *, now: int, duration_seconds: float) -> Rollout:
    """Every gateway serves what `before` says: targets that just began get their step size and time."""
    return Rollout(
        configurations=tuple(
            _timed(target, now=now, duration_seconds=duration_seconds) for target in before.configurations
        )
    )


def step(goal: Rollout, before: Rollout | None, *, now: int) -> Rollout:
    """The state that should hold at `now`: `goal`, approached from `before`."""
    if before is None or not before.configurations:
        return goal
    return _sorted(
        _step(target, former, now=now)
        if (former := before.of(target.configuration_name, target.tag)) and target.percent > 1
        else target
        for target in goal.configurations
    )


def split(rollout: Rollout, percents: Mapping[str, list[int]]) -> dict[str, list[list[RevisionShare]]]:
    """Shares of the Route's own host, dealt out to the targets of each configuration.

    `percents`: what each target of a configuration is to have, in order. Several targets can follow one
    configuration under different tags; the oldest revisions go to the first.
    """
    dealt: dict[str, list[list[RevisionShare]]] = {}
    for configuration, wanted in percents.items():
        target = rollout.of(configuration, "")
        pool = list(target.revisions) if target is not None else []
        rows = dealt[configuration] = []
        for percent in wanted:
            row: list[RevisionShare] = []
            while percent > 0 and pool:
                taken = min(percent, pool[0].percent)
                row.append(_replace(pool[0], percent=taken))
                percent -= taken
                if taken == pool[0].percent:
                    pool.pop(0)
                else:
                    pool[0] = _replace(pool[0], percent=pool[0].percent - taken)
            rows.append(row)
    return dealt


def _timed(target: TargetRollout, *, now: int, duration_seconds: float) -> TargetRollout:
    start = target.step_params.start_time
    if target.step_params.step_duration or not start or target.done:
        return target
    smallest = max(1.0, math.ceil((now - start) / SECOND))
    duration = max(1.0, duration_seconds - smallest)
    remaining = target.percent - 1
    steps = min(max(1.0, duration / smallest), remaining)
    pause = int(duration / steps * SECOND)
    params = StepParams(
        start_time=start,
        step_duration=pause,
        step_size=math.floor(remaining / steps + 0.5),
        next_step_time=now + pause,
    )
    return _replace(target, step_params=params)


def _step(goal: TargetRollout, before: TargetRollout, *, now: int) -> TargetRollout:
    if not before.revisions:
        return goal
    shares = _adjusted(before.revisions, goal.percent - before.percent)
    latest = goal.revisions[0].revision_name
    if before.revisions[-1].revision_name != latest:
        return _begun(goal, shares, latest, now=now)
    if len(before.revisions) < 2:
        return goal
    moved = _replace(goal, revisions=shares, step_params=before.step_params)
    return _moved(moved, now=now) if before.step_params.step_size > 0 else moved


def _begun(goal: TargetRollout, shares: tuple[RevisionShare, ...], latest: str, *, now: int) -> TargetRollout:
    """One percent from the newest revision that has any to `latest`."""
    rows = list(shares)
    for index in range(len(rows) - 1, -1, -1):
        if rows[index].percent > 0:
            rows[index] = _replace(rows[index], percent=rows[index].percent - 1)
            break
    rows = [row for row in rows if row.percent > 0 and row.revision_name != latest]
    first = goal.percent - sum(row.percent for row in rows)
    revisions = (*rows, RevisionShare(revision_name=latest, percent=first))
    return _replace(goal, revisions=revisions, step_params=StepParams(start_time=now))


def _moved(target: TargetRollout, *, now: int) -> TargetRollout:
    """One step, if it is due: from the newest of the former revisions backwards."""
    params = target.step_params
    if now < params.next_step_time or target.done:
        return target
    *rows, last = target.revisions
    remaining = params.step_size
    while rows and remaining > 0:
        if rows[-1].percent > remaining:
            rows[-1] = _replace(rows[-1], percent=rows[-1].percent - remaining)
            break
        remaining -= rows.pop().percent
    last = _replace(last, percent=target.percent - sum(row.percent for row in rows))
    params = _replace(params, next_step_time=now + params.step_duration) if rows else StepParams()
    return _replace(target, revisions=(*rows, last), step_params=params)


def _adjusted(revisions: tuple[RevisionShare, ...], difference: int) -> tuple[RevisionShare, ...]:
    """The target's percentage changed: more goes to the newest, less is taken from the oldest."""
    rows = list(revisions)
    if difference >= 0:
        rows[-1] = _replace(rows[-1], percent=rows[-1].percent + difference)
        return tuple(rows)
    missing = -difference
    while missing > 0 and rows:
        if rows[0].percent > missing:
            rows[0] = _replace(rows[0], percent=rows[0].percent - missing)
            break
        missing -= rows.pop(0).percent
    return tuple(rows)


def _sorted(targets: Iterable[TargetRollout]) -> Rollout:
    return Rollout(
        configurations=tuple(sorted(targets, key=lambda target: (target.tag, target.configuration_name)))
    )
