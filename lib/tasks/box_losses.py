"""What a detector learns from, in torch: presence, place and size of one box per structure; and boxes under augmentation."""

from __future__ import annotations

from typing import Sequence

import torch
import torch.nn.functional as F

SPREAD = 1 / 8  # of the wanted heat around a centre (standard deviation), as a share of the box's side
LEAST_CELLS = 0.7  # and at least that many cells of the map


def detection_loss(outputs: dict[str, torch.Tensor], targets: torch.Tensor, weights: Sequence[float],
                   parts: dict[str, float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Weighted sum of `presence`, `overlap`, `side` and (of a network that gives it) `heat`, and these one by one.

    outputs: presence logits (B, K), boxes (B, K, 4), heat logits (B, K, h, w) if any; targets: float32 (B, K, 5): present,
    centre x, centre y, width, height. weights: of each class in `presence`, a binary cross-entropy. The others see present
    boxes only: overlap is the complete IoU loss (Zheng et al. 2020, arXiv:1911.08287), side the sum of the four absolute
    differences, heat the cross-entropy of the map's softmax against a Gaussian around the centre.
    """
    from torchvision.ops import box_convert, complete_box_iou_loss

    present = targets[..., 0]
    there = present > 0  # an absent box has no sides, and its overlap is not a number
    found, truth, count = outputs["boxes"].float()[there], targets[..., 1:][there], present.sum().clamp(min=1)
    entropy = F.binary_cross_entropy_with_logits(outputs["presence"].float(), present, reduction="none")
    weight = entropy.new_tensor(weights)
    named = {"presence": (entropy * weight).sum() / (weight.sum() * len(entropy)),
             "overlap": complete_box_iou_loss(*(box_convert(boxes, "cxcywh", "xyxy") for boxes in (found, truth))).sum() / count,
             "side": (found - truth).abs().sum() / count}
    if "heat" in outputs:
        named["heat"] = heat_entropy(outputs["heat"].float()[there], truth).sum() / count
    return sum(parts[name] * value for name, value in named.items()), named


def heat_entropy(heat: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Cross-entropy (n,) of the softmax of heat logits (n, h, w) against a Gaussian at the centre of each box (n, 4)."""
    rows, columns = heat.shape[-2:]
    across = bell(boxes[..., 0], boxes[..., 2], columns)
    down = bell(boxes[..., 1], boxes[..., 3], rows)
    wanted = (down.unsqueeze(-1) * across.unsqueeze(-2)).flatten(1)
    wanted = wanted / wanted.sum(-1, keepdim=True).clamp(min=1e-12)
    return -(wanted * heat.flatten(1).log_softmax(-1)).sum(-1)


def bell(centre: torch.Tensor, side: torch.Tensor, count: int) -> torch.Tensor:
    """(n, count): a Gaussian along an axis of `count` cells; centre, side (n,) as shares of the axis."""
    cells = (torch.arange(count, device=centre.device) + 0.5) / count
    spread = (side * SPREAD).clamp(min=LEAST_CELLS / count)
    return torch.exp(-0.5 * ((cells - centre.unsqueeze(-1)) / spread.unsqueeze(-1)) ** 2)


def warp_boxes(targets: torch.Tensor, warp, visible: float, mirrored: Sequence[int]) -> torch.Tensor:
    """Targets (B, K, 5) under a Warp; a box that keeps less than the share `visible` in the frame is gone, else cut to it.

    A turned box is the one around the turned ellipse that filled the old one, which follows round structures better than
    the box around its turned corners (Kalra et al. 2021, arXiv:2109.13488). mirrored: class that each becomes in a mirror.
    """
    linear, shift = warp.matrix[:, :, :2].float(), warp.matrix[:, :, 2].float()  # from new places to old ones, -1..1
    inverse = torch.linalg.inv(linear)
    centre = (targets[..., 1:3] * 2 - 1 - shift[:, None]) @ inverse.transpose(1, 2)
    half = (targets[..., 3:5].square() @ inverse.transpose(1, 2).square()).sqrt()
    whole = torch.cat([centre - half, centre + half], dim=-1)
    cut = whole.clamp(-1, 1)
    there = targets[..., 0] * (area(cut) >= visible * area(whole)) * (area(cut) > 0)
    boxes = torch.cat([(cut[..., :2] + cut[..., 2:]) / 4 + 0.5, (cut[..., 2:] - cut[..., :2]) / 2], dim=-1)
    moved = torch.cat([there[..., None], boxes * there[..., None]], dim=-1)
    flipped = (warp.flips[:, 0] ^ warp.flips[:, 1]).to(moved.device)
    return torch.where(flipped[:, None, None], moved[:, list(mirrored)], moved)


def area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
