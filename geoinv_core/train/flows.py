"""The displacements of faces, fitted to the head data: `python -m geoinv_core train flows`.

Heads of the data share their vertices, so where everything goes with the labels is known exactly. For each
head, plane and slice a smooth displacement is solved for that leads from where the skin is to where it is on
the mean head. The main directions of all of them become the generator's displacement fields (see
`generator.flow`), and the mapping learns their weights from the labels. What the planes paint then stays in
place, whoever the head is and whatever it does.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from geoinv_core import weights
from geoinv_core.generator import GeneratorConfig, TriplaneGenerator
from geoinv_core.generator.flow import RESOLUTION
from geoinv_core.heads import HeadAssets, HeadLabels, LabelLayout, sample
from geoinv_core.heads.geometry import alignment, morph, target_weights, vertex_normals
from geoinv_core.heads.variants import variant
from geoinv_core.train.enlarge import enlarge

OPEN = {"jawOpen": 0.35, "eyeWideLeft": 0.3, "eyeWideRight": 0.3}
"""Expression of the mean head: what a mouth hides has its own place on the planes."""
_SEEDS, _BATCH = 600_000, 50
_STIFFNESS, _REST = 0.03, 1e-4
_RIDGE = 1e-3
_PLANES = ((0, 1, 2), (0, 2, 1), (1, 2, 0))  # (column, row, across): the bundled model's axes


def skin(assets: HeadAssets, labels: list[HeadLabels]) -> Tensor:
    """Base vertices of heads in world units, [B, N, 3]."""
    both = morph(assets, torch.cat([target_weights(assets, labels, e) for e in (False, True)]))
    rows = []
    for neutral, posed in zip(both[: len(labels)], both[len(labels) :], strict=True):
        scale, origin = alignment(assets, neutral)
        rows.append((posed - origin) * scale)
    return torch.stack(rows)


def outer(assets: HeadAssets, mean: Tensor) -> NDArray[np.bool_]:
    """Vertices [N] that some outside view of the closed face sees: no mouth lining, no sockets."""
    from geoinv_core.camera import orbit
    from geoinv_core.heads.raster import nearest, project, rasterise

    seen = torch.zeros(len(mean), dtype=torch.bool)
    triangles = assets.skin_triangles
    for yaw, pitch in (
        (0, 0),
        (40, 0),
        (-40, 0),
        (90, 0),
        (-90, 0),
        (150, 0),
        (-150, 0),
        (0, 60),
        (180, 60),
        (0, -40),
    ):
        fragments = rasterise(project(mean, orbit(yaw, pitch), 512), triangles, 512, cull=True)
        _, front = nearest(fragments, 512 * 512)
        seen[triangles[fragments.triangle[front]].flatten()] = True
    return seen.numpy()


def displacement(
    points: NDArray[np.float64], offsets: NDArray[np.float64], trust: NDArray[np.float64], laplace: Any
) -> NDArray[np.float32]:
    """The smooth field through scattered offsets.

    Args:
        points: [N, 2] plane coordinates in [-1, 1]. offsets: [N, 2]. trust: [N] >= 0.
        laplace: the grid's stiffness matrix, see `stiffness`.
    Returns: [2, R, R], the minimum of sum trust (field(point) - offset)^2 + stiffness.
    """
    R = RESOLUTION
    x, y = ((points[:, k] + 1) * R / 2 - 0.5 for k in (0, 1))
    left, top = np.clip(np.floor(x), 0, R - 2), np.clip(np.floor(y), 0, R - 2)
    fx, fy = np.clip(x - left, 0, 1), np.clip(y - top, 0, 1)
    column = np.stack([(top + j) * R + left + i for j in (0, 1) for i in (0, 1)], 1).astype(np.int64)
    value = np.stack([(fy if j else 1 - fy) * (fx if i else 1 - fx) for j in (0, 1) for i in (0, 1)], 1)
    row = np.repeat(np.arange(len(points)), 4)
    S = sparse.csr_matrix((value.ravel(), (row, column.ravel())), (len(points), R * R))
    weighted = S.multiply(trust[:, None]).tocsr()
    solve = splu(
        (S.T @ weighted + laplace).tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}
    )
    solution = solve.solve(np.asarray(weighted.T @ offsets))
    return np.asarray(solution.T.reshape(2, R, R), np.float32)


def stiffness() -> Any:
    """Membrane energy of the grid, [R^2, R^2], with a slight pull to zero."""
    R = RESOLUTION
    step = sparse.diags([-np.ones(R), np.ones(R - 1)], [0, 1], (R - 1, R))
    one = sparse.identity(R)
    along, across = sparse.kron(one, step), sparse.kron(step, one)
    return _STIFFNESS * (along.T @ along + across.T @ across) + _REST * sparse.identity(R * R)


def head_fields(
    mean: NDArray[Any], vertices: NDArray[Any], normals: NDArray[Any], depth: int
) -> NDArray[np.float32]:
    """Displacements [3, depth, 2, R, R] of one head: at a place on a slice, the way to its mean."""
    laplace = stiffness()
    fields = []
    for column, row, across in _PLANES:
        # the front of the head rules its frontal plane; the other planes see both sides alike
        one_sided = across == 2 and depth == 1
        facing = normals[:, 2] if one_sided else np.abs(normals[:, across])
        trust = np.clip(facing, 0, 1) + 0.02
        flat = (vertices[:, [column, row]] * 2).astype(np.float64)
        aim = (mean[:, [column, row]] * 2).astype(np.float64)
        # a point belongs to the two slices around it, as when the tri-grid is read
        place = np.clip(((vertices[:, across] * 2 + 1) * depth - 1) / 2, 0, depth - 1)
        for slice_ in range(depth):
            share = np.clip(1 - np.abs(place - slice_), 0, 1)
            fields.append(displacement(flat, aim - flat, trust * share, laplace))
    return np.stack(fields).reshape(3, depth, 2, RESOLUTION, RESOLUTION)


@dataclass(frozen=True)
class MeanHead:
    """Where everything is at rest."""

    vertices: NDArray[np.float32]
    """[N, 3] world units, of the outer skin"""
    outer: NDArray[np.bool_]
    """which base vertices these are"""

    @classmethod
    def of(cls, assets: HeadAssets, count: int = 256) -> MeanHead:
        neutral = [replace(sample(assets, i), expression={}) for i in range(count)]
        chosen = outer(assets, skin(assets, neutral).mean(0))
        opened = skin(assets, [x.with_expression(**OPEN) for x in neutral]).mean(0).numpy()
        return cls(opened[chosen], chosen)


def heads_of(assets: HeadAssets, seeds: range) -> Iterator[tuple[HeadLabels, Tensor]]:
    """Variants of random heads and their base vertices [N, 3]."""
    for first in range(seeds.start, seeds.stop, _BATCH):
        chunk = range(first, min(first + _BATCH, seeds.stop))
        labels = [variant(assets, sample(assets, seed), seed) for seed in chunk]
        yield from zip(labels, skin(assets, labels), strict=True)


def solve_heads(
    assets: HeadAssets, mean: MeanHead, seeds: range, depth: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Outer vertices [n, N, 3] and displacements [n, 3, depth, 2, R, R] of heads, about six a second."""
    vertices, fields = [], []
    for _, points in heads_of(assets, seeds):
        normals = vertex_normals(points, assets.skin_triangles).numpy()[mean.outer]
        vertices.append(points.numpy()[mean.outer])
        fields.append(head_fields(mean.vertices, vertices[-1], normals, depth))
    return np.stack(vertices), np.stack(fields)


class FieldWeights:
    """The weights of the displacement fields from a head's vertices.

    A regression on the vertices' main directions and the products of the first of these: a thousand times
    quicker than solving for the fields, and R^2 on other heads is above .99.
    """

    def __init__(self, vertices: NDArray[np.float32], target: NDArray[np.float32]) -> None:
        flat = vertices.reshape(len(vertices), -1)
        self.mean = flat.mean(0)
        _, _, directions = np.linalg.svd(flat - self.mean, full_matrices=False)
        self.directions = directions[: min(100, len(flat) // 2)]
        self.scale = ((flat - self.mean) @ self.directions.T).std(0)
        X = self._terms(vertices)
        self.matrix = np.linalg.solve(X.T @ X + np.eye(X.shape[1]), X.T @ target)

    def _terms(self, vertices: NDArray[np.float32]) -> NDArray[np.float64]:
        p = (vertices.reshape(len(vertices), -1) - self.mean) @ self.directions.T / self.scale
        products = [p[:, i : i + 1] * p[:, i:24] for i in range(24)]
        return np.asarray(np.concatenate([p, *products, np.ones((len(p), 1))], 1), np.float64)

    def __call__(self, vertices: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n, N, 3] -> [n, rank]."""
        return np.asarray(self._terms(vertices) @ self.matrix, np.float32)


def principal(fields: NDArray[np.float32], rank: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fields [n, ...] -> the first principal directions, scaled to unit weights, and the weights.

    Returns: basis [rank + 1, ...], whose last entry is the mean, and weights [n, rank].
    """
    flat = fields.reshape(len(fields), -1)
    mean = flat.mean(0)
    centred = flat - mean
    _, vectors = np.linalg.eigh(centred @ centred.T)
    vectors = vectors[:, ::-1][:, :rank] * np.sqrt(len(fields))
    basis = vectors.T @ centred / len(fields)
    return np.concatenate([basis, mean[None]]).reshape(-1, *fields.shape[1:]), vectors


def initialise(
    generator: TriplaneGenerator, assets: HeadAssets, solved: int, labelled: int, steps: int
) -> dict[str, float]:
    """Give a generator the data's displacements, in place: fields, and a mapping that knows their weights.

    Args:
        solved: heads whose fields are solved for. labelled: heads from whose vertices the mapping learns.
    Returns: the shares of the displacements' variance that the fields hold, and that labels predict on heads
        left out.
    """
    flow = generator.backbone.flow
    if flow is None:
        raise ValueError("This generator has no displacement fields (flow_rank is 0).")
    mean = MeanHead.of(assets, min(256, 2 * solved))
    vertices, fields = solve_heads(assets, mean, range(_SEEDS, _SEEDS + solved), generator.config.plane_depth)
    basis, target = principal(fields, len(flow.fields) - 1)
    flow.fields.data.copy_(torch.from_numpy(basis))
    cost = np.square(basis[:-1]).sum((1, 2, 3, 4, 5))  # of an error in a weight
    spread = np.square(fields - fields.mean(0)).sum()
    weigh = FieldWeights(vertices, target)
    layout = LabelLayout.of(assets)
    z, c, goal = [], [], []
    for labels, points in heads_of(assets, range(_SEEDS + solved, _SEEDS + solved + labelled)):
        a, b = layout.encode(labels)
        z.append(a)
        c.append(b)
        goal.append(weigh(points.numpy()[None, mean.outer])[0])
    known = [torch.from_numpy(np.stack(x)) for x in (z, c, goal)]
    explained = fit_mapping(generator, known[0], known[1], known[2], torch.from_numpy(cost), steps)
    return {"fields": float((np.square(target) * cost).sum() / spread), "labels": explained}


def refit(generator: TriplaneGenerator, assets: HeadAssets, solved: int) -> dict[str, float]:
    """Fit the fields anew to the weights that a trained generator already gives them, in place: its mapping
    stays as it is when, say, its planes have become a tri-grid.

    Returns: the share of the displacements' variance that is then drawn, on every tenth head, left out.
    """
    flow = generator.backbone.flow
    if flow is None:
        raise ValueError("This generator has no displacement fields (flow_rank is 0).")
    mean, seeds = MeanHead.of(assets, min(256, 2 * solved)), range(_SEEDS, _SEEDS + solved)
    _, fields = solve_heads(assets, mean, seeds, generator.config.plane_depth)
    layout = LabelLayout.of(assets)
    codes = [layout.encode(labels) for labels, _ in heads_of(assets, seeds)]
    z, c = (torch.from_numpy(np.stack(x)) for x in zip(*codes, strict=True))
    with torch.no_grad():
        known = flow.weights(generator.map(z, c)[:, 0]).double().numpy()
    flat = fields.reshape(solved, -1)
    held = np.arange(solved) % 10 == 0
    A, b = known[~held], flat[~held]
    before = flow.fields.detach().flatten(1).double().numpy()
    # weights that heads hardly tell apart keep the fields that they have
    ridge = _RIDGE * len(A) * np.eye(A.shape[1])
    after = before + np.linalg.solve(A.T @ A + ridge, A.T @ (b - A @ before))
    flow.fields.data.copy_(torch.from_numpy(after).view_as(flow.fields))
    off = np.square(flat[held] - known[held] @ after).sum()
    return {"fields": float(1 - off / np.square(flat[held] - flat[held].mean(0)).sum())}


def fit_mapping(
    generator: TriplaneGenerator,
    z: Tensor,
    c: Tensor,
    goal: Tensor,
    cost: Tensor,
    steps: int,
    rate: float = 2e-3,
) -> float:
    """Teach the mapping the weights `goal` [n, rank] of heads with latents z and labels c.

    Returns: the share of their variance, weighted by `cost` [rank], that it predicts on every tenth head,
    which it does not learn from.
    """
    flow = generator.backbone.flow
    assert flow is not None
    quiet_start(generator, z, c)
    learnt = [*generator.backbone.mapping.parameters(), *flow.weights.parameters()]
    optimiser = torch.optim.Adam(learnt, lr=rate, betas=(0.9, 0.98))
    rng = torch.Generator().manual_seed(0)
    held = torch.arange(len(z)) % 10 == 0
    seen, unseen = (~held).nonzero()[:, 0], held.nonzero()[:, 0]
    cost = cost / cost.mean()

    def error(rows: Tensor) -> Tensor:
        weights = flow.weights(generator.map(z[rows], c[rows])[:, 0])
        off: Tensor = ((weights[:, :-1] - goal[rows]).square() * cost).mean()
        constant: Tensor = (weights[:, -1] - 1).square().mean()
        return off + constant

    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min(1.0, 2 * (1 - step / steps))
        optimiser.zero_grad()
        error(seen[torch.randint(len(seen), (256,), generator=rng)]).backward()
        optimiser.step()
    with torch.no_grad():
        return float(1 - error(unseen) / (goal[unseen].square() * cost).mean())


def quiet_start(generator: TriplaneGenerator, z: Tensor, c: Tensor) -> None:
    """Let the flow read the directions of w that vary least, so that it starts calm."""
    flow = generator.backbone.flow
    assert flow is not None
    with torch.no_grad():
        w = generator.map(z, c)[:, 0]
        _, vectors = torch.linalg.eigh(torch.cov(w.T))
        flow.weights.weight.copy_(vectors[:, : len(flow.fields)].T / flow.weights.weight_gain)
        flow.weights.bias.copy_(-w.mean(0) @ vectors[:, : len(flow.fields)])
        flow.weights.bias[-1] += 1


def begin(
    path: Path,
    assets: HeadAssets,
    config: GeneratorConfig,
    start: Path | None = None,
    solved: int = 1400,
    labelled: int = 12_000,
    steps: int = 6000,
) -> dict[str, float]:
    """Write the model file that generator training begins from; see `initialise`, whose shares are returned.

    start: a model file whose weights are kept, as `enlarge` makes them fit; if it has displacements, only
    their fields are fitted anew (`refit`).
    """
    torch.manual_seed(0)
    generator = TriplaneGenerator(config)
    first = None if start is None else weights.load(start)
    if first is not None:
        generator.load_state_dict(enlarge(first.state_dict(), first.config, generator), strict=False)
    if first is not None and first.config.flow_rank == config.flow_rank > 0:
        shares = refit(generator, assets, solved)
    else:
        shares = initialise(generator, assets, solved, labelled, steps)
    weights.save(generator, path, {"layout": LabelLayout.of(assets).to_json(), "flows": shares})
    return shares


def main(arguments: list[str] | None = None) -> None:
    from geoinv_core.train.generator import default_config

    parser = argparse.ArgumentParser(description="Fit the displacements of faces to the head data.")
    parser.add_argument("target", type=Path, help="model file to write; the start of `train generator`")
    parser.add_argument("--heads", help="folder of the head data (default: GEOINV_HEADS)")
    parser.add_argument("--start", type=Path, help="model file whose other weights are kept")
    parser.add_argument("--solved", type=int, default=1400, help="heads whose displacements are solved for")
    parser.add_argument("--labelled", type=int, default=12_000, help="heads that the mapping learns from")
    a = parser.parse_args(arguments)
    assets = HeadAssets.open(a.heads)
    config = default_config(LabelLayout.of(assets))
    shares = begin(a.target, assets, config, a.start, a.solved, a.labelled)
    print({name: round(value, 4) for name, value in shares.items()})


if __name__ == "__main__":
    main()
