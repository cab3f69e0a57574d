"""From a request body to checked photos and settings. Whatever is wrong is said before a job exists.

Limits work while the body streams in, so that a wrong or hostile client costs little. Decoding and face
search run here, in the front, without torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath

from pydantic import ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.schema import ApiError, Settings, sentence

MAX_PHOTOS = 256
DRAIN = 4
"""A body that is too large is read to its end if it is at most this many limits long: then the client gets
to see the answer instead of a broken connection."""

_PHOTO_STATUS = {"too_large": 413, "unsupported_format": 415, "not_an_image": 415}


@dataclass(frozen=True)
class Upload:
    """A photo as it came. `name` is for people only and never a path."""

    name: str
    suffix: str
    data: bytes


class BodyLimit:
    """ASGI middleware: a request body of more than `limit` bytes becomes 413, counted as it comes in."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        over = declared.isdigit() and int(declared) > self._limit
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if over or seen > self._limit:
                while message.get("more_body") and seen <= DRAIN * self._limit:
                    message = await receive()
                    seen += len(message.get("body", b""))
                raise ApiError(
                    413,
                    "too_large",
                    f"This upload is larger than {self._limit / 2**20:g} MB, the most that is taken; "
                    "send a smaller photo, or fewer at a time.",
                )
            return message

        await self._app(scope, counted, send)


async def read(request: Request) -> tuple[Settings, list[Upload]]:
    """Settings and photos of a POST: multipart (`photo`, repeated for a batch; `settings` as JSON; `kind`),
    or plain JSON settings for an edit. Raises ApiError."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == "application/json":
        return _settings(await request.body(), ""), []
    if media not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise ApiError(415, "media_type", "A job is sent as multipart/form-data, with photo and settings.")
    async with request.form(max_files=MAX_PHOTOS, max_fields=8, max_part_size=2**20) as form:
        unknown = set(form) - {"photo", "settings", "kind"}
        if unknown:
            raise ApiError(
                422, "field", f"The field '{min(unknown)}' is not known; use photo, settings and kind."
            )
        text, kind = form.get("settings", "{}"), form.get("kind", "")
        photos = [part for part in form.getlist("photo") if isinstance(part, UploadFile)]
        if not isinstance(kind, str) or len(photos) != len(form.getlist("photo")):
            raise ApiError(422, "field", "The photo must be sent as a file, and the kind as text.")
        body = await text.read() if isinstance(text, UploadFile) else text.encode()
        settings = _settings(body, kind)
        return settings, [_upload(part.filename or "photo", await part.read()) for part in photos]


def _settings(body: bytes, kind: str) -> Settings:
    try:
        values = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise ApiError(422, "settings", "The settings are not JSON; send an object like {}.") from error
    if not isinstance(values, dict):
        raise ApiError(422, "settings", "The settings must be a JSON object, like {}.")
    try:
        return Settings.model_validate({**values, **({"kind": kind} if kind else {})})
    except ValidationError as error:
        raise ApiError(422, "settings", sentence(error)) from error


def _upload(filename: str, data: bytes) -> Upload:
    name = PureWindowsPath(PurePosixPath(filename).name).name
    name = "".join(letter for letter in name if letter.isprintable())[:120] or "photo"
    suffix = PurePosixPath(name).suffix.lower()
    return Upload(name, suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else "", data)


def check_count(settings: Settings, photos: Sequence[Upload]) -> None:
    """Raises ApiError unless there are as many photos as the kind of job takes."""
    if settings.kind == "edit" and photos:
        raise ApiError(
            422, "photo_count", "An edit takes no photo; it works on the head that an earlier job made."
        )
    if settings.kind != "edit" and not photos:
        raise ApiError(
            422, "photo_count", "There is no photo in this request; send one in the field 'photo'."
        )
    if settings.kind == "invert" and len(photos) > 1:
        raise ApiError(
            422, "photo_count", "One head is made from one photo; send several as a job of kind 'batch'."
        )


def check_photo(photo: Upload, settings: Settings) -> list[str]:
    """Decode and, when no face was chosen by hand, look for one. Returns warnings; raises ApiError. Slow."""
    # The imports cost a tenth of a second, which the start of the server does not have to wait for.
    from geoinv_core.errors import PhotoError
    from geoinv_core.photo import decode

    try:
        decoded = decode.load(photo.data)
        if settings.face_box is None and settings.points is None:
            from geoinv_core.photo import detect

            # Whether it is one, the engine's landmark network tells; what is none at all need not wait.
            if not any(search.doubtful() for search in detect.searches(decoded.rgb)):
                raise ApiError(
                    422,
                    "no_face",
                    "No face was found in the photo; choose one that shows a face from the front, "
                    "or mark the face by hand.",
                )
        else:
            _check_marks(settings, decoded.full_size)
    except PhotoError as error:
        raise ApiError(_PHOTO_STATUS.get(error.code, 422), error.code, str(error)) from error
    return list(decoded.warnings)


def _check_marks(settings: Settings, size: tuple[int, int]) -> None:
    width, height = size
    outside = ApiError(
        422, "face_box", f"The marked face lies outside the photo ({width} x {height} pixels); mark it again."
    )
    if settings.face_box is not None:
        x0, y0, x1, y1 = settings.face_box
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            raise outside
    if settings.points is not None:
        for x, y in settings.points.model_dump().values():
            if not (0 <= x <= width and 0 <= y <= height):
                raise outside
