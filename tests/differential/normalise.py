"""Makes the answers of two servers comparable: what each server chooses itself is told by what it belongs to.

A uid becomes that of a name. The resourceVersion of an object becomes its rank among the object's versions that a
scenario saw, that of a list or a bookmark the newest such version that it comes after: clients rely on the order
only. Generated names and addresses are numbered by first appearance. Timestamps keep only their form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from serving.api.meta import JsonObject

_UID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SECONDS: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_MICROSECONDS: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_FINER: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.*-----END CERTIFICATE-----\n?", re.DOTALL)
_JWT: Final = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
_PROJECTED: Final = re.compile(r"kube-api-access-[a-z0-9]{5}\b")
_ADDRESS: Final = re.compile(r"^10\.\d+\.\d+\.\d+$")
_VERSION_IN_TEXT: Final = (
    re.compile(r"(too old resource version: )\d+ \(\d+\)"),
    re.compile(r"(Too large resource version: )\d+, current: \d+"),
    re.compile(r"(ResourceVersion in (?:precondition|object meta): )\d+"),
    re.compile(r"(ResourceVersion in record )\(\d+\)"),
)
_WHOLE_OBJECT: Final = re.compile(r'"\{\\".*\}(?:\\n)?": ', re.DOTALL)
"""An object that a message quotes, as JSON in Go's quotes."""
_MANAGER: Final = ("operation", "manager", "subresource", "apiVersion")
_AGE: Final = re.compile(r"^(?:\d+[smhd])+$")
_KEPT_TIMES: Final = frozenset({"2001-01-01T00:00:00Z", "2001-01-01T00:00:00.000000Z"})
"""Timestamps that a scenario itself writes."""


def normalise(answers: list[JsonObject], *, namespace: str, ownership: bool) -> list[JsonObject]:
    names = _Names(namespace=namespace, ownership=ownership)
    for metadata in _metadata(answers):
        names.learn(metadata)
    names.rank()
    return [names.value(answer, key="") for answer in answers]


def _metadata(value: Any) -> Iterator[JsonObject]:
    if isinstance(value, dict):
        inner = value.get("metadata")
        if isinstance(inner, dict):
            yield inner
        for each in value.values():
            yield from _metadata(each)
    elif isinstance(value, list):
        for each in value:
            yield from _metadata(each)


def _without_controllers(value: JsonObject) -> JsonObject:
    """A Deployment and its scale without what the real cluster's controller writes in its own time."""
    if value.get("kind") not in ("Deployment", "Scale") or "metadata" not in value:
        return value
    kept = {key: inner for key, inner in value.items() if key != "status" or value["kind"] == "Scale"}
    metadata = {key: inner for key, inner in value["metadata"].items() if key != "resourceVersion"}
    fields = metadata.get("managedFields")
    if fields is not None:
        metadata["managedFields"] = [each for each in fields if each.get("manager") != "kube-controller-manager"]
    return {**kept, "metadata": metadata}


def _told_in_order(value: JsonObject) -> JsonObject:
    """A Status with its causes sorted, each once: a real server finds them in the random order of Go's maps, and
    some of them twice."""
    details = value.get("details")
    if value.get("kind") != "Status" or not isinstance(details, dict) or len(details.get("causes", ())) < 2:
        return value
    causes = [each for index, each in enumerate(details["causes"]) if each not in details["causes"][:index]]
    texts = [f"{each.get('field')}: {each.get('message')}" for each in causes]
    message = value.get("message", "").replace(f"[{', '.join(texts)}]", "[<the causes>]")
    ordered = sorted(causes, key=lambda each: sorted((key, str(text)) for key, text in each.items()))
    return {**value, "message": message, "details": {**details, "causes": ordered}}


@dataclass(slots=True)
class _Names:
    namespace: str
    ownership: bool
    numbered: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    versions: dict[int, str] = field(default_factory=dict)
    """The versions of objects, and afterwards what they are called."""

    def learn(self, metadata: JsonObject) -> None:
        prefix, name, uid = metadata.get("generateName"), metadata.get("name", ""), metadata.get("uid")
        if prefix and len(name) == len(prefix) + 5 and name.startswith(prefix):
            name = self.number(name, f"{prefix}<generated %d>")
        if not uid:
            return
        if uid not in self.numbered:
            self.counts[name] = self.counts.get(name, 0) + 1
            again = f" {self.counts[name]}" if self.counts[name] > 1 else ""
            self.numbered[uid] = f"<uid of {name.replace(self.namespace, '<namespace>')}{again}>"
        version = str(metadata.get("resourceVersion", ""))
        if version.isdigit():
            self.versions[int(version)] = uid

    def rank(self) -> None:
        seen: dict[str, int] = {}
        for version, uid in sorted(self.versions.items()):
            seen[uid] = seen.get(uid, 0) + 1
            self.versions[version] = f"version {seen[uid]} of {self.numbered[uid][len('<uid of ') : -1]}"

    def number(self, value: str, form: str) -> str:
        if value not in self.numbered:
            self.counts[form] = self.counts.get(form, 0) + 1
            self.numbered[value] = form % self.counts[form]
        return self.numbered[value]

    def value(self, value: Any, *, key: str) -> Any:
        if isinstance(value, dict):
            value = _told_in_order(_without_controllers(value))
            return {
                self.text(name, key=""): self.member(value, name, inner)
                for name, inner in value.items()
                if self.ownership or name != "managedFields"
            }
        if isinstance(value, list | tuple):
            return [self.value(inner, key=key) for inner in value]
        return self.text(value, key=key) if isinstance(value, str) else value

    def member(self, parent: JsonObject, name: str, value: Any) -> Any:
        if name == "resourceVersion" and isinstance(value, str) and value.isdigit():
            return self.version(int(value), of_object="uid" in parent)
        if name == "continue" and value:
            return "<continue>"
        if name == "nodePort" and isinstance(value, int):
            return "<node port>"
        if name == "managedFields" and isinstance(value, list):
            # A real server sorts them by seconds: two requests may or may not share one.
            value = sorted(value, key=lambda each: [str(each.get(key)) for key in _MANAGER])
        return self.value(value, key=name)

    def version(self, version: int, *, of_object: bool) -> str:
        if version == 0:
            return "0"
        if of_object and version in self.versions:
            return f"<{self.versions[version]}>"
        before = max((each for each in self.versions if each <= version), default=None)
        return "<before all>" if before is None else f"<after {self.versions[before]}>"

    def text(self, text: str, *, key: str) -> str:
        if text in _KEPT_TIMES:
            return text
        text = text.replace(self.namespace, "<namespace>")
        for generated, shown in self.numbered.items():
            if "<generated" in shown:
                text = text.replace(generated, shown)
        for pattern, make in self.patterns():
            text = pattern.sub(make, text)
        if key in ("clusterIP", "clusterIPs") and _ADDRESS.match(text):
            return self.number(text, "<address %d>")
        return "<age>" if key == "cells" and _AGE.match(text) else text

    def patterns(self) -> list[tuple[re.Pattern[str], Callable[[re.Match[str]], str] | str]]:
        return [
            (_WHOLE_OBJECT, '"<object>": '),
            (_UID, lambda match: self.number(match[0], "<uid %d>")),
            (_SECONDS, "<time>"),
            (_MICROSECONDS, "<time to microseconds>"),
            (_FINER, "<time to nanoseconds>"),
            (_JWT, "<token>"),
            (_PEM, "<certificate>"),
            (_PROJECTED, "kube-api-access-<generated>"),
            *((pattern, r"\1<version>") for pattern in _VERSION_IN_TEXT),
        ]
