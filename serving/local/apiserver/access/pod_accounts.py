"""The service account of a new pod: which one, its pull secrets, and the volume with its token. Pure."""

from __future__ import annotations

from typing import Any, Final

from serving.api.meta import JsonObject

DEFAULT_ACCOUNT: Final = "default"
ROOT_AUTHORITY: Final = "kube-root-ca.crt"
"""The ConfigMap, in every namespace, with the certificate that the API server is trusted by."""
MOUNT_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_VOLUME: Final = "kube-api-access-"
_TOKEN_SECONDS: Final = 3607


def choose_account(pod: JsonObject) -> str:
    """The name of the pod's service account, which is filled in where the pod names none."""
    spec = pod["spec"]
    name = str(spec.get("serviceAccountName") or spec.get("serviceAccount") or DEFAULT_ACCOUNT)
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    return name


def complete(pod: JsonObject, account: JsonObject, *, suffix: str) -> None:
    """Give the pod what comes with its account, in place. `suffix` makes the volume's name."""
    spec = pod["spec"]
    if _automounts(spec, account):
        _mount(spec, suffix)
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [dict(reference) for reference in account["imagePullSecrets"]]


def _automounts(spec: JsonObject, account: JsonObject) -> bool:
    """The pod's word counts first, then the account's."""
    for source in (spec, account):
        if source.get("automountServiceAccountToken") is not None:
            return bool(source["automountServiceAccountToken"])
    return True


def _mount(spec: JsonObject, suffix: str) -> None:
    volumes = list(spec.get("volumes") or ())
    present = next((str(v["name"]) for v in volumes if str(v.get("name")).startswith(_VOLUME)), "")
    name = present or _VOLUME + suffix
    used = False
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or ():
            mounts = list(container.get("volumeMounts") or ())
            if all(mount.get("mountPath") != MOUNT_PATH for mount in mounts):
                mounts.append({"name": name, "readOnly": True, "mountPath": MOUNT_PATH})
                container["volumeMounts"] = mounts
                used = True
    if used and not present:
        spec["volumes"] = [*volumes, token_volume(name)]


def token_volume(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "projected": {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": ROOT_AUTHORITY, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {
                    "downwardAPI": {
                        "items": [
                            {
                                "path": "namespace",
                                "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                            }
                        ]
                    }
                },
            ],
        },
    }
