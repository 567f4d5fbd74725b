"""How an object or a list is sent: whole, as a table, or metadata only."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from aiohttp import web

from serving.api.meta import JsonObject
from serving.local.apiserver import lists, table
from serving.local.apiserver.encoders import PARTIAL, MetadataOnly, WholeObjects, partial
from serving.local.apiserver.errors import bad_request, not_of_that_form
from serving.local.apiserver.feed import Encoder
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.lists import Page
from serving.local.apiserver.negotiate import Form
from serving.local.apiserver.responses import json_response
from serving.local.apiserver.state import Entry
from serving.local.apiserver.versions import from_storage

Clock = Callable[[], datetime]

_PARTIAL_LIST: Final = "PartialObjectMetadataList"
_INCLUDED: Final = ("Metadata", "Object", "None", "")


class Representation:
    """One form for one kind."""

    def __init__(self, form: Form, kind: Kind, *, include: str, now: Clock) -> None:
        self._form = form.name if form.name in ("table", "partial", "partial-list") else "object"
        self._kind = kind
        self._include = include
        self._now = now
        self.content_type = form.content_type

    def entry(self, entry: Entry) -> web.Response:
        if self._form == "object":
            return json_response(lists.item_bytes(entry, self._kind))
        return self.obj(from_storage(entry.obj, self._kind), status=200)

    def obj(self, obj: JsonObject, *, status: int) -> web.Response:
        if self._form == "table":
            metadata: JsonObject = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            return json_response(self._table([obj], metadata), status=status)
        if self._form == "partial-list":
            raise not_of_that_form(_PARTIAL_LIST, f"not a list (*{_go_type(self._kind)})")
        if self._form == "partial":
            return json_response(partial(obj), status=status)
        return json_response(obj, status=status)

    def page(self, page: Page) -> web.Response:
        if self._form == "object":
            return json_response(lists.encode_list(self._kind, page))
        if self._form == "partial":
            raise not_of_that_form(PARTIAL, f"a list (*{_go_type(self._kind)}List)")
        objects = [from_storage(entry.obj, self._kind) for entry in page.entries]
        if self._form == "table":
            return json_response(self._table(objects, page.metadata()))
        return json_response(
            {
                "kind": _PARTIAL_LIST,
                "apiVersion": "meta.k8s.io/v1",
                "metadata": page.metadata(),
                "items": [partial(obj) for obj in objects],
            }
        )

    def encoder(self) -> Encoder:
        if self._form == "table":
            return table.TableRows(self._kind, include=self._include, now=self._now)
        if self._form in ("partial", "partial-list"):
            return MetadataOnly()
        return WholeObjects(self._kind)

    def _table(self, objects: list[JsonObject], metadata: JsonObject) -> JsonObject:
        return table.build(self._kind, objects, metadata, include=self._include, now=self._now())


def _go_type(kind: Kind) -> str:
    """What kube-apiserver keeps objects of that kind in."""
    if kind.custom:
        return "unstructured.Unstructured"
    return f"{(kind.group or 'core').partition('.')[0]}.{kind.kind}"


def represent(form: Form, kind: Kind, *, include: str, now: Clock) -> Representation:
    """`include`: what the rows of a table carry. Raises StatusError 400 for another than a table can."""
    if form.name == "table" and include not in _INCLUDED:
        raise bad_request(
            f'Unable to convert to Table as requested: includeObject: Invalid value: "{include}": must be '
            "'Metadata', 'Object', 'None', or empty"
        )
    return Representation(form, kind, include=include, now=now)
