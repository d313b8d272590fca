"""What a finder of landmarks learns from, in torch: a heat map per point, its mean place; and points under augmentation."""

from __future__ import annotations

import math
from typing import Sequence

import torch
import torch.nn.functional as F

from lib.tasks.box_losses import SPREAD, heat_entropy


def landmark_loss(logits: torch.Tensor, targets: torch.Tensor, sigma_px: float,
                  parts: dict[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Weighted sum of `heat`, `place` and `presence` (parts: part -> weight; one of weight 0 is left out), and these one by one.

    logits: (B, P, H, W), a map per point whose softmax over all places is where the point may be; targets: float32 (B, P, 3):
    x, y as shares of the columns and rows, visible. heat: cross-entropy of the softmax against a Gaussian of standard deviation
    `sigma_px` about the point. place: distance of the softmax's mean place (soft-argmax) from the point as a share of the longer
    side (Nibali et al. 2018, arXiv:1801.07372). Both are means over visible points. presence: binary cross-entropy of
    `presence_logits` over all points.
    """
    logits = logits.float()  # bf16 knows places to a pixel only
    rows, columns = logits.shape[-2:]
    visible = targets[..., 2]
    there = visible > 0
    count, heat, places = visible.sum().clamp(min=1), logits[there], targets[..., :2][there]
    named = {}
    if parts.get("heat"):
        side = places.new_tensor([sigma_px / columns, sigma_px / rows]) / SPREAD
        named["heat"] = heat_entropy(heat, torch.cat([places, side.expand_as(places)], dim=-1)).sum() / count
    if parts.get("place"):
        longer = max(rows, columns)
        apart = (mean_place(heat) - places) * places.new_tensor([columns / longer, rows / longer])
        # the square root has no gradient at 0
        named["place"] = (apart.square().sum(-1) + 1e-12).sqrt().sum() / count
    if parts.get("presence"):
        named["presence"] = F.binary_cross_entropy_with_logits(presence_logits(logits), visible)
    return sum(parts[name] * value for name, value in named.items()), named


def mean_place(heat: torch.Tensor) -> torch.Tensor:
    """(n, 2): x and y, as shares of the columns and rows, of the mean place under the softmax of heat logits (n, H, W)."""
    share = heat.flatten(1).softmax(-1).unflatten(1, heat.shape[1:])
    across, down = ((torch.arange(count, device=heat.device) + 0.5) / count for count in (heat.shape[2], heat.shape[1]))
    return torch.stack([(share.sum(1) * across).sum(-1), (share.sum(2) * down).sum(-1)], dim=-1)


def presence_logits(logits: torch.Tensor) -> torch.Tensor:
    """(B, P): logarithm of the mean of the exponentials of each map (B, P, H, W). The softmax does not know how high a map is as
    a whole, so its height is free to say whether the point is there at all. The NumPy twin is `point_places.presence`."""
    return logits.flatten(2).logsumexp(-1) - math.log(logits.shape[-2] * logits.shape[-1])


def warp_points(targets: torch.Tensor, warp, mirrored: Sequence[int]) -> torch.Tensor:
    """Targets (B, P, 3) under a Warp; a point that leaves the frame is gone. mirrored: point that each becomes in a mirror."""
    linear, shift = warp.matrix[:, :, :2].float(), warp.matrix[:, :, 2].float()  # from new places to old ones, -1..1
    places = (targets[..., :2] * 2 - 1 - shift[:, None]) @ torch.linalg.inv(linear).transpose(1, 2)
    visible = targets[..., 2] * (places.abs() <= 1).all(-1)
    moved = torch.cat([(places + 1) / 2 * visible[..., None], visible[..., None]], dim=-1)
    flipped = (warp.flips[:, 0] ^ warp.flips[:, 1]).to(moved.device)
    return torch.where(flipped[:, None, None], moved[:, list(mirrored)], moved)
