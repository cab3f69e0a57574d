"""Directions for a generator that knows no labels: `python -m geoinv_core train directions MODEL`.

After InterFaceGAN (Shen et al. 2020, section 3): random heads are drawn, scored, and the extremes of each
score are told apart by a linear machine; the normal of its plane is the direction. The scores are the
bundled encoder's labels, so a value means the same as for a labelled model: 1 is a full smile, a decade is
ten years. Beside them lie unnamed ones after SeFa (Shen & Zhou 2021, equation 5), the axes along which the
layers' weights stretch most.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from geoinv_core.edit import MIXES, Directions, Labels, save_directions
from geoinv_core.encoder import Encoder
from geoinv_core.errors import GeoInvError, ModelError
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.model import Model, open_model
from geoinv_core.photo import landmarks
from geoinv_core.photo.align import crop_of_points, invert

NAMES = ("age", "male", "weight", "beard", "skin_tone", *MIXES, "jawOpen")
EXPLORE = 6
"""Unnamed directions."""
_EXTREMES = 0.1
"""Share of the heads at either end of a score that the machine sees."""
_TRAINED = 0.7
_LEAST = 60
"""Heads without which nothing is fitted."""
_FACE = 0.5
"""Score of the landmark network below which a drawn picture counts as no face."""
_PICTURE = 128


@dataclass(frozen=True)
class Fitted:
    """One direction and how well it tells its label."""

    move: Tensor
    """[w_dim] what one unit of the label adds to w"""
    accuracy: float
    """share of held-out extremes on the right side, 0.5 is chance"""
    reach: tuple[float, float]
    """values between which random heads lie"""


def fit(w: Tensor, score: Tensor, seed: int = 0) -> Fitted:
    """A direction from codes [N, w_dim] and their scores [N], in natural units.

    A linear support vector machine with squared hinge on the extremes; its unit normal is scaled by the
    spreads of score and position along it. Raises GeoInvError for too few heads or a score that does not
    vary.
    """
    if len(w) < _LEAST or float(score.std()) < 1e-4:
        raise GeoInvError(f"{len(w)} heads with this score are too few to fit a direction; draw more.", "few")
    order = score.argsort()
    few = max(20, int(len(w) * _EXTREMES))
    chosen = torch.cat([order[:few], order[-few:]])
    sign = torch.cat([-torch.ones(few), torch.ones(few)]).to(w)
    shuffle = torch.randperm(2 * few, generator=torch.Generator().manual_seed(seed)).to(w.device)
    chosen, sign = chosen[shuffle], sign[shuffle]
    centre, spread = w.mean(0), w.std(0).clamp_min(1e-6)
    x = (w[chosen] - centre) / spread
    n = int(len(x) * _TRAINED)
    normal = torch.zeros(w.shape[1], device=w.device, requires_grad=True)
    bias = torch.zeros((), device=w.device, requires_grad=True)
    solver = torch.optim.LBFGS([normal, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        margin = sign[:n] * (x[:n] @ normal + bias)
        value = (1 - margin).clamp_min(0).square().mean() + 0.05 * normal.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(loss)
    plane, offset = normal.detach(), bias.detach()
    right = (x[n:] @ plane + offset) * sign[n:] > 0
    # Within standardised codes the direction is the normal; back in w it stretches with the codes' spread.
    direction = plane / plane.norm().clamp_min(1e-9)
    along = ((w - centre) / spread) @ direction
    step = float(along.std() / score.std())
    low, high = score.quantile(0.01).item(), score.quantile(0.99).item()
    return Fitted(direction * spread * step, float(right.float().mean()), (low, high))


def explore(generator: TriplaneGenerator, count: int = EXPLORE) -> Tensor:
    """Unit vectors [count, w_dim]: eigenvectors of the summed squares of what turns styles into
    modulation."""
    layers = generator.backbone.synthesis.named_modules()
    weights = [layer.get_parameter("weight") for name, layer in layers if name.endswith("affine")]
    total = torch.stack([w.detach().float().T @ w.detach().float() for w in weights]).sum(0)
    values, vectors = torch.linalg.eigh(total.cpu())
    found: Tensor = vectors[:, values.argsort(descending=True)[:count]].T.contiguous()
    return found


def picture_of(model: Model, ws: Tensor) -> Tensor | None:
    """The face of a code [1, L, w_dim] as the encoder wants it, [1, 3, S, S] in -1..1, or None without a
    face."""
    camera = model.front()[None].to(model.device)
    with torch.inference_mode():
        generator = model.generator
        out = generator.synthesize(ws, camera)
        image = out.image[:, :3].float().clamp(-1, 1).cpu()
        if not generator.config.draws_background:
            image = image + (1 - out.mask.float().cpu()) * 0.6
    pixels = ((image[0].permute(1, 2, 0) + 1) * 127.5).clamp(0, 255).round().byte().numpy()
    size = pixels.shape[0]
    found = landmarks.find(pixels, (size / 2, size / 2), size / 2)
    if found.score < _FACE:
        return None
    four = {name: found.points[name] for name in ("eye_left", "eye_right", "mouth_left", "mouth_right")}
    back = torch.from_numpy(invert(crop_of_points(four, _PICTURE))).float()
    axis = torch.arange(_PICTURE) + 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    at = torch.stack([x, y], -1) @ back[:, :2].T + back[:, 2]
    return grid_sample(image, (at / size * 2 - 1)[None], padding_mode="border", align_corners=False)


def scored(model: Model, encoder: Encoder, labels: Labels, codes: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Codes [N, w_dim] whose pictures show a face, and their labels in natural units, by name."""
    kept: list[Tensor] = []
    rows: list[dict[str, float]] = []
    for i, w in enumerate(codes):
        image = picture_of(model, w.expand(1, model.generator.num_ws, -1))
        if (i + 1) % 50 == 0:
            print(f"{i + 1} of {len(codes)} heads drawn, {len(kept)} faces", file=sys.stderr, flush=True)
        if image is None:
            continue
        with torch.inference_mode():
            values = labels.read(encoder(image.to(model.device)).c[0])
        kept.append(w.cpu())
        rows.append({name: values[name] for name in NAMES})
    if not kept:
        raise ModelError(f"{model.name} draws no faces, so there is nothing to fit directions to.")
    return torch.stack(kept), {name: torch.tensor([row[name] for row in rows]) for name in NAMES}


def random_codes(model: Model, count: int, seed: int) -> Tensor:
    """[count, w_dim] of random latents, as the model's own samples have them."""
    k, random = model.generator.config, torch.Generator().manual_seed(seed)
    z = torch.randn(count, k.z_dim, generator=random).to(model.device)
    with torch.inference_mode():
        w = model.generator.map(z, model.conditioning().expand(count, -1), truncation=0.8)[:, 0]
    return w.clone()


def fit_all(
    model: Model, encoder: Encoder, labels: Labels, codes: Tensor, least: float = 0.65, seed: int = 0
) -> tuple[Directions, dict[str, float]]:
    """Directions of all labels that are told with at least this accuracy, unnamed ones, and all
    accuracies."""
    w, scores = scored(model, encoder, labels, codes)
    moves: dict[str, Tensor] = {}
    limits: dict[str, tuple[float, float]] = {}
    accuracy: dict[str, float] = {}
    for name, score in scores.items():
        if float(score.std()) < 1e-3:
            continue
        found = fit(w, score, seed)
        accuracy[name] = round(found.accuracy, 3)
        if found.accuracy < least:
            continue
        moves[name] = found.move
        widest = max(found.reach[1] - found.reach[0], 1e-3)
        limits[name] = (-1.5 * widest, 1.5 * widest) if name in ("age",) else (-1.0, 1.0)
    spread = w.std(0).mean() * w.shape[1] ** 0.5 / 3
    moves |= {f"explore{i + 1}": v * spread for i, v in enumerate(explore(model.generator))}
    return Directions(moves, limits, accuracy), accuracy


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        prog="geoinv train directions", description="Fit directions for a generator without labels."
    )
    parser.add_argument("model", help="generator file; the directions are written beside it")
    parser.add_argument("--count", type=int, default=2000, help="heads to draw (default: 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--least", type=float, default=0.65, help="accuracy below which a label is left out")
    a = parser.parse_args(arguments)
    default = open_model("default", a.device)
    encoder, labels = default.encoder, default.label_space
    assert encoder is not None  # the bundled model is never without
    assert labels is not None
    model = open_model(a.model, a.device)
    directions, accuracy = fit_all(
        model, encoder, labels, random_codes(model, a.count, a.seed), a.least, a.seed
    )
    path = save_directions(
        directions, Path(a.model).with_name(Path(a.model).stem + ".directions.safetensors"), model.hash
    )
    return {"file": str(path), "accuracy": accuracy, "kept": list(directions.names)}
