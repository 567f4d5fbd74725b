"""The `config-*` ConfigMaps of knative-serving, followed live into one `ApiConfig`.

A bad edit changes nothing: the last good value stays, and the error is logged once per edit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from serving.api.config.errors import ConfigError
from serving.api.config.store import ApiConfig, Store
from serving.api.keys import SYSTEM_NAMESPACE
from serving.api.resources import CONFIG_MAPS
from serving.api.v1 import ConfigMap
from serving.kube.client import KubeClient
from serving.kube.informer import Informer

log = logging.getLogger(__name__)


class LiveConfig:
    """Current configuration; `changed` is called in the loop after it moved. Run `informer` beside it."""

    def __init__(self, client: KubeClient, *, changed: Callable[[], None]) -> None:
        self.informer: Informer[ConfigMap] = Informer(client, CONFIG_MAPS, ConfigMap, namespace=SYSTEM_NAMESPACE)
        self._store = Store()
        self._changed = changed
        self.informer.subscribe(self._on_change)

    @property
    def value(self) -> ApiConfig:
        return self._store.config

    def _on_change(self, key: str, old: ConfigMap | None, new: ConfigMap | None) -> None:
        present = new or old
        if present is None:
            return
        try:
            moved = self._store.update(present.metadata.name, None if new is None else new.data)
        except ConfigError as error:
            log.error("ConfigMap %s is ignored, the last good one stays: %s", key, error)
            return
        if moved:
            self._changed()
