"""What plain HTTP gets from outside: an answer, or a redirect to https."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from serving.api.config.network import HTTP_ENABLED, HTTP_REDIRECTED

HTTP_OPTION_KEYS: Final = ("networking.knative.dev/httpOption", "networking.knative.dev/http-protocol")
"""On a Service, Route or DomainMapping; the first one that is there counts."""


class HttpOptionError(ValueError):
    """The annotation has another value than `enabled` or `redirected`."""


def http_option(annotations: Mapping[str, str]) -> str:
    """The annotation's value in lower case, empty when there is none."""
    return next((annotations[key].lower() for key in HTTP_OPTION_KEYS if annotations.get(key)), "")


def check_http_option(annotations: Mapping[str, str]) -> None:
    """Raises HttpOptionError with Knative's text."""
    option = http_option(annotations)
    if option not in ("", HTTP_ENABLED, HTTP_REDIRECTED):
        raise HttpOptionError(f"incorrect http-protocol annotation: {option}")


def redirects(annotations: Mapping[str, str], *, default: str) -> bool:
    """Whether plain HTTP is redirected; `default` is http-protocol of config-network. A value that is neither
    counts as the default."""
    option = http_option(annotations)
    return (option if option in (HTTP_ENABLED, HTTP_REDIRECTED) else default) == HTTP_REDIRECTED
