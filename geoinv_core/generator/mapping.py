"""The mapping network: latent z and conditioning c to the style space w."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geoinv_core.generator.layers import FullyConnected, normalize_2nd_moment


class Mapping(nn.Module):
    """z [B, z_dim], c [B, c_dim] -> w [B, w_dim].

    Args:
        c_dim: 0 for a model without conditioning.
        last_linear: leave out the activation of the last layer.
        linear: add a linear map of (z, c), zero at first. Not in StyleGAN2: labels then have an effect of
            their own, the same for every head, and what depends on their company is left to the layers.
        normalize_z, normalize_c: bring z, and c after its embedding, to mean square 1.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        layers: int,
        hidden: int | None = None,
        embed_dim: int | None = None,
        lr_mult: float = 0.01,
        normalize_z: bool = True,
        normalize_c: bool = True,
        last_linear: bool = False,
        linear: bool = False,
    ) -> None:
        super().__init__()
        hidden = w_dim if hidden is None else hidden
        embed_dim = (w_dim if embed_dim is None else embed_dim) if c_dim else 0
        self.c_dim, self.layers = c_dim, layers
        self.normalize_z, self.normalize_c = normalize_z, normalize_c
        if c_dim:
            self.embed = FullyConnected(c_dim, embed_dim)
        widths = [z_dim + embed_dim, *[hidden] * (layers - 1), w_dim]
        for i in range(layers):
            plain = last_linear and i == layers - 1
            layer = FullyConnected(widths[i], widths[i + 1], "linear" if plain else "lrelu", lr_mult)
            self.add_module(f"fc{i}", layer)
        self.linear = FullyConnected(z_dim + c_dim, w_dim) if linear else None
        if self.linear is not None:
            nn.init.zeros_(self.linear.weight)
        self.w_avg: Tensor
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor, c: Tensor | None) -> Tensor:
        x = normalize_2nd_moment(z) if self.normalize_z else z
        direct: Tensor | None = None
        if self.linear is not None:
            direct = self.linear(x if c is None else torch.cat([x, c], 1))
        if self.c_dim:
            if c is None:
                raise ValueError(f"This model is conditioned: map() needs c with {self.c_dim} numbers.")
            y = self.embed(c)
            x = torch.cat([x, normalize_2nd_moment(y) if self.normalize_c else y], 1)
        for i in range(self.layers):
            x = self.get_submodule(f"fc{i}")(x)
        return x if direct is None else x + direct


def truncate(ws: Tensor, w_avg: Tensor, truncation: float, cutoff: int | None) -> Tensor:
    """Pull the first `cutoff` (None: all) styles of ws [B, L, w_dim] towards the mean."""
    if truncation == 1:
        return ws
    pulled = w_avg.lerp(ws[:, :cutoff], truncation)
    return pulled if cutoff is None else torch.cat([pulled, ws[:, cutoff:]], 1)
