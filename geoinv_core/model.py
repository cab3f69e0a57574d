"""A generator with its encoder, ready to turn photos into heads."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from geoinv_core import invert as inversion
from geoinv_core import weights
from geoinv_core.camera import orbit
from geoinv_core.detail import Detail, load_detail
from geoinv_core.edit import Directions, Labels, load_directions
from geoinv_core.encoder import Encoder, load_encoder
from geoinv_core.encoder.confidence import doubts
from geoinv_core.encoder.config import OUTLINE
from geoinv_core.errors import ModelError
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.generator.precision import Precision
from geoinv_core.head import Head, Inversion
from geoinv_core.invert.guard import ALLOWED_MM, guarded
from geoinv_core.invert.optimise import DEFAULT_STEPS, Settings, Space, Start
from geoinv_core.invert.read import Answer, read
from geoinv_core.invert.shown import filled
from geoinv_core.mesh.lattice import BLANK
from geoinv_core.photo.align import transform
from geoinv_core.photo.framing import EG3D, FFHQ, Framing
from geoinv_core.progress import OnProgress, report
from geoinv_core.weights.header import BUNDLED, detail_beside, directions_beside, encoder_beside

if TYPE_CHECKING:
    from geoinv_core.photo import Crop

CROP = 512
"""Side of the photo's aligned crop, pixels; it also textures the head."""
WITHOUT_LABELS = (
    "`geoinv train encoder` can train one for a model with labels, which a converted checkpoint does not have"
)


@dataclass(frozen=True)
class _Guess:
    """Before any refinement."""

    z: Tensor
    c: Tensor
    start: Start
    warnings: Sequence[str] = ()
    """what the person should know"""
    answer: Answer | None = None
    """of the encoder, where one was asked"""


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
    detail: Detail | None
    """The network that adds what a photo shows beyond the code, from the file beside the model"""
    label_space: Labels | None
    """None for a generator without labels"""
    directions: Directions
    """Named moves of the code, from the file beside the model; none for most"""
    meta: dict[str, Any]
    device: torch.device
    path: Path

    @property
    def labels(self) -> dict[str, tuple[float, float, float]]:
        """Every label that can be set: (lowest, highest, neutral), in natural units."""
        own = {} if self.label_space is None else self.label_space.ranges()
        return own | self.directions.ranges()

    @property
    def neck_y(self) -> float | None:
        """World height of the neck's cut, None where the model's heads end by themselves."""
        k = self.generator.config
        if k.density == "sdf" or k.crop is not None:
            return self.meta.get("neck_y")
        return k.box_warp * (BLANK - 0.5)

    @property
    def framing(self) -> Framing:
        """How the model's pictures show faces."""
        return EG3D if self.meta.get("family") == "eg3d" else FFHQ

    def invert(
        self,
        photo: str | Path | bytes,
        refine: int = 0,
        on_progress: OnProgress | None = None,
        face_box: tuple[float, float, float, float] | None = None,
        points: Mapping[str, tuple[float, float]] | None = None,
        space: Space = "w+",
        tune: int = 0,
        seed: int = 0,
        lpips: Sequence[Path] = (),
        blind: bool = False,
        detail: bool = True,
    ) -> Head:
        """From one photo to a head: by the encoder, or by optimisation for a model without one.

        Args:
            photo: a file or its bytes.
            refine: steps of optimisation; 0: none after an encoder, DEFAULT_STEPS without one.
            face_box: (x0, y0, x1, y1) in pixels of the photo instead of a detected face.
            points: eye_left, eye_right, mouth_left, mouth_right in pixels of the photo (the subject's sides).
            space: "w" (one style) or "w+" (one for each layer), for the optimisation.
            tune: steps of tuning the generator's own weights to the photo afterwards, for this head alone.
            seed: of everything random in the optimisation.
            lpips: files with LPIPS weights, to be used instead of the measures that need none.
            blind: begin at the mean style even where there is an encoder.
            detail: add what the photo shows and the code cannot say, where the model has a network for it.
        Raises: PhotoError, ModelError, Cancelled.
        """
        from geoinv_core.photo import prepare

        start = time.perf_counter()
        crop = prepare(
            photo, face_box=face_box, points=points, size=CROP, framing=self.framing, on_progress=on_progress
        )
        timings = {"detect": time.perf_counter() - start}
        report(on_progress, "encode", 0.0, "Reading the face")
        start = time.perf_counter()
        image = torch.from_numpy(crop.image.copy()).permute(2, 0, 1)[None].float().to(self.device) / 127.5 - 1
        guess = self._first_guess(crop, None if blind else self.encoder, image, seed)
        begin, warnings = guess.start, list(guess.warnings)
        timings["encode"] = time.perf_counter() - start
        report(on_progress, "encode", 1.0, "Face read")
        ws, camera, tuned = begin.ws, begin.camera, dict[str, Tensor]()
        steps = refine or (DEFAULT_STEPS if begin.blind else 0)
        if steps or tune:
            start = time.perf_counter()
            wanted = image
            if guess.answer is not None and guess.answer.front is not None:
                field = self.generator.colour_field(guess.answer.planes, begin.ws)
                wanted = filled(self.generator, field, begin.camera, image, guess.answer.front)
            perceptual = inversion.measure_for(self.path, self.device, lpips)
            settings = self._settings(steps, space, seed, begin.blind)
            if steps:
                found = inversion.optimise(self.generator, begin, wanted, perceptual, settings, on_progress)
                ws, camera = found.ws, found.camera
                if not begin.blind:
                    ws, share, change = guarded(self.generator, begin.ws, found.ws)
                    if share < 1:
                        warnings.append(
                            f"Refinement went {100 * share:.0f} % of its way, because more would have bent "
                            f"what the photo does not show by over {ALLOWED_MM:g} mm (now {change:.1f} mm)."
                        )
            if tune:
                tuned = inversion.tune(
                    self.generator, ws, camera, wanted, tune, perceptual, settings, on_progress
                )
            timings["refine"] = time.perf_counter() - start
        made = Inversion(ws, guess.z, guess.c, camera[0].cpu(), crop.image, crop.sha256, tuned=tuned)
        if guess.answer is not None:
            made = replace(made, mask=guess.answer.mask)
        head = Head(self, made, (*crop.warnings, *warnings), timings)
        if guess.answer is not None and ws is begin.ws and not tuned:
            head.__dict__["planes"] = guess.answer.planes  # of the same code
        if detail and self.detail is not None:
            start = time.perf_counter()
            head = head.detailed(self.detail, image)
            timings["detail"] = time.perf_counter() - start
        return head

    def _first_guess(self, crop: Crop, encoder: Encoder | None, image: Tensor, seed: int) -> _Guess:
        if encoder is not None:
            answer = read(self.generator, encoder, self.label_space, image)
            with torch.inference_mode():
                warnings = self._doubts(crop, answer)
            found, spread = answer.found, self.generator.w_avg.std().clamp_min(1e-3)
            begin = Start(answer.ws.clone(), spread, found.camera.clone(), blind=False)
            return _Guess(found.z.clone(), found.c.clone(), begin, warnings, answer)
        k = self.generator.config
        camera = torch.from_numpy(crop.camera()).float()[None].to(self.device)
        c = self.conditioning()
        begin = inversion.mean_start(self.generator, camera, c if self.label_space is None else None, seed)
        if self.encoder is not None:
            return _Guess(torch.zeros(1, k.z_dim, device=self.device), c, begin)
        train = "train one with `geoinv train encoder`" if self.label_space is not None else WITHOUT_LABELS
        note = f"{self.name} has no encoder, so the head was found by slow optimisation; {train}."
        return _Guess(torch.zeros(1, k.z_dim, device=self.device), c, begin, [note])

    def _doubts(self, crop: Crop, answer: Answer) -> list[str]:
        """What the person should know of the encoder's answer."""
        found, marks = answer.found, crop.landmarks
        drawn = self.generator.render(answer.planes, found.camera, OUTLINE, (24, 24), ws=answer.ws)
        result = []
        if answer.hidden:
            share = max(5, 5 * round(20 * answer.hidden))
            result.append(
                f"Something lies in front of about {share} % of the head; what is behind it is guessed."
            )
        if marks is None:
            return [*result, *map(str, doubts(found, drawn.opacity))]
        matrix = crop.matrix / crop.image.shape[0]
        points = {name: transform(matrix, point).tolist() for name, point in marks.points.items()}
        turn = (marks.yaw, marks.pitch)
        return [*result, *map(str, doubts(found, drawn.opacity, points, turn, marks.score))]

    def _settings(self, steps: int, space: Space, seed: int, blind: bool) -> Settings:
        fast = self.device.type == "cuda"
        if not blind:
            return Settings(
                steps, space, seed, size=96 if fast else 48, rate=0.01, hold=0.05, similar=0.1, patience=12
            )
        has_final = self.generator.config.superresolution is not None
        return Settings(steps, space, seed, size=128 if fast else 64, final=fast and has_final)

    def conditioning(self) -> Tensor:
        """What the mapping sees beside z [1, c_dim]: a frontal camera, as in EG3D's own scripts, or zeros."""
        k = self.generator.config
        if self.label_space is not None or k.c_dim != 25:
            return torch.zeros(1, k.c_dim, device=self.device)
        return self.front()[None].to(self.device)

    def mean_head(self) -> Head:
        """The head of the mean style, seen from the front: the baseline that inversion has to beat."""
        k = self.generator.config
        ws = self.generator.w_avg.expand(1, self.generator.num_ws, -1).clone()
        zero = torch.zeros(1, k.z_dim, device=self.device)
        return Head(
            self, Inversion(ws, zero, torch.zeros(1, k.c_dim, device=self.device), self.front(), None, None)
        )

    def front(self) -> Tensor:
        """The frontal camera [25] of this model's heads."""
        k = self.generator.config
        return orbit(radius=k.camera_radius, target=k.camera_target)

    def head_of(self, z: Tensor, c: Tensor, camera: Tensor | None = None) -> Head:
        """The head of a latent and labels ([1, z_dim], [1, c_dim], standardised)."""
        with torch.inference_mode():
            ws = self.generator.map(z, c)
        return Head(self, Inversion(ws.clone(), z, c, self.front() if camera is None else camera, None, None))


_OPEN: dict[tuple[object, ...], Model] = {}


def open_model(name: str | Path = "default", device: str = "auto", precision: Precision = "auto") -> Model:
    """The bundled model, or a generator's .safetensors file (its encoder lies beside it as
    NAME.encoder.safetensors).

    Args:
        device: "cpu", "cuda", or "auto" for the best there is.
        precision: of super-resolution, see geoinv_core.generator.precision; "auto": float16 on CUDA.
    Raises: ModelError when a file is missing, damaged, when encoder and generator do not belong together, or
    when the generator cannot calculate in that precision.
    """
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    path = BUNDLED if str(name) == "default" else Path(name)
    files = (path, encoder_beside(path), detail_beside(path), directions_beside(path))
    key = (str(path.resolve()), where, precision, *map(_changed, files))
    if key not in _OPEN:
        _OPEN.clear()  # one model at a time: artists' cards are small
        _OPEN[key] = _open(str(name) if path is BUNDLED else str(path), path, torch.device(where), precision)
    return _OPEN[key]


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


def _open(name: str, path: Path, device: torch.device, precision: Precision) -> Model:
    generator = weights.load(path, device, precision)
    about = weights.info(path)
    beside = encoder_beside(path)
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
    detail = None
    if detail_beside(path).is_file():
        detail, about_detail = load_detail(detail_beside(path), device)
        if about_detail.get("generator", about["sha256"]) != about["sha256"]:
            raise ModelError(
                f"{detail_beside(path).name} was trained for another generator than {path.name}; "
                "get both from the same place, or remove it.",
                "wrong_detail",
            )
    directions = Directions()
    if directions_beside(path).is_file():
        shape = (generator.num_ws, generator.config.w_dim)
        directions = load_directions(directions_beside(path), about["sha256"], shape)
    return Model(
        name,
        about["sha256"],
        str(about.get("licence") or "unknown"),
        generator,
        encoder,
        detail,
        labels,
        directions,
        about["meta"],
        device,
        path,
    )
