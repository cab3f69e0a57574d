"""Train an encoder's cascade, all the rest of it frozen: `python -m geoinv_core train cascade`.

The encoder finds landmarks in photo-like crops; the cascade learns to bring them from there, or from places
beside the truth, to where they are. Crops are kept and used again, mirrored at random, while new ones come
in, because making one costs more than learning from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from geoinv_core.encoder import mirror
from geoinv_core.encoder.cascade import Cascade
from geoinv_core.encoder.config import LANDMARKS
from geoinv_core.encoder.network import Encoder
from geoinv_core.encoder.store import load_encoder, save_encoder
from geoinv_core.errors import GeoInvError
from geoinv_core.train.crops import ANCHORS, make_crops
from geoinv_core.train.dataset import HeadShards
from geoinv_core.train.encoder import likelihood
from geoinv_core.train.part import Pool, learn, run
from geoinv_core.train.run import Run

_KEYS = ("camera", "rgb", "mask", "segment", "landmarks", "ibug")
_BETA = 0.003  # crop widths; where the loss turns from square to linear
_LEARN = 100.0  # brings the landmarks' loss to about that of their spreads


@dataclass(frozen=True)
class Settings:
    batch: int = 32
    rate: float = 1e-3
    decay: float = 0.998
    pool: int = 12_000
    """crops that are kept"""
    every: int = 6
    """steps between two batches of new crops"""
    log_every: int = 100


def started(found: Tensor, true: Tensor, rng: torch.Generator) -> Tensor:
    """Places to learn from, [B, 68, 2]: a share of the encoder's errors (all, or little, as after a round),
    shifted, turned and scaled as another encoder's would be."""
    B = len(found)
    share = torch.rand(B, 1, 1, generator=rng)
    share = torch.where(share < 0.5, torch.ones(()), share - 0.25)
    draw = torch.randn(B, 4, generator=rng) * torch.tensor([0.004, 0.004, 0.02, 0.02]) * share[:, 0]
    places = true + (found - true) * share
    middle = places.mean(1, keepdim=True)
    x, y = (places - middle).unbind(2)
    turn, grow = draw[:, 2:3], 1 + draw[:, 3:]
    turned = torch.stack([grow * x - turn * y, turn * x + grow * y], 2)
    noise = torch.randn(places.shape, generator=rng) * 0.002 * share
    return middle + turned + draw[:, None, :2] + noise


def drawn(pool: Pool, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Images, places to begin from and the true ones, half of them mirrored."""
    image, found, true = pool.take(count, rng)
    begin = started(found, true, rng)
    flip = torch.rand(count, generator=rng) < 0.5
    image[flip] = image[flip].flip(3)
    begin[flip], true[flip] = mirror.landmarks(begin[flip]), mirror.landmarks(true[flip])
    return image, begin, true


def train(
    data: Path,
    folder: Path,
    encoder: Path,
    minutes: float,
    settings: Settings = Settings(),
    threads: int = 1,
    seed: int = 3,
    session: float = math.inf,
) -> Path:
    """Train until the budget is spent; returns an encoder file with the cascade in it.

    Args: data: drawn heads. encoder: an encoder file; a cascade that it has is gone on with.
    Raises: ModelError for an encoder that finds no landmarks; GeoInvError for heads drawn without them.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    heads = HeadShards(data, _KEYS)
    anchors = [heads.description["landmarks"].index(name) for name in ANCHORS]
    known, layout, meta = load_encoder(encoder, device)
    cascade = Cascade().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if known.cascade is not None:
        cascade.load_state_dict(known.cascade.state_dict())
    whole = Encoder(replace(known.config, cascade=True)).requires_grad_(False)
    whole.load_state_dict(known.state_dict(), strict=False)
    progress = Run(folder, minutes, session=session)
    each = (LANDMARKS, 2)
    pool, path = Pool(settings.pool, known.config.sharp, each, each), folder / "encoder.safetensors"

    def fill(step: int, rng: torch.Generator) -> None:
        batch = heads.batch(np.random.default_rng([seed, step]), settings.batch)
        crops = make_crops(batch, anchors, rng, known.config.sharp)
        with torch.inference_mode():
            found = known.first_landmarks(crops.image.to(device))
        if crops.ibug is None:
            raise GeoInvError(
                f"The heads in {data} were drawn before there were 68 landmarks, which a cascade learns "
                "from; draw new ones with `python -m geoinv_core.train.dataset`.",
                "usage",
            )
        pool.put(crops.image, found.cpu(), crops.ibug)

    def terms(rng: torch.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        image, begin, true = (x.to(device) for x in drawn(pool, settings.batch, rng))
        places, spread = cascade(image, begin)
        apart = places - true
        losses = {
            "landmarks": _LEARN * smooth_l1_loss(places, true, beta=_BETA),
            "spread": 0.05 * likelihood(apart, spread),
        }
        # thousandths of the crop's width
        off = [1000 * x.detach().norm(dim=2).mean() for x in (begin - true, apart)]
        return losses, {"before": off[0], "after": off[1]}

    def keep(state: dict[str, Tensor]) -> None:
        assert whole.cascade is not None
        whole.cascade.load_state_dict(state)
        save_encoder(whole, layout, path, meta | {"cascade_steps": progress.step})

    learn(cascade, progress, settings, 1e-4, heads, pool, seed, fill, terms, keep)
    return path


def main(arguments: list[str] | None = None) -> None:
    run("Train an encoder's cascade of landmarks.", train, Settings(), 3, arguments)


if __name__ == "__main__":
    main()
