"""The layers of StyleGAN2 as EG3D uses them, with the same numbers, arranged to be quick on a CPU.

Shapes are [B, C, H, W]; results are of the type of the activations, weights float32. Modulated convolutions
scale activations instead of weights: the whole batch then shares one dense convolution, which is what both
oneDNN and cuDNN like best, forward and backward, with tensors in channels_last memory format. A single head
without gradients takes the definition's own order instead, for the sake of equal rounding.
Source of the formulas: Karras et al. 2020 (StyleGAN2), Chan et al. 2022 (EG3D).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, interpolate, leaky_relu, linear

NoiseMode = Literal["const", "random", "none"]
SQRT2 = math.sqrt(2.0)


def normalize_2nd_moment(x: Tensor) -> Tensor:
    """Scale every row of [B, N] to mean square 1."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class FullyConnected(nn.Module):
    """Linear layer with equalised learning rate; weight is stored as N(0, 1) / lr_mult.

    Args:
        activation: "linear", or "lrelu" (slope .2, then times sqrt 2).
        lr_mult: both weight and bias take effect multiplied by it.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        activation: Literal["linear", "lrelu"] = "linear",
        lr_mult: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_mult)
        self.bias = nn.Parameter(torch.full([outputs], bias_init))
        self.activation = activation
        self.weight_gain = lr_mult / math.sqrt(inputs)
        self.bias_gain = lr_mult

    def effective(self) -> tuple[Tensor, Tensor]:
        """Weight [out, in] and bias [out] with their gains."""
        return self.weight * self.weight_gain, self.bias * self.bias_gain

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        x = linear(x, *self.effective())
        return leaky_relu(x, 0.2) * SQRT2 if self.activation == "lrelu" else x


def fir_filter() -> Tensor:
    """The 4x4 low-pass filter outer([1,3,3,1]) / 64, sum 1."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return taps[:, None] * taps[None, :]


def upsample2d(x: Tensor, add: Tensor | None = None) -> Tensor:
    """[B, C, H, W] -> [B, C, 2H, 2W]: zeros between the samples, the low-pass filter times 4, plus `add`.

    The polyphase form of that filter is (.25, .75), that is bilinear interpolation, but with zeros instead of
    repeated samples beyond the border: the outermost rows and columns are .75 of what interpolation gives.
    """
    up = interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    edge = torch.ones(up.shape[2:], device=x.device, dtype=x.dtype)
    edge[0] *= 0.75
    edge[-1] *= 0.75
    edge[:, 0] *= 0.75
    edge[:, -1] *= 0.75
    return up * edge if add is None else torch.addcmul(add, up, edge)


def demodulation(weight: Tensor, styles: Tensor) -> Tensor:
    """1 / norm of every output channel of the scaled weight, [B, O]."""
    return (styles.square() @ weight.square().sum((2, 3)).t() + 1e-8).rsqrt()


def filtered_conv(x: Tensor, weight: Tensor, up: bool) -> Tensor:
    """Plain convolution with `weight` [O, I, k, k], same size or twice the size."""
    if not up:
        return conv2d(x, weight, padding=weight.shape[-1] // 2)
    x = conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    kernel = (fir_filter() * 4).to(x).expand(weight.shape[0], 1, 4, 4)
    return conv2d(x, kernel, padding=1, groups=weight.shape[0])


class SynthesisLayer(nn.Module):
    """Modulated convolution, noise, bias, leaky ReLU times sqrt 2, clamp.

    Args:
        resolution: side of the output. w_dim: width of the style vector.
        noise: whether the layer has noise at all (then a fixed picture of it is part of the weights).
        clamp: outputs are limited to +-clamp, None for no limit.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        resolution: int,
        up: bool = False,
        noise: bool = True,
        clamp: float | None = None,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        self.resolution, self.up, self.clamp = resolution, up, clamp
        self.affine = FullyConnected(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.has_noise = noise
        self.noise_const: Tensor
        if noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros([]))

    def forward(self, x: Tensor, w: Tensor, noise: NoiseMode = "const") -> Tensor:
        """x [B, I, h, h], w [B, w_dim] -> [B, O, resolution, resolution]."""
        styles = self.affine(w)
        if len(x) == 1 and not torch.is_grad_enabled():
            return self._alone(x, styles[0], noise)
        weight: Tensor = self.weight
        if x.dtype == torch.float16:  # would overflow; demodulation takes these factors out again
            weight = weight * weight.square().sum((1, 2, 3), keepdim=True).rsqrt()
            styles = styles / styles.abs().amax(1, keepdim=True)
        x = filtered_conv(x * styles[:, :, None, None].to(x.dtype), weight.to(x.dtype), self.up)
        # the gain sqrt 2 passes through the leaky ReLU, so it rides on factors that are applied anyway
        scale = (demodulation(weight, styles) * SQRT2)[:, :, None, None].to(x.dtype)
        offset = (self.bias * SQRT2)[None, :, None, None].to(x.dtype)
        if self.has_noise and noise != "none":
            grain = (
                self.noise_const
                if noise == "const"
                else torch.randn([x.shape[0], 1, self.resolution, self.resolution], device=x.device)
            )
            offset = offset + (grain * (self.noise_strength * SQRT2)).to(x.dtype)
        x = leaky_relu(torch.addcmul(offset, x, scale), 0.2)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)

    def _alone(self, x: Tensor, styles: Tensor, noise: NoiseMode) -> Tensor:
        """One head without gradients, in the order of the definition: the weights carry the styles.

        Saves two passes over the activations, and rounds as the original does. What follows the convolution
        works in place: at 512 pixels a new picture of all channels costs as much as filling it.
        """
        weight = self.weight * styles[None, :, None, None]
        weight = weight * (weight.square().sum((1, 2, 3)) + 1e-8).rsqrt()[:, None, None, None]
        x = filtered_conv(x, weight.to(x.dtype), self.up)
        if self.has_noise and noise != "none":
            grain = self.noise_const if noise == "const" else torch.randn_like(x[:, :1])
            x += (grain * self.noise_strength).to(x.dtype)
        x += self.bias[None, :, None, None].to(x.dtype)
        x = leaky_relu(x, 0.2, inplace=True).mul_(SQRT2)
        return x if self.clamp is None else x.clamp_(-self.clamp, self.clamp)


class ToRGB(nn.Module):
    """1x1 modulated convolution without demodulation, bias, clamp."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, clamp: float | None = None) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain = 1.0 / math.sqrt(inputs)
        self.clamp = clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [B, I, H, W], w [B, w_dim] -> [B, O, H, W]."""
        styles = self.affine(w) * self.gain
        batch, _, height, width = x.shape
        # with one pixel per row it is a matrix product, in which the few weights can carry the styles
        weight = self.weight[None, :, :, 0, 0].transpose(1, 2) * styles[:, :, None]
        pixels = x.permute(0, 2, 3, 1).reshape(batch, height * width, -1)
        x = torch.baddbmm(self.bias.to(x.dtype), pixels, weight.to(x.dtype))
        x = x.reshape(batch, height, width, -1).permute(0, 3, 1, 2)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


def add_map(x: Tensor, learned: Tensor) -> Tensor:
    """x [B, C, H, W] plus the same learned map [C, H, W] for all.

    Of pictures whose memory holds pixels whole, PyTorch sums a map's gradient eighty times faster as rows.
    """
    if x.is_contiguous():
        return x + learned
    B, C, H, W = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(B, -1) + learned.permute(1, 2, 0).reshape(-1)
    return rows.view(B, H, W, C).permute(0, 3, 1, 2)
