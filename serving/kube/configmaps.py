"""ConfigMaps as typed values, read live. A bad edit changes nothing: the last good value stays, and the error is
logged once per edit with key, value and what is allowed (the parser's words)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from serving.api.v1 import ConfigMap
from serving.kube.informer import Informer

log = logging.getLogger(__name__)

T = TypeVar("T")


class LiveConfig(Generic[T]):
    """One ConfigMap of an informer, parsed. Absent = parsed from nothing, i.e. all defaults."""

    def __init__(
        self,
        informer: Informer[ConfigMap],
        *,
        key: str,
        parse: Callable[[Mapping[str, str]], T],
        changed: Callable[[], None] | None = None,
    ) -> None:
        self.value: T = parse({})
        self._key = key
        self._parse = parse
        self._changed = changed
        informer.subscribe(self._on_change)

    def _on_change(self, key: str, old: ConfigMap | None, new: ConfigMap | None) -> None:
        if key != self._key:
            return
        try:
            value = self._parse(new.data if new is not None else {})
        except ValueError as error:
            log.error("ConfigMap %s is ignored, the last good one stays: %s", key, error)
            return
        if value != self.value:
            self.value = value
            if self._changed is not None:
                self._changed()
