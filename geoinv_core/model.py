"""A generator with its encoder, ready to turn photos into heads."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geoinv_core import weights
from geoinv_core.edit import Labels
from geoinv_core.encoder import Encoder, load_encoder
from geoinv_core.errors import ModelError
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.head import Head, Inversion
from geoinv_core.progress import OnProgress, report

BUNDLED = Path(__file__).parent / "weights" / "default.safetensors"
CROP = 512
"""Side of the photo's aligned crop, pixels; it also textures the head."""


@dataclass(frozen=True, eq=False)
class Model:
    """What `open_model` returns."""

    name: str
    """"default", or the path of the file"""
    hash: str
    """SHA-256 of the generator's file"""
    licence: str
    generator: TriplaneGenerator
    encoder: Encoder | None
    label_space: Labels | None
    """None for a generator without labels"""
    meta: dict[str, Any]
    device: torch.device

    @property
    def labels(self) -> dict[str, tuple[float, float, float]]:
        """Every label that can be set: (lowest, highest, neutral), in natural units."""
        return {} if self.label_space is None else self.label_space.ranges()

    @property
    def neck_y(self) -> float | None:
        """World height of the neck's cut, None where the model's heads end by themselves."""
        return self.meta.get("neck_y")

    def invert(
        self,
        photo: str | Path | bytes,
        refine: int = 0,
        on_progress: OnProgress | None = None,
        face_box: tuple[float, float, float, float] | None = None,
        points: Mapping[str, tuple[float, float]] | None = None,
    ) -> Head:
        """From one photo to a head.

        Args:
            photo: a file or its bytes.
            refine: steps of optimisation after the encoder, 0 for none.
            face_box: (x0, y0, x1, y1) in pixels of the photo instead of a detected face.
            points: eye_left, eye_right, mouth_left, mouth_right in pixels of the photo (the subject's sides).
        Raises: PhotoError, ModelError, Cancelled.
        """
        if self.encoder is None or self.label_space is None:
            raise ModelError(
                f"{self.name} cannot read photos because it comes without an encoder; train one with "
                "`geoinv train encoder`, or use the default model.",
                "no_encoder",
            )
        from geoinv_core.invert import refine as refinement
        from geoinv_core.photo import prepare

        start = time.perf_counter()
        crop = prepare(photo, face_box=face_box, points=points, size=CROP, on_progress=on_progress)
        timings = {"detect": time.perf_counter() - start}
        report(on_progress, "encode", 0.0, "Reading the face")
        start = time.perf_counter()
        image = torch.from_numpy(crop.image.copy()).permute(2, 0, 1)[None].float().to(self.device) / 127.5 - 1
        with torch.inference_mode():
            found = self.encoder(image)
            ws = self.generator.map(found.z, found.c) + found.delta
        pose = found.pose.clone()
        camera = found.camera.clone()
        timings["encode"] = time.perf_counter() - start
        report(on_progress, "encode", 1.0, "Face read")
        if refine > 0:
            start = time.perf_counter()
            ws, camera = refinement(self.generator, ws.clone(), pose, image, refine, on_progress)
            timings["refine"] = time.perf_counter() - start
        inversion = Inversion(
            ws.detach().clone(),
            found.z.clone(),
            found.c.clone(),
            camera[0].detach().cpu(),
            crop.image,
            crop.sha256,
        )
        return Head(self, inversion, tuple(crop.warnings), timings)

    def mean_head(self) -> Head:
        """The head of the mean style, seen from the front: the baseline that inversion has to beat."""
        from geoinv_core.camera import orbit

        k = self.generator.config
        ws = self.generator.w_avg.expand(1, self.generator.num_ws, -1).clone()
        zero = torch.zeros(1, k.c_dim, device=self.device)
        return Head(
            self, Inversion(ws, torch.zeros(1, k.z_dim, device=self.device), zero, orbit(), None, None)
        )

    def head_of(self, z: Tensor, c: Tensor, camera: Tensor | None = None) -> Head:
        """The head of a latent and labels ([1, z_dim], [1, c_dim], standardised)."""
        from geoinv_core.camera import orbit

        with torch.inference_mode():
            ws = self.generator.map(z, c)
        return Head(self, Inversion(ws.clone(), z, c, orbit() if camera is None else camera, None, None))


_OPEN: dict[tuple[str, str], Model] = {}


def open_model(name: str | Path = "default", device: str = "auto") -> Model:
    """The bundled model, or a generator's .safetensors file (its encoder lies beside it as
    NAME.encoder.safetensors).

    Args:
        device: "cpu", "cuda", or "auto" for the best there is.
    Raises: ModelError when a file is missing, damaged, or when encoder and generator do not belong together.
    """
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    path = BUNDLED if str(name) == "default" else Path(name)
    key = (f"{path.resolve()}:{path.stat().st_mtime_ns}" if path.is_file() else str(path), where)
    if key not in _OPEN:
        _OPEN.clear()  # one model at a time: artists' cards are small
        _OPEN[key] = _open(str(name) if path is BUNDLED else str(path), path, torch.device(where))
    return _OPEN[key]


def _open(name: str, path: Path, device: torch.device) -> Model:
    generator = weights.load(path, device)
    about = weights.info(path)
    beside = path.with_name(path.stem + ".encoder.safetensors")
    encoder = labels = None
    if beside.is_file():
        encoder, layout, meta = load_encoder(beside, device)
        labels = Labels(layout)
        made_for = meta.get("generator")
        if made_for is not None and made_for != about["sha256"]:
            raise ModelError(
                f"{beside.name} was trained for another generator than {path.name}; "
                "get both from the same place.",
                "wrong_encoder",
            )
    elif "layout" in about["meta"]:
        from geoinv_core.heads.layout import LabelLayout

        labels = Labels(LabelLayout.from_json(about["meta"]["layout"]))
    if name == "default" and encoder is None:
        raise ModelError(f"The bundled model is incomplete ({beside.name} is missing); install GeoInv again.")
    return Model(
        name,
        about["sha256"],
        str(about.get("licence") or "unknown"),
        generator,
        encoder,
        labels,
        about["meta"],
        device,
    )
