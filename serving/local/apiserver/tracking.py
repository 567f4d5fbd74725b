"""Keeps `metadata.managedFields` of an object through one write. Pure."""

from __future__ import annotations

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver import errors, schema, validation
from serving.local.apiserver.errors import StatusError, bad_request
from serving.local.apiserver.fields import apply, managers, merging
from serving.local.apiserver.fields.apply import Conflicts
from serving.local.apiserver.fields.managers import Managed
from serving.local.apiserver.fields.types import type_of
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.state import Entry
from serving.local.apiserver.validation import Mismatch
from serving.local.apiserver.wire.schema import metadata_schema

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_KUBECTL = "kubectl"
_MAX_NAME = 128


def manager_name(requested: str, user_agent: str, *, options_kind: str) -> str:
    """Who writes: the `fieldManager` asked for, or the program that sends the request. Raises StatusError 422."""
    if not requested:
        name = user_agent.split("/", 1)[0]
        return "".join(letter for letter in name[:_MAX_NAME] if letter.isprintable()) or "unknown"
    if len(requested.encode()) > _MAX_NAME:
        raise errors.invalid(
            options_kind, "meta.k8s.io", "", [errors.too_long("fieldManager", _MAX_NAME, "bytes")]
        )
    if not requested.isprintable():
        cause = errors.invalid_value("fieldManager", requested, "should only contain printable characters")
        raise errors.invalid(options_kind, "meta.k8s.io", "", [cause])
    return requested


def written(
    new: JsonObject, old: JsonObject | None, kind: Kind, *, manager: str, subresource: str, now: str
) -> object:
    """The managedFields of `new`, which an update or create made of `old`; None or empty = there are none."""
    given = new["metadata"].get("managedFields")
    before = old["metadata"].get("managedFields") if old is not None else None
    written_by_hand = _by_hand(given, before, subresource=subresource)
    type_ = type_of(kind)
    try:
        if old is not None and written_by_hand is None and before is None:
            return None
        comparison = apply.changes(old, new, type_)
        if old is not None and written_by_hand is None and not any(comparison):
            return before
        managed = (managers.decode(before) or {}) if written_by_hand is None else written_by_hand
        who = apply.updater(manager, kind.api_version, subresource)
        return managers.encode(apply.update(old, new, managed, who, type_, now=now, comparison=comparison))
    except KeyError:
        # A list whose items have no keys is refused by validation, if it is wrong at all; nobody owns it.
        return before


def _by_hand(given: object, before: object, *, subresource: str) -> Managed | None:
    """The owners that the body names, if somebody wrote them there; None = those of before stand."""
    if subresource or given is None or given is before:
        return None
    if managers.is_reset(given):
        return {}
    return managers.decode(given) or None


class Applying:
    """One apply request: what the user sent, ready to be merged into any version of the object."""

    def __init__(
        self,
        config: JsonObject,
        kind: Kind,
        *,
        manager: str,
        subresource: str,
        force: bool,
    ) -> None:
        """Raises StatusError 400 or 500 for a configuration that cannot be applied."""
        metadata = config.get("metadata")
        if isinstance(metadata, dict) and metadata.get("managedFields") is not None:
            raise bad_request("metadata.managedFields must be nil")
        self._sent = config
        self._config = _relevant(config, kind, subresource)
        self._kind = kind
        self._type = type_of(kind)
        self._who = apply.applier(manager, subresource)
        self._force = force
        found = list(merging.problems(apply.ownable({"metadata": {}, **self._config}), self._type))
        if found:
            raise untyped(kind, config, found)

    def check_new(self, kind: Kind, name: str) -> None:
        """Raises StatusError 409: an object with an uid is meant to exist."""
        if uid := (self._sent.get("metadata") or {}).get("uid"):
            why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            raise errors.conflict(kind.plural, kind.group, name, why)

    def check_version(self, kind: Kind, entry: Entry) -> None:
        """Raises StatusError 409 when the configuration names another version or object."""
        metadata = self._sent.get("metadata") or {}
        if metadata.get("resourceVersion") not in (None, "", str(entry.revision)):
            raise errors.conflict(kind.plural, kind.group, entry.key.name)
        uid = metadata.get("uid")
        if uid and uid != entry.uid:
            cause = errors.invalid_value("metadata.uid", uid, "field is immutable")
            raise errors.invalid(kind.kind, kind.group, entry.key.name, [cause])

    def merged(self, live: JsonObject | None, *, now: str) -> JsonObject:
        """The object with the configuration merged in, its managedFields included. Raises StatusError 409."""
        managed = managers.decode(live["metadata"].pop("managedFields", None)) if live is not None else None
        try:
            applied = self._apply(live, managed or {}, force=self._force, now=now)
        except Conflicts as refused:
            if not self._was_client_side(live, refused):
                raise _conflict(refused) from None
            applied = self._apply(live, managed or {}, force=True, now=now)
        obj = applied.obj
        annotations = obj["metadata"].get("annotations") or {}
        if self._who.name == _KUBECTL and annotations.get(LAST_APPLIED):
            annotated = {**annotations, LAST_APPLIED: last_applied(self._sent)}
            obj = {**obj, "metadata": {**obj["metadata"], "annotations": annotated}}
        obj["metadata"]["managedFields"] = managers.encode(applied.managed)
        return obj

    def _apply(self, live: JsonObject | None, managed: Managed, *, force: bool, now: str) -> apply.Applied:
        return apply.apply(
            live,
            self._config,
            managed,
            self._who,
            self._type,
            api_version=self._kind.api_version,
            force=force,
            now=now,
        )

    def _was_client_side(self, live: JsonObject | None, refused: Conflicts) -> bool:
        """kubectl may take over what it applied itself, from the client's side, before."""
        if self._who.name != _KUBECTL or live is None:
            return False
        text = (live["metadata"].get("annotations") or {}).get(LAST_APPLIED)
        before = _read(text) if text else None
        if before is None or before.get("apiVersion") != self._kind.api_version:
            return False
        return apply.allowed_by_last_applied(refused.conflicts, before, live, self._type)


def _relevant(config: JsonObject, kind: Kind, subresource: str) -> JsonObject:
    """Without what this endpoint does not write."""
    if subresource == "status":
        kept = ("apiVersion", "kind", "status")
        return {**{name: config[name] for name in kept if name in config}, "metadata": {}}
    if kind.status:
        return {name: value for name, value in config.items() if name != "status"}
    return config


def last_applied(config: JsonObject) -> str:
    """The annotation of client-side apply, as kubectl would write it."""
    metadata = dict(config.get("metadata") or {})
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if k != LAST_APPLIED}
    if annotations or "annotations" in metadata:
        metadata["annotations"] = annotations
    return msgspec.json.encode({**config, "metadata": metadata}, order="sorted").decode() + "\n"


def _read(text: str) -> JsonObject | None:
    try:
        return msgspec.json.decode(text, type=dict)
    except msgspec.DecodeError:
        return None


def untyped(kind: Kind, config: JsonObject, found: list[str]) -> StatusError:
    """A configuration that does not fit the schema."""
    listed = found[0] if len(found) == 1 else "errors:\n" + "".join(f"  {text}\n" for text in found)
    gvk = f"{kind.api_version}, Kind={kind.kind}" if kind.group else f"/{kind.version}, Kind={kind.kind}"
    metadata = config.get("metadata") or {}
    address = f"{metadata.get('namespace') or ''}/{metadata.get('name') or ''}"
    return StatusError(500, "", f"failed to create typed patch object ({address}; {gvk}): {listed}")


_EXPECTED = {
    "array": "list",
    "object": "map",
    "map[string]string": "map",
    "integer": "numeric (int or float)",
    "number": "numeric (int or float)",
}


def misfits(config: JsonObject, kind: Kind, own: JsonObject | None) -> list[str]:
    """What of a configuration the schema does not have or has otherwise. Removes unknown fields in place."""
    found: list[str] = []
    parts = [("", own, config)]
    if isinstance(metadata := config.get("metadata"), dict):
        parts.append((".metadata", metadata_schema(), metadata))
    for path, part, value in parts:
        if part is None or schema.is_clean(_ownable(value, path), part, typed=True):
            continue
        walk = schema.prune if not path else schema.prune_value
        found += [f"{path}.{unknown}: field not declared in schema" for unknown in walk(value, part)]
        found += [
            f".{wrong.path}: expected {_EXPECTED.get(wrong.wanted, wrong.wanted)}, got {_shown(wrong)}"
            for wrong in validation.mismatches(value, part, path.lstrip("."))
        ]
    return found


def _ownable(value: JsonObject, path: str) -> JsonObject:
    if path:
        return value
    return {name: inner for name, inner in value.items() if name not in ("apiVersion", "kind", "metadata")}


def _shown(wrong: Mismatch) -> str:
    """The value as Go prints it."""
    if wrong.wanted in ("integer", "number") and isinstance(wrong.value, str):
        return "string"
    if isinstance(wrong.value, list):
        return "&{[" + " ".join(map(str, wrong.value)) + "]}"
    return f"&value.valueUnstructured{{Value:{msgspec.json.encode(wrong.value).decode()}}}"


def _conflict(refused: Conflicts) -> StatusError:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f"conflict with {conflict.manager.shown()}",
            "field": conflict.field,
        }
        for conflict in refused.conflicts
    ]
    return StatusError(409, "Conflict", refused.message(), details={"causes": causes})
