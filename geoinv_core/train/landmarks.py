"""Trains the landmark network of `geoinv_core.photo` on synthetic heads.

    python -m geoinv_core.train.landmarks --data FOLDER --count 3500 --minutes 12

draws the heads into FOLDER unless it already holds some, trains on them for the given processor time on one
thread, and writes the network in half precision. Drawing 3500 heads twice takes about 8 minutes of one core.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from geoinv_core.camera import FOCAL, orbit, project
from geoinv_core.heads import EVALUATION_SEEDS, HeadAssets, Layers, build, picture, sample
from geoinv_core.photo import landmarks
from geoinv_core.photo.align import crop_square, matrix_of, transform
from geoinv_core.photo.landmarks import GRID, MIRROR, NAMES, SIZE, LandmarkNet, Prediction
from geoinv_core.train.photolike import backgrounds, photograph, spoil
from geoinv_core.train.run import mixed

PICTURE = 192
ZOOM = 1.5
"""The drawn pictures show this much more than the models' crop, so that the square can be jittered."""

_HEAD_NAMES = (
    "eyeball_l", "eyeball_r", "mouth_l", "mouth_r", "nose_tip", "nasion", "chin", "crown", "ear_l", "ear_r",
    "eye_l_out", "eye_l_in", "eye_r_out", "eye_r_in",
)  # fmt: skip
"""NAMES as the synthetic heads call them."""

Image = NDArray[np.uint8]
F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Pictures:
    """A drawn training set, N pictures of PICTURE pixels."""

    rgb: Image
    """[N, S, S, 3]"""
    mask: Image
    """[N, S, S]"""
    points: F32
    """[N, 14, 2] pixels"""
    pose: F32
    """[N, 2] yaw and pitch, degrees"""

    @classmethod
    def open(cls, folder: Path) -> Pictures:
        shards = [np.load(file) for file in sorted(folder.glob("*.npz"))]
        return cls(*(np.concatenate([s[name] for s in shards]) for name in ("rgb", "mask", "points", "pose")))


def draw_pictures(
    assets: HeadAssets, folder: Path, heads: int, first_seed: int = 0, views: int = 2, per_shard: int = 250
) -> None:
    """Draw heads into `folder`, one file per `per_shard`. Yaw spreads by 25 and 35 degrees, pitch by 10."""
    if first_seed + heads > EVALUATION_SEEDS:
        raise ValueError(f"Seeds from {EVALUATION_SEEDS} up are for evaluation.")
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(first_seed, first_seed + heads, per_shard):
        rgb, mask, points, poses = [], [], [], []
        for seed in range(start, min(start + per_shard, first_seed + heads)):
            random = np.random.default_rng([11, seed])
            layers = Layers(assets, build(assets, [sample(assets, seed)])[0])
            marks = torch.stack([layers.geometry.landmarks[n].float().cpu() for n in _HEAD_NAMES])
            for view in range(views):
                yaw = float(np.clip(random.normal(0, 25 if view % 2 == 0 else 35), -80, 80))
                pitch = float(np.clip(random.normal(0, 10), -30, 30))
                camera = orbit(yaw, pitch, focal=FOCAL / ZOOM)
                drawn = picture(assets, layers, camera.to(assets.device), PICTURE, 1)
                rgb.append((drawn.rgb * 255).round().byte().cpu().numpy())
                mask.append((drawn.mask * 255).round().byte().cpu().numpy())
                points.append((project(camera[None], marks[None])[0][0] * PICTURE).numpy())
                poses.append((yaw, pitch))
        np.savez(folder / f"{start:06d}.npz", rgb=np.stack(rgb), mask=np.stack(mask),
                 points=np.stack(points).astype(np.float32), pose=np.array(poses, np.float32))  # fmt: skip
        print(f"drew {min(start + per_shard - first_seed, heads)} of {heads} heads", file=sys.stderr)


class Feed:
    """Endless jittered, spoiled squares."""

    def __init__(self, pictures: Pictures, seed: int, scenes: int = 500) -> None:
        self.pictures = pictures
        self.random = np.random.default_rng(seed)
        self.scenes = backgrounds(self.random, scenes, PICTURE)

    def batch(self, size: int, without: float = 0.25) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Squares [B, 3, 128, 128] in [-1, 1], points [B, 14, 2] in squares, pose [B, 2] / 45, face [B]."""
        images = np.empty((size, SIZE, SIZE, 3), np.uint8)
        points = np.zeros((size, len(NAMES), 2), np.float32)
        pose = np.zeros((size, 2), np.float32)
        face = (self.random.random(size) >= without).astype(np.float32)
        for i in range(size):
            if face[i]:
                images[i], points[i], pose[i] = self.face()
            else:
                images[i] = photograph(self.random, self.no_face())
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        return x, torch.from_numpy(points), torch.from_numpy(pose / 45), torch.from_numpy(face)

    def face(self) -> tuple[Image, F32, F32]:
        r = self.random
        image, points, pose = self._head(float(r.random()) < 0.7)
        centre, axis = crop_square(points[:4])
        side = 2 * float(np.linalg.norm(axis))
        # Half as the first look at a detector's box sees it, half as the later looks do.
        shift, zoom, roll = ((0.17, 0.30, 35.0), (0.05, 0.10, 8.0))[int(r.integers(2))]
        middle = centre + r.uniform(-shift, shift, 2) * side
        matrix = matrix_of(
            middle, _turned(axis, r.uniform(-roll, roll)) * math.exp(r.uniform(-zoom, zoom) + 0.1), SIZE
        )
        border = (cv2.BORDER_REFLECT_101, cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT)[int(r.integers(3))]
        square = _cut(image, matrix, border)
        at = transform(matrix, points).astype(np.float32)
        return photograph(r, spoil(r, square, at, self._scene())), at / SIZE, pose

    def no_face(self) -> Image:
        """Scenes, pieces of heads, and heads whose parts are in the wrong places."""
        r = self.random
        kind = r.random()
        if kind < 0.5:
            corner = r.integers(0, PICTURE - SIZE + 1, 2)
            return self._scene()[corner[0] : corner[0] + SIZE, corner[1] : corner[1] + SIZE].copy()
        image, points, _ = self._head(float(r.random()) < 0.7)
        centre, axis = crop_square(points[:4])
        if kind < 0.8:  # beside the face, or a detail of it
            away = r.uniform(0, 2 * math.pi)
            far, near = (
                (r.uniform(0.75, 1.1), r.uniform(0.6, 1.1))
                if r.random() < 0.6
                else (r.uniform(0.1, 0.3), 0.25)
            )
            middle = centre + 2 * np.linalg.norm(axis) * far * np.array([math.cos(away), math.sin(away)])
            return _cut(
                image, matrix_of(middle, _turned(axis, r.uniform(-30, 30)) * near, SIZE), cv2.BORDER_REPLICATE
            )
        square = _cut(image, matrix_of(centre, axis, SIZE), cv2.BORDER_REFLECT_101)
        n = int(r.integers(3, 6))
        tile = SIZE // n + 1
        padded = np.pad(square, ((0, tile * n - SIZE), (0, tile * n - SIZE), (0, 0)), mode="edge")
        tiles = padded.reshape(n, tile, n, tile, 3).transpose(0, 2, 1, 3, 4).reshape(n * n, tile, tile, 3)
        mixed: Image = tiles[r.permutation(n * n)].reshape(n, n, tile, tile, 3).transpose(0, 2, 1, 3, 4)
        joined: Image = mixed.reshape(n * tile, n * tile, 3)[:SIZE, :SIZE].copy()
        return joined

    def _scene(self) -> Image:
        scene: Image = self.scenes[int(self.random.integers(len(self.scenes)))]
        return scene

    def _head(self, elsewhere: bool) -> tuple[Image, F32, F32]:
        """One drawn picture, perhaps before another scene, perhaps mirrored."""
        i = int(self.random.integers(len(self.pictures.rgb)))
        image, points, pose = self.pictures.rgb[i], self.pictures.points[i], self.pictures.pose[i]
        if elsewhere:
            image = cv2.convertScaleAbs(
                cv2.blendLinear(image, self._scene(), *_weights(self.pictures.mask[i]))
            )
        if self.random.random() < 0.5:
            image = image[:, ::-1]
            points = points[list(MIRROR)] * np.array([-1, 1], np.float32) + np.array([PICTURE, 0], np.float32)
            pose = pose * np.array([-1, 1], np.float32)
        return np.ascontiguousarray(image), points, pose


def _channels_last(net: LandmarkNet) -> None:
    """Convolutions on a CPU run several times as fast with the channels last."""
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)


def _weights(mask: Image) -> tuple[F32, F32]:
    front = mask.astype(np.float32) / 255
    return front, 1 - front


def _turned(axis: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([axis[0] * c - axis[1] * s, axis[0] * s + axis[1] * c])


def _cut(image: Image, matrix: NDArray[np.float64], border: int) -> Image:
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5
    cut = cv2.warpAffine(image, shifted, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=border)
    return np.asarray(cut, np.uint8)


def loss_of(found: Prediction, points: Tensor, pose: Tensor, face: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Laplace likelihood of the points, cross entropy of their heat maps, pose, and face or not."""
    seen = ((points > 0.01) & (points < 0.99)).all(-1) & (face[:, None] > 0)
    error = (found.points - points).norm(dim=-1)
    likelihood = (error / found.spread + 2 * found.spread.log())[seen].mean()
    at = (torch.arange(GRID, dtype=points.dtype) + 0.5) / GRID
    gauss = torch.exp(-0.5 * ((at - points[..., None]) * GRID) ** 2)  # [B, N, 2, G], one cell wide
    target = gauss[:, :, 1, :, None] * gauss[:, :, 0, None, :]
    target = target / target.sum((2, 3), keepdim=True).clamp_min(1e-6)
    entropy = -(target.flatten(2) * found.heat.flatten(2).log_softmax(-1)).sum(-1)[seen].mean()
    turn = smooth_l1_loss(found.pose[face > 0], pose[face > 0], beta=0.1)
    whether = binary_cross_entropy_with_logits(found.face, face)
    total = likelihood + 0.3 * entropy + turn + whether
    parts = {
        "error": error[seen].mean().item(),
        "heat": entropy.item(),
        "pose": turn.item(),
        "face": whether.item(),
    }
    return total, parts


def train(pictures: Pictures, minutes: float, batch: int = 48, rate: float = 2e-3, seed: int = 0,
          start: Path | None = None) -> LandmarkNet:  # fmt: skip
    """Train for a given processor time, with a cosine schedule; returns the running mean of the weights."""
    torch.manual_seed(seed)
    net = LandmarkNet()
    if start is not None:
        net.load_state_dict({name: value.float() for name, value in load_file(start).items()})
    _channels_last(net)
    mean = copy.deepcopy(net)
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-3, betas=(0.9, 0.98))
    feed = Feed(pictures, seed)
    begin, step, shown, seconds = time.process_time(), 0, 0.0, minutes * 60
    while (spent := time.process_time() - begin) < seconds:
        x, points, pose, face = feed.batch(batch)
        warm = min(1.0, (step + 1) / 150)
        for group in optimiser.param_groups:
            group["lr"] = rate * warm * (0.5 + 0.5 * math.cos(math.pi * min(1.0, spent / seconds)))
        with mixed("cpu"):
            found = net(x.to(memory_format=torch.channels_last))
        total, parts = loss_of(found, points, pose, face)
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        with torch.no_grad():
            for a, b in zip(mean.parameters(), net.parameters(), strict=True):
                a.lerp_(b, max(1 / step, 0.002))
        if spent - shown > 15:
            shown = spent
            text = " ".join(f"{k} {v:.4f}" for k, v in parts.items())
            print(f"{spent:5.0f} s  step {step}  loss {total.item():.3f}  {text}", file=sys.stderr)
    mean.eval()
    return mean


@torch.no_grad()
def evaluate(net: LandmarkNet, pictures: Pictures, count: int = 384) -> dict[str, float]:
    """Error on spoiled squares, in squares; pose in degrees; how often faces and others are told apart."""
    feed = Feed(pictures, 12345, scenes=60)
    sums: dict[str, float] = {}
    rounds = count // 48
    for _ in range(rounds):
        x, points, pose, face = feed.batch(48)
        found = net(x)
        seen = ((points > 0) & (points < 1)).all(-1) & (face[:, None] > 0)
        error = (found.points - points).norm(dim=-1)
        four = seen.clone()
        four[:, 4:] = False
        now = {
            "points": error[seen].mean().item(),
            "eyes_and_mouth": error[four].mean().item(),
            "yaw": 45 * (found.pose - pose)[face > 0, 0].abs().mean().item(),
            "pitch": 45 * (found.pose - pose)[face > 0, 1].abs().mean().item(),
            "told_apart": ((found.face > 0).float() == face).float().mean().item(),
        }
        sums = {k: sums.get(k, 0.0) + v / rounds for k, v in now.items()}
    return sums


def _minutes(trained: Path) -> float:
    """Processor time that went into a network."""
    with safe_open(str(trained), "pt") as file:
        return float((file.metadata() or {}).get("minutes", 0))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m geoinv_core.train.landmarks", description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of drawn heads; filled when it is empty"
    )
    parser.add_argument("--count", type=int, default=3500, help="heads to draw, two pictures of each")
    parser.add_argument("--heads", type=Path, help="folder of the head data, else GEOINV_HEADS")
    parser.add_argument("--minutes", type=float, default=12.0, help="of processor time")
    parser.add_argument("--start", type=Path, help="a trained network to go on from")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--out", type=Path, default=landmarks.FILE)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if not any(options.data.glob("*.npz")):
        draw_pictures(HeadAssets.open(options.heads), options.data, options.count)
    pictures = Pictures.open(options.data)
    held = max(1, len(pictures.rgb) // 25)
    parts = [Pictures(p.rgb[a:b], p.mask[a:b], p.points[a:b], p.pose[a:b])
             for p, a, b in ((pictures, None, -held), (pictures, -held, None))]  # fmt: skip
    net = train(parts[0], options.minutes, rate=options.rate, seed=options.seed, start=options.start)
    scores = evaluate(net, parts[1])
    print(" ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    minutes = options.minutes + (0.0 if options.start is None else _minutes(options.start))
    part = options.out.with_suffix(".part")
    state = {name: value.contiguous().half() for name, value in net.state_dict().items()}
    save_file(
        state,
        part,
        {"licence": "CC0-1.0", "pictures": str(len(parts[0].rgb)), "minutes": str(minutes)},
    )
    part.replace(options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
