"""Identities of our own processes on one machine: a token file each, below the data directory.

They have the names that their Deployments have in a cluster, and the rights of the ClusterRoles that are shipped
for those, so a right that is missing there is missing here too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from serving.local.apiserver.access.policy import ACCOUNT_PREFIX, MASTERS
from serving.local.apiserver.access.tokens import account_groups
from serving.local.apiserver.auth import admin_token
from serving.local.apiserver.request import User

ADMIN: Final = User(name="nodeless:admin", groups=(MASTERS, "system:authenticated"))
NAMESPACE: Final = "knative-serving"
ACCOUNTS: Final = ("controller", "gateway", "node", "webhook")


def tokens(data_dir: Path) -> dict[str, User]:
    """Who has which token; files that are missing are made. Blocking. Raises TokenError."""
    directory = data_dir / "components"
    directory.mkdir(mode=0o700, exist_ok=True)
    return {admin_token(directory / f"{name}.token"): _account(name) for name in ACCOUNTS}


def _account(name: str) -> User:
    return User(name=f"{ACCOUNT_PREFIX}{NAMESPACE}:{name}", groups=account_groups(NAMESPACE))
