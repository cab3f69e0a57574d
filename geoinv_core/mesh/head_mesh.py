"""What the mesh steps hand to the bundle, the exporters and Blender: one textured head."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float16 = npt.NDArray[np.float16]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

LANDMARKS = 68
"""The iBUG order: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67, from the subject's right."""


@dataclass(frozen=True)
class HeadMesh:
    """One head as Blender wants it. The arrays are not copied and must not be written to.

    vertices:  float32 [V, 3], metres, Blender axes (Z up, face towards -Y, origin at the neck base centre).
    faces:     int32 [F, 4], counter-clockwise from outside; the last index is -1 for a triangle.
    uv:        float32 [F, 4, 2] per face corner in 0..1, origin at the picture's lower left corner; the
               fourth corner of a triangle is (0, 0).
    landmarks: int32 [68], vertex of each landmark, or -1 for all of them where the model knows none.
    albedo:    uint8 [T, T, 3], sRGB, row 0 is the top (v = 1).
    shapes:    name -> float16 [V, 3], offsets from `vertices` in metres at value 1, in display order.
    maps:      name -> uint8 [M, M] or [M, M, 3], more pictures over the same UVs: "mask_NAME", 255 where the
               texture comes from a source or belongs to a region; "normal", tangent space, +Y up.
    groups:    name -> bool [V], the vertices of a region of the head; sides end in .L and .R, the subject's.
    """

    vertices: Float32
    faces: Int32
    uv: Float32
    landmarks: Int32
    albedo: UInt8
    shapes: Mapping[str, Float16] = field(default_factory=lambda: MappingProxyType({}))
    maps: Mapping[str, UInt8] = field(default_factory=lambda: MappingProxyType({}))
    groups: Mapping[str, Bool] = field(default_factory=lambda: MappingProxyType({}))

    def problem(self) -> str | None:
        """What is wrong with the arrays, as a clause for an error sentence; None where all is well."""
        return (
            _problem_of_surface(self.vertices, self.faces, self.uv)
            or _problem_of_landmarks(self.landmarks, len(self.vertices))
            or _problem_of_albedo(self.albedo)
            or _problem_of_shapes(self.shapes, len(self.vertices))
            or _problem_of_maps(self.maps)
            or _problem_of_groups(self.groups, len(self.vertices))
        )

    def triangles(self) -> tuple[Int32, Float32]:
        """Triangles int32 [N, 3] and their corner UVs float32 [N, 3, 2]; quads split along 0-2."""
        quad = self.faces[:, 3] >= 0
        faces = np.concatenate([self.faces[:, :3], self.faces[quad][:, [0, 2, 3]]])
        uv = np.concatenate([self.uv[:, :3], self.uv[quad][:, [0, 2, 3]]])
        return np.ascontiguousarray(faces), np.ascontiguousarray(uv)


def from_triangles(
    vertices: Float32,
    faces: Int32,
    uv: Float32,
    albedo: UInt8,
    landmarks: Int32 | None = None,
    shapes: Mapping[str, Float16] | None = None,
    maps: Mapping[str, UInt8] | None = None,
) -> HeadMesh:
    """A HeadMesh from triangles int32 [F, 3] with corner UVs [F, 3, 2].

    Raises: ValueError where the arrays do not fit each other (a mistake of the caller, not of the user).
    """
    count = len(faces)
    mesh = HeadMesh(
        vertices=np.ascontiguousarray(vertices, np.float32),
        faces=np.concatenate([faces, np.full((count, 1), -1)], 1).astype(np.int32),
        uv=np.concatenate([uv, np.zeros((count, 1, 2))], 1).astype(np.float32),
        landmarks=np.full(LANDMARKS, -1, np.int32) if landmarks is None else landmarks.astype(np.int32),
        albedo=albedo,
        shapes=dict(shapes or {}),
        maps=dict(maps or {}),
    )
    problem = mesh.problem()
    if problem:
        raise ValueError(f"The mesh is inconsistent: {problem}.")
    return mesh


def from_quads(
    vertices: Float32,
    faces: Int32,
    uv: Float32,
    albedo: UInt8,
    landmarks: Int32,
    shapes: Mapping[str, Float16],
    maps: Mapping[str, UInt8] | None = None,
    groups: Mapping[str, Bool] | None = None,
) -> HeadMesh:
    """A HeadMesh from quads int32 [F, 4] with corner UVs [F, 4, 2].

    Raises: ValueError as `from_triangles`.
    """
    mesh = HeadMesh(
        np.ascontiguousarray(vertices, np.float32),
        faces,
        uv,
        landmarks.astype(np.int32),
        albedo,
        dict(shapes),
        dict(maps or {}),
        dict(groups or {}),
    )
    problem = mesh.problem()
    if problem:
        raise ValueError(f"The mesh is inconsistent: {problem}.")
    return mesh


def nearest_vertices(vertices: Float32, points: npt.NDArray[np.floating[Any]]) -> Int32:
    """int32 [N]: for each of `points` [N, 3] the nearest vertex; both in the same frame and unit."""
    from scipy.spatial import cKDTree

    _, index = cKDTree(vertices).query(points)
    return np.asarray(index, np.int32)


def _problem_of_surface(vertices: Float32, faces: Int32, uv: Float32) -> str | None:
    if vertices.dtype != np.float32 or vertices.ndim != 2 or vertices.shape[1] != 3:
        return f"vertices must be float32 [V, 3], not {vertices.dtype} {list(vertices.shape)}"
    if not np.isfinite(vertices).all():
        return "vertices are not finite"
    if faces.dtype != np.int32 or faces.ndim != 2 or faces.shape[1] != 4 or len(faces) < 1:
        return f"faces must be int32 [F, 4] with F of at least 1, not {faces.dtype} {list(faces.shape)}"
    if faces[:, :3].min() < 0 or faces[:, 3].min() < -1 or faces.max() >= len(vertices):
        return "faces name vertices that do not exist"
    if uv.dtype != np.float32 or uv.shape != (len(faces), 4, 2):
        return f"uv must be float32 [{len(faces)}, 4, 2], not {uv.dtype} {list(uv.shape)}"
    if not np.isfinite(uv).all() or uv.min() < 0.0 or uv.max() > 1.0:
        return "uv leaves 0..1"
    return None


def _problem_of_landmarks(landmarks: Int32, count: int) -> str | None:
    if landmarks.dtype != np.int32 or landmarks.shape != (LANDMARKS,):
        return f"landmarks must be int32 [{LANDMARKS}], not {landmarks.dtype} {list(landmarks.shape)}"
    known = landmarks >= 0
    if landmarks.max() >= count or (known.any() and not known.all()) or landmarks.min() < -1:
        return "landmarks name vertices that do not exist"
    return None


def _problem_of_albedo(albedo: UInt8) -> str | None:
    if (
        albedo.dtype != np.uint8
        or albedo.ndim != 3
        or albedo.shape[2] != 3
        or albedo.shape[0] != albedo.shape[1]
    ):
        return f"albedo must be a square uint8 [T, T, 3], not {albedo.dtype} {list(albedo.shape)}"
    return None


def _problem_of_shapes(shapes: Mapping[str, Float16], count: int) -> str | None:
    for name, delta in shapes.items():
        if not name:
            return "a shape has no name"
        if delta.dtype != np.float16 or delta.shape != (count, 3):
            return f"shape {name} must be float16 [{count}, 3], not {delta.dtype} {list(delta.shape)}"
        if not np.isfinite(delta).all():
            return f"shape {name} is not finite"
    return None


def _problem_of_maps(maps: Mapping[str, UInt8]) -> str | None:
    for name, picture in maps.items():
        if not is_map(name):
            return f"a map may be called normal or mask_ and a plain word, not {name!r}"
        channels = picture.shape[2:] in ((3,),) if name == "normal" else picture.ndim == 2
        if (
            picture.dtype != np.uint8
            or picture.ndim < 2
            or picture.shape[0] != picture.shape[1]
            or not channels
        ):
            return f"map {name} must be a square of bytes, not {picture.dtype} {list(picture.shape)}"
    return None


def _problem_of_groups(groups: Mapping[str, Bool], count: int) -> str | None:
    for name, member in groups.items():
        if not name:
            return "a group has no name"
        if member.dtype != np.bool_ or member.shape != (count,):
            return f"group {name} must be bool [{count}], not {member.dtype} {list(member.shape)}"
    return None


def is_map(name: str) -> bool:
    """Whether a map may have this name, which is also its file's."""
    return name == "normal" or re.fullmatch(r"mask_[A-Za-z0-9_]+", name) is not None
