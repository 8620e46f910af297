"""Checks of every request before any route: Host names, origins, HEAD; security headers of the page."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_apps.answers import problem_response, request_id_of
from serve_apps.problems import Problem

PAGE_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_CHANGING = {"POST", "PUT", "PATCH", "DELETE"}


class RequestGuard:
    """Middleware of the gateway.

    Args:
        app: The routes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request = Request(scope)
        hosts, has_keys = _policy()
        problem = _refused(request, hosts, has_keys)
        if problem is not None:
            return await problem_response(problem, request_id_of(request))(scope, receive, send)
        is_page = scope["path"] == "/" or scope["path"].startswith("/page")

        async def send_checked(message: Message) -> None:
            if message["type"] == "http.response.start" and is_page:
                MutableHeaders(scope=message).update(PAGE_HEADERS)
            await send(message)

        # The server leaves the body out; routes need not know of HEAD.
        routed = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        await self._app(routed, receive, send_checked)


def _policy() -> tuple[frozenset[str], bool]:
    """Allowed Host names (empty: all), and whether the service asks for keys."""
    from ray import serve

    gateway: Any = serve.get_replica_context().servable_object
    return gateway.allowed_hosts, gateway.has_keys


def _refused(request: Request, hosts: frozenset[str], has_keys: bool) -> Problem | None:
    host = request.headers.get("host", "")
    if hosts and _name(host) not in hosts:
        return Problem(
            421, "Misdirected request", f"Host: {host[:100]!r} is not served here; add its name to access.hosts"
        )
    if not has_keys and request.method in _CHANGING and not _same_origin(request.headers, host):
        return Problem(
            403, "Forbidden", "a page of another origin sent this request; set API keys (access.keys_file) to use the "
            "service from other pages",
        )  # fmt: skip
    return None


def _name(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


def _same_origin(headers: Headers, host: str) -> bool:
    """Whether no page of another origin sent a request; clients that are no browsers send neither header."""
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == host.lower()
