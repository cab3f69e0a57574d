"""Do the labels do what they say? An edited head against the true picture of the edited head."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from geoinv_core.evaluate.measures import psnr
from geoinv_core.evaluate.truth import TrueHead, draw_truth
from geoinv_core.head import Head
from geoinv_core.heads import HeadAssets, HeadLabels, LabelLayout

Array = NDArray[Any]

EDITS: Mapping[str, Callable[[HeadLabels], dict[str, float]]] = {
    "smile": lambda _: {"smile": 1.0},
    "jawOpen": lambda _: {"jawOpen": 0.7},
    "browUp": lambda _: {"browUp": 1.0},
    "blink": lambda _: {"blink": 1.0},
    "age+30": lambda a: {"age": min(a.age + 30, 85)},
    "weight+": lambda a: {"weight": min(a.weight + 0.5, 1)},
    "weight-": lambda a: {"weight": max(a.weight - 0.5, -1)},
}
"""What is asked of each head; the labels stay within their ranges."""
_CHANGED = 2 / 255  # a pixel of the true pictures that moves by more has changed
_APART = 0.012
"""Picture widths, a texel of the bundled model's planes: the finest that it can keep apart."""


def compare_edit(
    head: Head, true: TrueHead, assets: HeadAssets, layout: LabelLayout, name: str, view: str
) -> tuple[dict[str, float], Array, Array]:
    """One edit of one head, seen from one of its views.

    Returns: psnr_before and psnr_after (unedited and edited, each against its own truth, inside the mask);
    psnr_ignored (the unedited picture against the edited truth: what an edit that does nothing would get);
    realised, the share of the true change that the model makes (1 is all of it); outside, the mean change in
    1/255 of the pixels inside the mask that do not truly change, and outside_apart, of those of them that lie
    _APART from all that do: where one skin replaces another, some pixels are alike by chance, in the midst of
    others that are not; and the edited pictures of truth and model.
    """
    before, yaw = true.views[view], _yaw(true, view)
    edited = head.edit(EDITS[name](true.labels))
    labels = layout.decode(edited.inversion.c[0].cpu().numpy(), true.labels)
    size = len(before.mask)
    after = draw_truth(assets, labels, {view: yaw}, size).views[view]
    ours, _, _ = head.look(before.camera, size)
    moved, _, _ = edited.look(after.camera, size)
    difference, ours_difference = after.rgb - before.rgb, moved - ours
    inside = (before.mask > 0.5) & (after.mask > 0.5)
    changed = (np.abs(difference).max(2) > _CHANGED) & inside
    still = inside & ~changed
    apart = still & (
        cv2.distanceTransform((~changed).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) > _APART * size
    )
    there = after.mask > 0.5
    power = float(np.square(difference[changed]).sum())
    scores = {
        "psnr_before": psnr(ours, before.rgb, before.mask > 0.5),
        "psnr_after": psnr(moved, after.rgb, there),
        "psnr_ignored": psnr(ours, after.rgb, there),
        "realised": float((difference * ours_difference)[changed].sum()) / power if power else math.nan,
        "outside": float(np.abs(ours_difference[still]).mean()) * 255 if still.any() else math.nan,
        "outside_apart": float(np.abs(ours_difference[apart]).mean()) * 255 if apart.any() else math.nan,
        "unchanged_share": float(still.sum() / max(inside.sum(), 1)),
        "apart_share": float(apart.sum() / max(inside.sum(), 1)),
    }
    scores["drop_db"] = scores["psnr_before"] - scores["psnr_after"]
    return scores, after.rgb, moved


def _yaw(true: TrueHead, view: str) -> float:
    forward = true.views[view].camera[[2, 6, 10]]
    return math.degrees(math.atan2(-float(forward[0]), -float(forward[2])))
