"""The tri-plane generator: z, c -> styles -> planes -> density and features at points."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from geoinv_core import render as rendering
from geoinv_core.camera import rays
from geoinv_core.generator.config import GeneratorConfig
from geoinv_core.generator.decoder import Decoder
from geoinv_core.generator.flow import Flow
from geoinv_core.generator.layers import NoiseMode, ToRGB
from geoinv_core.generator.mapping import Mapping, truncate
from geoinv_core.generator.superresolution import SuperresolutionNetwork, resize
from geoinv_core.generator.synthesis import Synthesis
from geoinv_core.render import Field
from geoinv_core.render.api import Jitter

_ELSEWHERE = 0.2  # world units


@dataclass(frozen=True, eq=False)
class View:
    """What render() returns: a picture of features."""

    features: Tensor
    """[B, F, R, R]; -1..1 for a signed field."""
    depth: Tensor
    """[B, 1, R, R], world units along the ray."""
    opacity: Tensor
    """[B, 1, R, R], 0..1."""


@dataclass(frozen=True, eq=False)
class Picture:
    """What synthesize() returns."""

    image: Tensor
    """[B, 3, S, S] in about -1..1, after super-resolution if the model has any."""
    raw: Tensor
    """[B, 3, R, R], before super-resolution, as the original reports it (see SuperresolutionNetwork)."""
    depth: Tensor
    """[B, 1, R, R], world units along the ray."""
    mask: Tensor
    """[B, 1, R, R], how much of the picture is head rather than background."""
    features: Tensor
    """[B, F, R, R]."""


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
            linear=k.mapping_linear,
        )
        picture = len(k.axes) * k.plane_channels * k.plane_depth
        self.synthesis = Synthesis(k.channels, k.w_dim, picture, k.noise, k.conv_clamp, k.anchored)
        self.flow = Flow(len(k.axes), k.plane_depth, k.w_dim, k.flow_rank) if k.flow_rank else None


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
        if config.superresolution is not None:
            self.superresolution = SuperresolutionNetwork(config, config.superresolution)
        if config.torgb_raw:
            self.torgb = ToRGB(config.features, 3, config.w_dim)
        if config.background:
            self.bcg_synthesis = Synthesis(config.background, config.w_dim, config.features, config.noise)
        if config.translation is not None:
            layers, hidden, embed = config.translation
            self.t_mapping = Mapping(
                config.z_dim, config.c_dim, 3, layers, hidden, embed, lr_mult=1.0, last_linear=True
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
        planes = picture.view(len(ws), len(k.axes), k.plane_channels, *depth, *picture.shape[2:])
        flow = self.backbone.flow
        return planes if flow is None else flow(planes, ws[:, 0])

    def query(self, planes: Tensor, points: Tensor, backend: str = "auto") -> tuple[Tensor, Tensor]:
        """The field at points [B, N, 3] (world units), differentiable; backend: see geoinv_core.render.

        Returns: raw density, or for an "sdf" model signed distance in world units, [B, N]; features
        [B, N, F] after the activation.
        """
        raw, features = rendering.query(self.field(planes), points, backend)
        return raw[..., 0], features

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
        beta = self.decoder.log_beta.exp() if k.density == "sdf" else torch.ones_like(self.axes[0, 0, 0])
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

    def colour_field(self, planes: Tensor, ws: Tensor) -> Field:
        """The same field with colours instead of features, sRGB 0..1: three channels, or six where the model
        tells lit from unlit. They are the raw picture's, point by point; what super-resolution makes of all
        features is in `synthesize`.

        Args: planes: from planes(); ws: [1, L, w_dim], which a learned mix of features depends on.
        """
        k, field = self.config, self.field(planes)
        w, b = field.w2[1:], field.b2[1:]
        if k.torgb_raw and k.activation == "none":
            # a linear mix after a linear layer is a linear layer, and sums over a ray keep it
            mix = self.torgb.weight[:, :, 0, 0] * (self.torgb.affine(ws[:1, -1]) * self.torgb.gain)
            w, b = mix @ w, mix @ b + self.torgb.bias
        else:
            count = 6 if k.has_albedo else 3
            w, b = w[:count], b[:count]
        if k.activation == "none":  # such models' pictures are in -1..1 as they are
            w, b = w / 2, (b + 1) / 2
        return replace(
            field,
            w2=torch.cat([field.w2[:1], w]),
            b2=torch.cat([field.b2[:1], b]),
            signed=False,
            white_back=False,
        )

    def raw_picture(
        self,
        planes: Tensor,
        ws: Tensor,
        camera: Tensor,
        resolution: int,
        samples: tuple[int, int] | None = None,
    ) -> View:
        """The picture before super-resolution as colours: features [1, 3, R, R] sRGB 0..1, black where
        nothing is unless the model has a background. Differentiable; args as for `render`."""
        view = self.draw(self.colour_field(planes, ws), camera, resolution, samples)
        colour = view.features[:, :3]
        if self.config.background:
            behind = resize(self.backdrop(ws), resolution)
            behind = self.torgb(behind, ws[:, -1]) if self.config.torgb_raw else behind[:, :3]
            # a signed picture already is -1 where nothing is drawn, so its background only adds
            colour = colour + (1 - view.opacity) * (behind / 2 if self.config.signed else (behind + 1) / 2)
        return replace(view, features=colour)

    def sample_grid(self, planes: Tensor, resolution: int) -> Tensor:
        """Raw density or distance on an aligned lattice over the box, [B, n, n, n] indexed [x, y, z]."""
        return rendering.sample_grid(self.field(planes), resolution)

    def render(
        self,
        planes: Tensor,
        camera: Tensor,
        resolution: int,
        samples: tuple[int, int] | None = None,
        jitter: Jitter = "mid",
        ws: Tensor | None = None,
        noise: NoiseMode = "const",
        backend: str = "auto",
    ) -> View:
        """Draw planes as seen by cameras.

        Args:
            planes: from planes(). camera: [B, 25] (or [1, 25]: one for all heads). resolution: side, pixels.
            samples: coarse and fine samples per ray, the model's own if None.
            ws, noise: for models with a background network; without ws there is no background.
            backend: see geoinv_core.render.render.
        """
        view = self.draw(self.field(planes), camera, resolution, samples, jitter, backend)
        if self.config.background and ws is not None:
            behind = (1 - view.opacity) * resize(self.backdrop(ws, noise), resolution)
            view = replace(view, features=view.features + behind)
        return view

    def draw(
        self,
        field: Field,
        camera: Tensor,
        resolution: int,
        samples: tuple[int, int] | None = None,
        jitter: Jitter = "mid",
        backend: str = "auto",
    ) -> View:
        """Draw a field of this model (`field` or `colour_field`), without background; see `render`."""
        k = self.config
        origins, directions = rays(camera.to(field.planes).expand(field.batch, -1), resolution)
        # The model's bounds are for cameras at its own distance; the box serves those that are elsewhere.
        away = float((camera[:, [3, 7, 11]].detach().norm(dim=-1) - k.camera_radius).abs().max())
        near, far = (k.ray_start, k.ray_end) if away < _ELSEWHERE else (None, None)
        drawn = rendering.render(
            field,
            origins,
            directions,
            "auto" if near is None else near,
            "auto" if far is None else far,
            k.samples if samples is None else samples,
            jitter,
            "disparity" if k.disparity else "importance",
            backend,
        )
        shape = (field.batch, -1, resolution, resolution)
        return View(
            drawn.features.transpose(1, 2).reshape(shape),
            drawn.depth.reshape(shape),
            drawn.opacity.reshape(shape),
        )

    def backdrop(self, ws: Tensor, noise: NoiseMode = "const") -> Tensor:
        """The background network's features [B, F, r, r] for styles [B, L, w_dim]."""
        missing = self.bcg_synthesis.num_ws - ws.shape[1]
        if missing > 0:
            ws = torch.cat([ws, ws[:, -1:].expand(-1, missing, -1)], 1)
        result: Tensor = self.bcg_synthesis(ws[:, : self.bcg_synthesis.num_ws], noise)
        return result

    def synthesize(
        self,
        ws: Tensor,
        camera: Tensor,
        neural_resolution: int | None = None,
        noise: NoiseMode = "const",
        jitter: Jitter = "mid",
        planes: Tensor | None = None,
        samples: tuple[int, int] | None = None,
        backend: str = "auto",
    ) -> Picture:
        """The model's final picture.

        Args:
            ws: [B, num_ws, w_dim]. camera: [B, 25].
            neural_resolution: side of the rendered picture before super-resolution, the model's own if None.
            planes: of these ws, to be reused over many cameras.
        """
        k = self.config
        if planes is None:
            planes = self.planes(ws, noise)
        view = self.render(
            planes, camera, neural_resolution or k.neural_resolution, samples, jitter, ws, noise, backend
        )
        raw = self.torgb(view.features, ws[:, -1]) if k.torgb_raw else view.features[:, :3]
        image = raw
        if k.superresolution is not None:
            image, raw = self.superresolution(raw, view.features, ws, k.sr_noise)
        mask = view.opacity * 1.002 - 0.001 if k.mask else view.opacity
        return Picture(image, raw, view.depth, mask, view.features)

    def shifted(
        self, z: Tensor, c: Tensor, camera: Tensor, truncation: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        """The camera [B, 25] moved as the model's translation network says; unchanged if it has none."""
        if self.config.translation is None:
            return camera
        offset = truncate(self._translate(z, c)[:, None], self.t_mapping.w_avg, truncation, cutoff)[:, 0]
        camera = camera.clone()
        camera[:, [3, 7, 11]] += offset
        return camera

    def _translate(self, z: Tensor, c: Tensor) -> Tensor:
        c = torch.zeros_like(c) if self.config.zero_c else c * self.config.c_scale
        result: Tensor = self.t_mapping(z, c)
        return result
