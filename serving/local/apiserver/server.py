"""HTTP: authenticates, authorizes, routes by path, and turns results and failures into responses."""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Callable
from importlib.metadata import version

import msgspec
from aiohttp import web

from serving.api.meta import JsonObject
from serving.local.apiserver import errors, negotiate, paths
from serving.local.apiserver.access import tokens
from serving.local.apiserver.access.attributes import Attributes
from serving.local.apiserver.access.gate import Gate
from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.kinds import KUBERNETES_VERSION
from serving.local.apiserver.responses import as_yaml, failure, json_response, page_not_found
from serving.local.apiserver.verbs import Verbs

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 3 * 1024 * 1024
_GO_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_OWN_VERSION = version("nodeless-serving")

Discover = Callable[[web.Request, paths.GroupPath], web.Response]
Document = Callable[[web.Request], web.Response]


class Server:
    """The handler of both listeners. It exists only when everything behind it is ready, so /readyz is always
    ok."""

    def __init__(
        self,
        *,
        gate: Gate,
        verbs: Verbs,
        discover: Discover,
        document: Document,
    ) -> None:
        self._gate = gate
        self._verbs = verbs
        self._discover = discover
        self._document = document

    def application(self) -> web.Application:
        # One route: kinds come and go with their definitions, so the path is parsed by us.
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        answer = await self._answer(request)
        if isinstance(answer, web.Response) and negotiate.wants_yaml(request.headers.get("Accept", "")):
            return await asyncio.to_thread(as_yaml, answer)
        return answer

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._route(request)
        except StatusError as error:
            return failure(error)
        except web.HTTPRequestEntityTooLarge:
            return failure(errors.too_large(MAX_BODY_BYTES))
        except (asyncio.CancelledError, ConnectionResetError):
            raise
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            return failure(errors.internal(f"{type(error).__name__}: {error}"))

    async def _route(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path in paths.OPEN_PATHS or path.startswith(("/livez/", "/readyz/", "/healthz/")):
            return self._open(request)
        user = await self._gate.identify(request)
        parsed = paths.parse(path)
        if isinstance(parsed, paths.Target):
            asked = self._gate.check_target(request, parsed, user)
            return await self._verbs.handle(request, parsed, user, self._also(asked))
        self._gate.check_path(request, user)
        if path == tokens.JWKS_PATH:
            return json_response(self._gate.signer.keys(), content_type="application/jwk-set+json")
        if path == tokens.CONFIGURATION_PATH:
            return json_response(tokens.configuration(f"https://{request.host}"))
        if path.startswith("/openapi/"):
            return self._document(request)
        if isinstance(parsed, paths.GroupPath):
            if request.method not in ("GET", "HEAD"):
                raise errors.method_not_allowed()
            return self._discover(request, parsed)
        return page_not_found()

    def _also(self, asked: Attributes) -> Callable[[str], None]:
        """Checks for another verb on the same object."""
        return lambda verb: self._gate.authorizer.check(msgspec.structs.replace(asked, verb=verb))

    def _open(self, request: web.Request) -> web.Response:
        if request.path == "/version":
            return json_response(_version())
        name = request.path.strip("/").split("/", 1)[0]
        verbose = "verbose" in request.query
        return web.Response(text=f"[+]state ok\n{name} check passed\n" if verbose else "ok")


def _version() -> JsonObject:
    major, minor = KUBERNETES_VERSION
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{major}.{minor}.0+nodeless-{_OWN_VERSION}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{platform.python_version()}",
        "compiler": "cpython",
        "platform": f"linux/{_GO_MACHINES.get(platform.machine(), platform.machine())}",
    }
