"""The verbs on objects, without HTTP: get, list, create, update, patch, delete.

Order of a write: decode (done by the caller), prune, default, mutating webhooks, validation, validating webhooks,
store. Each write builds on one version and is refused (or done again, for patches) when that version is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol
from uuid import uuid4

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver import crds, errors, meta, pod_admission, services, shapes, specifics, tracking
from serving.local.apiserver.admission import Admission
from serving.local.apiserver.builtin import CRD_STORAGE, EVENTS_STORAGE
from serving.local.apiserver.deletion import Action, DeleteOptions, decide, is_finished
from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.quota_keeper import Limits
from serving.local.apiserver.registry import Registry
from serving.local.apiserver.request import Admitted, Context
from serving.local.apiserver.state import Entry, Key, Stale
from serving.local.apiserver.storage import Storage
from serving.local.apiserver.tracking import Applying
from serving.local.apiserver.versions import from_storage, to_storage

Clock = Callable[[], datetime]
_ATTEMPTS = 5
_NOT_FOR_WEBHOOKS = ("name", "namespace", "uid", "creationTimestamp", "managedFields")


class Plugins(Protocol):
    """Admission that is built in."""

    async def admit(self, request: Admitted) -> None:
        """Before the mutating webhooks; may change `request.obj` in place. Raises StatusError."""

    def check(self, request: Admitted) -> None:
        """After them. Raises StatusError."""


class Deleted(msgspec.Struct, frozen=True):
    """`obj` is the last state (removed) or the marked object."""

    obj: JsonObject
    removed: bool


class Resources:
    def __init__(
        self,
        storage: Storage,
        registry: Registry,
        admission: Admission,
        clock: Clock,
        plugins: Plugins | None = None,
    ) -> None:
        self.storage = storage
        self.state = storage.state
        self.registry = registry
        self.admission = admission
        self.clock = clock
        self._addresses = services.Addresses(storage.state)
        self.limits = Limits(storage.state, registry)
        self._plugins = plugins

    # Reading.

    def get(self, kind: Kind, namespace: str, name: str) -> Entry:
        """Raises StatusError 404."""
        entry = self.state.get(Key(kind.storage, namespace, name))
        if entry is None:
            raise errors.not_found(kind.plural, kind.group, name)
        return entry

    def _head(self, kind: Kind, namespace: str, name: str) -> Entry:
        entry = self.state.head(Key(kind.storage, namespace, name))
        if entry is None:
            raise errors.not_found(kind.plural, kind.group, name)
        return entry

    # Creating.

    async def create(self, kind: Kind, namespace: str, body: JsonObject, context: Context) -> JsonObject:
        """Raises StatusError 400, 403, 404 (namespace), 409, 422, or what a webhook answered."""
        shapes.check_body(body, kind, namespace=namespace)
        if (body.get("metadata") or {}).get("resourceVersion"):
            raise StatusError(500, "", "resourceVersion should not be set on objects to be created")
        if kind.namespaced:
            self._check_namespace(kind, namespace, str((body.get("metadata") or {}).get("name") or ""))
        generated = not (body.get("metadata") or {}).get("name")
        shapes.prune(body, kind, context)
        for attempt in range(_ATTEMPTS):
            obj = meta.prepare_create(
                body,
                kind,
                namespace=namespace,
                now=self.clock(),
                uid=str(uuid4()),
                suffix=meta.random_suffix() if generated else "",
            )
            obj = await self._admit(kind, "CREATE", obj, None, context)
            key = Key(kind.storage, namespace, obj["metadata"]["name"])
            taken = self.state.head(key) is not None
            if not taken and kind.namespaced:
                self.limits.check_new(kind, obj, namespace)
            if not taken and context.dry_run:
                return obj
            if not taken:
                try:
                    entry = await self.storage.write(key, to_storage(obj, kind), expected=None)
                    return from_storage(entry.obj, kind)
                except Stale:
                    pass
            if not generated or attempt + 1 == _ATTEMPTS:
                head = self.state.head(key)
                leaving = head is not None and "deletionTimestamp" in head.obj["metadata"]
                raise errors.already_exists(kind.plural, kind.group, key.name, leaving=leaving)
        raise AssertionError("unreachable")

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        entry = self.state.head(Key("namespaces", "", namespace))
        if entry is None:
            raise errors.not_found("namespaces", "", namespace)
        if "deletionTimestamp" in entry.obj["metadata"]:
            message = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            raise errors.forbidden(kind.plural, kind.group, name, message, causes=[cause])

    # Updating.

    async def update(
        self, kind: Kind, namespace: str, name: str, body: JsonObject, context: Context, *, subresource: str = ""
    ) -> tuple[JsonObject, bool]:
        """Replace; the second value tells whether the object was created by it."""
        shapes.check_body(body, kind, namespace=namespace, name=name)
        key = Key(kind.storage, namespace, name)
        if kind.create_on_update and not subresource and self.state.head(key) is None:
            if context.authorize is not None:
                context.authorize("create")
            body = {**body, "metadata": {**(body.get("metadata") or {}), "name": name, "resourceVersion": ""}}
            return await self.create(kind, namespace, body, context), True
        shapes.prune(body, kind, context)
        wanted = (body.get("metadata") or {}).get("resourceVersion") or ""
        if wanted and not wanted.isdecimal():
            raise StatusError(500, "", f'strconv.ParseUint: parsing "{wanted}": invalid syntax')
        if wanted in ("", "0") and not kind.unconditional_update:
            cause = errors.invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
            raise errors.invalid(kind.plural, kind.group, name, [cause])
        unconditional = wanted in ("", "0")
        for attempt in range(_ATTEMPTS):
            entry = self._head(kind, namespace, name)
            if not unconditional and wanted != str(entry.revision):
                raise errors.conflict(kind.plural, kind.group, name)
            try:
                return await self._replace(kind, entry, body, context, subresource=subresource), False
            except Stale:
                if not unconditional or attempt + 1 == _ATTEMPTS:
                    raise errors.conflict(kind.plural, kind.group, name) from None
        raise AssertionError("unreachable")

    async def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        change: Callable[[JsonObject], JsonObject],
        context: Context,
        *,
        subresource: str = "",
    ) -> JsonObject:
        """Apply `change` (which must not keep state) to the newest version, again if that version is overtaken."""
        for _ in range(_ATTEMPTS):
            entry = self._head(kind, namespace, name)
            patched = change(from_storage(entry.copy(), kind))
            try:
                shapes.check_body(patched, kind, namespace=namespace, name=name)
                metadata = patched.get("metadata") or {}
                if metadata.get("resourceVersion") not in (None, "", str(entry.revision)):
                    raise errors.conflict(kind.plural, kind.group, name)
                if metadata.get("uid") not in (None, "", entry.uid):
                    cause = errors.invalid_value("metadata.uid", metadata["uid"], "field is immutable")
                    raise errors.invalid(kind.kind, kind.group, name, [cause])
                shapes.prune(patched, kind, context, old=entry.obj)
            except errors.Undecodable as error:
                raise errors.refused_patch(patched, error.why) from error
            try:
                return await self._replace(kind, entry, patched, context, subresource=subresource)
            except Stale:
                continue
        raise errors.conflict(kind.plural, kind.group, name)

    async def apply(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        applying: Applying,
        context: Context,
        *,
        subresource: str = "",
    ) -> tuple[JsonObject, bool]:
        """Server-side apply; the second value tells whether the object was created by it."""
        context.applied = True
        for _ in range(_ATTEMPTS):
            now = meta.timestamp(self.clock())
            entry = self.state.head(Key(kind.storage, namespace, name))
            if entry is None and not subresource:
                if context.authorize is not None:
                    context.authorize("create")
                applying.check_new(kind, name)
                body = applying.merged(None, now=now)
                body["metadata"]["name"] = name
                return await self.create(kind, namespace, body, context), True
            if entry is None:
                raise errors.not_found(kind.plural, kind.group, name)
            applying.check_version(kind, entry)
            body = applying.merged(from_storage(entry.copy(), kind), now=now)
            shapes.prune(body, kind, None, old=entry.obj)
            try:
                return await self._replace(kind, entry, body, context, subresource=subresource), False
            except Stale:
                continue
        raise errors.conflict(kind.plural, kind.group, name)

    async def _replace(
        self, kind: Kind, entry: Entry, body: JsonObject, context: Context, *, subresource: str
    ) -> JsonObject:
        """Store `body` over `entry`. Raises Stale when `entry` is no longer the newest version."""
        old = from_storage(entry.copy(), kind)
        owners = old["metadata"].get("managedFields")
        self._check_identity(kind, body, old)
        new = meta.prepare_update(body, old, kind, subresource=subresource)
        new = await self._admit(kind, "UPDATE", new, old, context, subresource=subresource)
        added = set(new["metadata"].get("finalizers") or ()) - set(entry.obj["metadata"].get("finalizers") or ())
        if added and "deletionTimestamp" in entry.obj["metadata"]:
            shown = "{" + ", ".join(f'"{name}"' for name in sorted(added)) + "}"
            text = (
                "no new finalizers can be added if the object is being deleted, found new finalizers "
                f"[]string{shown}"
            )
            cause = errors.forbidden_field("metadata.finalizers", text)
            raise errors.invalid(kind.kind, kind.group, entry.key.name, [cause])
        stored = to_storage(new, kind)
        if context.dry_run:
            new["metadata"]["resourceVersion"] = str(entry.revision)
            return new
        unchanged = meta.same_but_revision(stored, entry.obj)
        if unchanged and meta.same_owners(stored["metadata"].get("managedFields"), owners):
            await self.storage.settled()
            return from_storage(entry.obj, kind)
        if is_finished(new, kind):
            await self.storage.write(entry.key, None, expected=entry)
            return {**new, "metadata": {**new["metadata"], "resourceVersion": str(entry.revision)}}
        written = await self.storage.write(entry.key, stored, expected=entry)
        return from_storage(written.obj, kind)

    async def finalize(self, kind: Kind, name: str, finalizers: list[str]) -> JsonObject:
        """Replace the spec.finalizers of a Namespace; without any, a namespace that is being deleted is gone.
        Raises Stale when it changed meanwhile."""
        entry = self._head(kind, "", name)
        new = entry.copy()
        new["spec"] = {**(new.get("spec") or {}), "finalizers": finalizers}
        gone = is_finished(new, kind)
        written = await self.storage.write(entry.key, None if gone else new, expected=entry)
        return written.obj

    def _check_identity(self, kind: Kind, body: JsonObject, old: JsonObject) -> None:
        uid = (body.get("metadata") or {}).get("uid")
        have = old["metadata"]["uid"]
        if uid and uid != have:
            place = f"{kind.group}/{kind.plural}" if kind.custom else kind.plural
            key = "/".join(
                part for part in (place, old["metadata"].get("namespace"), old["metadata"]["name"]) if part
            )
            why = (
                f"StorageError: invalid object, Code: 4, Key: /registry/{key}, ResourceVersion: 0, "
                f"AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {have}"
            )
            raise errors.conflict(kind.plural, kind.group, old["metadata"]["name"], why)

    # Admission.

    async def _admit(
        self,
        kind: Kind,
        operation: str,
        obj: JsonObject,
        old: JsonObject | None,
        context: Context,
        *,
        subresource: str = "",
    ) -> JsonObject:
        shapes.fill(obj, kind, old)
        meta.tidy(obj)
        self._note_owners(kind, obj, old, context, subresource)
        identity = {name: obj["metadata"].get(name) for name in _NOT_FOR_WEBHOOKS}
        request = Admitted(
            kind=kind,
            operation=operation,
            namespace=obj["metadata"].get("namespace") or "",
            name=obj["metadata"].get("name") or "",
            obj=obj,
            old=old,
            context=context,
            options=_options(operation, context),
            subresource=subresource,
        )
        if self._plugins is not None:
            await self._plugins.admit(request)
        new_pod = kind.qualified == "pods" and operation == "CREATE"
        if new_pod:
            self.limits.complete_pod(obj, request.namespace)
        elif kind.qualified == "pods" and not subresource:
            pod_admission.tolerate(obj["spec"])
        mutated, asked = await self.admission.mutate(request) if context.webhooks else (None, False)
        if asked and mutated is not None:
            obj = mutated
            shapes.check_body(obj, kind, namespace=request.namespace, name=request.name)
            obj["metadata"].update({name: value for name, value in identity.items() if value is not None})
            shapes.prune(obj, kind, None)
            shapes.fill(obj, kind, old)
        meta.tidy(obj)
        causes = shapes.causes(obj, kind, old, subresource=subresource)
        if kind.storage == services.STORAGE and not causes and not subresource:
            causes = self._addresses.give(obj, keep=not context.dry_run)
        if causes:
            # Events of either group are judged as those of the core one.
            group = "" if kind.storage == EVENTS_STORAGE else kind.group
            raise errors.invalid(kind.kind, group, obj["metadata"]["name"], causes)
        if kind.storage == CRD_STORAGE:
            crd_taken = self.registry.name_conflict(obj)
            obj["status"] = crds.crd_status(obj, taken=crd_taken, now=self.clock())
        if new_pod:
            self.limits.check_pod(obj, request.namespace)
        if subresource == "" and kind.generation and old is not None:
            meta.renumber(obj, old, kind)
        request = msgspec.structs.replace(request, obj=obj)
        if self._plugins is not None:
            self._plugins.check(request)
        if context.webhooks:
            await self.admission.validate(request)
        return obj

    def _note_owners(
        self, kind: Kind, obj: JsonObject, old: JsonObject | None, context: Context, subresource: str
    ) -> None:
        """Set the managedFields after this write. What webhooks change later belongs to nobody."""
        if context.applied:
            return
        now = meta.timestamp(self.clock())
        owners = tracking.written(obj, old, kind, manager=context.manager, subresource=subresource, now=now)
        obj["metadata"].pop("managedFields", None)
        if owners:
            obj["metadata"]["managedFields"] = owners

    # Deleting.

    async def delete(
        self, kind: Kind, namespace: str, name: str, options: DeleteOptions, context: Context
    ) -> Deleted:
        """Raises StatusError 403, 404, 409, or what a webhook answered."""
        if kind.qualified == "namespaces" and name in specifics.PROTECTED_NAMESPACES:
            raise errors.forbidden("namespaces", "", name, "this namespace may not be deleted")
        admitted = False
        for _ in range(_ATTEMPTS):
            entry = self._head(kind, namespace, name)
            self._check_preconditions(kind, entry, options)
            obj = from_storage(entry.obj, kind)
            if not admitted:
                await self._admit_delete(kind, obj, namespace, name, context)
                admitted = True
                if self.state.head(entry.key) is not entry:
                    continue
            if kind.storage == CRD_STORAGE and "deletionTimestamp" not in obj["metadata"]:
                action, left = Action.MARK, crds.terminating(obj, self.clock())
            else:
                action, left = decide(obj, kind, options, self.clock())
            if action is Action.NOTHING or context.dry_run or options.dry_run:
                return Deleted(left, action is Action.REMOVE)
            stored = None if action is Action.REMOVE else to_storage(left, kind)
            try:
                written = await self.storage.write(entry.key, stored, expected=entry)
            except Stale:
                continue
            if action is Action.REMOVE and kind.graceful:
                if "deletionTimestamp" in obj["metadata"]:
                    left["metadata"]["resourceVersion"] = str(written.revision)
                return Deleted(left, True)
            return Deleted(from_storage(written.obj, kind), action is Action.REMOVE)
        raise errors.conflict(kind.plural, kind.group, name)

    async def _admit_delete(
        self, kind: Kind, obj: JsonObject, namespace: str, name: str, context: Context
    ) -> None:
        request = Admitted(
            kind=kind,
            operation="DELETE",
            namespace=namespace,
            name=name,
            obj=None,
            old=obj,
            context=context,
            options=_options("DELETE", context),
        )
        await self.admission.mutate(request)
        await self.admission.validate(request)

    def _check_preconditions(self, kind: Kind, entry: Entry, options: DeleteOptions) -> None:
        name = entry.key.name
        if options.uid and options.uid != entry.uid:
            why = (
                f"the UID in the precondition ({options.uid}) does not match the UID in record ({entry.uid}). The "
                "object might have been deleted and then recreated"
            )
            raise errors.conflict(kind.kind, kind.group, name, why)
        if options.resource_version and options.resource_version != str(entry.revision):
            why = (
                f"the ResourceVersion in the precondition ({options.resource_version}) does not match the "
                f"ResourceVersion in record ({entry.revision}). The object might have been modified"
            )
            raise errors.conflict(kind.kind, kind.group, name, why)


def _options(operation: str, context: Context) -> JsonObject:
    names = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}
    options: JsonObject = {"kind": names[operation], "apiVersion": "meta.k8s.io/v1"}
    if context.dry_run:
        options["dryRun"] = ["All"]
    return options
