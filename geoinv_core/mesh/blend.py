"""The photo's own pixels on the surface that it sees, its mirror image on the half that it does not see.

All colours here are sRGB-encoded floats in 0..1 (equal steps look equal, so feathering leaves no dark rims)
and albedo: the photo's light, fitted in `delight`, is divided out of its pixels. Where the photo fades out,
the colour does not fall back to the field's own: the ratio of photo to field is continued over the surface
by a membrane, so that no border shows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from geoinv_core.mesh.bared import lips_alone
from geoinv_core.mesh.colour import to_linear, to_srgb
from geoinv_core.mesh.delight import LIMITS, fit_light, log_ratio
from geoinv_core.mesh.membrane import Membrane
from geoinv_core.mesh.mirror import Mirrored, mirror
from geoinv_core.mesh.raster import Coverage
from geoinv_core.mesh.topology import neighbour_mean
from geoinv_core.mesh.visibility import Sight, sample, smooth_step

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_DISAGREE = (0.18, 0.35)
"""Colour distance between the smoothed photo and the field where something in front is suspected, if the view
is poor."""
_OCCLUDED = 0.5
"""The same in the middle of the view, for colours that the head has nowhere else."""
_PLAN, _LARGE = 128, 7
"""Cells a side of the picture in which things in front are marked, and of the least such thing: eyes, which
a soft field often has elsewhere, are smaller."""
_BINS, _RARE = 48, 0.02
"""Differences of two channels that are told apart; share of the usual density below which one is rare."""
_UNLIKE = (0.12, 0.3)
"""Colour distance between the field's two halves, or between the photo and its mirror image where both are
seen, above which the other half is no model."""
_GAP = (0.01, 0.03)
"""World units by which the mirror image may miss the surface (4 to 12 mm on a head)."""
_TAKE_OVER = (0.25, 0.55)
"""Weight of the photo below which its mirror image, if well seen, is used instead, and above which not."""
_MIRROR_SHARE = 0.9
"""The mirror image never counts more than this against what the photo itself sees a little of."""
_DARK = 0.06
"""Added to colours before they are divided, so that the noise of dark pixels is not amplified."""
_DETAIL = 0.006
"""World units below which the photo's difference from the field is detail and not continued (2.5 mm)."""
_REACH = 0.4
"""World units over which the photo's tone is carried on, and those over which the mirror image's is."""
_BRIGHTEST = 0.95
"""Linear albedo that the brightest of a head's places may have."""
_SHADE_ROUNDS = 6
_SHADE = (-1.0, 0.3)
"""Logarithm of the light's deviation from its harmonics (cast shadows, crevices) that is believed."""


@dataclass(frozen=True)
class Blended:
    """colour: float32 [N, 3] sRGB-encoded 0..1. photo, mirrored: float32 [N], their shares. light: float32
    [V, 3], the logarithm of the light that was taken out, at the mesh's vertices."""

    colour: Float32
    photo: Float32
    mirrored: Float32
    light: Float32


@dataclass(frozen=True)
class Ground:
    """What the photo is blended into: a mesh with its field's colours.

    vertices: world [V, 3]; faces: [F, 3]; normals: unit, outward, smooth [V, 3].
    albedo: the field's at the vertices, encoded [V, 3]; lit: the same under the photo's light as the model
    has it, or None where the model knows only one of both; membrane: of the mesh. lips: [V], share of them at
    the vertices; None: nowhere.
    """

    vertices: Float32
    faces: Int32
    normals: Float32
    albedo: Float32
    lit: Float32 | None
    membrane: Membrane
    lips: Float32 | None = None


def blend_photo(
    ground: Ground,
    texels: Coverage,
    points: Float32,
    base: Float32,
    picture: npt.NDArray[np.uint8],
    sight: Sight,
    partner: Int32 | None = None,
) -> Blended:
    """Colours for texels from a photo and a field.

    Args:
        texels: N texels of the mesh; points: their world positions [N, 3]; base: the field's albedo there,
            encoded [N, 3].
        picture: uint8 [S, S, 3] sRGB, the crop that `sight` looks through.
        partner: [V], each vertex' counterpart on the other half; None: see `mirror`.
    """
    cosine = sight.cosine(ground.vertices, ground.normals)
    photo = picture.astype(np.float32) / 255.0
    light = _light(ground, photo, sight, cosine) if ground.lit is not None else np.zeros_like(ground.vertices)
    direct, foreign = _look(ground, texels, points, base, photo, sight, cosine, light)
    if partner is None:
        mirrored = mirror(ground.vertices, ground.normals)
    else:
        mirrored = Mirrored(ground.vertices[partner], partner, np.zeros(len(partner), np.float32))
    other = _look_mirrored(ground, texels, photo, sight, cosine, light, foreign, mirrored)
    if ground.lips is not None:
        lips = texels.interpolate(ground.lips[:, None], ground.faces)[:, 0]
        direct = replace(direct, weight=direct.weight * lips_alone(direct.colour, direct.weight, lips))
        other = replace(other, weight=other.weight * lips_alone(other.colour, other.weight, lips))
    joint, own = _join(ground, texels, direct, other)
    target, weight = joint.colour, joint.weight
    ratio = np.log((target + _DARK) / (base + _DARK))
    tone = texels.interpolate(_continued(ground, texels, ratio, weight, _REACH), ground.faces)
    matched = (base + _DARK) * np.exp(tone) - _DARK
    colour = np.clip(matched + weight[:, None] * (target - matched), 0.0, 1.0)
    return Blended(colour.astype(np.float32), own, weight - own, light)


@dataclass(frozen=True)
class _Seen:
    """colour: float32 [N, 3], anything where weight [N] is zero."""

    colour: Float32
    weight: Float32


def _light(ground: Ground, photo: Float32, sight: Sight, cosine: Float32) -> Float32:
    """Logarithm of the light on each vertex, float32 [V, 3].

    The harmonics are fitted to the photo over the field's albedo where the photo sees the surface, and lean
    on those that the model's own lit and unlit colours give everywhere. What the model's light has beyond
    its harmonics, smoothed, stands for cast shadows and crevices.
    """
    assert ground.lit is not None
    albedo = to_linear(ground.albedo)
    model = log_ratio(to_linear(ground.lit), albedo)
    everywhere = np.ones(len(model))
    guess = fit_light(ground.normals, model, everywhere)
    shade = (model - guess.on(ground.normals)).mean(1, keepdims=True)
    mean = neighbour_mean(ground.faces, len(ground.vertices))
    for _ in range(_SHADE_ROUNDS):
        shade = 0.5 * (shade + mean(shade))
    shade = np.clip(shade, *_SHADE)
    weight, position = sight.weigh(ground.vertices, cosine)
    weight *= ground.membrane.area / ground.membrane.area.mean()
    seen = to_linear(np.clip(sample(photo, position), 0, 1))
    light = fit_light(ground.normals, log_ratio(seen, albedo) - shade, weight, guess)
    low, high = np.log(LIMITS)
    found = np.clip(light.on(ground.normals) + shade, low, high)
    if (weight > 0).any():  # no skin or hair sends all light back, so a little more light is likelier
        brightest = (seen * np.exp(-found)).max(1)[weight > 0]
        found = found + max(0.0, float(np.log(np.quantile(brightest, 0.9) / _BRIGHTEST)))
    return np.asarray(found, np.float32)


def _look(
    ground: Ground,
    texels: Coverage,
    points: Float32,
    base: Float32,
    photo: Float32,
    sight: Sight,
    cosine: Float32,
    light: Float32,
) -> tuple[_Seen, Float32]:
    """The photo's pixels without their light, at the texels that it sees; and what is in front of the head,
    see `_in_front`."""
    angle = texels.interpolate(cosine[:, None], ground.faces)[:, 0]
    colour, weight = np.zeros_like(base), np.zeros(len(base), np.float32)
    able = np.flatnonzero(angle > 0)
    share, position = sight.weigh(points[able], angle[able])
    some = share > 0
    able, share, position = able[some], share[some], position[some]
    unlit = np.exp(-texels.only(able).interpolate(light, ground.faces))
    smooth = np.asarray(cv2.GaussianBlur(photo, (0, 0), photo.shape[0] / 64), np.float32)
    residual = _unlit(smooth, position, unlit) - base[able]
    core = share > 0.8 * share.max(initial=0.0)
    distance = np.linalg.norm(residual - np.median(residual[core], axis=0), axis=1) if core.any() else share
    strange = distance > _OCCLUDED
    strange[strange] = ~_familiar(sample(smooth, position), distance < _DISAGREE[0])[strange]
    foreign = _in_front(strange, position)
    doubt = smooth_step(distance, *_DISAGREE) * (1.0 - smooth_step(share, 0.5, 0.95))
    colour[able] = _unlit(photo, position, unlit, cv2.INTER_CUBIC)
    weight[able] = share * (1.0 - np.maximum(doubt, sample(foreign, position)[:, 0]))
    return _Seen(colour, weight), foreign


def _unlit(
    photo: Float32, position: Float32, unlit: Float32, interpolation: int = cv2.INTER_LINEAR
) -> Float32:
    colour = to_linear(np.clip(sample(photo, position, interpolation), 0.0, 1.0)) * unlit
    return to_srgb(colour / np.maximum(colour.max(1, keepdims=True), 1.0))  # too bright, but of its hue


def _familiar(colour: Float32, trusted: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether each colour [N, 3], whatever its brightness, is among the trusted ones, too (a mask [N])."""
    from scipy.ndimage import gaussian_filter

    difference = 0.5 + 0.5 * (colour[:, :2] - colour[:, 1:])
    row, column = np.clip(difference * _BINS, 0, _BINS - 1).astype(np.int64).T
    index = row * _BINS + column
    count = np.bincount(index[trusted], minlength=_BINS**2).astype(np.float32)
    density = gaussian_filter(count.reshape(_BINS, _BINS), 1.0, mode="constant").ravel()[index]
    usual = density[trusted].mean() if trusted.any() else 0.0
    return np.asarray(density > _RARE * usual, np.bool_)


def _in_front(foreign: npt.NDArray[np.bool_], position: Float32) -> Float32:
    """Where something else is in front of the head, such as a microphone: float32 [P, P] 0..1, a picture.

    foreign: whether a texel's pixels are unlike anything that the head has [N]; position: widths [N, 2].
    """
    cell = np.clip(position[foreign] * _PLAN, 0, _PLAN - 1).astype(np.int64)
    plan = np.zeros((_PLAN, _PLAN), np.uint8)
    plan[cell[:, 1], cell[:, 0]] = 1
    closed = cv2.morphologyEx(plan, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    whole = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((_LARGE, _LARGE), np.uint8))
    # the rim was lost to the smoothing of what was compared
    wide = cv2.dilate(whole, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))
    return np.asarray(cv2.GaussianBlur(wide.astype(np.float32), (0, 0), 1.0), np.float32)


def _look_mirrored(
    ground: Ground,
    texels: Coverage,
    photo: Float32,
    sight: Sight,
    cosine: Float32,
    light: Float32,
    foreign: Float32,
    partner: Mirrored,
) -> _Seen:
    """The photo's pixels of each texel's partner on the other half of the head, without their light."""
    faces, there = ground.faces, partner.vertex
    unlike = np.linalg.norm(ground.albedo - ground.albedo[there], axis=1)
    likely = (1.0 - smooth_step(unlike, *_UNLIKE)) * (1.0 - smooth_step(partner.gap, *_GAP))
    attributes = np.concatenate([partner.points, cosine[there, None], likely[:, None], light[there]], 1)
    count = len(texels.pixel)
    colour, weight = np.zeros((count, 3), np.float32), np.zeros(count, np.float32)
    able = np.flatnonzero(((cosine[there] > 0) & (likely > 0))[faces].any(1)[texels.face])
    at = texels.only(able).interpolate(attributes, faces)
    share, position = sight.weigh(at[:, :3], at[:, 3])
    some = share * at[:, 4] > 0
    able, at, share, position = able[some], at[some], share[some], position[some]
    colour[able] = _unlit(photo, position, np.exp(-at[:, 5:]), cv2.INTER_CUBIC)
    weight[able] = share * at[:, 4] * (1.0 - sample(foreign, position)[:, 0])
    return _Seen(colour, weight)


def _join(ground: Ground, texels: Coverage, direct: _Seen, other: _Seen) -> tuple[_Seen, Float32]:
    """What photo and mirror image say together, and the photo's share of it [N].

    The mirror image counts only as far as the two agree where both are seen, and is brought to the photo's
    tone, which a membrane carries on from there.
    """
    some = np.flatnonzero(direct.weight * other.weight > 0)
    both, part = (direct.weight * other.weight)[some, None], texels.only(some)
    count = len(ground.vertices)
    sums = part.gather(
        np.concatenate([both * direct.colour[some], both * other.colour[some], both], 1), ground.faces, count
    )
    # compared at the vertices' spacing: brows a pixel off are no difference
    difference = np.linalg.norm(sums[:, :3] - sums[:, 3:6], axis=1).sum() / max(float(sums[:, 6].sum()), 1e-9)
    plausible = float(1 - smooth_step(np.array(difference), *_UNLIKE))
    ratio = np.log((direct.colour + _DARK) / (other.colour + _DARK))
    weight = direct.weight * other.weight
    tone = texels.interpolate(_continued(ground, texels, ratio, weight, _REACH / 2), ground.faces)
    adjusted = np.clip((other.colour + _DARK) * np.exp(tone) - _DARK, 0, 1)
    share = plausible * _MIRROR_SHARE * other.weight * (1.0 - direct.weight)
    # both at once would show a brow twice: where the photo's view is poor, its mirror image takes over soon
    yields = plausible * other.weight * (1.0 - smooth_step(direct.weight, *_TAKE_OVER))
    first, second = direct.weight * (1.0 - yields), share * (0.02 + yields)
    part_of_first = first / np.maximum(first + second, 1e-9)
    total = direct.weight + share
    mixed = adjusted + part_of_first[:, None] * (direct.colour - adjusted)
    return _Seen(np.asarray(mixed, np.float32), total), np.asarray(total * part_of_first, np.float32)


def _continued(ground: Ground, texels: Coverage, values: Float32, weight: Float32, reach: float) -> Float32:
    """Texels' values [N, C], known with `weight` [N], as a membrane over the vertices; float32 [V, C]."""
    count = len(ground.vertices)
    some = np.flatnonzero(weight > 0)
    part = texels.only(some)
    known = weight[some, None] ** 2  # half-trusted texels should not colour what lies beyond them
    sums = part.gather(np.concatenate([known * values[some], known], 1), ground.faces, count)
    texel_count = texels.gather(np.ones((len(weight), 1), np.float32), ground.faces, count)
    mean = sums[:, :-1] / np.maximum(sums[:, -1:], 1e-9)
    share = sums[:, -1] / np.maximum(texel_count[:, 0], 1e-9)
    return ground.membrane.span(mean, share, _DETAIL, reach)
