"""The tri-plane generator: z, c -> styles -> planes -> density and features at points."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from geoinv_core.generator.config import GeneratorConfig
from geoinv_core.generator.decoder import Decoder
from geoinv_core.generator.layers import NoiseMode
from geoinv_core.generator.mapping import Mapping, truncate
from geoinv_core.generator.sampling import sample_planes
from geoinv_core.generator.synthesis import Synthesis
from geoinv_core.render.field import Field


class Backbone(nn.Module):
    """Mapping and synthesis, named as in EG3D's state dicts."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        k = config
        self.mapping = Mapping(
            k.z_dim,
            k.c_dim,
            k.w_dim,
            k.mapping_layers,
            k.mapping_hidden,
            k.embed_dim,
            k.mapping_lr_mult,
            k.normalize_z,
            k.normalize_c,
        )
        picture = len(k.axes) * k.plane_channels * k.plane_depth
        self.synthesis = Synthesis(k.channels, k.w_dim, picture, k.noise, k.conv_clamp)


class TriplaneGenerator(nn.Module):
    """EG3D, PanoHead and the bundled model, told apart by their configuration only."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.decoder = Decoder(
            config.plane_channels,
            config.decoder_hidden,
            config.features,
            config.activation,
            config.density,
            config.decoder_lr_mult,
            config.beta,
        )
        self.axes: Tensor
        self.inverse_axes: Tensor
        self.register_buffer("axes", torch.empty(len(config.axes), 3, 3), persistent=False)
        self.register_buffer("inverse_axes", torch.empty_like(self.axes), persistent=False)
        self.reset_axes()

    def reset_axes(self) -> None:
        """Set the plane axes from the configuration (they are no weights, so no file holds them)."""
        if self.axes.is_meta:
            return
        axes = torch.tensor(self.config.axes)
        self.axes.copy_(axes)
        self.inverse_axes.copy_(torch.linalg.inv(axes))

    @property
    def num_ws(self) -> int:
        return self.config.num_ws

    @property
    def w_avg(self) -> Tensor:
        """Mean style [w_dim]; training keeps it up to date, truncation pulls towards it."""
        return self.backbone.mapping.w_avg

    def map(
        self, z: Tensor, c: Tensor | None = None, truncation: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        """Styles for latents.

        Args:
            z: [B, z_dim]. c: [B, c_dim], camera or labels, None only for unconditioned models.
            truncation: 1 keeps w, 0 gives the mean. cutoff: only the first so many styles are pulled.
        Returns: [B, num_ws, w_dim].
        """
        if c is not None:
            c = torch.zeros_like(c) if self.config.zero_c else c * self.config.c_scale
        w = self.backbone.mapping(z, c)
        ws = w[:, None].expand(-1, self.num_ws, -1)
        return truncate(ws, self.w_avg, truncation, cutoff)

    def planes(self, ws: Tensor, noise: NoiseMode = "const") -> Tensor:
        """ws [B, num_ws, w_dim] -> [B, P, C, H, W], or [B, P, C, D, H, W] for a tri-grid."""
        k = self.config
        picture: Tensor = self.backbone.synthesis(ws, noise)
        depth = () if k.plane_depth == 1 else (k.plane_depth,)
        return picture.view(len(ws), len(k.axes), k.plane_channels, *depth, *picture.shape[2:])

    def query(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """The field at points [B, N, 3] (world units), differentiable.

        Returns: raw density, or for an "sdf" model signed distance in world units, [B, N]; features
        [B, N, F] after the activation.
        """
        k = self.config
        projected = torch.einsum("bnk,pkj->bnpj", points * (2 / k.box_warp), self.inverse_axes)
        raw, features = self.decoder(sample_planes(planes, projected))
        if k.density == "sdf":
            raw = k.distance_scale * raw + (points.norm(dim=-1) - k.distance_radius)
        return raw, features

    def density(self, raw: Tensor) -> Tensor:
        """What query() calls raw -> density per world unit, >= 0."""
        if self.config.density == "sdf":
            beta = self.decoder.log_beta.exp()
            return torch.sigmoid(-raw / beta) / beta
        return softplus(raw - 1) if self.config.density == "softplus" else raw.clamp_min(0)

    def field(self, planes: Tensor) -> Field:
        """Everything a renderer needs to draw these planes, as plain data."""
        k = self.config
        w1, b1, w2, b2 = self.decoder.folded()
        beta = self.decoder.log_beta.exp() if k.density == "sdf" else torch.ones([], device=planes.device)
        return Field(
            planes=planes,
            axes=self.axes,
            w1=w1,
            b1=b1,
            w2=w2,
            b2=b2,
            density=k.density,
            beta=beta,
            distance_scale=k.distance_scale,
            distance_radius=k.distance_radius,
            activation=k.activation,
            signed=k.signed,
            box_warp=k.box_warp,
            crop=k.crop,
            white_back=k.white_back,
        )
