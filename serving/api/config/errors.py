"""The one error of the `config-*` ConfigMaps."""

from __future__ import annotations


class ConfigError(ValueError):
    """A ConfigMap value that is not allowed; the text is upstream's where upstream has one.

    `key` is the data key, `value` what was given, `allowed` what would be accepted.
    """

    def __init__(self, message: str, *, key: str, value: str, allowed: str) -> None:
        super().__init__(message)
        self.key = key
        self.value = value
        self.allowed = allowed
