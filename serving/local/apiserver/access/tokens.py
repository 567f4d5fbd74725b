"""Signed tokens of service accounts: JWTs as kube-apiserver issues them, and the documents to verify them by.

The key lies in the data directory; whoever loses it only has to delete the file, which invalidates every token. A
token is worth nothing once its service account, or the pod or secret it is bound to, is gone: that is looked up at
each use, so deleting a pod ends its tokens at once.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from serving.api.meta import JsonObject
from serving.api.timestamps import parse
from serving.local.apiserver.access.policy import ACCOUNT_PREFIX
from serving.local.apiserver.auth import TokenError, write_private
from serving.local.apiserver.request import User
from serving.local.apiserver.state import Key, State

ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
KEY_FILE: Final = "service-accounts.key"
JWKS_PATH: Final = "/openid/v1/jwks"
CONFIGURATION_PATH: Final = "/.well-known/openid-configuration"
_ALGORITHM: Final = "ES256"
_LEEWAY_SECONDS: Final = 60.0
_CACHED: Final = 8192
_PRIVATE: Final = "kubernetes.io"
_EXTRA: Final = "authentication.kubernetes.io/"


class InvalidToken(Exception):
    """A signed token that is not, or no longer, good. Says why."""


class Reference(msgspec.Struct, frozen=True):
    """An object by name and uid."""

    name: str
    uid: str


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says. Times are Unix seconds."""

    namespace: str
    account: Reference
    audiences: tuple[str, ...]
    issued_at: float
    expires_at: float
    token_id: str
    pod: Reference | None = None
    secret: Reference | None = None
    node: Reference | None = None


class Signer:
    """Signs and verifies. Verified signatures are remembered: verifying one costs 0.1 ms."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self._public = key.public_key()
        der = self._public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._key_id = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
        self._verified: dict[str, Claims] = {}

    @classmethod
    def open(cls, path: Path) -> Signer:
        """The key in `path`, made when it is absent. Blocking. Raises TokenError for a file that holds none."""
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), None)
        except FileNotFoundError:
            made = ec.generate_private_key(ec.SECP256R1())
            pem = made.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            write_private(path, pem)
            return cls(made)
        except (ValueError, TypeError) as error:
            raise TokenError(f"{path} holds no private key: {error}; remove it to have one made") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise TokenError(f"{path}: the key must be an EC key on P-256; remove the file to have one made")
        return cls(key)

    def sign(self, claims: Claims) -> str:
        bound: JsonObject = {"namespace": claims.namespace, "serviceaccount": _reference(claims.account)}
        for name in ("node", "pod", "secret"):
            reference: Reference | None = getattr(claims, name)
            if reference is not None:
                bound[name] = _reference(reference)
        payload = {
            "aud": list(claims.audiences),
            "exp": int(claims.expires_at),
            "iat": int(claims.issued_at),
            "iss": ISSUER,
            "jti": claims.token_id,
            _PRIVATE: bound,
            "nbf": int(claims.issued_at),
            "sub": f"{ACCOUNT_PREFIX}{claims.namespace}:{claims.account.name}",
        }
        return jwt.encode(payload, self._key, algorithm=_ALGORITHM, headers={"kid": self._key_id})

    def verify(self, token: str, *, now: float) -> Claims:
        """Raises InvalidToken. Says nothing about whether what the token speaks of still exists."""
        claims = self._verified.get(token)
        if claims is None:
            claims = self._decode(token)
            if len(self._verified) >= _CACHED:
                del self._verified[next(iter(self._verified))]
            self._verified[token] = claims
        if now > claims.expires_at + _LEEWAY_SECONDS:
            self._verified.pop(token, None)
            raise InvalidToken("service account token has expired")
        if now < claims.issued_at - _LEEWAY_SECONDS:
            raise InvalidToken("service account token is not valid yet")
        return claims

    def _decode(self, token: str) -> Claims:
        try:
            payload: dict[str, Any] = jwt.decode(
                token,
                self._public,
                algorithms=[_ALGORITHM],
                issuer=ISSUER,
                # Times are looked at on each use, audiences by whoever asks.
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False},
            )
            bound = payload[_PRIVATE]
            return Claims(
                namespace=bound["namespace"],
                account=Reference(**bound["serviceaccount"]),
                audiences=tuple(payload["aud"]),
                issued_at=float(payload["iat"]),
                expires_at=float(payload["exp"]),
                token_id=payload["jti"],
                **{name: Reference(**bound[name]) for name in ("pod", "secret", "node") if name in bound},
            )
        except (jwt.PyJWTError, KeyError, TypeError, ValueError) as error:
            raise InvalidToken(str(error)) from error

    def keys(self) -> JsonObject:
        """The JWKS."""
        numbers = self._public.public_numbers()
        return {
            "keys": [
                {
                    "use": "sig",
                    "kty": "EC",
                    "kid": self._key_id,
                    "crv": "P-256",
                    "alg": _ALGORITHM,
                    "x": _coordinate(numbers.x),
                    "y": _coordinate(numbers.y),
                }
            ]
        }


def configuration(base_url: str) -> JsonObject:
    """The OpenID Connect discovery document."""
    return {
        "issuer": ISSUER,
        "jwks_uri": base_url + JWKS_PATH,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [_ALGORITHM],
    }


def new_token_id() -> str:
    return str(uuid4())


def check_bound(claims: Claims, state: State, *, now: float) -> None:
    """Raises InvalidToken unless everything that the token depends on is there, and is the same."""
    account = state.get(Key("serviceaccounts", claims.namespace, claims.account.name))
    if account is None:
        raise InvalidToken(f'serviceaccounts "{claims.account.name}" not found')
    if account.uid != claims.account.uid:
        raise InvalidToken(f"service account UID ({account.uid}) does not match claim ({claims.account.uid})")
    _check(state, "pods", claims.namespace, claims.pod, now=now)
    _check(state, "secrets", claims.namespace, claims.secret, now=now)
    if claims.pod is None:
        _check(state, "nodes", "", claims.node, now=now)


def _check(state: State, storage: str, namespace: str, reference: Reference | None, *, now: float) -> None:
    if reference is None:
        return
    entry = state.get(Key(storage, namespace, reference.name))
    if entry is None:
        raise InvalidToken("service account token has been invalidated")
    if entry.uid != reference.uid:
        what = {"pods": "pod", "secrets": "secret", "nodes": "node"}[storage]
        raise InvalidToken(
            f"{what} UID ({entry.uid}) does not match service account {what} ref claim ({reference.uid})"
        )
    deleted = entry.obj["metadata"].get("deletionTimestamp")
    if deleted is not None and parse(deleted) < now - _LEEWAY_SECONDS:
        raise InvalidToken("service account token has been invalidated")


def user_of(claims: Claims) -> User:
    extra = {f"{_EXTRA}credential-id": (f"JTI={claims.token_id}",)}
    for name in ("pod", "node"):
        reference: Reference | None = getattr(claims, name)
        if reference is not None:
            extra[f"{_EXTRA}{name}-name"] = (reference.name,)
            extra[f"{_EXTRA}{name}-uid"] = (reference.uid,)
    return User(
        name=f"{ACCOUNT_PREFIX}{claims.namespace}:{claims.account.name}",
        groups=account_groups(claims.namespace),
        uid=claims.account.uid,
        extra=extra,
    )


def account_groups(namespace: str) -> tuple[str, ...]:
    return "system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"


def shared_audiences(wanted: Collection[str], have: Collection[str]) -> list[str]:
    """In the order in which they were asked for; the server itself is meant when none were."""
    return [audience for audience in wanted or (ISSUER,) if audience in have]


def looks_signed(token: str) -> bool:
    return token.count(".") == 2


def _reference(reference: Reference) -> dict[str, str]:
    return {"name": reference.name, "uid": reference.uid}


def _coordinate(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()
