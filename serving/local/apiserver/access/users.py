"""People who may use the API server: names, groups, and digests of their tokens, in a file.

`<data-dir>/users.json`, mode 0600, written by `nodeless user`. A server that runs notices changes by itself, so
nobody has to restart it. Tokens are random and long, so a plain digest is as good as a slow one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from serving.local.apiserver.auth import TokenError, write_private

FILE: Final = "users.json"
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@-]{0,251}[A-Za-z0-9])?")
_RESERVED: Final = "system:"


class UserEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    groups: tuple[str, ...] = ()
    sha256: str
    """Of the token, in hexadecimal."""
    created: str = ""


class UserError(Exception):
    """A user cannot be added or removed. Says why and what is allowed."""


Users = dict[str, UserEntry]


def load(directory: Path) -> Users:
    """By name. Raises TokenError when the file cannot be read."""
    path = directory / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Users)
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError as error:
        raise TokenError(f"{path} cannot be read: {error}; correct it or move it away") from error


def add(directory: Path, name: str, groups: tuple[str, ...], *, created: str) -> str:
    """A new user, or a new token for one that exists; returns the token, which is stored nowhere.

    Raises UserError for a name or group that cannot be, TokenError when the file cannot be read.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"user name {name!r}: letters, digits, '.', '_', '@' and '-', at most 253 characters, with a letter "
            "or digit at both ends"
        )
    for group in groups:
        if not group or any(char.isspace() for char in group):
            raise UserError(f"group {group!r}: must not be empty or contain spaces")
        if group.startswith(_RESERVED) and group != "system:masters":
            raise UserError(f"group {group!r}: groups that begin with 'system:' are the server's own")
    token = secrets.token_urlsafe(32)
    with _locked(directory) as users:
        users[name] = UserEntry(groups=groups, sha256=digest(token), created=created)
    return token


def remove(directory: Path, name: str) -> None:
    """Raises UserError when there is no such user."""
    with _locked(directory) as users:
        if users.pop(name, None) is None:
            raise UserError(f"no user {name!r}")


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[Users]:
    """The users, written back at the end; two commands at once do not lose one another's change."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (directory / f".{FILE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        users = load(directory)
        yield users
        write_private(directory / FILE, msgspec.json.format(msgspec.json.encode(users, order="sorted")) + b"\n")


def digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def stamp(directory: Path) -> tuple[int, int]:
    """Changes whenever the file does."""
    try:
        found = os.stat(directory / FILE)
    except FileNotFoundError:
        return 0, 0
    return found.st_mtime_ns, found.st_ino
