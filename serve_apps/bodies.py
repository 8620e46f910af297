"""Bodies of requests, read within limits of size and time: an image as it is, or parts of a form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from serve_apps.problems import ProblemError
from serve_apps.settings import LimitArgs

PARTS = ("image", "coarse")


async def read_body(request: Request, limits: LimitArgs) -> tuple[bytes, bytes | None]:
    """The image, and the caller's coarse map if there is one.

    Raises:
        ProblemError: 400 not a form that can be read, 408 too slow, 413 too large.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limits.body_mb * 1e6:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.body_s):
            if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
                return await _form(request, limits)
            body = b"".join([chunk async for chunk in _limited(request, limits)])
    except TimeoutError as error:
        raise ProblemError.of(
            408, "Body too slow", f"the body did not arrive within {limits.body_s:g} s; send it again", 1
        ) from error
    except ClientDisconnect as error:
        raise ProblemError.of(499, "Client closed request", "the client left before its body was complete") from error
    return body, None


async def _form(request: Request, limits: LimitArgs) -> tuple[bytes, bytes | None]:
    # One file more than there are names, so that a repeated one is named as such.
    parser = MultiPartParser(request.headers, _limited(request, limits), max_files=len(PARTS) + 1, max_fields=0)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        # The words of other exceptions are those of the parser's own code.
        reason = error.message if isinstance(error, MultiPartException) else "the body cannot be parsed as a form"
        raise ProblemError.of(
            400, "Malformed form", f"multipart/form-data: {reason}; expected files named {' and '.join(PARTS)}"
        ) from error
    try:
        names = [name for name, _ in form.multi_items()]
        unknown = sorted(set(names) - set(PARTS))
        if unknown:
            raise ProblemError.of(400, "Unknown part", f"part {unknown[0]!r}; expected {' and '.join(PARTS)}")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ProblemError.of(
                400, "Repeated part", f"part {repeated[0]!r} was sent {names.count(repeated[0])} times"
            )
        found = {name: part for name, part in form.items() if isinstance(part, UploadFile)}
        if "image" not in found:
            raise ProblemError.of(400, "No image", "the form has no file named image")
        parts = {name: await part.read() for name, part in found.items()}
    finally:
        await form.close()
    return parts["image"], parts.get("coarse")


async def _limited(request: Request, limits: LimitArgs) -> AsyncGenerator[bytes, None]:
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limits.body_mb * 1e6:
            raise _too_large(limits)
        yield chunk


def _too_large(limits: LimitArgs) -> ProblemError:
    return ProblemError.of(
        413,
        "Body too large",
        f"more than {limits.body_mb:g} MB; send parts, or use jobs/refine.py: it takes any size",
    )
