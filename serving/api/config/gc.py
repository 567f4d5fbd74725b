"""`config-gc`: how long Revisions without traffic are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from serving.api.config.errors import ConfigError
from serving.api.config.reader import Reader
from serving.api.duration import HOUR, SECOND, parse_duration
from serving.api.names import quote

CONFIG_NAME: Final = "config-gc"
_PREFIX: Final = "failed to parse data: "
_MAX_INT64: Final = 2**63 - 1


class GcConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Ages are seconds; None = `disabled`."""

    retain_since_create_time: float | None = 48 * HOUR / SECOND
    """>= 0."""
    retain_since_last_active_time: float | None = 15 * HOUR / SECOND
    """>= 0."""
    min_non_active_revisions: int = 20
    """[0, max_non_active_revisions]."""
    max_non_active_revisions: int | None = 1000


def parse(data: Mapping[str, str]) -> GcConfig:
    """The configuration of a ConfigMap's `data`. Raises ConfigError for the first value that is not allowed."""
    default = GcConfig()
    read = Reader(data, prefix=_PREFIX)
    low = read.integer("min-non-active-revisions", default.min_non_active_revisions)
    created = _age(read, "retain-since-create-time", default.retain_since_create_time)
    active = _age(read, "retain-since-last-active-time", default.retain_since_last_active_time)
    high = _maximum(read, default.max_non_active_revisions)
    if low < 0:
        message = f"min-non-active-revisions must be non-negative, was: {low}"
        raise read.refused(message, "min-non-active-revisions", "0 or more")
    if high is not None and low > high:
        message = f"min-non-active-revisions({low}) must be <= max-non-active-revisions({high})"
        raise read.refused(message, "min-non-active-revisions", f"0 to {high}")
    return GcConfig(
        retain_since_create_time=created,
        retain_since_last_active_time=active,
        min_non_active_revisions=low,
        max_non_active_revisions=high,
    )


def _age(read: Reader, key: str, default: float | None) -> float | None:
    text = read.text(key, "")
    if not text:
        return default
    if text.lower() == "disabled":
        return None
    try:
        nanoseconds = parse_duration(text)
    except ValueError as error:
        raise _unparsable(read, key, str(error), "a Go duration of 0s or more, or disabled") from error
    if nanoseconds < 0:
        raise _unparsable(read, key, "must be non-negative", "a Go duration of 0s or more, or disabled")
    return nanoseconds / SECOND


def _maximum(read: Reader, default: int | None) -> int | None:
    key, allowed = "max-non-active-revisions", "0 or more, or disabled"
    text = read.text(key, "")
    if not text:
        return default
    if text.lower() == "disabled":
        return None
    if not (text.isascii() and text.isdigit()):
        raise _unparsable(read, key, f"strconv.ParseUint: parsing {quote(text)}: invalid syntax", allowed)
    if len(text) > 20 or int(text) >= 2**64:
        raise _unparsable(read, key, f"strconv.ParseUint: parsing {quote(text)}: value out of range", allowed)
    if int(text) > _MAX_INT64:
        raise _unparsable(read, key, f"value should be lower than {_MAX_INT64}", allowed)
    return int(text)


def _unparsable(read: Reader, key: str, why: str, allowed: str) -> ConfigError:
    return read.refused(f"failed to parse {key}: {why}", key, allowed)
