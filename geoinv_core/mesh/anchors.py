"""Where the template's anchors (landmarks, lid rims, lips, ears) lie in a labelled head.

A ridge regression from the head's latent and labels to displacements, learned on synthetic heads whose points
are known. It gives the fit its correspondences; the surface itself comes from the field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geoinv_core.heads.skin import BUILD

if TYPE_CHECKING:
    from geoinv_core.heads.assets import HeadAssets
    from geoinv_core.heads.labels import HeadLabels
    from geoinv_core.heads.layout import LabelLayout
    from geoinv_core.mesh.template import Template

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]

_RIDGE = 3.0
_BATCH = 50
_JAW_MOVES = 0.25
"""Share of the jaw's largest movement that tells the lower lip from the upper one."""


def feature_names(layout: LabelLayout) -> tuple[str, ...]:
    """One name per number of `features`."""
    single = [f"z:{name}" for name in (*layout.axes, *layout.asymmetries)]
    single += [*BUILD, *layout.expressions]
    pairs = [f"{a}*{b}" for i, a in enumerate(BUILD) for b in BUILD[i:]]
    return ("1", *single, *pairs)


def features(layout: LabelLayout, z: npt.NDArray[Any], c: npt.NDArray[Any]) -> Float64:
    """Features float64 [B, T] of latents z [B, z_dim] and standardised labels c [B, c_dim]."""
    names = layout.names
    build = np.stack([c[:, names.index(name)] for name in BUILD], 1).astype(np.float64)
    expressions = c[:, [names.index(name) for name in layout.expressions]]
    pairs = [build[:, i] * build[:, j] for i in range(len(BUILD)) for j in range(i, len(BUILD))]
    return np.concatenate([np.ones((len(z), 1)), z, build, expressions, np.stack(pairs, 1)], 1)


def predict(
    template: Template, layout: LabelLayout, z: npt.NDArray[Any], c: npt.NDArray[Any]
) -> Float64 | None:
    """Anchors float64 [B, A, 3], world units; None for labels that the template's regression does not
    know."""
    if feature_names(layout) != template.features:
        return None
    moved = features(layout, z, c) @ template.weights.astype(np.float64)
    rest = template.vertices[template.anchors].astype(np.float64)
    return rest + moved.reshape(len(z), -1, 3)


def learn(
    assets: HeadAssets, layout: LabelLayout, anchors: Float64, lips: npt.NDArray[np.int8], heads: int
) -> tuple[npt.NDArray[np.float16], float]:
    """Weights of the regression, and its mean error on heads it has not seen.

    Args:
        anchors: [A, 3] on the neutral mean head, world units. lips: int8 [A], -1 for anchors of the
            lower lip, 1 for the upper one, 0 elsewhere. heads: how many are drawn.
    Returns: float16 [T, 3 A]; the error in world units.
    """
    from geoinv_core.heads.labels import HeadLabels

    mean = positions(assets, [HeadLabels(features=centre(assets))])[0]
    corners, share = _attach(assets, mean, anchors, lips)
    rest = (mean[corners] * share[..., None]).sum(1)
    rows, targets = [], []
    for start in range(0, heads, _BATCH):
        labels = [varied(assets, seed) for seed in range(start, min(start + _BATCH, heads))]
        codes = [layout.encode(label) for label in labels]
        z, c = (np.stack(part) for part in zip(*codes, strict=True))
        found = positions(assets, labels)
        rows.append(features(layout, z, c))
        targets.append(((found[:, corners] * share[..., None]).sum(2) - rest).reshape(len(labels), -1))
    x, y = np.concatenate(rows), np.concatenate(targets)
    train = np.arange(len(x)) % 10 != 0
    weights = solve(x[train], y[train])
    error = (x[~train] @ weights - y[~train]).reshape(-1, len(anchors), 3)
    neutral = np.concatenate([features(layout, *_neutral_code(layout))])
    weights = solve(x, y)
    weights[0] -= (neutral @ weights)[0]  # the template itself is the neutral head
    return weights.astype(np.float16), float(np.linalg.norm(error, axis=2).mean())


def solve(x: Float64, y: Float64) -> Float64:
    ridge = _RIDGE * np.eye(x.shape[1])
    ridge[0, 0] = 0.0
    result: Float64 = np.linalg.solve(x.T @ x + ridge, x.T @ y)
    return result


def _neutral_code(layout: LabelLayout) -> tuple[Float64, Float64]:
    return np.zeros((1, layout.z_dim)), np.zeros((1, len(layout.names)))


def centre(assets: HeadAssets) -> dict[str, float]:
    from geoinv_core.heads.labels import BROW_ANGLE, EYE_HEIGHT

    return dict.fromkeys(assets.axes, 0.0) | {"eyebrows-angle": BROW_ANGLE, "eye-height2": EYE_HEIGHT}


def varied(assets: HeadAssets, seed: int) -> HeadLabels:
    """A random head; every second one with single face units instead of a mood, as shape keys ask for."""
    from dataclasses import replace

    from geoinv_core.heads.labels import sample

    labels = sample(assets, seed)
    if seed % 2 == 0:
        return labels
    r = np.random.default_rng([77, seed])
    names = r.choice(assets.expressions, 6, replace=False)
    return replace(labels, expression={str(name): float(r.uniform(0, 1)) for name in names})


def positions(assets: HeadAssets, labels: list[HeadLabels]) -> Float64:
    """Base vertices [B, N, 3], world units."""
    import torch

    from geoinv_core.heads.geometry import alignment, morph, target_weights

    weights = torch.cat([target_weights(assets, labels, expression) for expression in (False, True)])
    both = morph(assets, weights)
    found = []
    for neutral, posed in zip(both[: len(labels)], both[len(labels) :], strict=True):
        scale, origin = alignment(assets, neutral)
        found.append(((posed - origin) * scale).double().cpu().numpy())
    return np.stack(found)


def _attach(
    assets: HeadAssets, mean: Float64, anchors: Float64, lips: npt.NDArray[np.int8]
) -> tuple[npt.NDArray[np.int64], Float64]:
    """Base vertices [A, 3] and weights [A, 3] of the nearest points on the mean head's skin.

    Closed lips touch, so each lip only looks among the triangles that follow the jaw, or do not.
    """
    from geoinv_core.heads.labels import HeadLabels

    triangles = assets.skin_triangles.cpu().numpy()
    opened = positions(assets, [HeadLabels(features=centre(assets), expression={"jawOpen": 1.0})])[0]
    down = mean[:, 1] - opened[:, 1]
    jaw = (down > _JAW_MOVES * down.max())[triangles]
    allowed = {-1: triangles[jaw.all(1)], 0: triangles, 1: triangles[~jaw.any(1)]}
    found = [_nearest(anchor, mean, allowed[lip]) for anchor, lip in zip(anchors, lips.tolist(), strict=True)]
    return np.stack([corners for corners, _ in found]), np.stack([share for _, share in found])


def _nearest(
    point: Float64, vertices: Float64, triangles: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int64], Float64]:
    """The nearest point of triangles [T, 3], as its triangle and weights; by barycentric projection, clipped
    to the triangle (exact inside, close to exact at its edges)."""
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    u, v, w = b - a, c - a, point - a
    uu, uv, vv = (u * u).sum(1), (u * v).sum(1), (v * v).sum(1)
    wu, wv = (w * u).sum(1), (w * v).sum(1)
    det = np.maximum(uu * vv - uv * uv, 1e-18)
    s, t = (vv * wu - uv * wv) / det, (uu * wv - uv * wu) / det
    share = np.stack([1 - s - t, s, t], 1).clip(0, None)
    share /= share.sum(1, keepdims=True)
    found = share[:, :1] * a + share[:, 1:2] * b + share[:, 2:] * c
    best = int(np.argmin(((found - point) ** 2).sum(1)))
    return triangles[best].astype(np.int64), share[best]
