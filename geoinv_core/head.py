"""One head: its code, its camera, the photo it came from; what can be asked of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from geoinv_core import camera as cameras
from geoinv_core.detail import Detail, Texture, bake, carried, hue_left, look, sides_of, take, toned
from geoinv_core.detail.tint import no_tint, tinted
from geoinv_core.edit import HAIR_COLOUR, bared, directions
from geoinv_core.edit.local import moved_planes
from geoinv_core.errors import GeoInvError, ModelError
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.invert.hair import STEP as DARKER
from geoinv_core.invert.tune import tuned_copy
from geoinv_core.progress import OnProgress

if TYPE_CHECKING:
    from geoinv_core.mesh.head_mesh import HeadMesh
    from geoinv_core.model import Model
    from geoinv_core.render import Field

TUNED = "tuned."
"""Prefix of changed weights in a bundle's latent.safetensors."""
DRAWN = 256
"""Pictures are drawn with at most this many pixels a side and enlarged: the planes hold no more detail."""
DETAIL = "detail."
"""Prefix of what `detail` is made of."""
BACKDROP = 0.82
"""sRGB grey behind a rendered head."""


@dataclass(frozen=True, eq=False)
class Inversion:
    """What was found in a photo (or chosen): enough to draw the head."""

    w_plus: Tensor
    """float32 [1, L, w_dim]"""
    z: Tensor
    """float32 [1, z_dim]"""
    c: Tensor
    """float32 [1, c_dim] standardised labels"""
    camera: Tensor
    """float32 [25], of the aligned crop"""
    photo: NDArray[np.uint8] | None
    """uint8 [S, S, 3] sRGB aligned crop"""
    photo_hash: str | None
    mask: Tensor | None = None
    """float32 [1, 1, R, R] how much of the photo shows the head alone; None: all"""
    tuned: Mapping[str, Tensor] = field(default_factory=dict)
    """What tuning added to the generator's weights, by name; empty for the model's own generator"""
    detail: Texture | None = None
    """What the photo shows beyond the code, on the unedited head"""


@dataclass(frozen=True, eq=False)
class Head:
    """Immutable; `edit` makes a new one."""

    model: Model
    inversion: Inversion
    notes: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    """seconds per stage"""
    original: Head | None = None
    """the unedited head, whose photo still tells what edits leave alone"""
    edits: Mapping[str, float] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        return list(self.notes)

    @property
    def camera(self) -> Tensor:
        """float32 [25], the camera of the aligned crop."""
        return self.inversion.camera

    @cached_property
    def labels(self) -> dict[str, float]:
        """Estimated (or set) labels in natural units, and how far the head was moved along each direction of
        its model; empty for a model that has neither."""
        space = self.model.label_space
        found = {} if space is None else space.read(self.inversion.c[0])
        return found | {name: float(self.edits.get(name, 0.0)) for name in self.model.directions.names}

    @cached_property
    def generator(self) -> TriplaneGenerator:
        """The model's generator, or this head's own where it was tuned to a photo."""
        return tuned_copy(self.model.generator, self.inversion.tuned)

    @cached_property
    def planes(self) -> Tensor:
        """Feature planes, made once per head: views, surface and texture share them. An edit of
        expression or weight changes them where it moves something (see `edit.local`)."""
        now, space = self.inversion, self.model.label_space
        with torch.inference_mode():
            if self.original is None or space is None:
                return self.generator.planes(now.w_plus)
            calm = space.with_movement_of(now.c[0], self.original.inversion.c[0])[None]
            if torch.equal(calm, now.c):
                return self.generator.planes(now.w_plus)
            step = self.generator.map(now.z, now.c) - self.generator.map(now.z, calm)
            return moved_planes(self.generator, now.w_plus - step, now.w_plus)

    @cached_property
    def plain_field(self) -> Field:
        """Density (or distance) and colour of this head in space, as its code says."""
        with torch.inference_mode():
            return self.generator.colour_field(self.planes, self.inversion.w_plus)

    @cached_property
    def field(self) -> Field:
        """The same with the photo's detail: other colours, on exactly the same surface."""
        plain, texture = self.plain_field, self.inversion.detail
        if texture is None:
            return plain
        with torch.inference_mode():
            if self.original is not None:
                texture = self._edited(texture, self.original)
            return bake(plain, texture)

    def _edited(self, texture: Texture, before: Head) -> Texture:
        """The detail of the unedited head, gone where the edit took it, and its hue where that is left."""
        plain, R = self.plain_field, texture.change.shape[-1]
        sides = sides_of(plain)
        texture = carried(self.generator, sides, texture, before.inversion.w_plus, self.inversion.w_plus)
        space, c, old = self.model.label_space, self.inversion.c[0], before.inversion.c[0]
        if space is not None and torch.equal(space.with_movement_of(c, old), old):
            return texture  # no colour was touched
        was, now = (look(tinted(one, texture.tint), sides, R).colour for one in (before.plain_field, plain))
        hair = hue_left(*(space.hair_colour(x) for x in (old, c))) if space is not None else 1.0
        return toned(texture, sides, was, now, hair)

    @cached_property
    def bare(self) -> Head:
        """This head without glasses, as its mesh is; itself where it wears none."""
        return bared(self)

    def detailed(self, network: Detail, photo: Tensor) -> Head:
        """This head with the detail of its photo [1, 3, S, S] (sRGB in -1..1, as its camera sees it)."""
        camera = self.camera[None].to(self.model.device)
        now = self.inversion
        other = self.other_hair()
        texture = take(network, self.generator, self.plain_field, photo, camera, now.mask, other)
        head = replace(self, inversion=replace(now, detail=texture))
        head.__dict__.update(planes=self.planes, plain_field=self.plain_field)  # the code is the same
        return head

    def other_hair(self) -> Field | None:
        """The same head with darker hair; None where it has no hair, or its model no such label."""
        now, space = self.inversion, self.model.label_space
        if space is None or HAIR_COLOUR[0] not in space.index:
            return None
        if space.choices(now.c[0]).get("hair") == "bald":
            return None
        c = now.c.clone()
        c[:, [space.index[name] for name in HAIR_COLOUR]] += DARKER
        with torch.inference_mode():
            ws = now.w_plus + self.generator.map(now.z, c) - self.generator.map(now.z, now.c)
            return self.generator.colour_field(self.generator.planes(ws), ws)

    @property
    def unit_mm(self) -> float:
        return float(self.generator.config.unit_mm)

    def render(
        self, yaw: float = 0.0, pitch: float = 0.0, size: int = 512, camera: Tensor | None = None
    ) -> Image.Image:
        """Draw the head.

        Args:
            yaw, pitch: degrees of an orbit camera; size: pixels; camera: 25 numbers instead of yaw and pitch.
        Returns: an RGB picture, over light grey unless the model draws its own background (those with
            super-resolution do).
        """
        if not 8 <= size <= 4096:
            raise GeoInvError(
                f"A picture of {size} pixels cannot be drawn; choose a size from 8 to 4096.", "size"
            )
        k = self.generator.config
        view = (
            cameras.orbit(yaw, pitch, k.camera_radius, target=k.camera_target)
            if camera is None
            else torch.as_tensor(camera, dtype=torch.float32).reshape(25)
        )
        if k.superresolution is not None:
            return self._synthesized(view, size)
        drawn = min(size, DRAWN)
        rgb, _, _ = self.look(view, drawn)
        picture = Image.fromarray((rgb * 255).round().astype(np.uint8))
        return picture if drawn == size else picture.resize((size, size), Image.Resampling.LANCZOS)

    def _synthesized(self, camera: Tensor, size: int) -> Image.Image:
        """The model's final picture, through its super-resolution."""
        generator = self.generator
        with torch.inference_mode():
            found = generator.synthesize(
                self.inversion.w_plus, camera[None].to(self.model.device), planes=self.planes
            )
        rgb = (found.image[0].float() * 127.5 + 128).clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
        picture = Image.fromarray(rgb)
        return picture if picture.width == size else picture.resize((size, size), Image.Resampling.LANCZOS)

    def look(
        self, camera: Tensor, size: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Colour over the backdrop [S, S, 3] sRGB 0..1, depth along the ray [S, S], opacity [S, S]."""
        with torch.inference_mode():
            out = self.generator.draw(self.field, camera[None].to(self.model.device), size)
        colour = out.features[0, :3].permute(1, 2, 0)
        opacity = out.opacity[0, 0]
        colour = colour + (1 - opacity[..., None]) * BACKDROP
        return (
            colour.clamp(0, 1).float().cpu().numpy(),
            out.depth[0, 0].float().cpu().numpy(),
            opacity.float().cpu().numpy(),
        )

    def edit(self, labels: Mapping[str, float]) -> Head:
        """A new head with some labels changed; this one is untouched. Raises EditError."""
        model, now = self.model, self.inversion
        own = {name: value for name, value in labels.items() if name not in model.directions}
        if own and model.label_space is None:
            raise directions.unknown(next(iter(own)), model.directions, model.name)
        c, w_plus = now.c, now.w_plus
        if own and model.label_space is not None:
            c = model.label_space.apply(now.c[0].cpu(), own).to(now.c)[None]
            with torch.inference_mode():
                w_plus = w_plus + self.generator.map(now.z, c) - self.generator.map(now.z, now.c)
        along = {name: value for name, value in labels.items() if name in model.directions}
        w_plus = model.directions.apply(w_plus, self.labels, along)
        changed = replace(now, w_plus=w_plus, c=c)
        edits = {**self.edits, **labels}
        return Head(model, changed, self.notes, {}, self.original or self, edits)

    def mesh(
        self,
        topology: str = "quads",
        texture: int = 1024,
        on_progress: OnProgress | None = None,
        shapes: bool = True,
    ) -> HeadMesh:
        """The textured surface in metres, Blender axes.

        Args:
            topology: "quads" (one template for all heads, with shape keys) or "raw" (triangles).
            texture: side in pixels. shapes: False leaves the shape keys out, which takes most of the time.
        Raises: GeoInvError, Cancelled.
        """
        from geoinv_core.mesh.assemble import assemble

        return assemble(self, topology, texture, on_progress, shapes)[0]

    def save(
        self,
        folder: str | Path,
        topology: str = "quads",
        texture: int = 1024,
        on_progress: OnProgress | None = None,
        shapes: bool = True,
    ) -> Path:
        """Write the head bundle (mesh, texture, shape keys, latent, pictures); arguments as for `mesh`.

        Raises OutputError, GeoInvError, Cancelled.
        """
        from geoinv_core.mesh import bundle
        from geoinv_core.mesh.assemble import assemble

        start = time.perf_counter()
        mesh, frame, warnings = assemble(self, topology, texture, on_progress, shapes)
        timings = {**self.timings, "mesh": round(time.perf_counter() - start, 3)}
        now = self.inversion
        about: dict[str, Any] = {
            "model": {"name": self.model.name, "hash": self.model.hash, "licence": self.model.licence},
            "photo_hash": now.photo_hash,
            "camera": now.camera.tolist(),
            "unit_mm": self.unit_mm,
            "origin": list(frame.origin),
            "labels": self.labels,
            "edits": dict(self.edits),
            "topology": topology,
            "timings": timings,
            "warnings": list(dict.fromkeys([*self.notes, *warnings])),
        }
        tensors = {"w_plus": now.w_plus, "z": now.z, "c": now.c}
        if self.original is not None:
            tensors |= {
                "original.w_plus": self.original.inversion.w_plus,
                "original.c": self.original.inversion.c,
            }
        if now.mask is not None:
            tensors["mask"] = now.mask
        arrays = {name: value.float().cpu().numpy() for name, value in tensors.items()}
        if now.detail is not None:
            arrays |= {DETAIL + name: part.half().cpu().numpy() for name, part in vars(now.detail).items()}
        arrays |= {TUNED + name: change.half().cpu().numpy() for name, change in now.tuned.items()}
        photo = None if now.photo is None else Image.fromarray(now.photo)
        return bundle.write(
            folder, bundle.BundleContents(about, arrays, mesh, self.bare.render(size=512), photo), on_progress
        )


def load_head(folder: str | Path, device: str = "auto") -> Head:
    """Read a head bundle; its model has to be at hand. Raises ModelError."""
    from geoinv_core.mesh import bundle
    from geoinv_core.model import open_model

    contents = bundle.read(Path(folder))
    about = contents.head
    model = open_model(about["model"]["name"], device)
    if model.hash != about["model"]["hash"]:
        raise ModelError(
            f"The head in {Path(folder).name} was made by another version of the model {model.name}; "
            "make it again from its photo, or install the version it was made with.",
            "other_model",
        )
    t = {name: torch.from_numpy(np.array(value)).to(model.device) for name, value in contents.tensors.items()}
    photo = None if contents.photo is None else np.asarray(contents.photo.convert("RGB")).copy()
    camera = torch.tensor(about["camera"], dtype=torch.float32)
    tuned = {name.removeprefix(TUNED): t.pop(name) for name in list(t) if name.startswith(TUNED)}
    detail = _detail({n.removeprefix(DETAIL): t.pop(n) for n in list(t) if n.startswith(DETAIL)}, folder)
    sizes = {name: p.numel() for name, p in model.generator.named_parameters()}
    if any(sizes.get(name) != change.numel() for name, change in tuned.items()):
        raise ModelError(
            f"The tuned weights of the head in {Path(folder).name} are damaged; make it again from its photo."
        )
    photo_hash, mask = about.get("photo_hash"), t.get("mask")
    found = Inversion(t["w_plus"], t["z"], t["c"], camera, photo, photo_hash, mask, tuned, detail)
    notes, timings = tuple(about["warnings"]), dict(about["timings"])
    if "original.w_plus" not in t:
        return Head(model, found, notes, timings)
    original = Head(model, replace(found, w_plus=t["original.w_plus"], c=t["original.c"]), notes)
    return Head(model, found, notes, timings, original, about.get("edits", {}))


def _detail(parts: dict[str, Tensor], folder: str | Path) -> Texture | None:
    if not parts:
        return None
    parts = {"tint": no_tint()} | parts  # heads of older versions have none
    shapes = {name: tuple(part.shape) for name, part in parts.items()}
    S, *_, R = shapes.get("change", (0, 0))
    if shapes != {"change": (S, 3, R, R), "height": (S, R, R), "middle": (S,), "tint": (3, 4)}:
        raise ModelError(
            f"The detail of the head in {Path(folder).name} is damaged; make it again from its photo."
        )
    return Texture(**{name: part.float() for name, part in parts.items()})
