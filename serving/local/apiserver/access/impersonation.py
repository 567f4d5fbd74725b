"""Acting as somebody else: the Impersonate-* headers, what they need permission for, and who results. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

import msgspec

from serving.local.apiserver.access.attributes import Attributes
from serving.local.apiserver.access.policy import ACCOUNT_PREFIX
from serving.local.apiserver.access.tokens import account_groups
from serving.local.apiserver.errors import internal
from serving.local.apiserver.request import User

_USER: Final = "impersonate-user"
_GROUP: Final = "impersonate-group"
_UID: Final = "impersonate-uid"
_EXTRA: Final = "impersonate-extra-"
_AUTHENTICATION: Final = "authentication.k8s.io"
_AUTHENTICATED: Final = "system:authenticated"
_UNAUTHENTICATED: Final = "system:unauthenticated"
_ANONYMOUS: Final = "system:anonymous"


class Wanted(msgspec.Struct, frozen=True):
    """`user` may be acted as by whoever is allowed everything in `needs`, in this order."""

    user: User
    needs: tuple[Attributes, ...]


def read(headers: Iterable[tuple[str, str]], requester: User) -> Wanted | None:
    """None = nobody is impersonated. Raises StatusError 500 (as kube-apiserver does) without a user name."""
    name = uid = ""
    groups: list[str] = []
    extra: dict[str, tuple[str, ...]] = {}
    for header, value in headers:
        lower = header.lower()
        if not lower.startswith("impersonate-"):
            continue
        if lower == _USER:
            name = name or value
        elif lower == _GROUP:
            groups.append(value)
        elif lower == _UID:
            uid = uid or value
        elif lower.startswith(_EXTRA):
            key = unquote(lower.removeprefix(_EXTRA))
            extra[key] = (*extra.get(key, ()), value)
    if not name:
        if groups or uid or extra:
            raise internal("requested groups, a uid or extras without impersonating a user")
        return None
    return Wanted(_acting(name, groups, uid, extra), tuple(_needs(requester, name, groups, uid, extra)))


def _needs(
    requester: User, name: str, groups: list[str], uid: str, extra: dict[str, tuple[str, ...]]
) -> Iterable[Attributes]:
    def ask(
        resource: str, wanted: str, *, group: str = "", namespace: str = "", subresource: str = ""
    ) -> Attributes:
        return Attributes(
            user=requester,
            verb="impersonate",
            group=group,
            resource=resource,
            subresource=subresource,
            namespace=namespace,
            name=wanted,
        )

    account = split_account(name)
    if account is not None:
        yield ask("serviceaccounts", account[1], namespace=account[0])
    else:
        yield ask("users", name)
    for wanted in groups:
        yield ask("groups", wanted)
    for key, values in extra.items():
        for value in values:
            yield ask("userextras", value, group=_AUTHENTICATION, subresource=key)
    if uid:
        yield ask("uids", uid, group=_AUTHENTICATION)


def _acting(name: str, groups: list[str], uid: str, extra: dict[str, tuple[str, ...]]) -> User:
    account = split_account(name)
    found = list(groups)
    if account is not None and not found:
        found = [group for group in account_groups(account[0]) if group != _AUTHENTICATED]
    if name == _ANONYMOUS:
        found += [] if _UNAUTHENTICATED in found else [_UNAUTHENTICATED]
    elif _AUTHENTICATED not in found and _UNAUTHENTICATED not in found:
        found.append(_AUTHENTICATED)
    return User(name=name, groups=tuple(found), uid=uid, extra=extra)


def split_account(name: str) -> tuple[str, str] | None:
    """Namespace and name of a service account's user name."""
    if not name.startswith(ACCOUNT_PREFIX):
        return None
    namespace, _, account = name.removeprefix(ACCOUNT_PREFIX).partition(":")
    return (namespace, account) if namespace and account and ":" not in account else None
