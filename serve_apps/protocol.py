"""Limits on the bytes and the time of a request's headers, in Serve's proxies.

Serve leaves uvicorn's HTTP protocol at its default, which reads headers of any size for any time: a client that sends
a byte a minute, or a header of a gigabyte, holds a connection and memory before any route sees the request.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn import config as uvicorn_config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve_apps.messages import PROBLEM
from serve_apps.request_ids import plausible_id

MAX_HEADER_BYTES = 32 * 1024
"""Request line and headers."""
MAX_HEADER_S = 10.0
"""From the connection, or from the first byte of a further request on it, to the end of the headers."""


class HeaderLimits(HttpToolsProtocol):
    """uvicorn's protocol, which closes connections whose headers are too long or too slow."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._header_bytes = 0
        self._in_headers = True
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_headers and self._header_timer is None:
            self._start_timer()
        self._header_bytes += len(data)  # begins anew with a request that ends in these bytes
        super().data_received(data)
        # The parser hands nothing on of a header that has not ended yet.
        if self._in_headers and self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self._refuse(431, f"the headers are longer than {MAX_HEADER_BYTES:,} bytes")

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._stop_timer()
        length = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if length > MAX_HEADER_BYTES:
            self._refuse(431, f"the headers are {length:,} bytes; at most {MAX_HEADER_BYTES:,} are accepted")
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_headers, self._header_bytes = True, 0
        if not self.transport.is_closing():
            super().on_message_complete()

    def _start_timer(self) -> None:
        self._header_timer = asyncio.get_running_loop().call_later(MAX_HEADER_S, self._too_slow)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _too_slow(self) -> None:
        self._header_timer = None
        if not self.transport.is_closing():
            self._refuse(408, f"the headers did not arrive within {MAX_HEADER_S:g} s")

    def _refuse(self, status: int, detail: str) -> None:
        request_id, phrase = plausible_id(""), HTTPStatus(status).phrase
        problem = {"type": "about:blank", "title": phrase.capitalize(), "status": status, "detail": detail}
        body = json.dumps(problem | {"request_id": request_id}).encode()
        head = (
            f"HTTP/1.1 {status} {phrase}\r\ncontent-type: {PROBLEM}\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {request_id}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def limit_headers() -> None:
    """Makes every HTTP server that starts in this process use the limits."""
    uvicorn_config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{HeaderLimits.__name__}"
