"""Rules for `metadata` at create and update, and for the split between an object and its status."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver import errors, identifiers
from serving.local.apiserver.errors import Cause
from serving.local.apiserver.kinds import Kind

_SUFFIX_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
_MAX_GENERATED: Final = 58
_DNS1035: Final = r"[a-z]([-a-z0-9]*[a-z0-9])?"

_DNS1035_TEXT: Final = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
    "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation "
    f"is '{_DNS1035}')"
)
_PATH_TEXT: Final = "must be a segment of a path"
_NAME_RULES: Final = {
    "subdomain": (re.compile(identifiers.SUBDOMAIN), 253, identifiers.SUBDOMAIN_TEXT),
    "label": (re.compile(identifiers.LABEL), 63, identifiers.LABEL_TEXT),
    "dns1035": (re.compile(_DNS1035), 63, _DNS1035_TEXT),
    "path": (re.compile(r"(?!\.{1,2}$)[^/%]+"), 253, _PATH_TEXT),
}


def timestamp(now: datetime) -> str:
    """metav1.Time: UTC, whole seconds."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def random_suffix() -> str:
    """Five characters, none of which can spell a word."""
    return "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(5))


def name_causes(name: str, kind: Kind, field: str = "metadata.name", *, prefix: bool = False) -> list[Cause]:
    """`prefix`: the name is the beginning of one, which may end with a dash."""
    pattern, limit, text = _NAME_RULES[kind.name_format]
    judged = f"{name[:-1]}a" if prefix and name.endswith("-") else name
    causes: list[Cause] = []
    if len(judged) > limit:
        causes.append(errors.invalid_value(field, name, f"must be no more than {limit} characters"))
    if pattern.fullmatch(judged):
        return causes
    wrong = [text]
    if text == _PATH_TEXT:
        wrong = [f"may not contain '{char}'" for char in "/%" if char in judged] or [f"may not be '{judged}'"]
    elif "." in judged and re.fullmatch(identifiers.SUBDOMAIN, judged):
        wrong = ["must not contain dots"]
    return causes + [errors.invalid_value(field, name, why) for why in wrong]


def dns1035_causes(name: str, field: str) -> list[Cause]:
    if len(name) > 63:
        return [errors.invalid_value(field, name, "must be no more than 63 characters")]
    if not re.fullmatch(_DNS1035, name):
        return [errors.invalid_value(field, name, _DNS1035_TEXT)]
    return []


def subdomain_causes(name: str, field: str) -> list[Cause]:
    return identifiers.causes(field, name, identifiers.subdomain(name))


def metadata_causes(obj: JsonObject, kind: Kind) -> list[Cause]:
    """What is wrong with the metadata of an object that is about to be stored."""
    metadata = obj["metadata"]
    causes: list[Cause] = []
    if generate := metadata.get("generateName"):
        causes += name_causes(generate, kind, "metadata.generateName", prefix=True)
    causes += name_causes(metadata.get("name") or "", kind)
    for field in ("labels", "annotations"):
        for key, value in (metadata.get(field) or {}).items():
            causes += _key_causes(f"metadata.{field}", key)
            if field == "labels":
                causes += label_value_causes(value)
    annotations = metadata.get("annotations") or {}
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > _MAX_ANNOTATIONS:
        causes.append(errors.too_long("metadata.annotations", _MAX_ANNOTATIONS, "bytes"))
    causes += _owner_causes(metadata.get("ownerReferences") or ())
    for index, finalizer in enumerate(metadata.get("finalizers") or ()):
        found = _key_causes("metadata.finalizers", finalizer)
        strict = not kind.custom and kind.group != "apiextensions.k8s.io"
        if not found and strict and "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            text = "name is neither a standard finalizer name nor is it fully qualified"
            found = [errors.invalid_value(f"metadata.finalizers[{index}]", finalizer, text)]
        causes += found
    return causes


_MAX_ANNOTATIONS: Final = 256 * 1024
_STANDARD_FINALIZERS: Final = ("kubernetes", "orphan", "foregroundDeletion")


def _owner_causes(owners: Sequence[JsonObject]) -> list[Cause]:
    field = "metadata.ownerReferences"
    causes: list[Cause] = []
    for owner in owners:
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                text = "version must not be empty" if name == "apiVersion" else "must not be empty"
                causes.append(errors.invalid_value(f"{field}.{name}", "", text))
        if (owner.get("apiVersion"), owner.get("kind")) == ("v1", "Event"):
            causes.append(errors.invalid_value(field, owner, "/v1, Kind=Event is disallowed from being an owner"))
    controllers = [f"{owner.get('kind')}/{owner.get('name')}" for owner in owners if owner.get("controller")]
    if len(controllers) > 1:
        text = 'Only one reference can have Controller set to true. Found "true" in references for '
        causes.append(errors.invalid_value(field, owners, f"{text}{controllers[0]} and {controllers[1]}"))
    return causes


def _key_causes(field: str, key: str) -> list[Cause]:
    judged = key.lower() if field == "metadata.annotations" else key
    return identifiers.causes(field, key, identifiers.qualified(judged))


def label_value_causes(value: str, field: str = "metadata.labels") -> list[Cause]:
    return identifiers.causes(field, value, identifiers.label_value(value))


def type_problem(obj: JsonObject, kind: Kind) -> str:
    """Why the metadata cannot be read at all; empty = it can. In the words of Go's decoder, for a 400."""
    metadata = obj.get("metadata")
    if metadata is None:
        return ""
    if not isinstance(metadata, dict):
        where = "value" if kind.custom else f"struct field {kind.kind}.metadata"
        return f"json: cannot unmarshal {_json_type(metadata)} into Go {where} of type v1.ObjectMeta"
    made = metadata.get("creationTimestamp")
    if isinstance(made, str) and not kind.custom and not _TIME.match(made):
        rest = made if not _DAY.match(made) else made[10:]
        wanted = "2006" if rest == made else "T"
        return f'parsing time "{made}" as "2006-01-02T15:04:05Z07:00": cannot parse "{rest}" as "{wanted}"'
    for field, (whole, item, inner) in _METADATA_TYPES.items():
        value = metadata.get(field)
        wrong, wanted = value, whole
        if isinstance(value, list if whole.startswith("[") else dict if inner else str):
            items = value.values() if isinstance(value, dict) else value if inner else ()
            wrong, wanted = next((each for each in items if not isinstance(each, inner or str)), None), item
        if wrong is not None:
            path = f"ObjectMeta.{'' if kind.custom else 'metadata.'}{field}"
            return f"json: cannot unmarshal {_json_type(wrong)} into Go struct field {path} of type {wanted}"
    return ""


_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")
_TIME: Final = re.compile(rf"{_DAY.pattern}T\d\d:\d\d:\d\d([.,]\d+)?(Z|[+-]\d\d:\d\d)$")
_METADATA_TYPES: Final[dict[str, tuple[str, str, type | None]]] = {
    "labels": ("map[string]string", "string", str),
    "annotations": ("map[string]string", "string", str),
    "ownerReferences": ("[]v1.OwnerReference", "v1.OwnerReference", dict),
    "finalizers": ("[]string", "string", str),
    **dict.fromkeys(("name", "generateName", "namespace", "uid", "resourceVersion"), ("string", "", None)),
}
"""Field to its Go type, that of its items, and how those are decoded."""


def _json_type(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    return {str: "string", int: "number", float: "number", list: "array"}.get(type(value), "object")


def without_nulls(obj: JsonObject) -> None:
    """A null label or annotation is an empty one, in place."""
    metadata = obj.get("metadata") or {}
    for field in ("labels", "annotations"):
        if None in (metadata.get(field) or {}).values():
            metadata[field] = {key: value or "" for key, value in metadata[field].items()}


def prepare_create(
    obj: JsonObject, kind: Kind, *, namespace: str, now: datetime, uid: str, suffix: str
) -> JsonObject:
    """The object as it will be stored, before defaulting. Raises StatusError 422 without a name."""
    metadata = {name: value for name, value in (obj.get("metadata") or {}).items() if value is not None}
    generate = metadata.get("generateName") or ""
    if not metadata.get("name"):
        if not generate:
            cause = errors.required("metadata.name", "name or generateName is required")
            raise errors.invalid(kind.kind, kind.group, "", [cause])
        metadata["name"] = generate[:_MAX_GENERATED] + suffix
    for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"):
        metadata.pop(field, None)
    if kind.namespaced:
        metadata["namespace"] = namespace
    else:
        metadata.pop("namespace", None)
    metadata["uid"] = uid
    metadata["creationTimestamp"] = timestamp(now)
    if kind.generation:
        metadata["generation"] = 1
    created = {**obj, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
    if kind.status:
        created.pop("status", None)
        if initial := _INITIAL_STATUS.get(kind.kind if not kind.custom else ""):
            created["status"] = dict(initial)
    return created


_INITIAL_STATUS: Final[dict[str, JsonObject]] = {
    "Pod": {"phase": "Pending"},
    "Namespace": {"phase": "Active"},
    "Service": {"loadBalancer": {}},
}


def prepare_update(new: JsonObject, old: JsonObject, kind: Kind, *, subresource: str) -> JsonObject:
    """Keep what this endpoint may not change. `new` is a whole object; both are left as they are.

    Raises StatusError 422 when it would set or change the time of deletion."""
    before = old["metadata"]
    metadata = {name: value for name, value in (new.get("metadata") or {}).items() if value is not None}
    _check_deletion(metadata, before, kind)
    if subresource == "status":
        metadata = _status_metadata(metadata, before, kind)
    for field in _SERVER_FIELDS:
        metadata.pop(field, None)
        if field in before:
            metadata[field] = before[field]
    metadata["name"] = before["name"]
    result: JsonObject = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
    if subresource == "status":
        result |= {name: value for name, value in old.items() if name not in (*result, "status")}
        if new.get("status") is not None:
            result["status"] = new["status"]
        return result
    result |= {name: value for name, value in new.items() if name not in result}
    if kind.status:
        result.pop("status", None)
        if "status" in old:
            result["status"] = old["status"]
    return result


def _check_deletion(metadata: JsonObject, before: JsonObject, kind: Kind) -> None:
    causes = [
        errors.invalid_value(f"metadata.{field}", metadata[field], "field is immutable")
        for field in ("deletionTimestamp", "deletionGracePeriodSeconds")
        if field in metadata and metadata[field] != before.get(field)
    ]
    if causes:
        raise errors.invalid(kind.kind, kind.group, before["name"], causes)


_SERVER_FIELDS: Final = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "namespace",
    "generation",
    "resourceVersion",
    "selfLink",
    "generateName",
)


def renumber(new: JsonObject, old: JsonObject, kind: Kind) -> None:
    """The generation of an update, in place: one more than before when anything but metadata and status
    changed."""
    before = old["metadata"].get("generation", 0)
    new["metadata"]["generation"] = before + 1 if _spec_changed(new, old, kind) else before


def _status_metadata(new: JsonObject, before: JsonObject, kind: Kind) -> JsonObject:
    kept = dict(before)
    if "managedFields" in new:
        kept["managedFields"] = new["managedFields"]
    if not kind.patch_status_metadata:
        return kept
    for field in ("labels", "annotations", "finalizers"):
        kept.pop(field, None)
        if new.get(field):
            kept[field] = new[field]
    return kept


def _spec_changed(new: JsonObject, old: JsonObject, kind: Kind) -> bool:
    ignored = ("apiVersion", "kind", "metadata", "status") if kind.status else ("apiVersion", "kind", "metadata")
    return {k: v for k, v in new.items() if k not in ignored} != {k: v for k, v in old.items() if k not in ignored}


def tidy(obj: JsonObject) -> None:
    """Drop empty metadata maps and lists, as a typed encoder would."""
    metadata = obj["metadata"]
    for field in ("labels", "annotations", "finalizers", "ownerReferences"):
        if field in metadata and not metadata[field]:
            del metadata[field]


def same_owners(new: object, old: object) -> bool:
    """Whether the managedFields of two versions, encoded or not, differ in nothing but times."""
    if new is old:
        return True
    first, second = _timeless(new), _timeless(old)
    return len(first) == len(second) and all(entry in second for entry in first)


def _timeless(owners: object) -> list[JsonObject]:
    entries = msgspec.json.decode(owners) if isinstance(owners, msgspec.Raw) else owners
    listed = entries if isinstance(entries, list) else []
    return [{name: value for name, value in entry.items() if name != "time"} for entry in listed]


def same_but_revision(new: JsonObject, old: JsonObject) -> bool:
    """A write that changes nothing is not a write."""
    ignored = ("resourceVersion", "managedFields")
    first = {name: value for name, value in new["metadata"].items() if name not in ignored}
    second = {name: value for name, value in old["metadata"].items() if name not in ignored}
    if first != second or set(new) - {"apiVersion"} != set(old) - {"apiVersion"}:
        return False
    return all(new[name] == old[name] for name in new if name not in ("metadata", "apiVersion"))
