"""Files with secrets: bearer tokens, keys. Only their owner may read them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


class TokenError(Exception):
    """A file of tokens or keys cannot be used. Says which file and what to do."""


def admin_token(path: Path) -> str:
    """The token in `path`, which is made when it is absent. Raises TokenError."""
    try:
        token = path.read_text().strip()
    except FileNotFoundError:
        token = secrets.token_urlsafe(32)
        write_private(path, token.encode() + b"\n")
    if not token:
        raise TokenError(f"token file {path} is empty; remove it to have a new token made")
    return token


def write_private(path: Path, data: bytes) -> None:
    """Replace a file at once, readable only by its owner."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
