"""The one door: HTTP in, HTTP out. Holds no model; pixels pass through as the bytes they came in.

Serve pickles the class while this module is being imported, and FastAPI resolves annotations after that: they must be
objects, not strings, and what the class uses must stand above it. Hence no `from __future__ import annotations`.
"""

import asyncio
import json
import logging
import math
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from ray import serve
from ray.exceptions import RayTaskError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse

from serve_apps.access import Keys, bound_host, check_bind
from serve_apps.answers import IMAGE_BODY, PROBLEM_SCHEMA, RESPONSES, multipart, problem_response, request_id_of
from serve_apps.bodies import read_body
from serve_apps.calls import replica_lost
from serve_apps.messages import (
    GEOTIFF,
    MAP_TYPES,
    MULTIPART,
    NDJSON,
    MapReply,
    MapRequest,
    Output,
    Problem,
    ProblemError,
)
from serve_apps.metrics import StageMetrics
from serve_apps.negotiation import negotiated
from serve_apps.queries import CoarseQuery, RefineQuery, StreamQuery, check_fits
from serve_apps.settings import Args

LOG = logging.getLogger("ray.serve")
PAGE = Path(__file__).parent / "page"
PAGE_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_STATUS_S = 10.0
"""How long a replica may take to say how it is."""

# No /docs: FastAPI's pages load their scripts from elsewhere.
app = FastAPI(
    title="IDGBR refinement",
    version="1",
    description="Refined maps of remote-sensing imagery.",
    docs_url=None,
    redoc_url=None,
)


@app.exception_handler(RequestValidationError)
async def _invalid(request: Request, error: RequestValidationError) -> Response:
    faults = [f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()]
    return problem_response(Problem(422, "Unfit parameters", "; ".join(faults)), request_id_of(request))


@app.exception_handler(HTTPException)
async def _http(request: Request, error: HTTPException) -> Response:
    return problem_response(Problem(error.status_code, str(error.detail), str(error.detail)), request_id_of(request))


@app.exception_handler(Exception)
async def _failed(request: Request, error: Exception) -> Response:
    LOG.exception("request failed", exc_info=error)
    return problem_response(
        Problem(500, "Failure of ours", "the reason is in the service's log"), request_id_of(request)
    )


app.mount("/page", StaticFiles(directory=PAGE), name="page")


@serve.deployment
@serve.ingress(app)
class Gateway:
    """The ingress.

    Args:
        args: All settings.
        scenes: The scene workers.
    """

    def __init__(self, args: Args, scenes: DeploymentHandle) -> None:
        self._limits, self._scenes = args.limits, scenes
        self._keys = Keys.read(args.access)
        check_bind(bound_host(), self._keys, args.access)
        self._metrics = StageMetrics()

    @app.get("/", include_in_schema=False)
    async def page(self) -> Response:
        """The page."""
        return FileResponse(PAGE / "index.html", headers=PAGE_HEADERS)

    @app.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """The gateway answers."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: {"description": "no model answers", **PROBLEM_SCHEMA}})
    async def readyz(self, request: Request) -> Response:
        """A replica of each stage answers, and there is an active model."""
        try:
            told = await self._within(self._scenes.describe.remote(), _STATUS_S)
        except Exception as error:
            return problem_response(self._problem(error), request_id_of(request))
        if not told["active"]:
            detail = "; ".join(f"{name}: {error}" for name, error in told["errors"].items()) or "still loading"
            return problem_response(Problem(503, "Model not ready", detail, 5), request_id_of(request))
        return JSONResponse({"status": "ready", "model": told["version"], "errors": told["errors"]})

    @app.get("/v1/model", responses={401: RESPONSES[401], 503: RESPONSES[503]})
    async def model(self, request: Request) -> Response:
        """Name, active and desired version, classes with colours, bands, and that version's metrics."""
        try:
            self._admitted(request)
            return JSONResponse(await self._within(self._scenes.describe.remote(), _STATUS_S))
        except Exception as error:
            return problem_response(self._problem(error), request_id_of(request))

    @app.get("/v1/sample", responses={200: {"content": {"application/octet-stream": {}}}, 404: RESPONSES[422]})
    async def sample(self, request: Request) -> Response:
        """The image that travels with the model, as .npy: something to try."""
        try:
            self._admitted(request)
            told = await self._within(self._scenes.sample.remote(), _STATUS_S)
        except Exception as error:
            told = self._problem(error)
        if isinstance(told, Problem):
            return problem_response(told, request_id_of(request))
        return Response(told, media_type="application/octet-stream")

    @app.post("/v1/refine", responses=RESPONSES, openapi_extra=IMAGE_BODY)
    async def refine(self, request: Request, query: Annotated[RefineQuery, Query()]) -> Response:
        """Both stages; with a coarse map of the caller's own, the second alone."""
        return await self._map(request, "refine", query)

    @app.post("/v1/coarse", responses=RESPONSES, openapi_extra=IMAGE_BODY)
    async def coarse(self, request: Request, query: Annotated[CoarseQuery, Query()]) -> Response:
        """Stage 1 alone."""
        return await self._map(request, "coarse", query)

    @app.post("/v1/refine/stream", responses={**RESPONSES, 200: {"content": {NDJSON: {}}}}, openapi_extra=IMAGE_BODY)
    async def stream(self, request: Request, query: Annotated[StreamQuery, Query()]) -> Response:
        """Both stages, with a line of JSON per denoising step; the last one holds the result."""
        started, request_id = time.perf_counter(), request_id_of(request)
        try:
            caller = self._admitted(request)
            sampler = query.sampler(self._limits)
            outputs = query.wanted(("coarse", "refined", "uncertainty"))
            image, own = await read_body(request, self._limits)
            asked = MapRequest(request_id, "refine", image, own, sampler, outputs, query.media(), query.polygons())
            lines = self._lines(asked)
            # What is wrong with the request shows before the first line: the status can still say so.
            first = await anext(lines)
            if isinstance(first, Problem):
                raise ProblemError(first)
        except Exception as error:
            return self._refused(request, error, started)

        async def body() -> AsyncIterator[bytes]:
            status = 499
            try:
                yield first
                async for line in lines:
                    if isinstance(line, Problem):
                        told = {"type": "problem", "status": line.status, "title": line.title, "detail": line.detail}
                        yield json.dumps(told).encode() + b"\n"
                        status = line.status
                        return
                    yield line
                status = 200
            finally:
                await lines.aclose()
                self._log(request, caller, status, started, {})

        return StreamingResponse(body(), media_type=NDJSON)

    async def _lines(self, asked: MapRequest) -> AsyncGenerator[Any, None]:
        """The scene worker's lines within the time limit; it stops when this is closed."""
        stream: Any = self._scenes.options(stream=True).make_stream.remote(asked)
        try:
            async with asyncio.timeout(self._limits.request_s):
                async for line in stream:
                    yield line
        except TimeoutError as error:
            yield self._problem(error)
        except Exception as error:
            yield self._problem(error)
        finally:
            stream.cancel()

    async def _map(self, request: Request, stage: Any, query: CoarseQuery) -> Response:
        started, request_id = time.perf_counter(), request_id_of(request)
        try:
            caller = self._admitted(request)
            media = negotiated(request.headers.get("accept", "*/*"), MAP_TYPES)
            sampler: dict[str, Any] = {}
            outputs: tuple[Output, ...] = ("coarse",)
            if isinstance(query, RefineQuery):
                several: tuple[Output, ...] = ("coarse", "refined", "uncertainty")
                sampler = query.sampler(self._limits)
                outputs = query.wanted(several if media == MULTIPART else ("refined",))
            check_fits(outputs, media)
            image, own = await read_body(request, self._limits)
            if stage == "coarse" and own is not None:
                raise ProblemError.of(400, "Unknown part", "part 'coarse'; stage 1 takes an image alone")
            types = (GEOTIFF,) if media == MULTIPART else (media,)
            asked = MapRequest(request_id, stage, image, own, sampler, outputs, types, query.polygons())
            told = await self._within(self._scenes.make.remote(asked), self._limits.request_s)
            if isinstance(told, Problem):
                raise ProblemError(told)
        except Exception as error:
            return self._refused(request, error, started)
        reply: MapReply = told
        total = (time.perf_counter() - started) * 1e3
        timings = {**reply.milliseconds, "total": round(total, 1)}
        headers = {
            "x-idgbr-model": reply.model,
            "x-idgbr-windows": ", ".join(f"{name}={count}" for name, count in reply.windows.items()),
            "server-timing": ", ".join(f"{name};dur={value}" for name, value in timings.items()),
        }
        self._log(request, caller, 200, started, {"model": reply.model, "windows": reply.windows, "ms": timings})
        if media == MULTIPART:
            boundary = uuid.uuid4().hex
            return Response(multipart(reply, boundary), headers=headers, media_type=f"{MULTIPART}; boundary={boundary}")
        return Response(reply.parts[0][2], headers=headers, media_type=media)

    def _admitted(self, request: Request) -> str:
        """Who asks.

        Raises:
            ProblemError: 401.
        """
        if not self._keys:
            return ""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        key = given.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        caller = self._keys.caller(key)
        if caller is None:
            what = "is not known here" if key else "is missing"
            raise ProblemError.of(401, "Key wanted", f"the API key {what}; send Authorization: Bearer KEY")
        return caller

    async def _within(self, call: Any, seconds: float) -> Any:
        """The result of a call, which is cancelled where nobody waits for it any more."""
        try:
            async with asyncio.timeout(seconds):
                return await call
        except BaseException:
            call.cancel()
            raise

    def _problem(self, error: Exception) -> Problem:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, ProblemError):
            return cause.problem
        if isinstance(cause, TimeoutError):
            return Problem(504, "Took too long", f"no map within {self._limits.request_s:g} s; send a smaller image")
        if isinstance(cause, BackPressureError):
            return Problem(429, "Busy", "every replica and its queue are full; try again a little later", 2)
        if replica_lost(error):
            return Problem(503, "Replica lost", "a replica ended while it worked on this request; try again", 1)
        LOG.exception("request failed", exc_info=error)
        return Problem(500, "Failure of ours", "the request failed for a reason that is in the service's log")

    def _refused(self, request: Request, error: Exception, started: float) -> Response:
        problem = self._problem(error)
        self._log(request, "", problem.status, started, {"problem": problem.detail})
        return problem_response(problem, request_id_of(request))

    def _log(self, request: Request, caller: str, status: int, started: float, more: dict[str, Any]) -> None:
        route = request.scope["path"]
        self._metrics.requests.inc(1, {"route": route, "status": str(status)})
        self._metrics.latency.observe((time.perf_counter() - started) * 1e3, {"stage": "request"})
        LOG.info(
            "request", extra={"idgbr": {"id": request_id_of(request), "route": route, "status": status,
            "caller": caller, "total_ms": math.ceil((time.perf_counter() - started) * 1e3), **more}},
        )  # fmt: skip
