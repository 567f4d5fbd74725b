"""Rules for `metadata` at create and update, and for the split between an object and its status."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import Final

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver import errors
from serving.local.apiserver.errors import Cause
from serving.local.apiserver.kinds import Kind

_SUFFIX_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
_MAX_GENERATED: Final = 58
_LABEL: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED: Final = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE: Final = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_DNS1035: Final = r"[a-z]([-a-z0-9]*[a-z0-9])?"

_SUBDOMAIN_TEXT: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    f"'{_LABEL}(\\.{_LABEL})*')"
)
DNS_LABEL_TEXT: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    f"with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_DNS1035_TEXT: Final = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
    "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation "
    f"is '{_DNS1035}')"
)
_PATH_TEXT: Final = "must be a segment of a path"
_NAME_RULES: Final = {
    "subdomain": (re.compile(_SUBDOMAIN), 253, _SUBDOMAIN_TEXT),
    "label": (re.compile(_LABEL), 63, DNS_LABEL_TEXT),
    "dns1035": (re.compile(_DNS1035), 63, _DNS1035_TEXT),
    "path": (re.compile(r"(?!\.{1,2}$)[^/%]+"), 253, _PATH_TEXT),
}


def timestamp(now: datetime) -> str:
    """metav1.Time: UTC, whole seconds."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def random_suffix() -> str:
    """Five characters, none of which can spell a word."""
    return "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(5))


def name_causes(name: str, kind: Kind, field: str = "metadata.name") -> list[Cause]:
    pattern, limit, text = _NAME_RULES[kind.name_format]
    causes: list[Cause] = []
    if len(name) > limit:
        causes.append(errors.invalid_value(field, name, f"must be no more than {limit} characters"))
    if not pattern.fullmatch(name):
        wrong = [f"may not contain '{char}'" for char in "/%" if char in name] if text == _PATH_TEXT else [text]
        causes += [errors.invalid_value(field, name, why) for why in wrong or [f"may not be '{name}'"]]
    return causes


def subdomain_causes(name: str, field: str) -> list[Cause]:
    if len(name) > 253:
        return [errors.invalid_value(field, name, "must be no more than 253 characters")]
    if not re.fullmatch(_SUBDOMAIN, name):
        return [errors.invalid_value(field, name, _SUBDOMAIN_TEXT)]
    return []


def metadata_causes(obj: JsonObject, kind: Kind) -> list[Cause]:
    """What is wrong with the metadata of an object that is about to be stored."""
    metadata = obj["metadata"]
    causes = name_causes(metadata.get("name") or "", kind)
    for field in ("labels", "annotations"):
        for key, value in (metadata.get(field) or {}).items():
            causes += _key_causes(f"metadata.{field}", key)
            if field == "labels":
                causes += label_value_causes(value)
    owners = metadata.get("ownerReferences") or ()
    for index, owner in enumerate(owners):
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                field = f"metadata.ownerReferences[{index}].{name}"
                causes.append(errors.invalid_value(field, "", f"{name} must not be empty"))
    if sum(1 for owner in owners if owner.get("controller")) > 1:
        detail = "Only one reference can have Controller set to true."
        causes.append(errors.invalid_value("metadata.ownerReferences", owners, detail))
    for index, finalizer in enumerate(metadata.get("finalizers") or ()):
        causes += _key_causes(f"metadata.finalizers[{index}]", finalizer)
    return causes


def _key_causes(field: str, key: str) -> list[Cause]:
    prefix, slash, name = key.rpartition("/")
    if len(name) > 63:
        return [errors.invalid_value(field, key, "name part must be no more than 63 characters")]
    if not re.fullmatch(_QUALIFIED, name):
        detail = (
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        )
        return [errors.invalid_value(field, key, detail)]
    if slash and not re.fullmatch(_SUBDOMAIN, prefix.lower()):
        return [errors.invalid_value(field, key, f"prefix part {_SUBDOMAIN_TEXT}")]
    return []


def label_value_causes(value: str) -> list[Cause]:
    if len(value) > 63:
        return [errors.invalid_value("metadata.labels", value, "must be no more than 63 characters")]
    if not re.fullmatch(_LABEL_VALUE, value):
        detail = (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and "
            "must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', "
            "regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        )
        return [errors.invalid_value("metadata.labels", value, detail)]
    return []


def type_problem(obj: JsonObject) -> str:
    """Why the metadata cannot be read at all; empty = it can. The text is for a 400."""
    metadata = obj.get("metadata")
    if metadata is None:
        return ""
    if not isinstance(metadata, dict):
        return "metadata: expected an object"
    for field in ("labels", "annotations"):
        value = metadata.get(field)
        if value is None:
            continue
        if not isinstance(value, dict):
            return f"metadata.{field}: expected an object of strings"
        for key, item in value.items():
            if not isinstance(item, str):
                return f"metadata.{field}.{key}: expected a string, got {item!r}"
    for field, inner in (("ownerReferences", dict), ("finalizers", str)):
        value = metadata.get(field)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, inner) for item in value)):
            return f"metadata.{field}: expected a list of {'objects' if inner is dict else 'strings'}"
    for field in ("name", "generateName", "namespace", "uid", "resourceVersion"):
        value = metadata.get(field)
        if value is not None and not isinstance(value, str):
            return f"metadata.{field}: expected a string, got {value!r}"
    return ""


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
    for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation", "resourceVersion"):
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
    """Keep what this endpoint may not change. `new` is a whole object; both are left as they are."""
    before = old["metadata"]
    metadata = {name: value for name, value in (new.get("metadata") or {}).items() if value is not None}
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
