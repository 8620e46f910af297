"""Answers of Serve's proxy itself: problems in JSON, 503 where a gateway died, limits on headers, request ids.

The proxy answers some requests without the gateway: it refuses them when every queue is full, knows no route before the
application runs, and sends nothing when the gateway's replica dies in the middle, which uvicorn makes a 500. Maps have
no side effects, so that a client can simply repeat the request.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_apps.answers import problem_response
from serve_apps.problems import QUEUE_FULL, REPLICA_LOST, Problem
from serve_apps.protocol import limit_headers
from serve_apps.request_ids import plausible_id

ENVIRONMENT = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_apps.proxy:middlewares"}
"""What Ray's nodes have in their environment, so that their proxies load this."""
_PROBLEMS = {
    404: Problem(404, "Not found", "the service is not running, or has no such path; see /openapi.json"),
    408: Problem(504, "Timed out", "no answer within the proxy's time limit; send a smaller image"),
    429: QUEUE_FULL,
    503: Problem(503, "Not ready", "no replica of the gateway runs yet; try again", 2),
}


class ProxyProblems:
    """ASGI middleware around the proxy.

    Args:
        app: The proxy.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = replaced = False
        request_id = ""
        if scope["type"] == "http":
            # Before Serve's own middleware, which sends any id back that the caller made up.
            headers = MutableHeaders(scope=scope)
            request_id = plausible_id(headers.get("x-request-id", ""))
            headers["x-request-id"] = request_id

        async def answer(problem: Problem) -> None:
            await problem_response(problem, request_id, {"x-request-id": request_id})(scope, receive, send)

        async def send_replaced(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                started = True
                plain = Headers(raw=message["headers"]).get("content-type", "").startswith("text/plain")
                problem = _PROBLEMS.get(message["status"]) if plain else None
                if problem is not None:
                    replaced = True
                    await answer(problem)
            if not replaced:
                await send(message)

        await self._app(scope, receive, send_replaced)
        if not started and scope["type"] == "http":
            await answer(REPLICA_LOST)


def middlewares() -> list[Middleware]:
    """Ray Serve calls this in every proxy, before it makes its HTTP server."""
    limit_headers()
    return [Middleware(ProxyProblems)]
