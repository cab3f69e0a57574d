"""Train the local branch by itself: `python -m geoinv_core train detail`.

Generator and encoder are frozen. A case is one head with one picture of it: the encoder's answer, what the
picture tells beyond it, and points of the head as true pictures show them, from the same view, from other
views, and - where the set holds a second head that differs in one label - of the edited head, which the
detail has to follow. Geometry does not change, so surface points stand for whole rays, and nothing is drawn
in a step. Making a case takes longer than learning from it, so every case is remembered for a while.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geoinv_core import render
from geoinv_core.camera import rays
from geoinv_core.detail.bake import Lookup, lookup, read
from geoinv_core.detail.carry import carried_lookup
from geoinv_core.detail.evidence import Evidence, gather, logit, see
from geoinv_core.detail.network import Detail, DetailConfig
from geoinv_core.detail.sides import Side, look, middles, sides_of
from geoinv_core.detail.store import load_detail, save_detail
from geoinv_core.detail.take import laid
from geoinv_core.encoder import Encoder, load_encoder
from geoinv_core.errors import ModelError
from geoinv_core.generator import TriplaneGenerator
from geoinv_core.invert.shown import shown
from geoinv_core.render import Field
from geoinv_core.render.rays import Bound
from geoinv_core.train.augment import backgrounds, face_crop, jitter, occluders, resample
from geoinv_core.train.crops import ANCHORS, MAX_YAW
from geoinv_core.train.dataset import HeadSet
from geoinv_core.train.run import Averages, Ema, Run

KEYS = ("z", "c", "camera", "rgb", "mask", "landmarks")
TINY = DetailConfig(features=8, picture_widths=(8, 16), side_widths=(16, 24))


@dataclass(frozen=True)
class Settings:
    batch: int = 2
    rate: float = 1.5e-3
    decay: float = 0.995
    rays: int = 512
    """per picture"""
    fresh: int = 2
    """steps from one new case to the next"""
    remembered: int = 400
    """cases kept for more steps, about 3.5 MB each"""
    log_every: int = 50
    """steps between two lines of the log"""


@dataclass(frozen=True, eq=False)
class Views:
    """N points of a head as pictures truly show them."""

    where: Lookup
    """in the texture of the case's head"""
    share: Tensor
    """[N] how much the drawing there is head"""
    base: Tensor
    """[N, 3] logits of the colour without detail"""
    colour: Tensor
    """[N, 3] sRGB 0..1, true"""


@dataclass(frozen=True, eq=False)
class Case:
    """Everything a step needs of one picture of one head."""

    evidence: Evidence
    share: Tensor
    """[S, 1, R, R], see `sides.Looks`"""
    views: dict[str, Views]
    """By "input" (the picture's own camera, as found), "turned" (true cameras), "edited"."""


def draw_views(
    generator: TriplaneGenerator,
    field: Field,
    camera: Tensor,
    picture: Tensor,
    count: int,
    r: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Random pixels of the head: points, opacity, base colour (logits), true colour.

    Args: picture: [4, S, S] sRGB and mask, 0..1, as `camera` [25] sees them. None where it shows no head.
    """
    S = picture.shape[-1]
    solid = torch.nonzero(picture[3].flatten() > 0.98)[:, 0]
    if len(solid) < 16:
        return None
    chosen = solid[torch.randint(len(solid), (count,), generator=r)]
    origins, directions = (x[:, chosen] for x in rays(camera[None], S))
    k = generator.config
    off = float(camera[[3, 7, 11]].norm()) - k.camera_radius  # some cameras stand nearer or further away
    near: Bound = "auto" if k.ray_start is None else k.ray_start + off
    far: Bound = "auto" if k.ray_end is None else k.ray_end + off
    out = render.render(field, origins, directions, near, far, (24, 24))
    opacity = out.opacity[0]
    kept = opacity > 0.8
    if int(kept.sum()) < 16:
        return None
    points = (origins + directions * out.depth[..., None])[0, kept]
    colour = out.features[0, kept, :3] / opacity[kept, None]
    return points, opacity[kept], logit(colour), picture[:3].flatten(1).T[chosen][kept]


def make_case(
    generator: TriplaneGenerator,
    encoder: Encoder,
    pair: dict[str, Tensor],
    anchors: list[int],
    count: int,
    r: torch.Generator,
) -> Case | None:
    """From a head (and its variant behind it, if any); see the module's docstring. None for unlucky crops.

    pair: of a HeadSet, on the device.
    """
    device = generator.w_avg.device
    if len(pair["mask"]) > 1 and torch.rand(1, generator=r) < 0.5:
        pair = {k: v.flip(0) for k, v in pair.items()}
    rgb = pair["rgb"].permute(0, 1, 4, 2, 3).float() / 255
    mask = pair["mask"][:, :, None].float() / 255
    if torch.rand(1, generator=r) < 0.5:  # another lamp or lens, of which the labels know nothing
        gain = 1 + 0.25 * (torch.rand(3, 1, 1, generator=r) - 0.5) + 0.3 * (torch.rand(1, generator=r) - 0.5)
        rgb = (rgb ** (0.8 + 0.4 * float(torch.rand(1, generator=r))) * gain).clamp(0, 1)
    pictures = torch.cat([rgb, mask], 2)
    forward = pair["camera"][0, :, [2, 6, 10]]
    yaw = torch.atan2(-forward[:, 0], -forward[:, 2])
    view = int((torch.rand(len(yaw), generator=r) + (yaw.abs() < math.radians(MAX_YAW))).argmax())
    matrix = jitter(face_crop(pair["landmarks"][:1, anchors], pair["camera"][:1, view]), r)
    crop = resample(pictures[:1, view], matrix, encoder.config.sharp)
    seen, cover = crop[:, :3], crop[:, 3:]
    if torch.rand(1, generator=r) < 0.8:
        seen = seen * cover + backgrounds(1, seen.shape[-1], r, rgb[0]) * (1 - cover)
    photo = (occluders(seen, r)[0] * 2 - 1).to(device)
    with torch.no_grad():
        found = encoder(photo)
        mapped = generator.map(found.z, found.c)
        ws = mapped + found.delta
        field = generator.colour_field(generator.planes(ws), ws)
        sides = sides_of(field)
        looks = look(field, sides, field.planes.shape[-1])
        evidence = gather(see(generator, field, photo, found.camera, shown(found)[0]), looks, found.camera)
        middle = middles(looks, sides)
        camera = pair["camera"].to(device)
        pictures = pictures.to(device)
        turned = [(camera[0, v], pictures[0, v]) for v in range(len(yaw))]
        groups = {"input": [(found.camera[0], crop[0].to(device))], "turned": turned}
        fields = {"input": field, "turned": field}
        ws_edited = ws
        if len(pair["mask"]) > 1:
            before, after = pair["c"].to(device)
            c = torch.where(before == after, found.c[0], after)[None]
            ws_edited = ws + generator.map(found.z, c) - mapped
            fields["edited"] = generator.colour_field(generator.planes(ws_edited), ws_edited)
            groups["edited"] = [(camera[1, v], pictures[1, v]) for v in range(len(yaw))]
        views = {}
        maps = field.plane_maps()
        for name, group in groups.items():
            drawn = [draw_views(generator, fields[name], *one, count, r) for one in group]
            pieces = [d for d in drawn if d is not None]
            if not pieces:
                return None
            points, opacity, base, colour = (torch.cat(x) for x in zip(*pieces, strict=True))
            where = lookup(field, middle, points)
            if name == "edited":
                third = torch.stack([points @ maps[s.plane, :, 2] for s in sides])
                where = carried_lookup(generator, sides, where, third, ws, ws_edited)
            views[name] = Views(where, opacity, base, colour)
    return Case(_halved(evidence), looks.share.half(), views)


def _halved(evidence: Evidence) -> Evidence:
    """In half the memory; a lookup that is off by a thousandth of the picture does not matter."""
    return Evidence(**{k: v.half() for k, v in vars(evidence).items()})


def case_losses(change: Tensor, case: Case, sides: list[Side]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Loss terms of one case, and what to report: gains in dB over no detail.

    change: [S, 3, R, R], upright.
    """
    laid_out = laid(change * case.share.float(), sides)
    terms, told = {}, {}
    for name, view in case.views.items():
        ours = torch.sigmoid(view.base + read(laid_out, view.where))
        error = (ours - view.colour) * view.share[:, None]
        without = (torch.sigmoid(view.base) - view.colour) * view.share[:, None]
        terms[name] = error.abs().mean() + 5 * error.square().mean()
        told[f"db.{name}"] = (
            10 * (without.square().mean().clamp_min(1e-6) / error.square().mean().clamp_min(1e-6)).log10()
        )
    return terms, told


def train(
    data: Path,
    folder: Path,
    minutes: float,
    generator: Path,
    encoder: Path,
    start: Path | None = None,
    settings: Settings = Settings(),
    tiny: bool = False,
    threads: int = 1,
    seed: int = 3,
    session: float = math.inf,
) -> Path:
    """Train until the budget is spent; returns `detail.safetensors`.

    Args:
        data: drawn heads, best with variants. generator, encoder: model files, which stay as they are.
        start: a detail file or a run's checkpoint.pt to begin from.
        session: minutes after which this call stops and leaves the rest to the next one.
    Raises: ModelError for heads with other labels, or a generator without sides that detail can stand on.
    """
    from geoinv_core import weights

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    heads = HeadSet(data, KEYS)
    anchors = [heads.description["landmarks"].index(name) for name in ANCHORS]
    frozen, (reader, layout, _) = weights.load(generator, device), load_encoder(encoder, device)
    if layout != heads.layout:
        raise ModelError(
            f"The heads in {data.name} have other labels than {encoder.name}; draw them anew, or train the "
            "model on them first."
        )
    with torch.inference_mode():
        ws = frozen.w_avg.expand(1, frozen.num_ws, -1)
        sides = sides_of(frozen.field(frozen.planes(ws)))
    if not sides or frozen.config.activation != "sigmoid":
        raise ModelError(f"{generator.name} has no planes or colours that detail could be added to.")
    names = tuple(s.name for s in sides)
    shape = TINY if tiny else DetailConfig()
    config = DetailConfig(names, shape.features, shape.picture_widths, shape.side_widths)
    network = Detail(config).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=1e-3)
    ema = Ema(network, settings.decay)
    run = Run(folder, minutes, session=session)
    state = run.resume()
    if state is None and start is not None:
        if start.suffix == ".safetensors":
            network.load_state_dict(load_detail(start)[0].state_dict())
        else:
            network.load_state_dict(torch.load(start, map_location="cpu", weights_only=True)["ema"])
        ema = Ema(network, settings.decay)
    elif state is not None:
        network.load_state_dict(state["detail"])
        optimiser.load_state_dict(state["optimiser"])
        ema.state = {k: v.to(device) for k, v in state["ema"].items()}
    path = folder / "detail.safetensors"
    averages = Averages()
    cases: list[Case] = []
    made = 0

    def save() -> None:
        run.save(detail=network.state_dict(), optimiser=optimiser.state_dict(), ema=ema.state)
        averaged = Detail(config)
        averaged.load_state_dict(ema.state)
        name = str(torch.cuda.get_device_name()) if device == "cuda" else "CPU"
        meta = {"steps": run.step, "minutes": round(run.elapsed / 60, 1), "heads": len(heads), "device": name}
        meta["generator"] = weights.info(generator)["sha256"]
        save_detail(averaged, path, meta, half=True)

    for step in run.steps():
        random = np.random.default_rng([seed, step])
        rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
        if step % settings.fresh == 0 or len(cases) < settings.batch:
            pair = heads.batch(random, 2 if heads.paired else 1)
            case = make_case(frozen, reader, pair, anchors, settings.rays, rng)
            if case is not None:
                cases.append(case)
                made += 1
                cases = cases[-settings.remembered :]
        if not cases:
            continue
        others = random.integers(len(cases), size=settings.batch - 1)
        batch = [cases[-1], *(cases[i] for i in others)]
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * run.schedule()
        changes = network([case.evidence for case in batch])
        sums: dict[str, Tensor] = {}
        for change, case in zip(changes, batch, strict=True):
            terms, told = case_losses(change, case, sides)
            for name, value in {**terms, **told}.items():
                sums[name] = sums.get(name, 0) + value / len(batch)
        total = torch.stack([v for k, v in sums.items() if not k.startswith("db.")]).sum()
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        ema.update(network, step)
        averages.add(sums)
        if (step + 1) % settings.log_every == 0:
            run.log(heads=len(heads), cases=made, **averages.take())
            heads.refresh()
        if run.due():
            save()
    save()
    return path


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the local branch on drawn heads and their variants.")
    parser.add_argument("data", type=Path, help="folder of drawn heads (train dataset --variants)")
    parser.add_argument("folder", type=Path, help="where checkpoints, log and weights go")
    parser.add_argument("--generator", type=Path, required=True, help="model file")
    parser.add_argument("--encoder", type=Path, required=True, help="its encoder")
    parser.add_argument("--start", type=Path, help="detail file or checkpoint.pt to begin from")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--batch", type=int, default=Settings.batch)
    parser.add_argument("--rate", type=float, default=Settings.rate)
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args(arguments)
    settings = Settings(batch=a.batch, rate=a.rate)
    train(a.data, a.folder, a.minutes, a.generator, a.encoder, a.start, settings, threads=a.threads)


if __name__ == "__main__":
    main()
