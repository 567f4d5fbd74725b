"""HTTP requests for objects: query and body in, verbs of `resources`, representation out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from aiohttp import web

from serving.api.meta import JsonObject
from serving.local.apiserver import deletion, errors, fieldvalidation, lists, negotiate, selectors, tracking
from serving.local.apiserver.bodies import patch_change, read_configuration, read_object
from serving.local.apiserver.errors import StatusError, bad_request
from serving.local.apiserver.feed import Feed, FeedOptions
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.paths import Target
from serving.local.apiserver.representation import Representation, represent
from serving.local.apiserver.request import Context, User
from serving.local.apiserver.resources import Resources
from serving.local.apiserver.responses import json_response, page_not_found, success, warning_header
from serving.local.apiserver.subresources import Subresources
from serving.local.apiserver.watch import Watches, default_timeout

_LARGE_PAGE = 500
_OPTIONS_KIND = {
    "POST": "CreateOptions",
    "PUT": "UpdateOptions",
    "PATCH": "PatchOptions",
    "DELETE": "DeleteOptions",
}


class Verbs:
    def __init__(self, resources: Resources, watches: Watches, subresources: Subresources) -> None:
        self._resources = resources
        self._watches = watches
        self._subresources = subresources

    async def handle(
        self, request: web.Request, target: Target, user: User, authorize: Callable[[str], None] | None = None
    ) -> web.StreamResponse:
        """`authorize`: see Context."""
        kind = self._resources.registry.find(target.group, target.version, target.resource)
        if kind is None or bool(target.namespace) > kind.namespaced:
            if not self._resources.registry.versions(target.group):
                return page_not_found()
            raise errors.unknown_resource()
        query = request.query
        context = self._context(request.method, query, user, request.headers.get("User-Agent", ""))
        context.authorize = authorize
        if target.subresource and target.subresource != "status":
            if kind.subresource(target.subresource) is None:
                raise _no_subresource(kind, target)
            return await self._subresources.handle(request, target, kind, context)
        if target.subresource == "status" and not kind.status:
            raise _no_subresource(kind, target)
        if target.name:
            if (kind.namespaced and not target.namespace) or "list" not in kind.verbs:
                raise errors.unknown_resource()
            return await self._object(request, target, kind, context)
        return await self._collection(request, target, kind, context)

    def _context(self, method: str, query: Mapping[str, str], user: User, agent: str) -> Context:
        if method in ("GET", "HEAD"):
            return Context(user=user)
        options = _OPTIONS_KIND.get(method, "CreateOptions")
        dry_run = query.get("dryRun", "")
        if dry_run not in ("", "All"):
            cause = errors.not_supported("dryRun", [dry_run], ("All",))
            raise errors.invalid(options, "meta.k8s.io", "", [cause])
        validation = fieldvalidation.mode(query.get("fieldValidation", ""), options_kind=options)
        manager = tracking.manager_name(query.get("fieldManager", ""), agent, options_kind=options)
        return Context(user=user, dry_run=dry_run == "All", field_validation=validation, manager=manager)

    async def _object(
        self, request: web.Request, target: Target, kind: Kind, context: Context
    ) -> web.StreamResponse:
        match request.method:
            case "GET" | "HEAD":
                entry = self._resources.get(kind, target.namespace, target.name)
                return self._representation(request, kind).entry(entry)
            case "PUT":
                body = await read_object(request, context, kind.kind)
                obj, created = await self._resources.update(
                    kind, target.namespace, target.name, body, context, subresource=target.subresource
                )
                return self._written(request, kind, obj, context, status=201 if created else 200)
            case "PATCH":
                return await self._patch(request, target, kind, context)
            case "DELETE" if not target.subresource:
                return await self._delete(request, target, kind, context)
        raise errors.method_not_allowed()

    async def _collection(
        self, request: web.Request, target: Target, kind: Kind, context: Context
    ) -> web.StreamResponse:
        if "list" not in kind.verbs and request.method != "POST":
            raise errors.method_not_allowed()
        match request.method:
            case "GET" | "HEAD":
                if is_true(request.query.get("watch")):
                    return await self._watch(request, target, kind)
                if request.query.get("sendInitialEvents"):
                    cause = errors.forbidden_field("sendInitialEvents", "sendInitialEvents is forbidden for list")
                    raise errors.invalid("ListOptions", "meta.k8s.io", "", [cause])
                page = lists.take(self._resources.state, kind, self._list_options(request, target, kind))
                representation = self._representation(request, kind)
                if len(page.entries) > _LARGE_PAGE:
                    # Objects never change, so another thread may encode them while the loop serves others.
                    return await asyncio.to_thread(representation.page, page)
                return representation.page(page)
            case "POST":
                if "list" not in kind.verbs:
                    return await self._subresources.review(request, target, kind, context)
                if kind.namespaced and not target.namespace:
                    raise errors.method_not_allowed()
                body = await read_object(request, context, kind.kind)
                obj = await self._resources.create(kind, target.namespace, body, context)
                return self._written(request, kind, obj, context, status=201)
            case "DELETE" if "deletecollection" in kind.verbs:
                return await self._delete_collection(request, target, kind, context)
        raise errors.method_not_allowed()

    # Reading.

    def _representation(self, request: web.Request, kind: Kind) -> Representation:
        form = negotiate.accepted(request.headers.get("Accept", ""))
        include = request.query.get("includeObject", "Metadata")
        return represent(form, kind, include=include, now=self._resources.clock)

    def _list_options(self, request: web.Request, target: Target, kind: Kind) -> lists.ListOptions:
        query = request.query
        labels = selectors.parse_labels(query.get("labelSelector", ""))
        fields = selectors.parse_fields(query.get("fieldSelector", ""), kind)
        return lists.ListOptions(
            namespace=target.namespace,
            matches=selectors.matcher(labels, fields),
            revision=lists.parse_revision(query.get("resourceVersion", "")),
            match=query.get("resourceVersionMatch", ""),
            limit=_number(query, "limit"),
            continue_token=query.get("continue", ""),
        )

    async def _watch(self, request: web.Request, target: Target, kind: Kind) -> web.StreamResponse:
        query = request.query
        if negotiate.wants_yaml(request.headers.get("Accept", "")):
            raise errors.not_acceptable(negotiate.BODY_TYPES, known=False)
        listed = self._list_options(request, target, kind)
        initial = is_true(query["sendInitialEvents"]) if query.get("sendInitialEvents") else None
        if initial is not None and listed.match != "NotOlderThan":
            text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            causes = [errors.forbidden_field("resourceVersionMatch", text)]
            if listed.match:
                causes.append(errors.not_supported("resourceVersionMatch", listed.match, ("NotOlderThan",)))
            raise errors.invalid("ListOptions", "meta.k8s.io", "", causes)
        if initial is None and listed.match:
            text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            cause = errors.forbidden_field("resourceVersionMatch", text)
            raise errors.invalid("ListOptions", "meta.k8s.io", "", [cause])
        bookmarks = is_true(query.get("allowWatchBookmarks"))
        options = FeedOptions(
            namespace=target.namespace,
            matches=listed.matches,
            revision=listed.revision,
            initial=initial,
            bookmarks=bookmarks,
        )
        representation = self._representation(request, kind)
        feed = Feed(self._resources.state, kind, options, representation.encoder())
        return await self._watches.serve(
            request,
            feed,
            feed.initial(),
            storage=kind.storage,
            timeout=_number(query, "timeoutSeconds") or default_timeout(),
            bookmarks=bookmarks,
            content_type=representation.content_type,
            headers={"Cache-Control": "no-cache, private"},
        )

    # Writing.

    def _written(
        self, request: web.Request, kind: Kind, obj: JsonObject, context: Context, *, status: int
    ) -> web.Response:
        return with_warnings(self._representation(request, kind).obj(obj, status=status), context)

    async def _patch(
        self, request: web.Request, target: Target, kind: Kind, context: Context
    ) -> web.StreamResponse:
        header = request.headers.get("Content-Type", "")
        if negotiate.is_apply(header):
            return await self._apply(request, target, kind, context)
        if request.query.get("force"):
            cause = errors.forbidden_field("force", "may not be specified for non-apply patch")
            raise errors.invalid("PatchOptions", "meta.k8s.io", "", [cause])
        form = negotiate.patch_type(header, custom=kind.custom)
        apply = await patch_change(request, context, form, kind)
        obj = await self._resources.patch(
            kind, target.namespace, target.name, apply, context, subresource=target.subresource
        )
        return self._written(request, kind, obj, context, status=200)

    async def _apply(
        self, request: web.Request, target: Target, kind: Kind, context: Context
    ) -> web.StreamResponse:
        if not request.query.get("fieldManager"):
            cause = errors.required("fieldManager", "is required for apply patch")
            raise errors.invalid("PatchOptions", "meta.k8s.io", "", [cause])
        applying = await read_configuration(
            request, target, kind, context, force=is_true(request.query.get("force"))
        )
        obj, created = await self._resources.apply(
            kind, target.namespace, target.name, applying, context, subresource=target.subresource
        )
        return self._written(request, kind, obj, context, status=201 if created else 200)

    async def _delete_options(self, request: web.Request, context: Context) -> deletion.DeleteOptions:
        body: JsonObject = {}
        if request.can_read_body:
            data = await request.read()
            if data.strip():
                body = await read_object(request, context, "DeleteOptions")
        if body.get("kind") not in (None, "", "DeleteOptions"):
            found = f'no kind "{body["kind"]}" is registered for version "{body.get("apiVersion") or ""}"'
            raise bad_request(f'{found} in scheme "pkg/runtime/scheme.go:111"')
        return deletion.parse_options(body, dict(request.query))

    async def _delete(
        self, request: web.Request, target: Target, kind: Kind, context: Context
    ) -> web.StreamResponse:
        options = await self._delete_options(request, context)
        context.dry_run = context.dry_run or options.dry_run
        deleted = await self._resources.delete(kind, target.namespace, target.name, options, context)
        if not deleted.removed or kind.qualified in ("pods", "serviceaccounts", "services"):
            return self._written(request, kind, deleted.obj, context, status=200)
        details: JsonObject = {"name": target.name}
        if kind.group:
            details["group"] = kind.group
        details |= {"kind": kind.plural, "uid": deleted.obj["metadata"]["uid"]}
        return with_warnings(json_response(success(details)), context)

    async def _delete_collection(
        self, request: web.Request, target: Target, kind: Kind, context: Context
    ) -> web.StreamResponse:
        if kind.namespaced and not target.namespace:
            raise errors.method_not_allowed()
        options = await self._delete_options(request, context)
        context.dry_run = context.dry_run or options.dry_run
        page = lists.take(self._resources.state, kind, self._list_options(request, target, kind))
        for entry in page.entries:
            try:
                await self._resources.delete(kind, entry.key.namespace, entry.key.name, options, context)
            except StatusError as error:
                if error.code != 404:
                    raise
        return with_warnings(self._representation(request, kind).page(page), context)


def _no_subresource(kind: Kind, target: Target) -> StatusError:
    if kind.custom:
        return errors.not_found(kind.plural, kind.group, target.name)
    return errors.unknown_resource()


def is_true(text: str | None) -> bool:
    """As Go reads a query parameter: whatever is not said to be false is true."""
    return text is not None and text.lower() not in ("false", "0")


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name) or "0"
    if not text.lstrip("-").isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return max(0, int(text))


def with_warnings(response: web.Response, context: Context) -> web.Response:
    if context.warnings:
        for warning in context.warnings:
            response.headers.add("Warning", warning_header(warning))
    return response
