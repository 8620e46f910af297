"""Answers of the gateway: problems as JSON, several maps as one body, and their description for OpenAPI."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from urllib3.fields import RequestField
from urllib3.filepost import encode_multipart_formdata

from serve_apps.messages import MAP_TYPES, PROBLEM, MapReply
from serve_apps.problems import Problem
from serve_apps.request_ids import plausible_id

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
                "title": "Unprocessable image",
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
            400: "damaged body", 401: "no key, or a wrong one", 403: "sent by a page of another origin",
            406: "no offered type is accepted", 408: "body too slow", 413: "too large for the limits of /v1/model",
            415: "not an image format", 421: "a Host name that is not served",
            422: "unprocessable image or invalid parameters", 429: "overloaded: try again after Retry-After",
            503: "no model, or a replica ended: try again", 504: "timed out",
        }.items()
    },
}  # fmt: skip


def request_id_of(request: Request) -> str:
    """The id that Serve's proxy puts into the request and into the answer's header; the caller's own where it is
    plausible, so that both logs meet.
    """
    if not hasattr(request.state, "id"):
        request.state.id = plausible_id(request.headers.get("x-request-id", ""))
    return str(request.state.id)


def problem_response(problem: Problem, request_id: str, headers: dict[str, str] | None = None) -> Response:
    """A problem as application/problem+json (RFC 9457)."""
    headers = dict(headers or {})
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
    """All maps of a reply as the body of a multipart/mixed answer."""
    fields = []
    for name, media, data in reply.parts:
        field = RequestField(name, data, filename=f"{name}.tif")
        field.make_multipart(content_disposition="attachment", content_type=media)
        fields.append(field)
    return encode_multipart_formdata(fields, boundary)[0]
