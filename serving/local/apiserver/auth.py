"""Bearer tokens: who a request is from. Anonymous requests are refused.

The administrator's token is in a file of its own (`<data-dir>/token`, mode 0600). More users may be named in
`<data-dir>/tokens.json`: `{"<token>": {"user": "name", "groups": ["…"]}}`. Every user may do everything; RBAC
objects are stored but not evaluated.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import msgspec

from serving.local.apiserver.errors import unauthorized
from serving.local.apiserver.request import User

_ALWAYS = "system:authenticated"


class TokenEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user: str
    groups: tuple[str, ...] = ()
    uid: str = ""


ADMIN = TokenEntry("nodeless:admin", ("system:masters",))


class TokenError(Exception):
    """The token file cannot be read. Says which file and what to do."""


class Authenticator:
    def __init__(self, tokens: Mapping[str, TokenEntry]) -> None:
        # Looked up by digest, so that the time of a lookup tells nothing about a token.
        self._users = {
            _digest(token): User(name=entry.user, groups=(*entry.groups, _ALWAYS), uid=entry.uid)
            for token, entry in tokens.items()
        }

    def user(self, authorization: str | None) -> User:
        """Of an Authorization header. Raises StatusError 401."""
        scheme, _, token = (authorization or "").partition(" ")
        found = self.of_token(token.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            raise unauthorized()
        return found

    def of_token(self, token: str) -> User | None:
        return self._users.get(_digest(token))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def admin_token(path: Path) -> str:
    """The administrator's token: the content of `path`, which is made when it is absent. Raises TokenError."""
    try:
        token = path.read_text().strip()
    except FileNotFoundError:
        token = secrets.token_urlsafe(32)
        write_private(path, token.encode() + b"\n")
    if not token:
        raise TokenError(f"token file {path} is empty; remove it to have a new token made")
    return token


def load_tokens(path: Path) -> dict[str, TokenEntry]:
    """More users, from a file that may be absent. Raises TokenError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, TokenEntry])
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError as error:
        raise TokenError(
            f'token file {path} cannot be read: {error}. It is a JSON object {{"<token>": {{"user": "name", '
            '"groups": []}}; correct it or move it away'
        ) from error


def write_private(path: Path, data: bytes) -> None:
    """Replace a file at once, readable only by its owner."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
