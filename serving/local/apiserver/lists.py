"""Answers to list requests: which revision, which page, and the bytes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver import errors
from serving.local.apiserver.errors import StatusError, bad_request
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.selectors import Matcher
from serving.local.apiserver.state import Entry, State
from serving.local.apiserver.versions import from_storage, is_stored_shape

_encode = msgspec.json.Encoder().encode


class ListOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`revision` None = newest, 0 = any. `limit` 0 = no limit."""

    namespace: str = ""
    matches: Matcher | None = None
    revision: int | None = None
    match: str = ""
    limit: int = 0
    continue_token: str = ""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    entries: list[Entry]
    revision: int
    continue_token: str = ""
    remaining: int | None = None

    def metadata(self) -> JsonObject:
        metadata: JsonObject = {"resourceVersion": str(self.revision)}
        if self.continue_token:
            metadata["continue"] = self.continue_token
        if self.remaining is not None:
            metadata["remainingItemCount"] = self.remaining
        return metadata


class _Cursor(msgspec.Struct, frozen=True):
    revision: int
    namespace: str
    name: str


def parse_revision(text: str) -> int | None:
    """Raises StatusError 400."""
    if text == "":
        return None
    if not text.isascii() or not text.isdigit():
        raise bad_request(
            f'invalid resource version: resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing '
            f'"{text}": invalid syntax'
        )
    return int(text)


def check_match(options: ListOptions) -> None:
    """Raises StatusError 422 for a resourceVersionMatch that makes no sense."""
    if not options.match:
        return
    field = "resourceVersionMatch"
    causes = []
    if options.revision is None:
        causes.append(
            errors.forbidden_field(field, "resourceVersionMatch is forbidden unless resourceVersion is provided")
        )
    if options.continue_token:
        causes.append(errors.forbidden_field(field, "resourceVersionMatch is forbidden when continue is provided"))
    if options.match not in ("Exact", "NotOlderThan"):
        causes.append(errors.not_supported(field, options.match, ("Exact", "NotOlderThan", "")))
    elif options.match == "Exact" and options.revision == 0:
        text = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        causes.append(errors.forbidden_field(field, text))
    if causes:
        raise errors.invalid("ListOptions", "meta.k8s.io", "", causes)


def take(state: State, kind: Kind, options: ListOptions) -> Page:
    """Raises StatusError 400 (continue), 410 (too old), 422 or 504 (a revision that was not reached)."""
    check_match(options)
    if options.continue_token and options.revision is not None:
        raise bad_request("specifying resource version is not allowed when using continue")
    cursor = _decode_cursor(options.continue_token) if options.continue_token else None
    if cursor is not None:
        revision, entries = cursor.revision, _at(state, kind, options.namespace, cursor.revision)
        entries = [entry for entry in entries if entry.key[1:] > (cursor.namespace, cursor.name)]
    elif options.revision and (options.match == "Exact" or (options.limit and not options.match)):
        revision, entries = options.revision, _at(state, kind, options.namespace, options.revision)
    else:
        state.check_reached(options.revision or 0)
        revision, entries = state.revision, state.select(kind.storage, options.namespace)
    limit = 0 if options.revision == 0 and cursor is None else options.limit
    if options.matches is not None:
        everything = entries
        wanted = options.matches
        entries = [entry for entry in entries if wanted(from_storage(entry.obj, kind))]
    if not limit or len(entries) < limit:
        return Page(entries=entries, revision=revision)
    last = entries[limit - 1].key
    # With a selector nobody knows whether one of the rest matches before it is looked at.
    if (entries if options.matches is None else everything)[-1].key == last:
        return Page(entries=entries, revision=revision)
    return Page(
        entries=entries[:limit],
        revision=revision,
        continue_token=_encode_cursor(_Cursor(revision, last.namespace, last.name)),
        remaining=None if options.matches is not None else len(entries) - limit,
    )


def _at(state: State, kind: Kind, namespace: str, revision: int) -> list[Entry]:
    state.check_reached(revision)
    try:
        return state.select_at(kind.storage, namespace, revision)
    except StatusError as error:
        raise errors.expired(
            "The provided continue parameter is too old to display a consistent list result. You can start "
            f"a new list without the continue parameter, or use a newer resourceVersion: {error.message}"
        ) from error


def _encode_cursor(cursor: _Cursor) -> str:
    return base64.urlsafe_b64encode(_encode(cursor)).decode().rstrip("=")


def _decode_cursor(token: str) -> _Cursor:
    try:
        padded = token + "=" * (-len(token) % 4)
        return msgspec.json.decode(base64.urlsafe_b64decode(padded.encode()), type=_Cursor)
    except binascii.Error as error:
        raise bad_request(
            "invalid continue token: continue key is not valid: illegal base64 data at input byte "
            f"{len(token) // 4 * 4}"
        ) from error
    except ValueError as error:
        raise bad_request(f"invalid continue token: continue key is not valid: {error}") from error


def item_bytes(entry: Entry, kind: Kind) -> bytes:
    """One object as this kind serves it."""
    return entry.data if is_stored_shape(kind) else _encode(from_storage(entry.obj, kind))


def encode_list(kind: Kind, page: Page) -> bytes:
    """Items of built-in kinds omit apiVersion and kind."""
    metadata = page.metadata()
    if kind.custom:
        metadata.setdefault("continue", "")
    head = _encode({"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": metadata})
    items: Iterable[bytes] = (item_bytes(entry, kind) for entry in page.entries)
    if not kind.custom:
        prefix = len(_encode({"apiVersion": kind.api_version, "kind": kind.kind}))
        items = (b"{" + item[prefix:] for item in items)
    return head[:-1] + b',"items":[' + b",".join(items) + b"]}"
