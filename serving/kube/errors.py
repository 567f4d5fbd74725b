"""Errors of the Kubernetes API, translated once at this seam.

KubeError
├── Unreachable          transport: refused, reset, timed out, an answer that is no JSON — transient
└── ApiError             the server answered with a Status
    ├── BadRequest       400
    ├── Unauthorized     401
    ├── Forbidden        403
    ├── NotFound         404
    ├── Conflict         409 Conflict — read again, decide again
    ├── AlreadyExists    409 AlreadyExists
    ├── Gone             410 — relist
    ├── Invalid          422
    ├── TooManyRequests  429 — transient, see `retry_after_seconds`
    └── ServerError      5xx — transient
"""

from __future__ import annotations

from serving.api.meta import JsonObject


class KubeError(Exception):
    """Any failure of a call to the API server. `retry_after_seconds`: how long it asked us to stay away."""

    transient = False
    retry_after_seconds: float | None = None


class Unreachable(KubeError):
    """The API server could not be reached, or the connection broke."""

    transient = True


class ApiError(KubeError):
    """The API server refused. `status` is its Status object."""

    def __init__(self, code: int, status: JsonObject) -> None:
        self.code = code
        self.status = status
        self.reason: str = status.get("reason") or ""
        self.message: str = status.get("message") or f"HTTP {code}"
        details = status.get("details") or {}
        self.retry_after_seconds = details.get("retryAfterSeconds")
        super().__init__(self.message)


class BadRequest(ApiError):
    pass


class Unauthorized(ApiError):
    pass


class Forbidden(ApiError):
    pass


class NotFound(ApiError):
    pass


class Conflict(ApiError):
    pass


class AlreadyExists(ApiError):
    pass


class Gone(ApiError):
    pass


class Invalid(ApiError):
    pass


class TooManyRequests(ApiError):
    transient = True


class ServerError(ApiError):
    transient = True


_BY_CODE: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


def from_status(code: int, status: JsonObject) -> ApiError:
    """The most specific error for an HTTP code and its Status object."""
    if code == 409 and status.get("reason") == "AlreadyExists":
        return AlreadyExists(code, status)
    if code >= 500:
        return ServerError(code, status)
    return _BY_CODE.get(code, ApiError)(code, status)
