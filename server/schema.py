"""What goes over the wire: settings, job views, health, previews. Pydantic models, served as OpenAPI.

Angles are degrees, times are seconds (clock times are Unix seconds), photo coordinates are pixels of the
upright photo with x to the right and y down.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

PROTOCOL = 1
"""Raised when a client of the previous number could no longer talk to this server."""

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
FINISHED: frozenset[str] = frozenset({"done", "failed", "cancelled"})
Kind = Literal["invert", "edit", "batch"]
Labels = dict[Annotated[str, Field(min_length=1, max_length=64)], FiniteFloat]
Pixel = tuple[FiniteFloat, FiniteFloat]

MAX_VARIANTS = 32
HEAD_PATTERN = r"^[0-9a-f]{16}(/variant-[1-9][0-9]?)?$"


class ApiError(Exception):
    """An answer other than success: HTTP `status`, a stable `code`, and one sentence for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def body(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message}}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Points(Strict):
    """Eye centres and mouth corners in photo pixels; left and right are the subject's own."""

    eye_left: Pixel
    eye_right: Pixel
    mouth_left: Pixel
    mouth_right: Pixel


class Settings(Strict):
    """What a job is asked to do."""

    kind: Kind = "invert"
    model: str | None = Field(
        None, max_length=4096, description="A model's name or file; none: the server's own"
    )
    head: str | None = Field(
        None, pattern=HEAD_PATTERN, description="For edit: the job that made the head, or JOB/variant-N of it"
    )
    refine: int = Field(
        0, ge=0, le=10_000, description="Optimisation steps; 0: none after an encoder, 200 without"
    )
    space: Literal["w", "w+"] = Field(
        "w+", description="Of the optimisation: one style, or one for each layer"
    )
    tune: int = Field(0, ge=0, le=10_000, description="Steps of tuning the generator itself to the photo")
    seed: int = Field(0, ge=0, lt=2**31, description="Of the optimisation")
    labels: Labels = Field(default_factory=dict, description="Edits of the main head, in natural units")
    variants: list[Labels] = Field(
        default_factory=list,
        max_length=MAX_VARIANTS,
        description="Edits on top of the main head, a folder each",
    )
    topology: Literal["quads", "raw"] = "quads"
    shapes: bool = Field(True, description="Shape keys, with quads; they take most of the time")
    texture: int = Field(1024, ge=64, le=8192, description="Side of the texture in pixels")
    face_box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] | None = Field(
        None, description="x0, y0, x1, y1 in photo pixels, when the face is chosen by hand"
    )
    points: Points | None = None

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Settings:
        if self.kind == "edit":
            if self.head is None:
                raise ValueError("an edit needs 'head', the id of the job that made the head")
            if not self.labels and not self.variants:
                raise ValueError("an edit needs 'labels' or 'variants'")
            if self.face_box is not None or self.points is not None:
                raise ValueError("an edit takes no face box and no points, because it takes no photo")
        elif self.head is not None:
            raise ValueError("'head' belongs to an edit only")
        if self.kind == "batch" and (self.face_box is not None or self.points is not None):
            raise ValueError(
                "a batch takes no face box and no points, because they differ from photo to photo"
            )
        if self.face_box is not None:
            x0, y0, x1, y1 = self.face_box
            if x1 - x0 < 1 or y1 - y0 < 1:
                raise ValueError("'face_box' must be x0, y0, x1, y1 with x1 > x0 and y1 > y0")
        return self


class ErrorInfo(BaseModel):
    code: str
    message: str


class ErrorBody(BaseModel):
    error: ErrorInfo


class JobView(BaseModel):
    """One job as clients see it."""

    id: str
    kind: Kind
    state: JobState
    title: str
    settings: dict[str, Any]
    stage: str = Field(description="load, detect, encode, refine, surface, texture, shapes or save")
    fraction: float = Field(description="Part of the stage that is done, 0 to 1")
    message: str
    position: int | None = Field(description="Place in the queue, 1 is next; none when not queued")
    attempts: int
    created: float
    started: float | None
    finished: float | None
    elapsed: float
    error: ErrorInfo | None
    warnings: list[str]
    timings: dict[str, float]
    labels: dict[str, float]
    files: list[str]
    parent: str | None
    children: list[str]


class JobList(BaseModel):
    jobs: list[JobView]


class Memory(BaseModel):
    """Bytes; none where this system does not tell."""

    worker: int | None = None
    system_available: int | None = None
    device_free: int | None = None
    device_total: int | None = None


class Health(BaseModel):
    version: str
    protocol: int
    pid: int
    worker_pid: int | None
    state: Literal["starting", "ready", "busy", "unloaded", "lost"]
    device: str
    memory: Memory
    model: str
    queued: int
    running: str | None = Field(description="The id of the running job")
    problem: ErrorInfo | None = Field(description="Why the model could not be loaded, if so")


class ModelView(BaseModel):
    name: str
    loaded: bool
    hash: str | None = None
    licence: str | None = Field(None, description="Of the weights, as their file names it")
    encoder: bool = Field(
        False, description="Whether photos are read by an encoder; else by slow optimisation"
    )
    labels: dict[str, tuple[float, float, float]] | None = Field(
        None, description="For each label low, high, neutral; none until the model was loaded once"
    )


class ModelList(BaseModel):
    models: list[ModelView]


class PreviewRequest(Strict):
    """A quick look at a head with labels applied; nothing is stored."""

    labels: Labels = Field(default_factory=dict)
    want: Literal["picture", "vertices"] = "picture"
    yaw: FiniteFloat = Field(0.0, ge=-180, le=180)
    pitch: FiniteFloat = Field(0.0, ge=-90, le=90)
    size: int = Field(256, ge=16, le=1024)
    stream: str | None = Field(
        None, max_length=64, description="Of waiting requests with the same name only the newest is served"
    )


class AttachRequest(Strict):
    parent_pid: int = Field(gt=0, description="The server lives until every attached process has ended")


class Answer(BaseModel):
    ok: bool = True


def sentence(error: ValidationError) -> str:
    """The first problem of a refused request as one sentence."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    what = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    if where:
        return (
            f"The setting '{where}' cannot be used: {what[:1].lower()}{what[1:]}; send it again, corrected."
        )
    return f"These settings cannot be used: {what}; send them again, corrected."


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema without references, so that it can stand inside another document."""
    parts = schema.get("$defs", {})

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return walk(parts[node["$ref"].rpartition("/")[2]])
        return {key: walk(value) for key, value in node.items() if key != "$defs"}

    inlined: dict[str, Any] = walk(schema)
    return inlined


_SETTINGS_SCHEMA = _inlined(Settings.model_json_schema())
JOB_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "photo": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "kind": {"type": "string", "enum": ["invert", "edit", "batch"]},
                        "settings": _SETTINGS_SCHEMA,
                    },
                },
                "encoding": {"settings": {"contentType": "application/json"}},
            },
            "application/json": {"schema": _SETTINGS_SCHEMA},
        },
    }
}
"""The body of POST /v1/jobs for OpenAPI, which FastAPI cannot see: it is read by hand, as it streams in."""
