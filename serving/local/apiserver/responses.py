"""Small helpers for HTTP answers."""

from __future__ import annotations

import msgspec
import yaml
from aiohttp import web

from serving.api.meta import JsonObject
from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.negotiate import JSON, YAML


def json_response(
    body: object, *, status: int = 200, content_type: str = JSON, headers: dict[str, str] | None = None
) -> web.Response:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return web.Response(status=status, body=data, headers={"Content-Type": content_type, **(headers or {})})


def as_yaml(answer: web.Response) -> web.Response:
    """The same answer; what is no JSON stays as it is. Slow: it is for people."""
    if answer.content_type != JSON or not isinstance(answer.body, bytes):
        return answer
    text = yaml.dump(msgspec.json.decode(answer.body), Dumper=yaml.CSafeDumper, allow_unicode=True)
    headers = {**answer.headers, "Content-Type": YAML}
    headers.pop("Content-Length", None)
    return web.Response(status=answer.status, body=text.encode(), headers=headers)


def failure(error: StatusError) -> web.Response:
    return json_response(error.status(), status=error.code, headers=error.headers)


def page_not_found() -> web.Response:
    return web.Response(status=404, text="404 page not found\n")


def warning_header(text: str) -> str:
    """An RFC 7234 warning as kube-apiserver sends it."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'299 - "{quoted}"'


def success(details: JsonObject | None = None) -> JsonObject:
    """A `Status` that says that it is done."""
    status: JsonObject = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    return {**status, "details": details} if details else status
