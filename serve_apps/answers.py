"""Answers of the gateway: problems as JSON, several maps as one body, and what OpenAPI says about both."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from serve_apps.messages import MAP_TYPES, PROBLEM, MapReply, Problem

IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **{
                media: {"schema": {"type": "string", "format": "binary"}}
                for media in ("image/tiff", "image/png", "image/jpeg", "application/octet-stream")
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "coarse": {"type": "string", "format": "binary", "description": "own coarse map, class ids"},
                    },
                }
            },
        },
    }
}
PROBLEM_SCHEMA = {
    "content": {
        PROBLEM: {
            "example": {
                "type": "about:blank",
                "title": "Unfit image",
                "status": 422,
                "detail": "image: 1 band; the model takes 3",
                "request_id": "1f0c...",
            }
        }
    }
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {media: {} for media in MAP_TYPES}, "description": "the map"},
    **{
        status: {"description": text, **PROBLEM_SCHEMA}
        for status, text in {
            400: "damaged body", 401: "no key, or a wrong one", 406: "type not offered", 408: "body too slow",
            413: "too large", 415: "not an image format", 422: "unfit image or parameters", 429: "busy: try later",
            503: "no model, or a replica ended: try again", 504: "took too long",
        }.items()
    },
}  # fmt: skip


def request_id_of(request: Request) -> str:
    """The caller's own id where it sent a plausible one, so that both logs meet; Serve's proxy answers with it."""
    if not hasattr(request.state, "id"):
        given = request.headers.get("x-request-id", "")
        plausible = 0 < len(given) <= 64 and given.replace("-", "").replace("_", "").isalnum() and given.isascii()
        request.state.id = given if plausible else uuid.uuid4().hex
    return str(request.state.id)


def problem_response(problem: Problem, request_id: str) -> Response:
    """A problem as application/problem+json (RFC 9457)."""
    headers: dict[str, str] = {}
    if problem.retry_after is not None:
        headers["retry-after"] = str(problem.retry_after)
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    content = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "request_id": request_id,
    }
    return JSONResponse(content, problem.status, headers, media_type=PROBLEM)


def multipart(reply: MapReply, boundary: str) -> bytes:
    lines = b""
    for name, media, data in reply.parts:
        head = f'--{boundary}\r\nContent-Type: {media}\r\nContent-Disposition: attachment; name="{name}"; filename="{name}.tif"\r\n\r\n'  # noqa: E501
        lines += head.encode() + data + b"\r\n"
    return lines + f"--{boundary}--\r\n".encode()
