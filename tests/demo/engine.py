"""The demo's view of the engine: pictures over HTTP, stages as they pass, and its end."""

from __future__ import annotations

import http.client
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image


class Failure(Exception):  # noqa: N818 -- the one sentence that the demo ends with
    """Why the demo could not go on, for a person."""


class Engine:
    """The running engine, asked over HTTP for pictures, as any client may."""

    def __init__(self, data: Path) -> None:
        facts = json.loads((data / "engine.json").read_text(encoding="utf-8"))
        self.host = str(facts["url"]).removeprefix("http://").rstrip("/")
        self.token = str(facts["token"])

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        link = http.client.HTTPConnection(self.host, timeout=120)
        try:
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            link.request(method, path, None if body is None else json.dumps(body), headers)
            answer = link.getresponse()
            content = answer.read()
        finally:
            link.close()
        if answer.status != 200:
            said = content.decode(errors="replace")[:300]
            raise Failure(f"The engine refused {path} (HTTP {answer.status}): {said}")
        return json.loads(content) if answer.headers.get_content_type() == "application/json" else content

    def views(self, head: str, angles: Sequence[tuple[str, float]]) -> list[tuple[str, Image.Image]]:
        found: list[tuple[str, Image.Image]] = []
        for caption, yaw in angles:
            content = self.ask("POST", f"/v1/heads/{head}/preview", {"yaw": yaw, "size": 256})
            found.append((caption, Image.open(io.BytesIO(content))))
        return found


@contextmanager
def shown_stages(say: Callable[[str], None]) -> Iterator[None]:
    """Tells each stage that the add-on's session reports, from a thread that only reads plain values."""
    ended = threading.Event()

    def watch() -> None:
        last = ""
        while not ended.wait(0.2):
            module = sys.modules.get("blender_addon.session")
            stage = module.session.stage_title if module is not None and hasattr(module, "session") else ""
            if stage and stage != last:
                say(f"   {stage}")
            last = stage or last

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(1.0)


def stop_engine() -> None:
    """Ends the engine if the demo got as far as starting one; it would also end with this process."""
    module = sys.modules.get("blender_addon.session")
    if module is not None:
        with suppress(Exception):  # whatever is wrong was told already
            module.session.stop_engine()
