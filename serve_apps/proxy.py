"""What Serve's proxy says by itself, as the service says it: problems in JSON, and 503 where a gateway died.

The proxy answers some requests without the gateway: it refuses them when every queue is full, knows no route before the
application runs, and has nothing to say when the gateway's replica dies in the middle, which uvicorn makes a 500. Maps
have no side effects, so that one can simply be asked for again.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_apps.answers import problem_response
from serve_apps.messages import Problem

ENVIRONMENT = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_apps.proxy:middlewares"}
"""What Ray's nodes have in their environment, so that their proxies load this."""
_TOLD = {
    404: Problem(404, "Nothing there", "the service is not running, or has no such path; see /openapi.json"),
    408: Problem(504, "Took too long", "no answer within the proxy's time limit; send a smaller image"),
    429: Problem(429, "Busy", "every replica and its queue are full; try again a little later", 2),
    503: Problem(503, "Not ready", "no replica of the gateway is there yet; try again", 2),
}
_LOST = Problem(503, "Replica lost", "the gateway's replica ended while it worked on this request; try again", 1)


class ProxyProblems:
    """ASGI middleware around the proxy.

    Args:
        app: The proxy.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = replaced = False

        async def answer(problem: Problem) -> None:
            request_id = Headers(scope=scope).get("x-request-id", "")
            await problem_response(problem, request_id)(scope, receive, send)

        async def told(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                started = True
                plain = Headers(raw=message["headers"]).get("content-type", "").startswith("text/plain")
                problem = _TOLD.get(message["status"]) if plain else None
                if problem is not None:
                    replaced = True
                    await answer(problem)
            if not replaced:
                await send(message)

        await self._app(scope, receive, told)
        if not started and scope["type"] == "http":
            await answer(_LOST)


def middlewares() -> list[Middleware]:
    """Ray Serve calls this in every proxy."""
    return [Middleware(ProxyProblems)]
