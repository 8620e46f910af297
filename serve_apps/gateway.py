"""The ingress: HTTP in, HTTP out. Holds no model; pixels pass through as the bytes they came in.

Serve pickles the class while this module is being imported, and FastAPI resolves annotations after that: they must be
objects, not strings, and names that the class uses must stand above it. Hence no `from __future__ import annotations`.
"""

import asyncio
import http
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
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse

from serve_apps.access import Keys, allowed_hosts, bound_host, check_bind
from serve_apps.answers import IMAGE_BODY, PROBLEM_SCHEMA, RESPONSES, multipart, problem_response, request_id_of
from serve_apps.bodies import read_body
from serve_apps.guard import RequestGuard
from serve_apps.messages import GEOTIFF, MAP_TYPES, MULTIPART, NDJSON, MapReply, MapRequest, Output
from serve_apps.metrics import StageMetrics
from serve_apps.negotiation import negotiated
from serve_apps.problems import INTERNAL_DETAIL, Problem, ProblemError, problem_from
from serve_apps.queries import CoarseQuery, RefineQuery, StreamQuery, check_fits, check_unique
from serve_apps.settings import Args

LOG = logging.getLogger("ray.serve")
PAGE = Path(__file__).parent / "page"
_STATUS_S = 10.0
"""How long a replica may take to answer how it is."""

# No /docs: FastAPI's pages load their scripts from elsewhere.
app = FastAPI(
    title="IDGBR refinement",
    version="1",
    description="Refined maps of remote-sensing imagery.",
    docs_url=None,
    redoc_url=None,
)


app.add_middleware(RequestGuard)


@app.exception_handler(RequestValidationError)
async def _invalid(request: Request, error: RequestValidationError) -> Response:
    detail = "; ".join(_fault(fault) for fault in error.errors())
    return problem_response(Problem(422, "Invalid parameters", detail), request_id_of(request))


def _fault(fault: dict[str, Any]) -> str:
    name = ".".join(map(str, fault["loc"][1:]))
    return (
        f"{name}: unknown parameter; see /openapi.json"
        if fault["type"] == "extra_forbidden"
        else f"{name}: {fault['msg']}"
    )


@app.exception_handler(HTTPException)
async def _http(request: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"{request.url.path[:100]}: no such path; see /openapi.json"
    elif error.status_code == 405:
        methods = {name.strip() for name in headers.get("Allow", headers.get("allow", "")).split(",")} - {""}
        methods |= {"HEAD"} if "GET" in methods else set()
        headers = {"allow": ", ".join(sorted(methods))}
        detail = f"{request.method} is not allowed here; allowed: {headers['allow']}"
    title = http.HTTPStatus(error.status_code).phrase.capitalize()
    return problem_response(Problem(error.status_code, title, detail), request_id_of(request), headers)


@app.exception_handler(Exception)
async def _failed(request: Request, error: Exception) -> Response:
    LOG.exception("request failed", exc_info=error)
    return problem_response(Problem(500, "Internal error", INTERNAL_DETAIL), request_id_of(request))


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
        self.allowed_hosts = allowed_hosts(bound_host(), args.access)
        self.has_keys = bool(self._keys)
        self._metrics = StageMetrics()

    @app.get("/", include_in_schema=False)
    async def page(self) -> Response:
        """The page."""
        return FileResponse(PAGE / "index.html")

    @app.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """The gateway answers."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: {"description": "no model answers", **PROBLEM_SCHEMA}})
    async def readyz(self, request: Request) -> Response:
        """A replica of each stage answers, and there is an active model."""
        try:
            model = await self._within(self._scenes.describe.remote(), _STATUS_S)
        except Exception as error:
            return problem_response(self._problem(error), request_id_of(request))
        if not model["active"]:
            detail = "; ".join(f"{name}: {error}" for name, error in model["errors"].items()) or "still loading"
            return problem_response(Problem(503, "Model not ready", detail, 5), request_id_of(request))
        return JSONResponse({"status": "ready", "model": model["version"], "errors": model["errors"]})

    @app.get("/v1/model", responses={401: RESPONSES[401], 503: RESPONSES[503]})
    async def model(self, request: Request) -> Response:
        """Name, active and desired version, classes with colours, bands, limits on this machine, and metrics."""
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
            sample = await self._within(self._scenes.sample.remote(), _STATUS_S)
        except Exception as error:
            sample = self._problem(error)
        if isinstance(sample, Problem):
            return problem_response(sample, request_id_of(request))
        return Response(sample, media_type="application/octet-stream")

    @app.post("/v1/refine", responses=RESPONSES, openapi_extra=IMAGE_BODY)
    async def refine(self, request: Request, query: Annotated[RefineQuery, Query()]) -> Response:
        """Both stages; with the caller's own coarse map, the second alone."""
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
            check_unique(request.query_params)
            sampler = query.sampler(self._limits)
            outputs = query.requested(("coarse", "refined", "uncertainty"))
            image, own = await read_body(request, self._limits)
            map_request = MapRequest(
                request_id, "refine", image, own, sampler, outputs, query.media(), query.polygons()
            )
            lines = self._lines(map_request)
            # A fault of the request shows before the first line, while the status can still be set.
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
                        content = {"type": "problem", "status": line.status, "title": line.title, "detail": line.detail}
                        yield json.dumps(content).encode() + b"\n"
                        status = line.status
                        return
                    yield line
                status = 200
            finally:
                await lines.aclose()
                self._log(request, caller, status, started, {})

        return StreamingResponse(body(), media_type=NDJSON)

    async def _lines(self, map_request: MapRequest) -> AsyncGenerator[Any, None]:
        """The scene worker's lines within the time limit; it stops when this is closed."""
        stream: Any = self._scenes.options(stream=True).make_stream.remote(map_request)
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
            check_unique(request.query_params)
            media = negotiated(request.headers.get("accept", "*/*"), MAP_TYPES)
            sampler: dict[str, Any] = {}
            outputs: tuple[Output, ...] = ("coarse",)
            if isinstance(query, RefineQuery):
                several: tuple[Output, ...] = ("coarse", "refined", "uncertainty")
                sampler = query.sampler(self._limits)
                outputs = query.requested(several if media == MULTIPART else ("refined",))
            check_fits(outputs, media)
            image, own = await read_body(request, self._limits)
            if stage == "coarse" and own is not None:
                raise ProblemError.of(400, "Unknown part", "part 'coarse'; stage 1 takes an image alone")
            types = (GEOTIFF,) if media == MULTIPART else (media,)
            map_request = MapRequest(request_id, stage, image, own, sampler, outputs, types, query.polygons())
            reply: MapReply | Problem = await self._within(
                self._scenes.make.remote(map_request), self._limits.request_s
            )
            if isinstance(reply, Problem):
                raise ProblemError(reply)
        except Exception as error:
            return self._refused(request, error, started)
        total = (time.perf_counter() - started) * 1e3
        timings = {**reply.milliseconds, "total": round(total, 1)}
        headers = {
            "x-idgbr-model": reply.model,
            "x-idgbr-windows": ", ".join(f"{name}={count}" for name, count in reply.windows.items()),
            "server-timing": ", ".join(f"{name};dur={value}" for name, value in timings.items()),
        }
        if reply.bands:
            headers["x-idgbr-bands"] = reply.bands
        self._log(request, caller, 200, started, {"model": reply.model, "windows": reply.windows, "ms": timings})
        if media == MULTIPART:
            boundary = uuid.uuid4().hex
            return Response(multipart(reply, boundary), headers=headers, media_type=f"{MULTIPART}; boundary={boundary}")
        return Response(reply.parts[0][2], headers=headers, media_type=media)

    def _admitted(self, request: Request) -> str:
        """Name of the caller.

        Raises:
            ProblemError: 401.
        """
        if not self._keys:
            return ""
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        key = credentials.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        caller = self._keys.caller(key)
        if caller is None:
            what = "is not known here" if key else "is missing"
            raise ProblemError.of(401, "Unauthorized", f"the API key {what}; send Authorization: Bearer KEY")
        return caller

    async def _within(self, call: Any, seconds: float) -> Any:
        """The result of a call, which is cancelled with the request or after some seconds."""
        try:
            async with asyncio.timeout(seconds):
                return await call
        except BaseException:
            call.cancel()
            raise

    def _problem(self, error: Exception) -> Problem:
        return problem_from(error, self._limits.request_s)

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
