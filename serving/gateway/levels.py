"""When the controller is told the levels: soon after they may have changed, once for a burst.

A Service becomes Ready when the controller hears that its Route is programmed, so the pause is short. It grows
with what computing the levels takes, which is more with every Route: they get a twentieth of the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from serving.api.reports import GatewayMessage

SHORTEST_SECONDS: Final = 0.001
LONGEST_SECONDS: Final = 0.02
_SHARE: Final = 20.0


class Levels:
    """`read` computes each level by name; `send` gets it. Nothing is read before `open`."""

    def __init__(
        self, *, read: Mapping[str, Callable[[], GatewayMessage]], send: Callable[[GatewayMessage], None]
    ) -> None:
        self._read = read
        self._send = send
        self._opened = False
        self._due: set[str] = set()
        self._pause = SHORTEST_SECONDS

    def open(self) -> None:
        """They can be computed from now on, and all are due."""
        self._opened = True
        self.changed(*self._read)

    def changed(self, *which: str) -> None:
        """These may be others now."""
        if not self._opened:
            return
        if not self._due:
            asyncio.get_running_loop().call_later(self._pause, self._flush)
        self._due.update(which)

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        due, self._due = self._due, set()
        for name, read in self._read.items():
            if name in due:
                self._send(read())
        self._pause = min(max(SHORTEST_SECONDS, _SHARE * (loop.time() - began)), LONGEST_SECONDS)
