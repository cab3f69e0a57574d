"""`python build.py demo`: two photos to heads in a .blend, by the real engine and the add-on's operators.

Writes out/demo/: geoinv-demo.blend, render.png, sheet.png, summary.json and what lies between. Exit code 0,
or 1 with one sentence. bpy can hang when the interpreter ends, so the process leaves through os._exit.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from PIL import Image

from tests.demo.engine import Engine, Failure, shown_stages, stop_engine

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "out" / "demo"
LOG = OUT / "blender.log"
SYNTHETIC = ROOT / "tests" / "data" / "head-900003.png"
"""A drawn head of an evaluation seed: no network has seen it in training."""
VARIANTS = (("Smile 0.8", {"smile": 0.8}), ("Age 70", {"age": 70.0}))
VIEWS = (("-30°", -30.0), ("0°", 0.0), ("+30°", 30.0))
MORE_VIEWS = (("90°", 90.0), ("180°", 180.0))
PATIENCE = 900.0


class Demo:
    """One run: what was made, how long it took, what to say about it."""

    def __init__(self, screen: TextIO, samples: int) -> None:
        self.screen = screen
        self.samples = samples
        self.times: dict[str, float] = {}
        self.warnings: list[str] = []
        self.heads: list[dict[str, Any]] = []
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        print(text, file=self.screen, flush=True)

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[None]:
        """Announces a step, shows the add-on's stages while it runs, and keeps its time."""
        self.say(f"-> {title}")
        began = time.monotonic()
        with shown_stages(self.say):
            yield
        self.times[name] = round(time.monotonic() - began, 2)
        self.say(f"   {self.times[name]:.1f} s")

    # ---- the way ------------------------------------------------------------------------------------------

    def run(self) -> None:
        with self.step("photos", "photos"):
            photos = prepare_photos()
        with self.step("blender", "Blender and the add-on"):
            self.open_blender()
        from tests.demo import scene

        things: list[Any] = []
        for name, photo in photos.items():
            with self.step(f"head {name}", f"photo to head: {photo.name}"):
                things.append(self.make(name, "create_head", filepath=str(photo)))
            if len(things) == 1:
                for caption, labels in VARIANTS:
                    with self.step(f"variant {caption}", f"variant: {caption}"):
                        activate(things[0])
                        things.append(self.make(caption, "add_variant", labels=json.dumps(labels)))
        with self.step("views", "views of the heads, drawn by the engine"):
            engine = Engine(OUT / "engine")
            self.device = str(engine.ask("GET", "/v1/health")["device"])
            pictures = [engine.views(str(thing["geoinv_head"]), VIEWS) for thing in (things[0], things[-1])]
            pictures[1] += engine.views(str(things[-1]["geoinv_head"]), MORE_VIEWS)
            pictures[0] += [
                (caption, engine.views(str(thing["geoinv_head"]), VIEWS[1:2])[0][1])
                for (caption, _), thing in zip(VARIANTS, things[1:], strict=False)
            ]
        with self.step("render", "Cycles: the scene and the bare meshes"):
            scene.arrange(things)
            scene.light()
            self.warnings += scene.use_cycles(self.samples)
            clay = self.bare_meshes((things[0], things[-1]))
            low, high = scene.bounds(things)
            aspect = min(max((high.x - low.x) / (high.z - low.z) * 0.95, 1.6), 3.2)
            scene.look_at(things, aspect)
            wide = scene.render(OUT / "render.png", 960, round(960 / aspect), seconds=12.0)
        with self.step("save", "geoinv-demo.blend"):
            self.save()
        with self.step("sheet", "sheet.png"):
            self.draw(list(photos.items()), (things[0], things[-1]), pictures, clay, wide)
        self.write_summary()

    def open_blender(self) -> None:
        """An empty file with the add-on registered from its source, the engine's files below out/demo."""
        os.environ |= {"GEOINV_PYTHON": sys.executable, "GEOINV_DATA": str(OUT / "engine")}
        import bpy

        import blender_addon

        bpy.ops.wm.read_factory_settings(use_empty=True)
        blender_addon.register()
        self.blender = bpy.app.version_string

    def make(self, name: str, operator: str, **options: str) -> Any:
        """Runs one of the add-on's operators and returns the object that it added."""
        import bpy

        before, began = set(bpy.data.objects), time.monotonic()
        try:
            result = getattr(bpy.ops.geoinv, operator)(**options)
        except RuntimeError as error:  # how Blender hands on what an operator reports as an error
            raise Failure(str(error).strip().removeprefix("Error: ")) from error
        added = [thing for thing in bpy.data.objects if thing not in before]
        if result != {"FINISHED"} or len(added) != 1:
            raise Failure(f"The operator geoinv.{operator} answered {result} and added {len(added)} objects.")
        self.check(name, added[0])
        bundle = json.loads((Path(added[0]["geoinv_bundle"]) / "head.json").read_text(encoding="utf-8"))
        self.warnings += [f"{name}: {warning}" for warning in bundle.get("warnings", [])]
        self.heads.append(
            {
                "name": name,
                "object": added[0].name,
                "seconds": round(time.monotonic() - began, 2),
                "stages": bundle.get("timings", {}),
                "vertices": len(added[0].data.vertices),
                "faces": len(added[0].data.polygons),
                "size_m": [round(value, 3) for value in added[0].dimensions],
                "labels": {key: round(float(value), 3) for key, value in bundle.get("labels", {}).items()},
            }
        )
        return added[0]

    def check(self, name: str, thing: Any) -> None:
        """What makes an object a usable head: size of a head, UVs, a packed texture."""
        tall = thing.dimensions.z
        images = [
            node.image
            for slot in thing.material_slots
            for node in slot.material.node_tree.nodes
            if node.type == "TEX_IMAGE"
        ]
        if not 0.12 < tall < 0.6:
            raise Failure(f"The head {name} is {tall:.3f} m tall, which no head is: the mesh is wrong.")
        if not thing.data.uv_layers or not images or any(image.packed_file is None for image in images):
            raise Failure(f"The head {name} came into Blender without UVs or without a packed texture.")

    def bare_meshes(self, things: Sequence[Any]) -> list[Path]:
        from tests.demo import scene

        pictures = []
        for number, thing in enumerate(things):
            with scene.alone_in_clay(thing):
                scene.look_at([thing], 1.0, yaw=25.0)
                pictures.append(scene.render(OUT / f"mesh-{number + 1}.png", 256, 256, seconds=4.0))
        return pictures

    def save(self) -> None:
        import bpy

        with suppress(FileNotFoundError):
            (OUT / "geoinv-demo.blend").unlink()
        bpy.ops.wm.save_as_mainfile(filepath=str(OUT / "geoinv-demo.blend"), compress=True)

    # ---- what is told about it ----------------------------------------------------------------------------

    def draw(
        self,
        photos: Sequence[tuple[str, Path]],
        things: Sequence[Any],
        pictures: Sequence[list[tuple[str, Image.Image]]],
        clay: Sequence[Path],
        wide: Path,
    ) -> None:
        from tests.demo.sheet import Row, draw_sheet

        rows = []
        for (name, photo), thing, views, mesh in zip(photos, things, pictures, clay, strict=True):
            crop = Path(thing["geoinv_bundle"]) / "photo.png"
            ends = [("Photo", Image.open(photo)), ("Crop", Image.open(crop))]
            rows.append(Row(name, [*ends, *views[:3], ("Mesh", Image.open(mesh)), *views[3:]]))
        first = self.heads[0]
        took = f"Photo to object in Blender: {first['seconds']:.0f} s on {self.device}"
        notes = "\n".join([f"{took}, {first['faces']:,} faces. Blender {self.blender}.", *self.warnings])
        subtitle = "One photo in, an editable 3D head in Blender out"
        caption = "geoinv-demo.blend, drawn by Cycles: head, smile, age 70, second head"
        sheet = draw_sheet("GeoInv", subtitle, rows, Image.open(wide), caption, notes)
        sheet.save(OUT / "sheet.png", optimize=True)

    def write_summary(self) -> None:
        packages = ("geoinv", "torch", "numpy", "pillow", "fastapi", "scikit-image", "bpy")
        summary = {
            "seconds": round(time.monotonic() - self.began, 1),
            "photo_to_object_seconds": self.heads[0]["seconds"],
            "steps": self.times,
            "heads": self.heads,
            "device": self.device,
            "cores": os.cpu_count(),
            "versions": {
                "python": platform.python_version(),
                "system": f"{platform.system()} {platform.machine()}",
                "blender": self.blender,
                **{name: importlib.metadata.version(name) for name in packages},
            },
            "warnings": self.warnings,
            "files": sorted({"summary.json", *(path.name for path in OUT.iterdir() if path.is_file())}),
        }
        text = json.dumps(summary, indent=2, ensure_ascii=False)
        (OUT / "summary.json").write_text(text + "\n", encoding="utf-8")
        for warning in self.warnings:
            self.say(f"note: {warning}")
        took = self.heads[0]["seconds"]
        self.say(f"Done in {summary['seconds']:.0f} s; photo to object in Blender {took:.0f} s.")
        self.say(f"Look at  {OUT / 'sheet.png'}\nand open {OUT / 'geoinv-demo.blend'} in Blender.")


def prepare_photos() -> dict[str, Path]:
    """Name to file: a real portrait that scikit-image carries, and a drawn head."""
    pictures: Any = import_module("skimage.data")
    if not SYNTHETIC.is_file():
        raise Failure(
            f"The picture {SYNTHETIC.relative_to(ROOT)} is missing: get the checkout's files again."
        )
    portrait = OUT / "astronaut.png"
    Image.fromarray(pictures.astronaut()).save(portrait)
    return {"Astronaut (NASA, public domain)": portrait, "Synthetic head, not seen in training": SYNTHETIC}


def activate(thing: Any) -> None:
    import bpy

    for other in bpy.context.view_layer.objects:
        other.select_set(other is thing)
    bpy.context.view_layer.objects.active = thing


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="build.py demo", description="Photos to heads in a .blend; writes out/demo/."
    )
    parser.add_argument("--samples", type=int, default=16, help="Cycles samples per pixel (default 16)")
    args = parser.parse_args()
    screen = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    complaints = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
    code, sentence = 1, ""
    try:
        shutil.rmtree(OUT, ignore_errors=True)  # nothing from an earlier run may pass for this one's
        OUT.mkdir(parents=True, exist_ok=True)
        quiet = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(quiet, 1)  # Blender writes a line per rendered tile
        os.dup2(quiet, 2)
        watchdog = threading.Timer(PATIENCE, give_up, (complaints,))
        watchdog.daemon = True
        watchdog.start()
        Demo(screen, args.samples).run()
        code = 0
    except Failure as failure:
        sentence = str(failure)
    except ImportError as error:
        sentence = f"A package is missing ({error}): run `python build.py demo`, which installs it."
    except OSError as error:
        traceback.print_exc()
        sentence = f"A file could not be read or written ({error}): check space and rights in {OUT}."
    except KeyboardInterrupt:
        code, sentence = 130, "stopped"
    except Exception as error:
        traceback.print_exc()
        sentence = f"An internal error stopped it ({type(error).__name__}: {error}); details are in {LOG}."
    stop_engine()
    if sentence:
        print(f"demo: {sentence}", file=complaints, flush=True)
    return code


def give_up(complaints: TextIO) -> None:
    print(f"demo: It did not end within {PATIENCE / 60:.0f} minutes; see {LOG}.", file=complaints, flush=True)
    os._exit(1)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
