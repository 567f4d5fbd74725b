"""`config-leader-election`: checked as upstream checks it, otherwise not used (nodeless has leases of its own)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from serving.api.config.reader import Reader
from serving.api.duration import SECOND

CONFIG_NAME: Final = "config-leader-election"
MAX_BUCKETS: Final = 10


class LeaderElectionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Times are seconds."""

    lease_duration: float = 60.0
    renew_deadline: float = 40.0
    retry_period: float = 10.0
    buckets: int = 1
    """[1, 10]."""


def parse(data: Mapping[str, str]) -> LeaderElectionConfig:
    """The configuration of a ConfigMap's `data`. Raises ConfigError for the first value that is not allowed."""
    read = Reader(data)
    times = {
        name: read.nanoseconds(key, read.nanoseconds(legacy, default * SECOND)) / SECOND
        for name, key, legacy, default in (
            ("lease_duration", "lease-duration", "leaseDuration", 60),
            ("renew_deadline", "renew-deadline", "renewDeadline", 40),
            ("retry_period", "retry-period", "retryPeriod", 10),
        )
    }
    buckets = read.integer("buckets", 1, bits=32, signed=False)
    if not 1 <= buckets <= MAX_BUCKETS:
        message = f"buckets: value must be between 1 <= {buckets} <= {MAX_BUCKETS}"
        raise read.refused(message, "buckets", f"1 to {MAX_BUCKETS}")
    return LeaderElectionConfig(buckets=buckets, **times)
