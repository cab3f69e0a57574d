"""The quad head that all heads share: vertices, faces, UVs, landmarks, regions, made by `template_build`."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from geoinv_core.errors import ModelError
from geoinv_core.mesh.cage import TAGS

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Bool = npt.NDArray[np.bool_]

FILE = Path(__file__).with_name("template.npz")


@dataclass(frozen=True, eq=False)
class Template:
    """Arrays in world units, x to the subject's left, y up, the face along +z.

    vertices: float32 [V, 3], exactly symmetric about x = 0. faces: int32 [F, 4], quads, counter-clockwise
    from outside. uv: float32 [F, 4, 2] in 0..1. mirror: int32 [V], each vertex's counterpart. landmarks:
    int32 [68], iBUG's order. tags: bool [V, len(TAGS)], see `cage`. anchors: int32 [A], vertices whose place
    in a labelled head is known, see `anchors`. weights: float16 [T, 3 A], features: names of its T rows.
    """

    vertices: Float32
    faces: Int32
    uv: Float32
    mirror: Int32
    landmarks: Int32
    tags: Bool
    anchors: Int32
    weights: npt.NDArray[np.float16]
    features: tuple[str, ...]

    def tagged(self, *names: str) -> Bool:
        """bool [V]: vertices that carry any of these tags."""
        found: Bool = self.tags[:, [TAGS.index(name) for name in names]].any(1)
        return found

    @cached_property
    def hidden(self) -> Bool:
        """bool [V]: what no field shows, and is laid by rule: the mouth's inside, lid pockets, eyeballs."""
        bag = self.tagged("bag") & ~self.tagged("lip_line")
        return bag | ((self.tagged("pocket") | self.tagged("eyeball")) & ~self.tagged("rim"))

    @cached_property
    def groups(self) -> dict[str, Bool]:
        """Regions as artists select them, name -> bool [V]; the subject's left ends in .L."""
        line = self.tagged("lip_line")
        inside = self.tagged("bag") & ~line
        eyes = self.tagged("eyeball") | (self.tagged("pocket") & ~self.tagged("rim"))
        ears = self.tagged("ear")
        lids = self.tagged("lid", "rim") & ~eyes
        face = self.tagged("face") & ~ears & ~inside & ~eyes
        neck = self.tagged("neck") & ~face
        scalp = self.tagged("cranium") & ~(face | neck | ears)
        left = self.vertices[:, 0] > 0
        found = {"face": face, "scalp": scalp, "neck": neck, "lips": self.tagged("lips") | line}
        for name, part in (("ear", ears), ("lids", lids), ("eye", eyes)):
            found |= {f"{name}.L": part & left, f"{name}.R": part & ~left}
        return found | {"mouth_inside": inside, "neck_ring": self.tagged("neck_ring")}

    @cached_property
    def triangles(self) -> Int32:
        """int32 [2 F, 3], every quad split along its first diagonal."""
        return np.concatenate([self.faces[:, :3], self.faces[:, [0, 2, 3]]])


@cache
def load(path: Path = FILE) -> Template:
    """The template of the bundled data file. Raises: ModelError where it is missing or damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        return Template(
            arrays["vertices"],
            arrays["faces"],
            arrays["uv"],
            arrays["mirror"],
            arrays["landmarks"],
            np.unpackbits(arrays["tags"], axis=1, count=len(TAGS)).astype(bool),
            arrays["anchors"],
            arrays["weights"],
            tuple(str(name) for name in arrays["features"]),
        )
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(
            f"The head template {path.name} cannot be read ({type(error).__name__}); install GeoInv again, "
            "or rebuild it with `python -m geoinv_core.mesh.template_build`.",
            "template",
        ) from error


def save(template: Template, path: Path = FILE) -> None:
    """Write the data file that `load` reads."""
    np.savez_compressed(
        path,
        vertices=template.vertices,
        faces=template.faces,
        uv=template.uv,
        mirror=template.mirror,
        landmarks=template.landmarks,
        tags=np.packbits(template.tags, axis=1),
        anchors=template.anchors,
        weights=template.weights,
        features=np.array(template.features),
    )
