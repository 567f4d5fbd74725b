"""Subresources other than status: scale, eviction, binding, finalize, token, streams; and reviews."""

from __future__ import annotations

from aiohttp import web

from serving.api.meta import JsonObject
from serving.local.apiserver import disruption, errors, negotiate
from serving.local.apiserver.access import reviews, token_requests
from serving.local.apiserver.access.gate import Gate
from serving.local.apiserver.bodies import patch_change, read_object
from serving.local.apiserver.deletion import parse_options
from serving.local.apiserver.errors import bad_request
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.paths import Target
from serving.local.apiserver.request import Admitted, Context
from serving.local.apiserver.resources import Resources
from serving.local.apiserver.responses import json_response, success
from serving.local.apiserver.scale import from_scale, to_scale
from serving.local.apiserver.state import Stale
from serving.local.apiserver.streams import Streams
from serving.local.apiserver.versions import from_storage


class Subresources:
    def __init__(self, resources: Resources, streams: Streams, gate: Gate) -> None:
        self._resources = resources
        self._streams = streams
        self._gate = gate

    async def handle(
        self, request: web.Request, target: Target, kind: Kind, context: Context
    ) -> web.StreamResponse:
        """Raises StatusError."""
        match target.subresource:
            case "log" | "exec" | "attach" | "portforward":
                return await self._streams.handle(request, target.namespace, target.name, target.subresource)
            case "scale":
                return await self._scale(request, target, kind, context)
            case "eviction" if request.method == "POST":
                return await self._evict(request, target, kind, context)
            case "binding" if request.method == "POST":
                return await self._bind(request, target, kind, context)
            case "finalize" if request.method == "PUT":
                return await self._finalize(request, target, kind, context)
            case "token" if request.method == "POST":
                return await self._token(request, target, context)
        raise errors.method_not_allowed()

    async def review(self, request: web.Request, target: Target, kind: Kind, context: Context) -> web.Response:
        body = await read_object(request, context, kind.kind)
        answer = await reviews.answer(kind, target.namespace, body, context.user, self._gate)
        return json_response(answer, status=201)

    async def _token(self, request: web.Request, target: Target, context: Context) -> web.Response:
        body = await read_object(request, context, "TokenRequest")
        issued = token_requests.issue(
            self._resources.state,
            self._gate.signer,
            namespace=target.namespace,
            name=target.name,
            body=body,
            now=self._resources.clock(),
        )
        return json_response(issued, status=201)

    async def _scale(self, request: web.Request, target: Target, kind: Kind, context: Context) -> web.Response:
        if kind.scale is None:
            raise errors.unknown_resource()
        scale = kind.scale
        if request.method == "GET":
            entry = self._resources.get(kind, target.namespace, target.name)
            return json_response(to_scale(from_storage(entry.obj, kind), scale, strict=kind.custom))
        if request.method == "PUT":
            body = await read_object(request, context, "Scale")

            def change(obj: JsonObject) -> JsonObject:
                return from_scale(obj, body, kind, scale)

        elif request.method == "PATCH":
            form = negotiate.patch_type(request.headers.get("Content-Type", ""), custom=True)
            patch = await patch_change(request, context, form, kind)

            def change(obj: JsonObject) -> JsonObject:
                return from_scale(obj, patch(to_scale(obj, scale)), kind, scale)

        else:
            raise errors.method_not_allowed()
        obj = await self._resources.patch(kind, target.namespace, target.name, change, context)
        return json_response(to_scale(obj, scale))

    async def _evict(self, request: web.Request, target: Target, kind: Kind, context: Context) -> web.Response:
        body = await read_object(request, context, "Eviction")
        _check_name(body, target, "Eviction")
        pod = self._resources.get(kind, target.namespace, target.name).obj
        asked = Admitted(
            kind=kind,
            operation="CREATE",
            namespace=target.namespace,
            name=target.name,
            obj={"metadata": {}, **body},
            old=None,
            context=context,
            options={"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
            subresource="eviction",
            body_kind=("policy", "v1", "Eviction"),
        )
        await self._resources.admission.mutate(asked)
        await self._resources.admission.validate(asked)
        state = self._resources.state
        budgets = [entry.obj for entry in state.select("poddisruptionbudgets.policy", target.namespace)]
        pods = [entry.obj for entry in state.select("pods", target.namespace)]
        disruption.check(pod, budgets, pods)
        options = parse_options(body.get("deleteOptions") or {}, {})
        await self._resources.delete(kind, target.namespace, target.name, options, context)
        return json_response({**success(), "code": 201}, status=201)

    async def _bind(self, request: web.Request, target: Target, kind: Kind, context: Context) -> web.Response:
        body = await read_object(request, context, "Binding")
        _check_name(body, target, "Binding")
        node = _node_of(body.get("target") or {})

        def change(obj: JsonObject) -> JsonObject:
            bound = obj["spec"].get("nodeName")
            if bound:
                why = f'pod {target.name} is already assigned to node "{bound}"'
                raise errors.conflict("pods/binding", "", target.name, why)
            return {**obj, "spec": {**obj["spec"], "nodeName": node}}

        await self._resources.patch(kind, target.namespace, target.name, change, context, subresource="binding")
        return json_response({**success(), "code": 201}, status=201)

    async def _finalize(self, request: web.Request, target: Target, kind: Kind, context: Context) -> web.Response:
        """PUT namespaces/x/finalize: replace spec.finalizers, the only way to change them."""
        body = await read_object(request, context, "Namespace")
        finalizers = (body.get("spec") or {}).get("finalizers") or []
        if not isinstance(finalizers, list):
            raise bad_request("spec.finalizers: expected a list")
        try:
            obj = await self._resources.finalize(kind, target.name, finalizers)
        except Stale:
            raise errors.conflict(kind.plural, kind.group, target.name) from None
        return json_response(obj)


def _check_name(body: JsonObject, target: Target, kind: str) -> None:
    """Raises StatusError 400 for another name than that of the path; none is that one."""
    metadata = body.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if name not in (None, "", target.name):
        raise bad_request(f"name in URL does not match name in {kind} object")


def _node_of(target: JsonObject) -> str:
    """Of a Binding's target. Raises StatusError 500, as kube-apiserver does."""
    kind, name = target.get("kind") or "", str(target.get("name") or "")
    problems = []
    if kind not in ("", "Node"):
        problems.append(errors.not_supported("target.kind", kind, ("Node", "<empty>")).message)
    if not name:
        problems.append(errors.required("target.name").message)
    if problems:
        raise errors.StatusError(500, "", problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")
    return name
