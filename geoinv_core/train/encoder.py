"""Train the encoder by itself: `python -m geoinv_core train encoder`.

Self-training after E3DGE (arXiv 2212.07409, section 3.1): no real photos, every picture comes with its exact
code, camera and geometry. Pictures are drawn heads (best with even expressions, see `expressions`) and
samples of the generator (whose labels are the same vectors), made photo-like by `augment`. With a generator
at hand the geometric terms of the paper apply as well, at points through the frozen generator: distance on
the surface, near it and in free space, normals, and colour. There is no eikonal term: the generator is
frozen and its field is as near to a distance as its own training made it.

Labels are not equal. Groups of them are weighted against each other, so that expressions get their share;
those that no one can tell from a picture are weighted down by their variance, so that their noise does not
drown the rest.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cosine_similarity,
    cross_entropy,
    smooth_l1_loss,
)
from torch.nn.functional import interpolate as resize

from geoinv_core import camera as cameras
from geoinv_core.encoder.config import INPUT, OUTLINE, EncoderConfig
from geoinv_core.encoder.network import Encoded, Encoder, camera_of
from geoinv_core.encoder.store import load_encoder, save_encoder
from geoinv_core.errors import GeoInvError, ModelError
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.heads.layout import LabelLayout
from geoinv_core.heads.skin import skin_of
from geoinv_core.train.crops import ANCHORS, make_crops
from geoinv_core.train.dataset import DEPTH, UNIT_MM, HeadSet
from geoinv_core.train.generator import losses, slopes
from geoinv_core.train.run import Averages, Ema, Run, mixed
from geoinv_core.train.supervision import depth_from, points_from_pictures

KEYS = ("z", "c", "camera", "rgb", "albedo", "mask", "segment", "depth", "normal", "landmarks", "ibug")
LABELS = ("z", "c", "landmarks")
NORMALS = 256  # points of a head whose normal is compared
CLOSE = 320  # width of the close reading
SHARPEST = 192  # side of the crops where the drawn heads have as much; patches resolve no more
_CODES = 512  # heads whose codes tell how much codes vary
_RARE = 0.05  # variance of standardised labels below which they hardly count
_EXPRESSIONS = 2.0  # weight of all expressions against that of all other plain labels


@dataclass(frozen=True)
class Settings:
    batch: int = 32
    rate: float = 8e-4
    decay: float = 0.999
    bfloat16: bool = True
    log_every: int = 50
    """steps between two lines of the log"""
    through_generator: int = 12
    """heads of a batch that also go through the generator (when there is one)"""


def label_weights(c: Tensor, layout: LabelLayout) -> Tensor:
    """How much a squared error of each label counts: [c_dim], 0 for the exclusive ones (which have a cross
    entropy).

    An expression's errors count as they are, so that units which move often and far come first; together
    they weigh _EXPRESSIONS, as a share of their variance. Other labels are measured in their own variance
    and weigh 1.

    Args: c: [N, c_dim] of the training set.
    """
    var = c.var(0)
    moving = torch.tensor([name in set(layout.expressions) for name in layout.names])
    other = torch.tensor([":" not in name for name in layout.names]) & ~moving
    result = torch.zeros_like(var)
    result[moving] = _EXPRESSIONS / var[moving].sum()
    result[other] = 1 / (var[other] + _RARE) / other.sum()
    return result


def label_losses(
    out: Encoded,
    z: Tensor,
    c: Tensor,
    landmarks: Tensor,
    targets: dict[str, Tensor],
    weights: Tensor,
    choices: tuple[tuple[int, ...], ...],
) -> dict[str, Tensor]:
    """What needs no generator: shape axes, labels, camera, landmarks, outline, and how sure each is.

    Args: landmarks: [B, L, 3] world. targets: of `Crops`. weights: of `label_weights`.
    """
    kinds = c.new_zeros(())
    for choice in map(list, choices):
        kinds = kinds + cross_entropy(out.logits[:, choice], c[:, choice].argmax(1))
    plain = weights > 0
    error = out.c - c
    seen, _ = cameras.project(camera_of(targets["pose"]), landmarks)
    guess, _ = cameras.project(out.camera, landmarks)
    terms = {
        "z": 0.5 * (out.z - z).square().mean(),
        "c": (error.square() * weights).sum(1).mean(),
        "spread": 0.05 * likelihood(error[:, plain], out.spread[:, plain]),
        "kinds": 0.25 * kinds,
        "pose": 8.0 * smooth_l1_loss(out.pose, targets["pose"], beta=0.05),
        "landmarks": 8.0 * (guess - seen).clamp(-1, 1).abs().mean(),
    }
    if out.pose_spread is None or out.landmarks is None or out.landmark_spread is None or out.outline is None:
        return terms
    terms["spread"] = terms["spread"] + 0.05 * likelihood(out.pose - targets["pose"], out.pose_spread)
    terms["outline"] = 0.5 * binary_cross_entropy_with_logits(
        out.outline, resize(targets["cover"], size=(OUTLINE, OUTLINE), mode="area")
    )
    if out.occlusion is not None:
        head, hidden = (
            resize(targets[name], size=(OUTLINE, OUTLINE), mode="area") for name in ("cover", "occlusion")
        )
        terms["occlusion"] = 0.5 * binary_cross_entropy_with_logits(out.occlusion, hidden, weight=head)
    if "ibug" in targets:
        apart = out.landmarks - targets["ibug"]
        terms["ibug"] = 12.0 * smooth_l1_loss(out.landmarks, targets["ibug"], beta=0.005)
        terms["spread"] = terms["spread"] + 0.05 * likelihood(apart, out.landmark_spread)
    return terms


def skin_loss(apart: Tensor) -> Tensor:
    """How far the skin of the predicted heads lies from the true ones', [B, N, 3] world units.

    Hardly any axis of z can be read by itself: one moves the skin by half a pixel of the crop, and most by
    far less. What a picture shows is the form that all of them make together with age, sex and weight.
    """
    return 60.0 * smooth_l1_loss(apart, torch.zeros_like(apart), beta=0.005)


def likelihood(error: Tensor, spread: Tensor) -> Tensor:
    """Negative logarithm of a normal density, up to a constant; it teaches the spread and not the mean,
    which would otherwise give up where it errs."""
    return (error.detach().square() / spread.square() * 0.5 + spread.log()).mean()


def surface_normals(batch: dict[str, Tensor], count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random visible points of a batch's heads and their normals, [B, count, 3] each, world."""
    B, V, S = batch["mask"].shape[:3]
    depth = batch["depth"].reshape(B, -1)
    solid = (depth > 0) & (batch["mask"].reshape(B, -1) > 127)
    index = torch.multinomial(solid.float() + 1e-9, count, replacement=True, generator=rng)
    origins, directions = cameras.rays(batch["camera"].reshape(B * V, 25), S)

    def take(x: Tensor) -> Tensor:
        return x.reshape(B, V * S * S, 3).gather(1, index[..., None].expand(-1, -1, 3))

    away = depth_from(batch).gather(1, index // (S * S))
    at = DEPTH[0] + depth.gather(1, index) * DEPTH[1] + away
    return take(origins) + take(directions) * at[..., None], take(batch["normal"]).float() / 127


def generator_losses(
    generator: TriplaneGenerator,
    out: Encoded,
    batch: dict[str, Tensor],
    scale: Tensor,
    rng: torch.Generator,
    bfloat16: bool,
) -> dict[str, Tensor]:
    """The paper's terms through the frozen generator: code, colour, distance on, near and off the surface.

    Args: scale: mean variance of codes.
    """
    ws = generator.map(out.z, out.c) + out.delta
    target = generator.map(batch["z"].to(ws), batch["c"].to(ws))
    with mixed(ws.device, bfloat16):
        planes = generator.planes(ws)
    points = points_from_pictures(batch, 2048, 1024, 768, 64, rng)
    points = points.to(ws.device)
    terms = losses(generator, planes.float(), points)
    terms = {"g_" + k: v for k, v in terms.items()}
    at, normal = (x.to(ws.device) for x in surface_normals(batch, NORMALS, rng))
    along = slopes(generator, planes.float(), at)
    terms["g_normal"] = 0.1 * (1 - cosine_similarity(along, normal, dim=-1)).mean()
    terms["code"] = 0.1 * (ws - target).square().mean() / scale
    terms["delta"] = 0.02 * out.delta.square().mean() / scale
    return terms


def begin_from(encoder: Encoder, state: dict[str, Tensor]) -> None:
    """Take over the weights of another encoder, which may be older: what it lacks begins afresh. Its cascade
    and what reads brows are left behind, for they are trained afterwards (`train.cascade`, `train.brows`).

    Raises: ModelError when it was made for other labels or another generator's sizes.
    """
    own = encoder.state_dict()
    state = {name: value for name, value in state.items() if not name.startswith(("cascade.", "brows."))}
    wrong = [n for n, v in state.items() if n not in own or own[n].shape != v.shape]
    if wrong:
        raise ModelError(
            f"This encoder cannot begin from the other one because {wrong[0]} does not fit; "
            "name one that was trained for a generator of the same sizes and labels."
        )
    encoder.load_state_dict(state, strict=False)


def train(
    data: Path,
    folder: Path,
    minutes: float,
    generator: Path | None = None,
    start: Path | None = None,
    samples: Path | None = None,
    settings: Settings = Settings(),
    threads: int = 1,
    seed: int = 2,
    widths: tuple[int, ...] | None = None,
    shape: tuple[int, int] = (12, 256),
    session: float = math.inf,
) -> Path:
    """Train until the budget is spent; returns `encoder.safetensors`.

    Args:
        data: drawn heads. samples: heads drawn by the generator, for every fourth batch. generator: model
            file for the second stage; start: an encoder file or a run's checkpoint.pt to begin from.
        shape: (num_ws, w_dim) when there is no generator yet. session: minutes after which this call stops
            and leaves the rest to the next one.
    """
    from geoinv_core import weights

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    heads = HeadSet(data, KEYS)
    own = HeadSet(samples, KEYS) if samples else None
    layout: LabelLayout = heads.layout
    anchors = [heads.description["landmarks"].index(name) for name in ANCHORS]
    frozen = weights.load(generator, device) if generator else None
    num_ws, w_dim = (frozen.num_ws, frozen.config.w_dim) if frozen else shape
    sizes = {"widths": widths, "hidden": 64, "close": 32} if widths else {"close": CLOSE}
    sharp = min(max(heads.description["size"], INPUT), SHARPEST)
    config = EncoderConfig.of(
        layout, num_ws, w_dim, **sizes, sharp=sharp, nearer=True, form=True, occlusion=True
    )
    encoder = Encoder(config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=settings.rate, weight_decay=1e-3)
    ema = Ema(encoder, settings.decay)
    run = Run(folder, minutes, session=session)
    state = run.resume()
    if state is None and start is not None:
        if start.suffix == ".safetensors":
            first = load_encoder(start)[0].state_dict()
        else:
            first = torch.load(start, map_location="cpu", weights_only=True)["ema"]
        begin_from(encoder, first)
        ema = Ema(encoder, settings.decay)
    elif state is not None:
        encoder.load_state_dict(state["encoder"])
        optimiser.load_state_dict(state["optimiser"])
        ema.state = {k: v.to(device) for k, v in state["ema"].items()}
    path = folder / "encoder.safetensors"
    averages = Averages()
    weigh = label_weights(heads.all("c"), layout).to(device)
    moving = [i for i, name in enumerate(layout.names) if name in set(layout.expressions)]
    skin = skin_of(layout)
    skin = None if skin is None else skin.to(device)
    if frozen is not None:
        z, c = (heads.all(k)[:_CODES].to(device) for k in ("z", "c"))
        with torch.no_grad():
            scale = frozen.map(z, c).var(0).mean().clamp_min(1e-6)

    def save() -> None:
        run.save(encoder=encoder.state_dict(), optimiser=optimiser.state_dict(), ema=ema.state)
        averaged = Encoder(config)
        averaged.load_state_dict(ema.state)
        name = str(torch.cuda.get_device_name()) if device == "cuda" else "CPU"
        meta = {"steps": run.step, "minutes": round(run.elapsed / 60, 1), "heads": len(heads), "device": name}
        save_encoder(averaged, layout, path, meta)

    for step in run.steps():
        rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
        source = own if own is not None and step % 4 == 3 else heads
        batch = source.batch(np.random.default_rng([seed, step]), settings.batch)
        crops = make_crops(batch, anchors, rng, config.sharp)
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * run.schedule()
        image = crops.image.to(device).contiguous(memory_format=torch.channels_last)
        with mixed(device, settings.bfloat16):
            out = encoder(image)
        z, c, landmarks = (batch[k].to(device) for k in LABELS)
        targets = {k: v.to(device) for k, v in crops.targets.items()}
        terms = label_losses(out, z, c, landmarks, targets, weigh, config.choices)
        apart = None if skin is None else skin.points(out.z, out.c) - skin.points(z, c)
        if apart is not None:
            terms["skin"] = skin_loss(apart)
        if frozen is not None:
            few = slice(0, settings.through_generator)
            part = replace(out, **{k: v[few] for k, v in vars(out).items() if v is not None})
            chosen = {k: v[few] for k, v in batch.items()}
            terms |= generator_losses(frozen, part, chosen, scale, rng, settings.bfloat16)
        total = torch.stack([t.float() for t in terms.values()]).sum()
        if not bool(total.isfinite()):
            wrong = ", ".join(name for name, term in terms.items() if not bool(term.isfinite()))
            raise GeoInvError(
                f"Training stopped at step {step} because its loss is not a number ({wrong}); "
                "go on from the last checkpoint at a lower --rate."
            )
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 2.0)
        optimiser.step()
        ema.update(encoder, step)
        angles = (out.pose[:, :3] - targets["pose"][:, :3]).abs().mean(0) * 180 / math.pi
        terms |= dict(zip(("yaw_degrees", "pitch_degrees", "roll_degrees"), angles, strict=True))
        if apart is not None:
            terms["skin_mm"] = apart.detach().norm(dim=2).mean() * UNIT_MM
        terms["unexplained"] = (((out.c - c).square() * weigh)[:, moving].sum(1).mean()) / _EXPRESSIONS
        averages.add(terms)
        if (step + 1) % settings.log_every == 0:
            run.log(heads=len(heads), **averages.take())
            heads.refresh()
            if own is not None:
                own.refresh()
        if run.due():
            save()
    save()
    return path


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Train the encoder on drawn heads and the generator's own samples."
    )
    parser.add_argument("data", type=Path, help="folder of drawn heads (geoinv_core.train.dataset)")
    parser.add_argument("folder", type=Path, help="where checkpoints, log and weights go")
    parser.add_argument("--generator", type=Path, help="model file; adds the terms through the generator")
    parser.add_argument("--samples", type=Path, help="folder of the generator's own heads (train samples)")
    parser.add_argument("--start", type=Path, help="encoder file or checkpoint.pt to begin from")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch", type=int, default=Settings.batch)
    parser.add_argument("--rate", type=float, default=Settings.rate)
    parser.add_argument(
        "--through",
        type=int,
        default=Settings.through_generator,
        metavar="N",
        help="heads of a batch that also go through the generator",
    )
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args(arguments)
    settings = Settings(batch=a.batch, rate=a.rate, through_generator=a.through)
    train(a.data, a.folder, a.minutes, a.generator, a.start, a.samples, settings, a.threads)


if __name__ == "__main__":
    main()
