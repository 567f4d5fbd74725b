"""The policy, kept current from the storage."""

from __future__ import annotations

from typing import Final

from serving.local.apiserver.access.attributes import Attributes, refusal
from serving.local.apiserver.access.policy import GROUP, Decision, Policy
from serving.local.apiserver.state import DELETED, Entry, Event
from serving.local.apiserver.storage import Storage

CLUSTER_ROLES: Final = f"clusterroles.{GROUP}"
_ROLES: Final = (f"roles.{GROUP}", CLUSTER_ROLES)
_BINDINGS: Final = (f"rolebindings.{GROUP}", f"clusterrolebindings.{GROUP}")


class Authorizer:
    """Follows published objects, so a grant or its end counts as soon as its write was answered."""

    def __init__(self, storage: Storage) -> None:
        self.policy = Policy()
        for kind in (*_ROLES, *_BINDINGS):
            for entry in storage.state.select(kind):
                self._set(entry, gone=False)
        storage.listen(self._observe)

    def _observe(self, event: Event) -> None:
        if event.entry.key.storage in _ROLES or event.entry.key.storage in _BINDINGS:
            self._set(event.entry, gone=event.type == DELETED)

    def _set(self, entry: Entry, *, gone: bool) -> None:
        key = entry.key
        change = self.policy.set_role if key.storage in _ROLES else self.policy.set_binding
        change(key.namespace, key.name, None if gone else entry.obj)

    def decide(self, asked: Attributes) -> Decision:
        return self.policy.decide(asked)

    def check(self, asked: Attributes) -> None:
        """Raises StatusError 403."""
        decision = self.policy.decide(asked)
        if not decision.allowed:
            raise refusal(asked, decision.reason)
