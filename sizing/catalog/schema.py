"""What a catalogue file says. One file for each product of a provider; users lay files of their own over them.

Every price names its source, its date and how far it can be trusted. A purchase mode without a `factor` is known
to exist but has no price: it is never chosen, and asking for it by name is an error that says so.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Confidence = Literal["documented", "reported", "recalled"]
"""documented: the provider's own text; reported: others quote it; recalled: to be checked before relying on it."""


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Per vCPU and per GiB for each `per`; the sum is the rate of a shape."""

    vcpu: float
    gib: float
    per: Literal["second", "hour"]
    source: str
    date: str
    confidence: Confidence
    per_million_requests: float = 0.0


class Billing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From when to when a pod is paid for, and how its time is rounded."""

    granularity_seconds: float = 1.0
    minimum_seconds: float = 0.0
    metered_from: Literal["image-pull", "ready"] = "image-pull"
    """image-pull: a cold start is paid for too."""


class Steps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every multiple of `step` from `least` to `most`."""

    least: float
    most: float
    step: float


class Ratio(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shapes by rule: vCPU in steps, memory in steps within GiB per vCPU and absolute bounds."""

    vcpu: Steps
    gib: Steps
    gib_per_vcpu: tuple[float, float]


Memory = list[float] | Steps


class Lattice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shapes as a table of memories by vCPU, by a rule, or both."""

    shapes: dict[float, Memory] = {}
    rule: Ratio | None = None


class Category(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A price class, e.g. ECI's `general` and `economy`."""

    price: Price
    lattices: tuple[str, ...]
    arch: tuple[str, ...] = ("amd64",)
    vcpu: tuple[float, float] | None = None
    """Least and most vCPU, both allowed."""
    idle_price: Price | None = None
    """Rate while no request is in flight, where that is billed differently."""
    one_request_below_vcpu: float = 0.0
    """Shapes smaller than this take one request at a time."""


class Interruption(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pods of this mode can be taken away."""

    per_hour: float
    """Expected interruptions for each pod-hour."""
    notice_seconds: float


class PurchaseMode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    factor: float | None = None
    """Of the category's rate. None: no price known."""
    note: str = ""
    min_vcpu: float = 0.0
    lattices: tuple[str, ...] = ()
    """Instead of the category's, when given."""
    except_categories: tuple[str, ...] = ()
    except_arch: tuple[str, ...] = ()
    interruption: Interruption | None = None


class Overhead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Added to what the pod asks for, before rounding up."""

    vcpu: float = 0.0
    gib: float = 0.0


class Supply(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Token bucket of pod creations for each account."""

    burst: float
    per_second: float


class Start(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Medians of a cold start's stages, seconds, before anything was observed."""

    schedule_seconds: float
    sandbox_seconds: float
    pull_seconds: float = 0.0
    """Of an image that is not cached, beyond its bytes: manifest, unpacking, attaching."""
    image_cache: bool = True
    sigma: float = 0.25
    """Of the logarithm of the whole."""


class Idle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a pod costs while it does not run but can be resumed, as parts of its rate."""

    frozen: float | None = None
    """Share of the rate that memory alone costs. None: the rung does not exist."""
    thaw_seconds: float = 0.015
    snapshot: float | None = None
    restore_seconds: float = 0.4


class Provider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One catalogue file."""

    provider: str
    title: str
    currency: str
    as_of: str
    billing: Billing
    lattices: dict[str, Lattice]
    categories: dict[str, Category]
    purchase_modes: dict[str, PurchaseMode]
    start: Start
    supply: Supply | None = None
    overhead: Overhead = Overhead()
    default: tuple[float, float] | None = None
    """vCPU and GiB of a pod that asks for nothing."""
    net_gbps: dict[float, float] = {}
    """Cap of a shape's network by vCPU; the next smaller entry counts. Empty: no cap known."""
    idle: Idle = Idle()
    zones: tuple[str, ...] = ()
