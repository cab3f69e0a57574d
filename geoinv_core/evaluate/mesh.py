"""Meshes of held-out heads: how near to field and truth, how sound, how well textured, how they move.

Lengths in millimetres, colours as PSNR in decibels on sRGB in 0..1, times in seconds of CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from geoinv_core.camera import orbit
from geoinv_core.errors import PhotoError
from geoinv_core.evaluate.generator import layout_of
from geoinv_core.evaluate.inversion import photo_of
from geoinv_core.evaluate.measures import mean_of, psnr
from geoinv_core.evaluate.truth import REGIONS, TrueHead, draw_truth
from geoinv_core.head import Head
from geoinv_core.heads import HeadAssets, picture, sample
from geoinv_core.heads.labels import Light
from geoinv_core.heads.surface import OuterSurface
from geoinv_core.mesh.assemble import fitted
from geoinv_core.mesh.bake import Baked, texel_map
from geoinv_core.mesh.closest import ClosestPoints
from geoinv_core.mesh.colour import to_linear, to_srgb
from geoinv_core.mesh.crossing import crossed_quads
from geoinv_core.mesh.fit import fitter
from geoinv_core.mesh.keys import shape_keys
from geoinv_core.mesh.lattice import field_query
from geoinv_core.mesh.raster import Coverage, project_points, rasterise
from geoinv_core.mesh.surface import extract
from geoinv_core.mesh.texture import texture_of
from geoinv_core.mesh.visibility import sample as sample_picture
from geoinv_core.model import Model
from geoinv_core.photo import prepare

Array = npt.NDArray[Any]
OnHead = Callable[[int, str], None]

_POINTS = 2000
_LATTICE = 160
_SAME_FRONT = 0.006
"""World units that the mesh may lie behind the nearest surface and still be what the photo shows."""
NEW_LIGHT = Light(direction=(-0.6, 0.5, 0.62), sky=(0.45, 0.5, 0.6), ground=(0.3, 0.25, 0.2))
"""The light that an albedo is judged under."""
_AROUND = 33
"""Texels around a blend border that its gradient is compared with."""


def evaluate_mesh(
    model: Model,
    assets: HeadAssets,
    seeds: list[int],
    texture: int,
    keys: bool = True,
    photo: Path | None = None,
    on_head: OnHead | None = None,
) -> dict[str, Any]:
    """Figures of every head, their mean, largest and smallest.

    Args:
        seeds: of held-out heads. texture: side in pixels. keys: whether to make shape keys, too.
        photo: one more head from a photo, of which no truth is known.
    """
    layout_of(model)
    rows: dict[str, dict[str, float]] = {}
    for done, seed in enumerate(seeds, 1):
        true = draw_truth(assets, sample(assets, seed), {"front": 0.0}, 256)
        try:
            rows[str(seed)] = _drawn_head(model, assets, true, texture, keys)
        except PhotoError as error:
            rows[str(seed)] = {"missed": 1.0}
            if on_head is not None:
                on_head(done, str(error))
            continue
        if on_head is not None:
            on_head(done, ", ".join(f"{name} {value:.2f}" for name, value in rows[str(seed)].items()))
    if photo is not None:
        rows[photo.name] = of_photo(model, photo.read_bytes(), texture, keys)[0]
    mean = mean_of(rows.values())
    all_of = {name: [row[name] for row in rows.values() if name in row] for name in mean}
    largest, smallest = ({name: pick(found) for name, found in all_of.items()} for pick in (max, min))
    return {"mean": mean, "largest": largest, "smallest": smallest, "heads": rows}


def of_photo(
    model: Model, photo: bytes, texture: int, keys: bool
) -> tuple[dict[str, float], Head, npt.NDArray[np.float64], Baked]:
    """Figures that need no truth; the head, its vertices [V, 3] in world units, and its texture.

    Head and photo are without glasses, as meshes are.
    """
    head, spent = _timed(lambda: model.invert(photo).bare)
    found = {"seconds.invert": spent}
    (points, _), found["seconds.fit"] = _timed(lambda: fitted(head))
    t = fitter().template
    mm = head.unit_mm
    found |= surface_figures(head, points)
    flat = np.concatenate([t.uv[:, :3], t.uv[:, [0, 2, 3]]])
    vertices = points.astype(np.float32)
    baked, found["seconds.texture"] = _timed(
        lambda: texture_of(
            head, vertices, t.triangles, flat, texture, t.mirror, mouth=t.groups["mouth_inside"]
        )
    )
    assert baked.light is not None
    assert head.inversion.photo is not None
    shown, covered = drawn(head, vertices, baked.albedo)
    light = covered.interpolate(baked.light, t.triangles)
    lit = to_srgb(np.clip(to_linear(shown) * np.exp(light), 0, 1))
    face = seen_face(head, vertices, covered)
    crop = head.inversion.photo.reshape(-1, 3)[covered.pixel] / 255.0
    found["psnr.relit"] = psnr(lit, crop, face)
    found |= {"seam": seam(baked), "face_pixels": float(face.sum())}
    if keys:
        moved, found["seconds.keys"] = _timed(lambda: shape_keys(head, fitter(), points))
        found |= key_figures(points + moved["neutral"], moved, mm)
    return found, head, points, baked


def surface_figures(head: Head, points: npt.NDArray[np.float64]) -> dict[str, float]:
    """Distance of the skin to the field, and the share of faces that cross others, per cent."""
    t, (skin, off) = fitter().template, _off_field(head, points)
    distance = off[skin]
    return {
        "skin_mm": float(distance.mean()),
        "skin_mm.p99": float(np.quantile(distance, 0.99)),
        "crossed_percent": 100 * float(crossed_quads(points, t.faces).mean()),
    }


def _off_field(
    head: Head, points: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Which vertices are skin, [V], and how far each lies off the field's surface, millimetres [V]."""
    f = fitter()
    query = field_query(head.field, head.generator.config.surface_level)
    skin = f.seen & f.template.tagged("face") & ~f.template.tagged("ear")
    return skin, np.abs(query(points.astype(np.float32))) * head.unit_mm


def key_figures(
    rest: npt.NDArray[np.float64], moved: dict[str, npt.NDArray[np.float64]], mm: float
) -> dict[str, float]:
    """What some keys do to a head without expression: how far jawOpen parts the lips and blink leaves the
    lids apart, what mouthClose leaves of what jawOpen parts, what share of faces crosses under them, and the
    longest edge of the face under jawOpen."""
    f = fitter()
    t = f.template
    lips = f.pairs[np.isin(f.pairs[:, 0], np.flatnonzero(t.tagged("lip_line")))]
    lids = f.pairs[np.isin(f.pairs[:, 0], np.flatnonzero(t.tagged("rim")))]
    opened, closed = rest + moved["jawOpen"], rest + moved["blink"]
    shut = moved["jawOpen"] + moved["mouthClose"]
    around = t.faces[(t.tagged("face") & f.seen)[t.faces].all(1)]
    edge = np.linalg.norm(opened[around] - opened[np.roll(around, -1, 1)], axis=2)
    return {
        "keys": float(len(moved)),
        "jaw_opens_mm": float((opened[lips[:, 0], 1] - opened[lips[:, 1], 1]).max()) * mm,
        "jaw_longest_edge_mm": float(edge.max()) * mm,
        "blink_leaves_mm": float(np.abs(closed[lids[:, 0], 1] - closed[lids[:, 1], 1]).max()) * mm,
        "mouth_close_leaves_mm": float(np.linalg.norm(shut[lips[:, 0]] - shut[lips[:, 1]], axis=1).max())
        * mm,
        "crossed_percent.mouthClose": 100 * float(crossed_quads(rest + shut, t.faces).mean()),
        "crossed_percent.jawOpen": 100 * float(crossed_quads(opened, t.faces).mean()),
        "crossed_percent.blink": 100 * float(crossed_quads(closed, t.faces).mean()),
    }


def drawn(head: Head, vertices: npt.NDArray[np.float32], albedo: Array) -> tuple[Array, Coverage]:
    """The textured mesh without light through the photo's camera: colours sRGB 0..1 [N, 3] of its pixels."""
    t = fitter().template
    assert head.inversion.photo is not None
    size = head.inversion.photo.shape[0]
    position, distance = project_points(head.camera.numpy(), vertices)
    covered = rasterise((position * size)[t.triangles], size, distance[t.triangles])
    corner = np.concatenate([t.uv[:, :3], t.uv[:, [0, 2, 3]]])[covered.face]
    uv = np.einsum("nk,nkc->nc", covered.weights, corner)
    side = albedo.shape[0]
    x, y = (uv[:, 0] * side - 0.5).astype(np.float32), ((1 - uv[:, 1]) * side - 0.5).astype(np.float32)
    # cv2 takes maps of at most 32767 rows
    rows = -(-len(x) // 1024)
    left, top = (np.pad(v, (0, rows * 1024 - len(v))).reshape(rows, 1024) for v in (x, y))
    smooth = cv2.GaussianBlur(albedo, (0, 0), max(side / size / 4, 0.5))  # a pixel covers several texels
    colour = cv2.remap(smooth, left, top, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return colour.reshape(-1, 3)[: len(x)] / 255.0, covered


def seen_face(head: Head, vertices: npt.NDArray[np.float32], covered: Coverage) -> npt.NDArray[np.bool_]:
    """Which of the mesh's pixels show the face's skin, not hair in front of it and not the background."""
    t = fitter().template
    member = covered.interpolate(t.groups["face"].astype(np.float32)[:, None], t.triangles)[:, 0] > 0.99
    _, distance = project_points(head.camera.numpy(), vertices)
    ours = covered.interpolate(distance[:, None], t.triangles)[:, 0]
    _, depth, opacity = head.look(head.camera, covered.size)
    first = depth.ravel()[covered.pixel]
    solid = opacity.ravel()[covered.pixel] > 0.9
    found: npt.NDArray[np.bool_] = member & solid & (np.abs(ours - first) < _SAME_FRONT)
    return found


def seam(baked: Baked) -> float:
    """The gradient at the border between the photo and the rest, in medians of the gradient around it.

    Within the texture's islands only, since nothing is blended across their rims, and not in the mouth, whose
    colour is neither's.
    """
    mask = baked.masks["mask_photo"].astype(np.float32) / 255
    grey = cv2.cvtColor(cv2.resize(baked.albedo, mask.shape), cv2.COLOR_RGB2GRAY).astype(np.float32)
    steep = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    inside = (mask > 0.5).astype(np.uint8)
    within = _within_islands(mask.shape[0])
    border = (cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0) & within
    around = cv2.dilate(border.astype(np.uint8), np.ones((_AROUND, _AROUND), np.uint8)) > 0
    if not border.any():
        return 0.0
    beside = steep[around & within & ~border]
    return float(np.median(steep[border]) / max(float(np.median(beside)), 1.0))


def _within_islands(size: int) -> npt.NDArray[np.bool_]:
    """bool [size, size]: the template's texels away from its islands' rims and the mouth's inside."""
    t = fitter().template
    flat = np.concatenate([t.uv[:, :3], t.uv[:, [0, 2, 3]]])
    texels = texel_map(flat, size)
    within = np.zeros(size * size, np.uint8)
    within[texels.pixel[~t.groups["mouth_inside"][t.triangles].any(1)[texels.face]]] = 1
    eroded = cv2.erode(within.reshape(size, size), np.ones((5, 5), np.uint8))
    return np.asarray(eroded > 0, np.bool_)


def _drawn_head(
    model: Model, assets: HeadAssets, true: TrueHead, texture: int, keys: bool
) -> dict[str, float]:
    photo = photo_of(assets, true)
    found, head, points, baked = of_photo(model, photo, texture, keys)
    skin, off = _off_field(head, points)
    bare = skin & ~_under_hair(true, points)  # where hair hangs over the skin, the field has none
    found["skin_mm.p99_bare"] = float(np.quantile(off[bare], 0.99))
    found |= _delight(assets, true, photo, model, head, points, baked)
    return found | _against_truth(model, assets, true)


def _under_hair(true: TrueHead, points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """bool [V]: points that the true head, seen from the front, has hair in front of or beside."""
    view = true.views["front"]
    shown = (view.region == REGIONS.index("hair")).astype(np.float32)
    hair: npt.NDArray[np.float32] = np.asarray(cv2.dilate(shown, np.ones((5, 5), np.uint8)), np.float32)
    position, _ = project_points(view.camera.numpy(), points.astype(np.float32))
    return np.asarray(sample_picture(hair, position)[:, 0] > 0.5)


def _delight(
    assets: HeadAssets,
    true: TrueHead,
    photo: bytes,
    model: Model,
    head: Head,
    points: npt.NDArray[np.float64],
    baked: Baked,
) -> dict[str, float]:
    """The albedo against the true one, and under the true shading of the photo's light (psnr.old_light) and
    of another one (psnr.new_light): an albedo that kept light would do worse under another.

    All pictures of the true head are taken through the crop of its photo.
    """
    labels = replace(true.labels, light=NEW_LIGHT)
    again = draw_truth(assets, labels, {}, 64)
    crop = prepare(photo, size=head.inversion.photo.shape[0], framing=model.framing)  # type: ignore[union-attr]
    size = crop.image.shape[0]
    pictures = []
    for layers in (true.layers, again.layers):
        view = picture(assets, layers, orbit().to(assets.device), 256, background=False)
        pictures.append((view.rgb.cpu().numpy(), view.albedo.cpu().numpy()))
    warped = [
        cv2.warpAffine(image, crop.matrix, (size, size), flags=cv2.INTER_LINEAR).reshape(-1, 3)
        for image in (pictures[0][1], pictures[0][0], pictures[1][0])
    ]
    vertices = points.astype(np.float32)
    shown, covered = drawn(head, vertices, baked.albedo)
    face = seen_face(head, vertices, covered)
    albedo, *lit = (image[covered.pixel] for image in warped)
    found = {"psnr.albedo": psnr(shown, albedo, face)}
    for name, true_colour in zip(("old_light", "new_light"), lit, strict=True):
        shading = (to_linear(true_colour) + 0.01) / (to_linear(albedo) + 0.01)
        ours = to_srgb(np.clip(to_linear(shown) * shading, 0, 1))
        found[f"psnr.{name}"] = psnr(ours, true_colour, face)
    return found


def _against_truth(model: Model, assets: HeadAssets, true: TrueHead) -> dict[str, float]:
    """With the true labels: mean distances from points of the true skin to the field's own surface and to the
    template."""
    t = fitter().template
    z, c = (torch.from_numpy(v)[None].to(model.device) for v in layout_of(model).encode(true.labels))
    head = model.head_of(z, c)
    points, _ = fitted(head)
    surface = OuterSurface(assets, true.geometry, true.layers.shader)
    sampled = surface.sample(_POINTS, np.random.default_rng([20266, true.labels.seed]), bare=True)
    skin = sampled.points.cpu().numpy()
    skin = skin[skin[:, 1] > t.vertices[t.tagged("neck_ring"), 1].max() + 0.01]
    with torch.inference_mode():
        values = head.generator.sample_grid(head.planes, _LATTICE)[0].float().cpu().numpy()
    mesh = extract(values, head.generator.config.box_warp, target_faces=None, smoothing=0)
    own = ClosestPoints(mesh.vertices, mesh.faces)(skin).distance.mean() * true.unit_mm
    ours = ClosestPoints(points.astype(np.float32), t.triangles)(skin).distance.mean() * true.unit_mm
    found = {"field": own, "template": ours, "worse": ours - own}
    return {f"truth_mm.{name}": float(value) for name, value in found.items()}


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    return work(), time.process_time() - start
