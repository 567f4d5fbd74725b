"""Back-off of failing containers and failing preparations, as the kubelet times them.

A container's first restart is immediate. Each further one waits 10 s, 20 s, 40 s … up to 5 min after the exit,
and the count starts over when the container ran for more than 10 min since the last restart.
"""

from __future__ import annotations

from typing import Final

import msgspec

from serving.api.duration import SECOND, format_duration, parse_seconds

FIRST_SECONDS: Final = 10.0
CAP_SECONDS: Final = 300.0
RESET_SECONDS: Final = 2 * CAP_SECONDS


class Backoff(msgspec.Struct, frozen=True):
    """Back-off of one container. `delay` 0 = it never restarted."""

    delay: float = 0.0
    updated_at: float = 0.0

    def restart_at(self, finished_at: float) -> float:
        """Earliest time of the restart after an exit at `finished_at`, Unix seconds."""
        return finished_at if self._expired(finished_at) else finished_at + self.delay

    def restarted(self, finished_at: float, now: float) -> Backoff:
        """The back-off once the restart after the exit at `finished_at` began at `now`."""
        if self._expired(finished_at):
            return Backoff(FIRST_SECONDS, now)
        return Backoff(min(self.delay * 2, CAP_SECONDS), now)

    def _expired(self, finished_at: float) -> bool:
        return self.delay == 0 or finished_at - self.updated_at > RESET_SECONDS


def retry_delay(tries: int, *, first: float, cap: float) -> float:
    """Seconds before try number `tries` + 1, doubling from `first` to `cap`; tries ≥ 1."""
    return min(first * 2.0 ** min(tries - 1, 30), cap)


def crash_message(delay: float, *, container: str, pod: str) -> str:
    """The kubelet's words; `pod` is `name_namespace(uid)`."""
    return f"back-off {format_duration(round(delay) * SECOND)} restarting failed container={container} pod={pod}"


def delay_of(message: str) -> float | None:
    """The delay that a `crash_message` speaks of, seconds; None when it is no such message."""
    words = message.split()
    if len(words) < 2 or words[0] != "back-off":
        return None
    try:
        return parse_seconds(words[1])
    except ValueError:
        return None
