"""Which pixels of a photo show the head: the model's outline, corrected by the photo's own colours.

The model's head is often too large somewhere (longer hair, a wider cheek), and what the photo shows there is
background. GrabCut (Rother, Kolmogorov and Blake 2004, as OpenCV has it) separates the colours found around
the outline from those inside it.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

_SIZE = 160
"""Pixels a side at which the photo is cut: 3 mm on a head."""
_CORE = 0.5
"""Pixels farther from the outline than this share of the largest such distance are head for certain."""
_AROUND = 0.12
"""Picture widths outside of the model's outline beyond which nothing is head for certain."""
_LEAST = 0.03
"""Share of the picture that has to lie outside of the outline for its colours to be known."""
_ROUNDS = 3
_NO_BOX = (0, 0, 1, 1)


def cut_out(photo: npt.NDArray[np.uint8], opacity: npt.NDArray[Any]) -> Float32:
    """Where the photo shows the head that a model sees in it.

    Args:
        photo: uint8 [S, S, 3] sRGB; opacity: [M, M] 0..1 of the model's head from the photo's camera.
    Returns: float32 [R, R], 0 where the model has no head or the photo shows background, 1 well inside.
    """
    small = cv2.resize(photo, (_SIZE, _SIZE), interpolation=cv2.INTER_AREA)
    outline = np.asarray(cv2.resize(opacity, (_SIZE, _SIZE), interpolation=cv2.INTER_AREA), np.float32)
    head = outline > 0.5
    if not head.any() or (~head).mean() < _LEAST:
        return outline
    inside = cv2.distanceTransform(head.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform((~head).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    label = np.where(head, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    label[inside > _CORE * inside.max()] = cv2.GC_FGD
    label[outside > _AROUND * _SIZE] = cv2.GC_BGD
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # its first clusters are drawn at random
    cv2.grabCut(small, label, _NO_BOX, background, foreground, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    shown = ((label == cv2.GC_FGD) | (label == cv2.GC_PR_FGD)).astype(np.uint8)
    # single strands and specks are neither head nor background for certain
    shown = cv2.morphologyEx(shown, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    shown_softly = cv2.GaussianBlur(shown.astype(np.float32), (0, 0), 0.8)
    return np.asarray(np.minimum(outline, shown_softly), np.float32)
