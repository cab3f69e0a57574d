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
from geoinv_core.errors import EditError, GeoInvError, ModelError
from geoinv_core.progress import OnProgress

if TYPE_CHECKING:
    from geoinv_core.mesh.head_mesh import HeadMesh
    from geoinv_core.model import Model

DRAWN = 256
"""Pictures are drawn with at most this many pixels a side and enlarged: the planes hold no more detail."""
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
        """Estimated (or set) labels in natural units; empty for a model without labels."""
        space = self.model.label_space
        return {} if space is None else space.read(self.inversion.c[0])

    @cached_property
    def planes(self) -> Tensor:
        """Feature planes, made once per head: views, surface and texture share them."""
        with torch.inference_mode():
            return self.model.generator.planes(self.inversion.w_plus)

    @property
    def unit_mm(self) -> float:
        return float(self.model.generator.config.unit_mm)

    def render(
        self, yaw: float = 0.0, pitch: float = 0.0, size: int = 512, camera: Tensor | None = None
    ) -> Image.Image:
        """Draw the head.

        Args:
            yaw, pitch: degrees of an orbit camera; size: pixels; camera: 25 numbers instead of yaw and pitch.
        Returns: an RGB picture over light grey.
        """
        if not 8 <= size <= 4096:
            raise GeoInvError(
                f"A picture of {size} pixels cannot be drawn; choose a size from 8 to 4096.", "size"
            )
        drawn = min(size, DRAWN)
        view = (
            cameras.orbit(yaw, pitch)
            if camera is None
            else torch.as_tensor(camera, dtype=torch.float32).reshape(25)
        )
        rgb, _, _ = self.look(view, drawn)
        picture = Image.fromarray((rgb * 255).round().astype(np.uint8))
        return picture if drawn == size else picture.resize((size, size), Image.Resampling.LANCZOS)

    def look(
        self, camera: Tensor, size: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Colour over the backdrop [S, S, 3] sRGB 0..1, depth along the ray [S, S], opacity [S, S]."""
        generator = self.model.generator
        with torch.inference_mode():
            out = generator.render(
                self.planes, camera[None].to(self.model.device), size, ws=self.inversion.w_plus
            )
        colour = out.features[0, :3].permute(1, 2, 0)
        opacity = out.opacity[0, 0]
        if generator.config.signed:
            colour = (colour + 1) / 2
        colour = colour + (1 - opacity[..., None]) * BACKDROP
        return (
            colour.clamp(0, 1).float().cpu().numpy(),
            out.depth[0, 0].float().cpu().numpy(),
            opacity.float().cpu().numpy(),
        )

    def edit(self, labels: Mapping[str, float]) -> Head:
        """A new head with some labels changed; this one is untouched. Raises EditError."""
        space = self.model.label_space
        if space is None:
            raise EditError(f"{self.model.name} has no labels to edit; use the default model.")
        now = self.inversion
        c = space.apply(now.c[0].cpu(), labels).to(now.c)[None]
        generator = self.model.generator
        with torch.inference_mode():
            moved = generator.map(now.z, c) - generator.map(now.z, now.c)
        return Head(
            self.model,
            replace(now, w_plus=now.w_plus + moved, c=c),
            self.notes,
            {},
            self.original or self,
            {**self.edits, **labels},
        )

    def mesh(
        self, topology: str = "raw", texture: int = 1024, on_progress: OnProgress | None = None
    ) -> HeadMesh:
        """The textured surface in metres, Blender axes. Raises GeoInvError, Cancelled."""
        from geoinv_core.mesh.assemble import assemble

        return assemble(self, topology, texture, on_progress)[0]

    def save(
        self,
        folder: str | Path,
        topology: str = "raw",
        texture: int = 1024,
        on_progress: OnProgress | None = None,
    ) -> Path:
        """Write the head bundle (mesh, texture, latent, pictures). Raises OutputError, GeoInvError,
        Cancelled."""
        from geoinv_core.mesh import bundle
        from geoinv_core.mesh.assemble import assemble

        start = time.perf_counter()
        mesh, frame, warnings = assemble(self, topology, texture, on_progress)
        timings = {**self.timings, "mesh": round(time.perf_counter() - start, 3)}
        now = self.inversion
        about: dict[str, Any] = {
            "model": {"name": self.model.name, "hash": self.model.hash},
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
        arrays = {name: value.float().cpu().numpy() for name, value in tensors.items()}
        photo = None if now.photo is None else Image.fromarray(now.photo)
        return bundle.write(
            folder, bundle.BundleContents(about, arrays, mesh, self.render(size=512), photo), on_progress
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
    found = Inversion(t["w_plus"], t["z"], t["c"], camera, photo, about.get("photo_hash"))
    notes, timings = tuple(about["warnings"]), dict(about["timings"])
    if "original.w_plus" not in t:
        return Head(model, found, notes, timings)
    original = Head(model, replace(found, w_plus=t["original.w_plus"], c=t["original.c"]), notes)
    return Head(model, found, notes, timings, original, about.get("edits", {}))
