"""Behind a reverse proxy, under a path: `https://lab.example/lambdahat/`. Requests are understood whether the proxy
takes the path off or leaves it on, and links begin with it.
"""

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

OURS = ("/v1", "/assets", "/docs")
"""What a root path can't begin with: nobody could tell then whether it was taken off."""


class UnderPath:
    """Gives every request its path as ASGI wants it: whole, with what of it is the root's said beside."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        if f"{root_path}/".startswith(tuple(f"{own}/" for own in OURS)):
            raise ValueError(f"LAMBDAHAT_ROOT_PATH can't be '{root_path}': the service has such paths itself")
        self.app = app
        self.root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.root_path:
            scope["root_path"] = self.root_path
            if not f"{scope['path']}/".startswith(f"{self.root_path}/"):
                scope["path"] = self.root_path + scope["path"]
        await self.app(scope, receive, send)


def path_of(scope: Scope) -> str:
    """A request's path without the root's."""
    return scope["path"].removeprefix(scope.get("root_path", ""))


def link(request: Request, path: str) -> str:
    """A path of ours as the caller has to ask for it."""
    return request.scope.get("root_path", "") + path
