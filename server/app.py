"""The HTTP interface (version 1): routes, errors in one shape, OpenAPI. Knows nothing of torch."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import FastAPI, Header, Query, Request
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import geoinv_core
from geoinv_core.weights.header import about, models_in
from server import admission, uploads
from server.admission import Limits
from server.auth import Gate
from server.events import Hub, stream
from server.jobs import Dispatcher
from server.machine import available_memory
from server.previews import Preview
from server.schema import (
    HEAD_PATTERN,
    JOB_BODY,
    PROTOCOL,
    Answer,
    ApiError,
    AttachRequest,
    ErrorBody,
    Health,
    JobList,
    JobState,
    JobView,
    Memory,
    ModelList,
    ModelView,
    PreviewRequest,
    Settings,
)
from server.store import Job, Store

log = logging.getLogger("geoinv.http")

PREVIEW_WAIT = 20.0
"""Seconds that a preview waits for the engine before the client is told that it is busy."""

JobId = Annotated[str, InPath(pattern=r"^[0-9a-f]{16}$")]


@dataclass(frozen=True)
class Context:
    """What the routes work with. `shutdown` asks the process to end, `attach` adds a process to live for."""

    store: Store
    hub: Hub
    dispatcher: Dispatcher
    limits: Limits
    model: str
    token: str
    port: int
    shutdown: Callable[[], None]
    attach: Callable[[int], None]


def view(store: Store, job: Job) -> JobView:
    """A job as clients see it."""
    waiting = job.state == "queued" and job.kind != "batch"
    end = job.finished if job.finished is not None else time.time()
    return JobView.model_validate(
        {
            **{name: getattr(job, name) for name in JobView.model_fields if hasattr(job, name)},
            "position": store.queued(before=job.place) + 1 if waiting else None,
            "elapsed": round(max(0.0, end - job.started), 3) if job.started is not None else 0.0,
            "files": store.files(job.id),
            "children": [child.id for child in store.children(job.id)] if job.kind == "batch" else [],
        }
    )


def create_app(context: Context) -> FastAPI:
    """The application, behind the gate and the body limit."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        context.hub.bind(asyncio.get_running_loop())
        yield

    app = FastAPI(
        title="GeoInv engine",
        version=geoinv_core.__version__,
        description="One photo in, an editable 3D head out. Needs `Authorization: Bearer TOKEN` always.",
        docs_url=None,  # the page would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        responses={"4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}},
    )
    app.add_middleware(uploads.BodyLimit, limit=context.limits.body)
    app.add_middleware(Gate, token=context.token, port=context.port)
    _errors(app)
    _engine_routes(app, context)
    _job_routes(app, context)
    return app


def _errors(app: FastAPI) -> None:
    """Every error leaves in the shape {"error": {"code", "message"}}."""

    async def told(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return JSONResponse(error.body(), error.status)

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method"}.get(error.status_code, "request")
        text = f"The engine cannot do this: {str(error.detail).lower()}; see /openapi.json for what it can."
        return JSONResponse(ApiError(error.status_code, code, text).body(), error.status_code)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        text = f"'{where}' cannot be used: {str(first['msg']).lower()}; correct it and send it again."
        return JSONResponse(ApiError(422, "request", text).body(), 422)

    async def left(_: Request, __: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it

    async def broken(_: Request, error: Exception) -> Response:
        log.exception("A request failed.", exc_info=error)
        text = f"Something unexpected failed ({type(error).__name__}); the engine's log has the details."
        return JSONResponse(ApiError(500, "internal", text).body(), 500)

    app.add_exception_handler(ApiError, told)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ClientDisconnect, left)
    app.add_exception_handler(Exception, broken)


def _engine_routes(app: FastAPI, context: Context) -> None:
    store, dispatcher = context.store, context.dispatcher

    @app.get("/v1/health")
    def health() -> Health:
        status = dispatcher.status()
        return Health(
            version=geoinv_core.__version__,
            protocol=PROTOCOL,
            pid=os.getpid(),
            worker_pid=status.worker_pid,
            state=status.state,  # type: ignore[arg-type]
            device=status.device,
            memory=Memory(**status.memory, system_available=available_memory()),
            model=status.model,
            queued=store.queued(),
            running=status.running,
            problem=status.problem,  # type: ignore[arg-type]
        )

    @app.get("/v1/models")
    def models() -> ModelList:
        """The server's own model, those in its data folder, and those used since it started."""
        files = [str(path) for path in models_in(store.root / "models")]
        names = dict.fromkeys([context.model, *files, *dispatcher.models])
        opened = dispatcher.status().model
        views = []
        for name in names:
            known = dispatcher.models.get(name, {})
            facts = about(name) | {key: known[key] for key in ("hash", "licence", "labels") if key in known}
            views.append(ModelView(name=name, loaded=bool(known) and name == opened, **facts))
        return ModelList(models=views)

    @app.post("/v1/heads/{id:path}/preview", response_class=Response)
    async def preview(id: Annotated[str, InPath(pattern=HEAD_PATTERN)], body: PreviewRequest) -> Response:
        """A picture (image/png), or vertices (float32 little-endian [V, 3], metres; quads only)."""
        name, _, variant = id.partition("/")
        job = store.get(name)
        folder = store.result(name) / variant
        if job is None or job.state != "done" or not folder.is_dir():
            raise ApiError(
                404, "no_head", "There is no such head; it may have been deleted, or is not ready yet."
            )
        if body.want == "vertices" and job.settings["topology"] != "quads":
            raise ApiError(
                409,
                "topology",
                "Only heads made of quads keep their vertices; ask for a picture.",
            )
        asked = Preview(secrets.token_hex(8), str(folder), body.model_dump())
        try:
            media, data = await asyncio.wait_for(asyncio.wrap_future(dispatcher.preview(asked)), PREVIEW_WAIT)
        except TimeoutError as error:
            raise ApiError(
                503, "busy", "The engine is busy with a job; try the preview again later."
            ) from error
        return Response(data, media_type=media, headers={"cache-control": "no-store"})

    @app.post("/v1/attach")
    def attach(body: AttachRequest) -> Answer:
        """Live at least as long as this process, too."""
        context.attach(body.parent_pid)
        return Answer()

    @app.post("/v1/unload")
    async def unload() -> Answer:
        """Give the memory of the model back now; the next job loads it again."""
        await asyncio.wrap_future(dispatcher.unload())
        return Answer()

    @app.post("/v1/shutdown", status_code=202)
    def shutdown() -> Answer:
        """End the server cleanly; the same as SIGTERM, for systems without it."""
        context.shutdown()
        return Answer()


def _job_routes(app: FastAPI, context: Context) -> None:
    store, dispatcher, hub = context.store, context.dispatcher, context.hub
    # One photo is decoded at a time: a large one takes some hundred megabytes meanwhile.
    decoding = asyncio.Semaphore(1)

    def get(id: str) -> Job:
        job = store.get(id)
        if job is None:
            raise ApiError(404, "no_job", "There is no such job; it may have been deleted.")
        return job

    async def checked(settings: Settings, photos: list[uploads.Upload]) -> list[list[str]]:
        uploads.check_count(settings, photos)
        found = []
        for photo in photos:
            async with decoding:
                try:
                    found.append(await run_in_threadpool(uploads.check_photo, photo, settings))
                except ApiError as error:
                    if len(photos) == 1:
                        raise
                    raise ApiError(error.status, error.code, f"{photo.name}: {error.message}") from error
        return found

    @app.post("/v1/jobs", status_code=202, openapi_extra=JOB_BODY)
    async def create(request: Request) -> JobView:
        """Queue a job. The photo is checked at once; what is wrong with it is answered here."""
        settings, photos = await uploads.read(request)
        admission.check_room(store, context.limits, len(photos) or 1)
        admission.check_references(store, settings)
        warnings = await checked(settings, photos)
        job = await run_in_threadpool(admission.create, store, settings, photos, warnings)
        dispatcher.wake()
        return view(store, job)

    @app.get("/v1/jobs")
    def jobs(
        state: Annotated[list[JobState] | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> JobList:
        """The newest first."""
        return JobList(jobs=[view(store, job) for job in store.jobs(limit, tuple(state or ()))])

    @app.get("/v1/jobs/{id}")
    def one(id: JobId) -> JobView:
        return view(store, get(id))

    @app.get("/v1/jobs/{id}/events", response_class=StreamingResponse)
    def events(id: JobId, last_event_id: Annotated[str | None, Header()] = None) -> StreamingResponse:
        """Server-sent events: state {state, message}, progress {stage, fraction, message, preview}, and last
        of all end {state, error, message}. `preview` is base64 JPEG or null. Resumes after Last-Event-ID."""
        get(id)
        after = int(last_event_id) if last_event_id and last_event_id.isdecimal() else 0
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(
            stream(store, hub, id, after), media_type="text/event-stream", headers=headers
        )

    @app.post("/v1/jobs/{id}/cancel", status_code=202)
    async def cancel(id: JobId) -> JobView:
        """Takes effect within seconds; a job that has ended stays as it is."""
        await asyncio.wrap_future(dispatcher.cancel(id))
        return view(store, get(id))

    @app.get("/v1/jobs/{id}/files/{name:path}", response_class=FileResponse)
    def file(id: JobId, name: str) -> FileResponse:
        get(id)
        path = store.file(id, name)
        if path is None:
            raise ApiError(
                404, "no_file", "This job has no such file; its list of files says which there are."
            )
        return FileResponse(path, headers={"cache-control": "no-store"})

    @app.delete("/v1/jobs/{id}")
    async def delete(id: JobId) -> Answer:
        """Remove a job with its photo and its files, for good."""
        await asyncio.wrap_future(dispatcher.delete(id))
        return Answer()
