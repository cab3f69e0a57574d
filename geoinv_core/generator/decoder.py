"""The small decoder from plane features to density (or signed distance) and colour features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from geoinv_core.generator.config import Activation, Density
from geoinv_core.generator.layers import SQRT2, FullyConnected


class Decoder(nn.Module):
    """Mean plane features [..., C] -> row 0 [...], features [..., F] after the activation.

    An "sdf" decoder owns `log_beta`, the logarithm of the learnable width of the surface in world units.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        features: int,
        activation: Activation,
        density: Density,
        lr_mult: float = 1.0,
        beta: float = 0.02,
    ) -> None:
        super().__init__()
        self.net = nn.Sequential(
            FullyConnected(inputs, hidden, lr_mult=lr_mult),
            nn.Softplus(),
            FullyConnected(hidden, 1 + features, lr_mult=lr_mult),
        )
        self.activation: Activation = activation
        if density == "sdf":
            self.log_beta = nn.Parameter(torch.tensor(math.log(beta)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = self.net(x)
        return out[..., 0], self.activate(out[..., 1:])

    def activate(self, raw: Tensor) -> Tensor:
        if self.activation == "sigmoid":
            return torch.sigmoid(raw) * 1.002 - 0.001
        return leaky_relu(raw, 0.2) * SQRT2 if self.activation == "lrelu" else raw

    def folded(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """w1 [hidden, C], b1 [hidden], w2 [1+F, hidden], b2 [1+F], gains included."""
        first, last = self.net[0], self.net[2]
        if not isinstance(first, FullyConnected) or not isinstance(last, FullyConnected):
            raise TypeError("The decoder's layers were replaced by something else.")
        return (*first.effective(), *last.effective())
