"""The synthesis network: styles to a picture of many channels (the planes, or a background)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geoinv_core.generator.layers import NoiseMode, SynthesisLayer, ToRGB, add_map, upsample2d


class SynthesisBlock(nn.Module):
    """One resolution: two convolutions (one at the lowest), and a skip picture that grows with them.

    Args:
        inputs: channels of the block before, 0 for the first block, which starts from a learned constant.
        anchored: learned maps are added between the two convolutions, so that the styles have something at
            every
            place of the face to turn up and down (no part of StyleGAN2: detail at fixed places is learnt
            sooner).
        up: whether the block doubles the resolution (the first block and some super-resolution blocks don't).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        resolution: int,
        picture_channels: int,
        up: bool = True,
        noise: bool = True,
        clamp: float | None = None,
        anchored: bool = False,
    ) -> None:
        super().__init__()
        self.up = up
        self.dtype = torch.float32
        """What the convolutions calculate in without gradients, see `precision`; the picture is float32."""
        self.first = inputs == 0
        if self.first:
            self.const = nn.Parameter(torch.randn(outputs, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(inputs, outputs, w_dim, resolution, up=up, noise=noise, clamp=clamp)
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim, resolution, noise=noise, clamp=clamp)
        self.torgb = ToRGB(outputs, picture_channels, w_dim, clamp=clamp)
        self.num_conv = 1 if self.first else 2
        self.anchor = (
            nn.Parameter(torch.zeros(outputs, resolution, resolution))
            if anchored and not self.first
            else None
        )

    def forward(
        self, x: Tensor | None, picture: Tensor | None, ws: Tensor, noise: NoiseMode
    ) -> tuple[Tensor, Tensor]:
        """x [B, I, h, h], None in the first block; picture [B, K, h, h] or None; ws [B, n, w_dim]."""
        styles = ws.unbind(1)
        if x is None:
            # channels_last is quicker; one head without gradients keeps the original order, hence rounding
            alone = len(ws) == 1 and not torch.is_grad_enabled()
            layout = torch.contiguous_format if alone else torch.channels_last
            x = self.const.expand(len(ws), -1, -1, -1).contiguous(memory_format=layout)
        else:
            if self.dtype != torch.float32 and not torch.is_grad_enabled():
                x = x.to(self.dtype)
            x = self.conv0(x, styles[0], noise)
            if self.anchor is not None:
                x = add_map(x, self.anchor.to(x.dtype))
        x = self.conv1(x, styles[self.num_conv - 1], noise)
        rgb = self.torgb(x, styles[self.num_conv])
        if self.dtype != torch.float32:
            rgb = rgb.float()
        if picture is None:
            return x, rgb
        return x, upsample2d(picture, rgb) if self.up else picture + rgb


class Synthesis(nn.Module):
    """ws [B, num_ws, w_dim] -> [B, picture_channels, R, R].

    Args:
        channels: (resolution, width) per block from 4 up.
        anchored: learned maps in every block (see SynthesisBlock), and a learned mean picture.
    """

    def __init__(
        self,
        channels: tuple[tuple[int, int], ...],
        w_dim: int,
        picture_channels: int,
        noise: bool = True,
        clamp: float | None = None,
        anchored: bool = False,
    ) -> None:
        super().__init__()
        self.resolutions = [r for r, _ in channels]
        self.num_ws = 2 * len(channels)
        before = 0
        for r, width in channels:
            self.add_module(
                f"b{r}",
                SynthesisBlock(
                    before,
                    width,
                    w_dim,
                    r,
                    picture_channels,
                    up=before > 0,
                    noise=noise,
                    clamp=clamp,
                    anchored=anchored,
                ),
            )
            before = width
        side = self.resolutions[-1]
        self.mean = nn.Parameter(torch.zeros(picture_channels, side, side)) if anchored else None

    def blocks(self) -> list[SynthesisBlock]:
        """The blocks from the lowest resolution up."""
        found = [self.get_submodule(f"b{r}") for r in self.resolutions]
        return [b for b in found if isinstance(b, SynthesisBlock)]

    def forward(self, ws: Tensor, noise: NoiseMode = "const") -> Tensor:
        x: Tensor | None = None
        picture: Tensor | None = None
        start = 0
        for block in self.blocks():
            # a block's picture shares its style with the next block's first convolution
            x, picture = block(x, picture, ws[:, start : start + block.num_conv + 1], noise)
            start += block.num_conv
        if picture is None:
            raise ValueError("A synthesis network needs at least one block.")
        return picture if self.mean is None else add_map(picture, self.mean.to(picture.dtype))
