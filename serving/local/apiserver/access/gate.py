"""What every request passes: who is it from, whom does it act as, may they do that."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from serving.local.apiserver.access import impersonation
from serving.local.apiserver.access.attributes import Attributes, of_path, of_target
from serving.local.apiserver.access.authentication import Authenticator
from serving.local.apiserver.access.authorizer import Authorizer
from serving.local.apiserver.access.tokens import Signer
from serving.local.apiserver.paths import Target
from serving.local.apiserver.request import User

_STREAMS: Final = ("attach", "exec", "portforward")


class Gate:
    def __init__(self, authenticator: Authenticator, authorizer: Authorizer, signer: Signer) -> None:
        self.authenticator = authenticator
        self.authorizer = authorizer
        self.signer = signer

    async def identify(self, request: web.Request) -> User:
        """The user that the request acts as. Raises StatusError 401, or 403 when acting so is not allowed."""
        user = await self.authenticator.user(request.headers.get("Authorization"))
        wanted = impersonation.read(request.headers.items(), user)
        if wanted is None:
            return user
        for needed in wanted.needs:
            self.authorizer.check(needed)
        return wanted.user

    def check_path(self, request: web.Request, user: User) -> None:
        """Raises StatusError 403."""
        self.authorizer.check(of_path(user, request.method, request.path))

    def check_target(self, request: web.Request, target: Target, user: User) -> Attributes:
        """What is asked. Raises StatusError 403."""
        asked = of_target(user, request.method, target, request.query)
        self.authorizer.check(asked)
        if asked.verb == "get" and target.subresource in _STREAMS and target.resource == "pods":
            # A WebSocket begins with GET, and must not need less than POST does.
            create = Attributes(
                user=user,
                verb="create",
                resource="pods",
                subresource=target.subresource,
                namespace=target.namespace,
                name=target.name,
            )
            self.authorizer.check(create)
        return asked
