"""The head's form and camera, told by where its landmarks lie in the photo.

Each of a head's axes moves its skin by less than a pixel, so an encoder that reads them one by one reads
hardly any. Its landmarks are more certain than that, and where they lie is linear in form and labels (see
`heads.skin`): so the most probable head and camera are found that project onto them, with the encoder's own
answer as the prior. Fitting a morphable model to landmarks with a spread each, after Wood et al. 2022 ("3D
face reconstruction with dense landmarks"), by Gauss-Newton.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from geoinv_core import camera as cameras
from geoinv_core.encoder.network import Encoded, camera_of
from geoinv_core.heads.skin import BUILD, Skin
from geoinv_core.invert.shown import looked_up

ROUNDS = 2
FORM_SPREAD = 0.9
"""Of an axis of z about what the encoder says: training draws them with 1, and hardly any can be read."""
BARED, BARED_SPREAD = ("mouthUpperUp", "mouthLowerDown"), 0.3
"""Units that bare the teeth, and their standard deviation (natural, 0..1) at least: the encoder's own reading
has seen few grins and is too sure that there is none, its landmarks have seen many."""
LEAST, GAIN = 0.003, 1.0
"""Standard deviation of a landmark in crop widths: what the skin's regression leaves of it, and the encoder's
own spread times as much, for neighbours err together."""
HIDDEN = 0.5
"""What is added to that, crop widths, where something lies in front: the landmark is guessed."""
UNLIKE = 2.0
"""Standard deviations from which on a landmark counts for less (Cauchy): covered ones are guessed."""


def formed(found: Encoded, skin: Skin, mask: Tensor | None = None) -> Encoded:
    """The encoder's answer for one crop with z, age, sex, ancestry, weight, muscle, expressions, pose and
    camera moved to where its landmarks lie (logits stay). As it was where the encoder tells no landmarks.

    Args: found: of a batch of one. skin: of the encoder's labels. mask: [1, 1, R, R] how much of the photo
        shows the head, 0..1; None: all.
    """
    if found.landmarks is None or found.landmark_spread is None or found.pose_spread is None:
        return found
    names = skin.layout.names
    moving = torch.tensor([names.index(name) for name in (*BUILD, *skin.layout.expressions)])
    moving = moving.to(found.c.device)
    sizes = [found.pose.shape[1], found.z.shape[1], len(moving)]
    unsure = torch.tensor([BARED_SPREAD * n.startswith(BARED) / skin.layout.standard(n)[1] for n in names])
    labels = torch.maximum(found.spread[0], unsure.to(found.c.device))[moving]
    spread = torch.cat([found.pose_spread[0], torch.full_like(found.z[0], FORM_SPREAD), labels])
    seen, shown = found.landmarks, looked_up(mask, found.landmarks)[..., None]
    width = LEAST + GAIN * found.landmark_spread + HIDDEN * (1 - shown)

    def head(change: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pose, z, c = (change * spread)[None].split(sizes, 1)
        return found.pose + pose, found.z + z, found.c.index_add(1, moving, c)

    def apart(change: Tensor) -> Tensor:
        pose, z, c = head(change)
        at, _ = cameras.project(camera_of(pose), skin.landmarks(z, c))
        residual: Tensor = ((at - seen) / width)[0]
        return residual

    with torch.inference_mode(False):  # slopes are wanted even there
        change = torch.zeros(len(spread), device=spread.device)
        prior = torch.eye(len(spread), dtype=torch.float64, device=spread.device)
        for _ in range(ROUNDS):
            off = apart(change).double()
            slopes = torch.func.jacrev(apart)(change).double()
            trust = 1 / (1 + off.square().sum(1, keepdim=True) / UNLIKE**2)
            weighted = (slopes * trust[..., None]).flatten(0, 1)
            curve = weighted.T @ slopes.flatten(0, 1) + prior
            slope = weighted.T @ off.flatten() + change.double()
            change = change - torch.linalg.solve(curve, slope).float()
    pose, z, c = head(change)
    return replace(found, pose=pose, camera=camera_of(pose), z=z, c=c)
