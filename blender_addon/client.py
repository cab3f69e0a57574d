"""The engine's HTTP routes as plain calls. Blocking, so for background threads; no bpy here.

`http.client` rather than `urllib`: the latter sends loopback requests to a proxy that the environment names.
"""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import Trouble, disk_trouble
from .protocol import Address

Json = dict[str, Any]
_JSON = {"Content-Type": "application/json"}


class EngineLost(Trouble):
    """No answer: the engine's process ended, or something else listens there now."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"The engine does not answer any more ({detail}): press Try Again, which starts it anew.",
            code="lost",
            fix="geoinv.retry",
        )


class Client:
    """One engine. A new connection per call, so calls from several threads do not meet."""

    def __init__(self, address: Address, timeout: float = 15.0) -> None:
        self.address = address
        self.timeout = timeout

    def health(self) -> Json:
        """version, protocol, device, memory, model, state."""
        return self._json("GET", "/v1/health")

    def attach(self, parent: int) -> None:
        """Ask the engine to live until the process `parent` has ended too."""
        self._json("POST", "/v1/attach", json.dumps({"parent_pid": parent}).encode(), _JSON)

    def shutdown(self) -> None:
        self._json("POST", "/v1/shutdown", b"")

    def submit(self, kind: str, settings: Mapping[str, Any], photo: Path | None = None) -> str:
        """Queue a job and return its id. Trouble with the engine's own sentence when it refuses."""
        boundary = secrets.token_hex(16)
        parts = [
            _part(boundary, 'name="kind"', kind.encode()),
            _part(boundary, 'name="settings"', json.dumps(settings).encode()),
        ]
        if photo is not None:
            parts.append(_part(boundary, f'name="photo"; filename="{_plain_name(photo)}"', read_photo(photo)))
        body = b"".join(parts) + f"--{boundary}--\r\n".encode()
        kinds = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return str(self._json("POST", "/v1/jobs", body, kinds)["id"])

    def job(self, job: str) -> Json:
        """The job's row: state, message, files and so on."""
        return self._json("GET", f"/v1/jobs/{job}")

    def cancel(self, job: str) -> None:
        self._json("POST", f"/v1/jobs/{job}/cancel", b"")

    def events(self, job: str) -> Iterator[Json]:
        """The job's server-sent events as they come; ends when the engine closes the stream.

        A silence longer than the timeout ends it too: the caller then asks for the job's row, which
        tells a quiet engine from a dead one.
        """
        with self._request("GET", f"/v1/jobs/{job}/events", None, {"Accept": "text/event-stream"}) as answer:
            name, data = "message", list[str]()
            while True:
                try:
                    line = answer.readline().decode("utf-8", "replace")
                except TimeoutError:
                    return
                if not line:
                    return
                line = line.rstrip("\r\n")
                if line.startswith("event:"):
                    name = line[6:].strip()
                elif line.startswith("data:"):
                    data.append(line[5:].lstrip())
                elif not line and data:
                    event = json.loads("\n".join(data))
                    yield {"event": name, **event} if isinstance(event, dict) else {"event": name}
                    name, data = "message", []

    def download(self, job: str, name: str, target: Path) -> None:
        """Write one of the job's files to `target`. Trouble when the disk is full."""
        with self._request("GET", f"/v1/jobs/{job}/files/{name}") as answer:
            try:
                with target.open("wb") as out:
                    while chunk := _read(answer):
                        out.write(chunk)
            except EngineLost:
                raise
            except OSError as error:
                raise disk_trouble(error, "save the finished head") from error

    def _json(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Json:
        with self._request(method, path, body, headers) as answer:
            content = answer.read()
        try:
            said = json.loads(content) if content else {}
        except ValueError as error:
            raise EngineLost("its port is used by another program") from error
        return said if isinstance(said, dict) else {"items": said}

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        link = http.client.HTTPConnection(self.address.host, self.address.port, timeout=self.timeout)
        try:
            try:
                allowed = {"Authorization": f"Bearer {self.address.token}", **(headers or {})}
                link.request(method, path, body, allowed)
                answer = link.getresponse()
                if answer.status >= 400:
                    raise _refusal(answer.status, answer.read())
                yield answer
            except (OSError, http.client.HTTPException) as error:
                raise EngineLost(_why(error)) from error
        finally:
            link.close()


def read_photo(photo: Path) -> bytes:
    """The file's bytes. Trouble when it is missing, a folder, or may not be read."""
    try:
        return photo.read_bytes()
    except OSError as error:
        reason = error.strerror or "unknown reason"
        raise Trouble(
            f"The photo {photo.name or photo} cannot be read ({reason}): choose another file.", code="photo"
        ) from error


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(1 << 20)
    except (OSError, http.client.HTTPException) as error:
        raise EngineLost(_why(error)) from error


def _why(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "its process has ended"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return "the connection broke"


def _refusal(status: int, body: bytes) -> Trouble:
    """The engine's own sentence where it sent one."""
    if status in (401, 403):
        return Trouble(
            "The engine refused this Blender's key, so it belongs to another session: "
            "press Try Again, which starts an engine of this Blender's own.",
            code="token",
            fix="geoinv.retry",
        )
    try:
        said = json.loads(body)
    except ValueError:
        said = {}
    sentence = (
        find_sentence(said) or f"The engine refused the request (HTTP {status}): copy the report and send it."
    )
    return Trouble(sentence, code="job")


def find_sentence(said: Any) -> str:
    """The message inside an error body, whatever level it sits on, or ""."""
    if isinstance(said, str):
        return said
    if isinstance(said, dict):
        for key in ("message", "error", "detail"):
            if key in said and (sentence := find_sentence(said[key])):
                return sentence
    return ""


def _part(boundary: str, disposition: str, content: bytes) -> bytes:
    return (
        f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + content + b"\r\n"
    )


def _plain_name(photo: Path) -> str:
    """A header-safe file name; the engine decides by content, so only the look of it matters."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in photo.name) or "photo"
