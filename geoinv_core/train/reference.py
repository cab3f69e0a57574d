"""The mean face of the synthetic heads, for `photo.framing`, and how well cameras follow from landmarks:

python -m geoinv_core train reference --derive 400
python -m geoinv_core train reference --measure 200 --framing eg3d
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoinv_core.camera import FOCAL, orbit
from geoinv_core.heads import EVALUATION_SEEDS, HeadAssets, HeadGeometry, Layers, build, picture, sample
from geoinv_core.photo import align, framing, landmarks
from geoinv_core.train.landmarks import _HEAD_NAMES

F64 = NDArray[np.float64]
_PICTURE = 320
"""Side of the drawn pictures, pixels."""
_BROW = 0.55
"""Height of the face above the nasion, in distances from nasion to chin."""
_SIDE = 0.15
"""How far before the ears the face begins, in distances from ears to nose tip."""


def landmarks_of(geometry: HeadGeometry) -> F64:
    """[14, 3] world, in the order of landmarks.NAMES."""
    return torch.stack([geometry.landmarks[n] for n in _HEAD_NAMES]).double().cpu().numpy()


def face_centre(geometry: HeadGeometry) -> F64:
    """Centroid of the surface between ears, chin and hairline that does not look backwards, world [3]."""
    marks = dict(zip(landmarks.NAMES, landmarks_of(geometry), strict=True))
    skin = geometry.parts[0]
    corners = skin.vertices[skin.triangles].double().cpu().numpy()
    normals = skin.normals[skin.triangles].double().mean(1).cpu().numpy()
    middle = corners.mean(1)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    ears = (marks["ear_left"][2] + marks["ear_right"][2]) / 2
    top = marks["nasion"][1] + _BROW * (marks["nasion"][1] - marks["chin"][1])
    face = (middle[:, 1] > marks["chin"][1] - 0.02) & (middle[:, 1] < top) & (normals[:, 2] > -0.2)
    face &= middle[:, 2] > ears + _SIDE * (marks["nose_tip"][2] - ears)
    centre: F64 = (middle[face] * area[face, None]).sum(0) / area[face].sum()
    return centre


def derive(assets: HeadAssets, heads: int) -> dict[str, Any]:
    """Mean landmarks (decimetres about the face's centroid), unit (decimetres) and centroid (world)."""
    if heads > EVALUATION_SEEDS:
        raise ValueError(f"Seeds from {EVALUATION_SEEDS} up are for evaluation.")
    marks, units, centres = [], [], []
    for seed in range(heads):
        geometry = build(assets, [sample(assets, seed)])[0]
        unit, centre = geometry.unit_mm / 100, face_centre(geometry)
        marks.append((landmarks_of(geometry) - centre) * unit)
        units.append(unit)
        centres.append(centre)
    mean = np.mean(marks, 0)
    mirrored = mean[list(landmarks.MIRROR)] * [-1, 1, 1]
    points = dict(zip(landmarks.NAMES, ((mean + mirrored) / 2).round(4).tolist(), strict=True))
    centre = np.mean(centres, 0) * [0, 1, 1]
    return {"points": points, "unit": round(float(np.mean(units)), 4), "origin": centre.round(4).tolist()}


def measure(assets: HeadAssets, heads: int, kind: framing.Framing) -> dict[str, float]:
    """Cameras from detected landmarks on held-out heads, yaw up to 45 and pitch up to 20 degrees.

    Returns: medians and 90th percentiles of: the error of yaw, pitch and the whole rotation, degrees; the
    network's own yaw and pitch; and the distance between landmarks as the estimated camera shows those of the
    true head and where they are, pixels of a crop of 512.
    """
    rows = []
    for seed in range(EVALUATION_SEEDS, EVALUATION_SEEDS + heads):
        random = np.random.default_rng([17, seed])
        yaw, pitch = float(random.uniform(-45, 45)), float(random.uniform(-20, 20))
        geometry = build(assets, [sample(assets, seed)])[0]
        camera = orbit(yaw, pitch, focal=FOCAL / 1.5, roll=float(random.uniform(-10, 10)))
        drawn = picture(assets, Layers(assets, geometry), camera.to(assets.device), _PICTURE)
        rgb = (drawn.rgb * 255).round().byte().cpu().numpy()
        found = landmarks.find(rgb, (_PICTURE / 2, _PICTURE / 2), _PICTURE / 3)
        matrix = align.matrix_of(*kind.square(found.points), 1)
        points = {n: align.transform(matrix, p) for n, p in found.points.items()}
        scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
        spread = {n: s * scale for n, s in found.spread.items()}
        estimate = kind.camera(points, spread, (found.yaw, found.pitch))
        rows.append(_errors(estimate, camera.double().numpy(), matrix, geometry, kind, (yaw, pitch), found))
    table = np.array(rows)
    names = ("yaw", "pitch", "rotation", "network_yaw", "network_pitch", "pixels")
    report: dict[str, float] = {"heads": float(heads)}
    for name, column in zip(names, table.T, strict=True):
        report[f"{name}_median"], report[f"{name}_p90"] = np.percentile(column, [50, 90]).round(2).tolist()
    return report


def _errors(
    estimate: F64, true: F64, matrix: F64, geometry: HeadGeometry, kind: framing.Framing,
    angles: tuple[float, float], found: landmarks.Landmarks,
) -> list[float]:  # fmt: skip
    mine, right = estimate[:16].reshape(4, 4), true[:16].reshape(4, 4)
    # The crop's camera looks through the crop's middle, upright as the crop is.
    inverse = align.invert(matrix)
    middle, beside = align.transform(inverse, [[0.5, 0.5], [0.6, 0.5]]) / _PICTURE
    ahead = np.array([*((middle - 0.5) / true[16]), 1.0])
    across = np.array([*((beside - middle) / true[16]), 0.0])
    z = ahead / np.linalg.norm(ahead)
    x = across - (across @ z) * z
    x /= np.linalg.norm(x)
    aimed = right[:3, :3] @ np.stack([x, np.cross(z, x), z], 1)
    apart = mine[:3, :3] @ aimed.T
    angle = np.degrees(np.arccos(np.clip((np.trace(apart) - 1) / 2, -1, 1)))
    yaw, pitch = (
        np.degrees(np.arctan2(mine[0, 3], mine[2, 3])),
        np.degrees(np.arcsin(mine[1, 3] / kind.radius)),
    )
    names = [landmarks.NAMES.index(n) for n in framing.STEADY]
    marks = landmarks_of(geometry)[names]
    own = (marks - face_centre(geometry)) * (geometry.unit_mm / 100) / kind.unit + kind.origin

    def seen(points: F64, cam2world: F64, focal: float) -> F64:
        local = (points - cam2world[:3, 3]) @ cam2world[:3, :3]
        return np.asarray(local[:, :2] / local[:, 2:] * focal + 0.5)

    actual = align.transform(matrix, seen(marks, right, true[16]) * _PICTURE)
    shown = seen(own, mine, kind.focal)
    pixels = float(np.linalg.norm(shown - actual, axis=1).mean() * 512)
    return [
        abs(yaw - angles[0]), abs(pitch - angles[1]), float(angle),
        abs(found.yaw - angles[0]), abs(found.pitch - angles[1]), pixels,
    ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="geoinv train reference", description=__doc__)
    parser.add_argument("--heads", help="folder of the head data (default: GEOINV_HEADS)")
    parser.add_argument("--derive", type=int, metavar="N", help="from the first N training heads")
    parser.add_argument("--measure", type=int, metavar="N", help="on N held-out heads")
    parser.add_argument("--framing", choices=("ffhq", "eg3d"), default="eg3d")
    options = parser.parse_args(argv)
    if not options.derive and not options.measure:
        parser.error("give --derive N or --measure N")
    assets = HeadAssets.open(options.heads)
    kind = framing.EG3D if options.framing == "eg3d" else framing.FFHQ
    result: dict[str, Any] = {}
    if options.derive:
        result["reference"] = derive(assets, options.derive)
    if options.measure:
        result[kind.name] = measure(assets, options.measure, kind)
    return result
