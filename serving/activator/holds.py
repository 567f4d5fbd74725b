"""What goes into and comes out of a throttle, as plain values. Pure. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import msgspec


class Refused(Enum):
    """Why a held request was turned away."""

    QUEUE_FULL = "queue full"
    TIMEOUT = "timeout"
    GONE = "gone"


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """One request that asks to be let through.

    `id` is Envoy's stream id: the same when Envoy asks again for the same request, different for every other
    request, and not under the client's control. `token` identifies the same stream in the access log of a
    request that never learnt of its release. `request_id` is the x-request-id: only a hint, clients choose it.
    """

    id: str
    token: int
    request_id: str
    started: float
    arrived: float


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A held request was given a slot of a pod. `epoch` tells which access-log streams can report its end."""

    id: int
    hold: Hold
    pod: str
    address: str
    at: float
    epoch: int = 0


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    hold: Hold
    reason: Refused


class Effects(msgspec.Struct, frozen=True):
    """What the shell must do now. `ended`: releases that left the ledger, by id, for whoever stores it."""

    releases: Sequence[Release] = ()
    refusals: Sequence[Refusal] = ()
    ended: Sequence[int] = ()


NOTHING = Effects()


class Slots(msgspec.Struct, frozen=True, kw_only=True):
    """One pod as the throttle sees it. `open`: new requests may go to it."""

    uid: str
    address: str
    open: bool
