"""A remote command as the one who runs it sees the client, whichever protocol that speaks."""

from __future__ import annotations

from typing import Annotated, Final, Protocol

import msgspec
from aiohttp import web

from serving.api.meta import JsonObject

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
"""Channel numbers, and the order in which Kubernetes names the streams."""
_LONGEST: Final = 256


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which streams the client has asked for."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False


Cells = Annotated[int, msgspec.Meta(ge=1, le=0xFFFF)]


class TerminalSize(msgspec.Struct, frozen=True, rename="pascal"):
    width: Cells
    height: Cells


class RemoteSession(Protocol):
    """`run` must be running for anything else to happen."""

    wanted: Wanted

    async def run(self) -> None:
        """Serve the connection; returns when the client is gone."""
        ...

    async def opened(self) -> None:
        """Wait until the client has opened its streams, or is gone. Raises TimeoutError."""
        ...

    @property
    def response(self) -> web.StreamResponse:
        """What the HTTP server is told to answer: of the request nothing is left to answer."""
        ...

    async def read_stdin(self) -> bytes:
        """At least one byte; empty at the end."""
        ...

    async def read_size(self) -> TerminalSize | None:
        """The next size of the client's terminal; None when there will be no more."""
        ...

    async def write(self, channel: int, data: bytes) -> None:
        """To STDOUT or STDERR. Waits while the client does not read; raises ConnectionError when it is gone."""
        ...

    async def finish(self, status: JsonObject) -> None:
        """Say how it ended, and let the client take its leave. Nothing may be written afterwards."""
        ...

    async def close(self) -> None:
        """Hang up. Idempotent."""
        ...


class SizeParser:
    """Sizes out of JSON objects that are split anywhere."""

    def __init__(self) -> None:
        self._text = ""

    def feed(self, data: bytes) -> list[TerminalSize]:
        """What cannot be understood is skipped."""
        self._text += data.decode(errors="replace")
        sizes: list[TerminalSize] = []
        while "}" in self._text:
            start = self._text.find("{")
            end = self._text.index("}") + 1
            piece, self._text = self._text[max(start, 0) : end], self._text[end:]
            size = _size(piece)
            if size is not None:
                sizes.append(size)
        self._text = self._text[-_LONGEST:]
        return sizes


def _size(text: str) -> TerminalSize | None:
    try:
        return msgspec.json.decode(text, type=TerminalSize)
    except msgspec.DecodeError:
        return None


def succeeded() -> JsonObject:
    return {"metadata": {}, "status": "Success"}


def exited(code: int) -> JsonObject:
    """The status of a program that ended with `code`."""
    if code == 0:
        return succeeded()
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failed(message: str) -> JsonObject:
    """The status when the program could not be run."""
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {message}",
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }
