"""Bearer tokens: who a request is from. Requests without one are refused: there is no anonymous user.

Three kinds of tokens: fixed ones (the administrator's and those of our own components), those of users (a file
that may change while the server runs), and signed ones of service accounts.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from serving.local.apiserver.access import tokens, users
from serving.local.apiserver.access.tokens import InvalidToken, Signer
from serving.local.apiserver.auth import TokenError
from serving.local.apiserver.errors import unauthorized
from serving.local.apiserver.request import User
from serving.local.apiserver.state import State

log = logging.getLogger(__name__)

AUTHENTICATED: Final = "system:authenticated"
_LOOK_SECONDS: Final = 0.25
"""How long a removed user may still get in: the file is looked at no more often than this."""


class Identity(msgspec.Struct, frozen=True):
    """`audiences`: for whom the token may be used, of those that were asked about."""

    user: User
    audiences: tuple[str, ...]


class Authenticator:
    def __init__(
        self,
        fixed: Mapping[str, User],
        *,
        directory: Path,
        signer: Signer,
        state: State,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`fixed`: users by token; `directory`: where the file of users is."""
        # Looked up by digest, so that the time of a lookup tells nothing about a token.
        self._fixed = {_digest(token): user for token, user in fixed.items()}
        self._directory = directory
        self._signer = signer
        self._state = state
        self._now = now
        self._users: dict[str, User] = {}
        self._stamp: tuple[int, int] | None = None
        self._looked_at = -_LOOK_SECONDS
        self._loading = asyncio.Lock()

    async def user(self, authorization: str | None) -> User:
        """Of an Authorization header. Raises StatusError 401."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            raise unauthorized()
        try:
            return (await self.identify(token.strip(), ())).user
        except InvalidToken as error:
            log.debug("refused: %s", error)
            raise unauthorized() from None

    async def identify(self, token: str, audiences: Sequence[str]) -> Identity:
        """Whose token it is, for any of the audiences (none = this server). Raises InvalidToken."""
        found = self._fixed.get(_digest(token))
        if found is None and tokens.looks_signed(token):
            return self._of_account(token, audiences)
        if found is None:
            await self._look(force=False)
            digest = users.digest(token)
            if digest not in self._users:
                await self._look(force=True)
            found = self._users.get(digest)
        if found is None:
            raise InvalidToken("")
        shared = tokens.shared_audiences(audiences, (tokens.ISSUER,))
        if not shared:
            raise InvalidToken(f"the token is for {tokens.ISSUER} only")
        return Identity(found, tuple(shared))

    def _of_account(self, token: str, audiences: Sequence[str]) -> Identity:
        now = self._now()
        claims = self._signer.verify(token, now=now)
        tokens.check_bound(claims, self._state, now=now)
        shared = tokens.shared_audiences(audiences, claims.audiences)
        if not shared:
            raise InvalidToken(
                f"token audiences {_go_list(claims.audiences)} is invalid for the target audiences "
                f"{_go_list(audiences or (tokens.ISSUER,))}"
            )
        return Identity(tokens.user_of(claims), tuple(shared))

    async def _look(self, *, force: bool) -> None:
        """Read the file of users again if it changed."""
        now = time.monotonic()
        if not force and now - self._looked_at < _LOOK_SECONDS:
            return
        stamp = users.stamp(self._directory)
        if stamp != self._stamp:
            async with self._loading:
                await self._load(stamp)
        self._looked_at = now

    async def _load(self, stamp: tuple[int, int]) -> None:
        try:
            entries = await asyncio.to_thread(users.load, self._directory)
        except TokenError as error:
            log.error("%s; the users of before stay", error)
        else:
            self._users = {
                entry.sha256: User(name=name, groups=(*entry.groups, AUTHENTICATED))
                for name, entry in entries.items()
            }
        self._stamp = stamp


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def _go_list(values: Sequence[str]) -> str:
    return "[" + " ".join(f'"{value}"' for value in values) + "]"
