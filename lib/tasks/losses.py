"""Segmentation losses in torch: cross-entropy plus soft Dice, per region inside its parent, or over exclusive classes."""

from __future__ import annotations

from typing import Sequence

import torch
import torch.nn.functional as F

DICE_SMOOTH = 1.0  # pixels added to both sides of the ratio, so that an absent region has a finite Dice loss


def region_loss(logits: torch.Tensor, targets: torch.Tensor, classes: Sequence[str], parents: Sequence[int],
                weights: Sequence[float], label_smoothing: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Weighted mean over regions of BCE + (1 - soft Dice), each seen only where its parent region truly is.

    logits: float (B, R, H, W); targets: uint8 (B, R, H, W). Soft Dice (Milletari et al. 2016) is taken over the
    whole batch, which keeps frames without the region from dominating; a region that is absent from the batch has
    no Dice loss (it would only push every probability to 0), its BCE stays. A region whose parent is absent adds
    nothing. Returns the scalar and its parts `bce_<class>`, `dice_<class>`.
    """
    truth = targets.float()
    smooth = truth * (1 - label_smoothing) + 0.5 * label_smoothing
    bce = F.binary_cross_entropy_with_logits(logits.float(), smooth, reduction="none")
    probability = torch.sigmoid(logits.float())
    total, parts, dims = logits.new_zeros((), dtype=torch.float32), {}, (0, 1, 2)
    for index, name in enumerate(classes):
        seen = truth[:, parents[index]] if parents[index] >= 0 else torch.ones_like(truth[:, index])
        area = seen.sum()
        p, t = probability[:, index] * seen, truth[:, index] * seen
        entropy = (bce[:, index] * seen).sum() / area.clamp(min=1)
        overlap = (2 * (p * t).sum(dims) + DICE_SMOOTH) / (p.sum(dims) + t.sum(dims) + DICE_SMOOTH)
        dice = (1 - overlap) * (t.sum() > 0)
        parts[f"bce_{name}"], parts[f"dice_{name}"] = entropy, dice
        total = total + weights[index] * (entropy + dice)
    return total / sum(weights), parts


def exclusive_loss(logits: torch.Tensor, targets: torch.Tensor, classes: Sequence[str], weights: Sequence[float],
                   label_smoothing: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Class-weighted cross-entropy + mean (1 - soft Dice) of the foreground classes.

    logits: float (B, 1 + K, H, W), channel 0 background; targets: uint8 (B, H, W), 0 background.
    """
    logits, targets = logits.float(), targets.long()
    weight = logits.new_tensor([1.0, *weights])
    entropy = F.cross_entropy(logits, targets, weight, label_smoothing=label_smoothing)
    probability = torch.softmax(logits, dim=1)
    parts, dims = {"cross_entropy": entropy}, (0, 1, 2)
    for index, name in enumerate(classes, start=1):
        p, t = probability[:, index], (targets == index).float()
        overlap = (2 * (p * t).sum(dims) + DICE_SMOOTH) / (p.sum(dims) + t.sum(dims) + DICE_SMOOTH)
        parts[f"dice_{name}"] = (1 - overlap) * (t.sum() > 0)
    dice = sum(w * parts[f"dice_{name}"] for w, name in zip(weights, classes)) / sum(weights)
    return entropy + dice, parts
