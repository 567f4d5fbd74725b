"""Whether a pod may be given requests: what we saw ourselves, corrected by what Kubernetes says. Pure.

```
            probe answered, or Ready=True
  UNKNOWN ────────────────────────────────► ANSWERED ──connection refused──► DISTRUSTED
     ▲                                       │    ▲                              │
     │ probe fails                Ready: True│    │probe answered,               │ probe answered,
     └───────────────── SUSPECT ◄───to False─┘    │or Ready=True again           │ or Ready turns True anew
                           └──────────────────────┴──────────────────────────────┘
```

SUSPECT stays listed until its next probe fails: a restarted virtual kubelet turns every pod it owns to
Ready=False for a moment, and that must not take pods away that still answer. The activator releases nothing
to it meanwhile. A revision with an exec probe has no probe that we could repeat, so there Ready=False counts
at once. DISTRUSTED ignores a standing Ready=True: a connection that failed is newer than kubelet's period.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from serving.activator.model import PodEndpoint, RevisionConfig


class Standing(Enum):
    UNKNOWN = "unknown"
    ANSWERED = "answered"
    SUSPECT = "suspect"
    DISTRUSTED = "distrusted"


class PodView(msgspec.Struct, frozen=True, kw_only=True):
    """One pod and what we hold of it."""

    endpoint: PodEndpoint
    standing: Standing

    @property
    def listed(self) -> bool:
        """Ready as far as the gateway is concerned. A draining pod stays listed, as DRAINING."""
        live = bool(self.endpoint.address) and not self.endpoint.terminating
        return live and self.standing in (Standing.ANSWERED, Standing.SUSPECT)

    @property
    def open(self) -> bool:
        """New requests may be released to it."""
        return self.endpoint.eligible and self.standing is Standing.ANSWERED


def waits_for_kubelet(config: RevisionConfig) -> bool:
    """An exec probe can only be run by the kubelet. A gateway that wants a startup probe to be waited for
    passes it as an exec readiness probe."""
    return config.readiness is not None and config.readiness.exec is not None


def wants_probe(view: PodView, config: RevisionConfig) -> bool:
    """Whether it should be probed now."""
    if not view.endpoint.eligible or view.standing is Standing.ANSWERED:
        return False
    return view.standing is not Standing.UNKNOWN or not waits_for_kubelet(config)


def observe(before: PodView | None, endpoint: PodEndpoint, config: RevisionConfig) -> PodView:
    """A new truth from the API server. A new address is a new pod: nothing that we saw counts any more."""
    if before is None or before.endpoint.address != endpoint.address:
        standing = Standing.ANSWERED if endpoint.kube_ready and endpoint.address else Standing.UNKNOWN
        return PodView(endpoint=endpoint, standing=standing)
    return PodView(endpoint=endpoint, standing=_observed(before, endpoint, config))


def _observed(before: PodView, endpoint: PodEndpoint, config: RevisionConfig) -> Standing:
    was, now = before.endpoint.kube_ready, endpoint.kube_ready
    match before.standing:
        case Standing.ANSWERED if was and not now:
            return Standing.UNKNOWN if waits_for_kubelet(config) else Standing.SUSPECT
        case Standing.UNKNOWN | Standing.SUSPECT if now:
            return Standing.ANSWERED
        case Standing.DISTRUSTED if now and not was:
            return Standing.ANSWERED
        case standing:
            return standing


def probed(view: PodView, *, answered: bool) -> PodView:
    """Our own probe came back."""
    if answered:
        return msgspec.structs.replace(view, standing=Standing.ANSWERED)
    if view.standing is Standing.SUSPECT:
        return msgspec.structs.replace(view, standing=Standing.UNKNOWN)
    return view


def refused(view: PodView) -> PodView:
    """A released request could not connect to it."""
    return msgspec.structs.replace(view, standing=Standing.DISTRUSTED)
