"""The certificate of the kubelet's API, and whose client certificates it trusts.

Without a certificate of the operator's the agent makes its own, as a kubelet does: API servers do not verify it
unless they are told to (`--kubelet-certificate-authority`).
"""

from __future__ import annotations

import logging
import ssl
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from serving.api.resources import CONFIG_MAPS
from serving.kube.client import KubeClient
from serving.kube.errors import KubeError

log = logging.getLogger(__name__)

_AUTHENTICATION: Final = "extension-apiserver-authentication"
_NAMESPACE: Final = "kube-system"
_FIELD: Final = "client-ca-file"


class KubeletTls(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files. No `certificate` = one of our own; no `client_ca` = the cluster's, as far as it may be read."""

    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None


async def client_authority(client: KubeClient) -> str:
    """PEM of the authority whose certificates API servers and administrators of the cluster have; empty when the
    cluster does not say or it may not be read. Then only bearer tokens are accepted."""
    try:
        found = await client.get(CONFIG_MAPS, _AUTHENTICATION, _NAMESPACE)
    except KubeError as error:
        log.warning(
            "ConfigMap %s/%s: %s; the kubelet API accepts no client certificates",
            _NAMESPACE,
            _AUTHENTICATION,
            error,
        )
        return ""
    return str((found.get("data") or {}).get(_FIELD) or "")


def server_context(
    tls: KubeletTls, *, directory: Path, hosts: tuple[str, ...], client_authority: str, now: datetime
) -> ssl.SSLContext:
    """Blocking. `directory` keeps a certificate of our own. Raises OSError, ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    else:
        # Only here: on one machine the agent needs no certificates, and the library is large.
        from serving.local.apiserver import pki

        files = pki.ensure(directory, hosts=hosts, now=now)
        context.load_cert_chain(files.certificate, files.key)
    authority = tls.client_ca.read_text() if tls.client_ca is not None else client_authority
    if authority:
        context.load_verify_locations(cadata=authority)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context
