"""`serviceaccounts/<name>/token`: a new signed token. Pure but for its lookups in the state."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors
from serving.local.apiserver.access.tokens import ISSUER, Claims, Reference, Signer, new_token_id
from serving.local.apiserver.errors import bad_request
from serving.local.apiserver.meta import timestamp
from serving.local.apiserver.state import Entry, Key, State

_GROUP: Final = "authentication.k8s.io"
_KIND: Final = "TokenRequest"
_DEFAULT_SECONDS: Final = 3600
_SHORTEST_SECONDS: Final = 600
_LONGEST_SECONDS: Final = 1 << 32
_BINDABLE: Final = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}


def issue(
    state: State, signer: Signer, *, namespace: str, name: str, body: JsonObject, now: datetime
) -> JsonObject:
    """The TokenRequest with its status. Raises StatusError 400, 404, 409 or 422."""
    metadata: dict[str, Any] = body.get("metadata") or {}
    for field, wanted in (("name", name), ("namespace", namespace)):
        if metadata.get(field) not in (None, "", wanted):
            detail = f"must match the service account {field} if specified"
            cause = errors.invalid_value(f"metadata.{field}", metadata[field], detail)
            raise errors.invalid(_KIND, _GROUP, name, [cause])
    account = _existing(state, "serviceaccounts", namespace, name)
    if metadata.get("uid") not in (None, "", account.uid):
        why = (
            f"the UID in the token request ({metadata['uid']}) does not match the UID of the service account "
            f"({account.uid})"
        )
        raise errors.conflict(_KIND, _GROUP, name, why)
    spec: dict[str, Any] = dict(body.get("spec") or {})
    audiences = tuple(spec.get("audiences") or (ISSUER,))
    seconds = _seconds(spec)
    bound = _bound(state, namespace, name, spec.get("boundObjectRef"))
    claims = Claims(
        namespace=namespace,
        account=Reference(name, account.uid),
        audiences=audiences,
        issued_at=now.timestamp(),
        expires_at=int(now.timestamp()) + seconds,
        token_id=new_token_id(),
        **bound,
    )
    expires = now.astimezone(UTC) + timedelta(seconds=seconds)
    return {
        "kind": _KIND,
        "apiVersion": f"{_GROUP}/v1",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": account.uid,
            "creationTimestamp": timestamp(now),
        },
        "spec": {
            "audiences": list(audiences),
            "expirationSeconds": seconds,
            "boundObjectRef": spec.get("boundObjectRef"),
        },
        "status": {"token": signer.sign(claims), "expirationTimestamp": timestamp(expires)},
    }


def _existing(state: State, storage: str, namespace: str, name: str) -> Entry:
    entry = state.get(Key(storage, namespace, name))
    if entry is None:
        raise errors.not_found(storage, "", name)
    return entry


def _seconds(spec: dict[str, Any]) -> int:
    seconds = spec.get("expirationSeconds")
    if seconds is None:
        return _DEFAULT_SECONDS
    detail = ""
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds < _SHORTEST_SECONDS:
        detail = "may not specify a duration less than 10 minutes"
    elif seconds > _LONGEST_SECONDS:
        detail = "may not specify a duration larger than 2^32 seconds"
    if detail:
        cause = errors.invalid_value("spec.expirationSeconds", seconds, detail)
        raise errors.invalid(_KIND, _GROUP, "", [cause])
    return int(seconds)


def _bound(state: State, namespace: str, account: str, reference: dict[str, Any] | None) -> dict[str, Reference]:
    """What the token depends on, besides its service account."""
    if not reference:
        return {}
    kind, api_version = str(reference.get("kind") or ""), str(reference.get("apiVersion") or "")
    storage = _BINDABLE.get(kind)
    if storage is None or api_version not in ("v1", ""):
        group, _, version = api_version.rpartition("/")
        raise bad_request(f"cannot bind token to object of type {group}/{version}, Kind={kind}")
    name = str(reference.get("name") or "")
    entry = _existing(state, storage, "" if storage == "nodes" else namespace, name)
    bound = {kind.lower(): Reference(name, entry.uid)}
    if storage == "pods":
        spec = entry.obj.get("spec") or {}
        if spec.get("serviceAccountName") != account:
            raise bad_request(
                f'cannot bind token for serviceaccount "{account}" to pod running with different serviceaccount '
                "name."
            )
        node = spec.get("nodeName")
        if node:
            found = state.get(Key("nodes", "", node))
            bound["node"] = Reference(node, found.uid if found is not None else "")
    uid = reference.get("uid")
    if uid and uid != entry.uid:
        why = (
            f"the UID in the bound object reference ({uid}) does not match the UID in record. The object might "
            "have been deleted and then recreated"
        )
        raise errors.conflict(kind, "", name, why)
    return bound
