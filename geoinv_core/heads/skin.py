"""Where the skin of a labelled head lies: points of the whole head and landmarks, linear in its latent and
labels.

Morph targets are linear, but for the two halves of an axis and the products of those for age, sex, ancestry
and weight. So a ridge regression on synthetic heads (`geoinv_core.train.skin`) says without the head data
where points of the skin lie: of 6.4 mm that heads differ by, it leaves 1.1 mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geoinv_core.heads.landmarks import IBUG
from geoinv_core.heads.layout import LabelLayout

DATA = Path(__file__).with_name("skin.npz")
BUILD = ("age", "male", "african", "asian", "caucasian", "weight", "muscle")
"""Labels whose effects multiply each other; their products are features too."""
_GROWN = 25.0
"""Years at which MakeHuman's heads stop growing and begin to age."""


def feature_names(layout: LabelLayout) -> tuple[str, ...]:
    """One name per number of `features`."""
    single = [f"z:{name}" for name in (*layout.axes, *layout.asymmetries)]
    single += [*BUILD, *layout.expressions]
    pairs = [f"{a}*{b}" for i, a in enumerate(BUILD) for b in BUILD[i:]]
    bends = [f"|z:{name}|" for name in layout.axes]
    bends += ["|weight|", "|muscle|", "grown", *(f"grown*{name}" for name in BUILD)]
    return ("1", *single, *pairs, *bends)


def features(layout: LabelLayout, z: Tensor, c: Tensor) -> Tensor:
    """What points are linear in, [B, T], of latents z [B, z_dim] and standardised labels c [B, c_dim];
    differentiable. An axis moves other targets up than down, hence the absolute values."""
    names = layout.names
    build = c[:, [names.index(name) for name in BUILD]]
    expressions = c[:, [names.index(name) for name in layout.expressions]]
    pairs = [build[:, i] * build[:, j] for i in range(len(BUILD)) for j in range(i, len(BUILD))]
    centre, spread = layout.standard("age")
    grown = (build[:, :1] - (_GROWN - centre) / spread).clamp_min(0)
    bends = [z[:, : len(layout.axes)].abs(), build[:, 5:].abs(), grown, grown * build]
    return torch.cat([torch.ones_like(z[:, :1]), z, build, expressions, torch.stack(pairs, 1), *bends], 1)


@dataclass(frozen=True, eq=False)
class Skin:
    """Points of the skin, from the neck up."""

    layout: LabelLayout
    rest: Tensor
    """float32 [N + 68, 3] of the neutral head, world units; the last are the landmarks of the iBUG scheme"""
    weights: Tensor
    """float32 [T, 3 (N + 68)]: displacements per feature"""

    def points(self, z: Tensor, c: Tensor) -> Tensor:
        """[B, N, 3] world units, spread over the head, of latents [B, z_dim] and standardised labels
        [B, c_dim]; differentiable."""
        return self._placed(z, c, slice(0, -len(IBUG)))

    def landmarks(self, z: Tensor, c: Tensor) -> Tensor:
        """[B, 68, 3] world units, likewise."""
        return self._placed(z, c, slice(-len(IBUG), None))

    def _placed(self, z: Tensor, c: Tensor, part: slice) -> Tensor:
        weights = self.weights.unflatten(1, (-1, 3))[:, part]
        moved = features(self.layout, z.float(), c.float()) @ weights.flatten(1)
        placed: Tensor = self.rest[part] + moved.unflatten(1, (-1, 3))
        return placed

    def to(self, device: torch.device | str) -> Skin:
        return Skin(self.layout, self.rest.to(device), self.weights.to(device))


@cache
def _data() -> tuple[tuple[str, ...], Tensor, Tensor]:
    # Training goes on with the same tensors, whoever asks for them first.
    with np.load(DATA) as found, torch.inference_mode(False):
        names = tuple(str(found["features"]).split(" "))
        return names, torch.from_numpy(found["rest"]), torch.from_numpy(found["weights"].astype(np.float32))


def skin_of(layout: LabelLayout) -> Skin | None:
    """The skin under these labels; None where they are not those that the points were learned with."""
    names, rest, weights = _data()
    return Skin(layout, rest, weights) if names == feature_names(layout) else None
