"""Segmentation losses in torch: cross-entropy plus soft Dice, per region inside its parent, or over exclusive classes."""

from __future__ import annotations

from typing import Sequence

import torch
import torch.nn.functional as F

DICE_SMOOTH = 1.0  # pixels added to both sides of the ratio, so that an absent region has a finite Dice loss


def dice_loss(probability: torch.Tensor, truth: torch.Tensor, per: str) -> torch.Tensor:
    """1 - soft Dice (Milletari et al. 2016) of one class; probability, truth: float (B, H, W).

    per `batch`: over all pixels of the batch, which keeps frames without the class from dominating. per `sample`: the
    mean over the samples that hold the class, so that a small region counts as much as a large one. What is absent has
    no Dice loss: it would only push every probability to 0.
    """
    dims = (0, 1, 2) if per == "batch" else (1, 2)
    area = truth.sum(dims)
    overlap = (2 * (probability * truth).sum(dims) + DICE_SMOOTH) / (probability.sum(dims) + area + DICE_SMOOTH)
    present = area > 0
    return ((1 - overlap) * present).sum() / present.sum().clamp(min=1)


def region_loss(logits: torch.Tensor, targets: torch.Tensor, classes: Sequence[str], parents: Sequence[int],
                weights: Sequence[float], label_smoothing: float,
                dice_per: str = "batch") -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Weighted mean over regions of BCE + `dice_loss`, each seen only where its parent region truly is.

    logits: float (B, R, H, W); targets: uint8 (B, R, H, W). A region whose parent is absent adds nothing. Returns the
    scalar and its parts `bce_<class>`, `dice_<class>`.
    """
    truth = targets.float()
    smooth = truth * (1 - label_smoothing) + 0.5 * label_smoothing
    bce = F.binary_cross_entropy_with_logits(logits.float(), smooth, reduction="none")
    probability = torch.sigmoid(logits.float())
    total, parts = logits.new_zeros((), dtype=torch.float32), {}
    for index, name in enumerate(classes):
        seen = truth[:, parents[index]] if parents[index] >= 0 else torch.ones_like(truth[:, index])
        area = seen.sum()
        entropy = (bce[:, index] * seen).sum() / area.clamp(min=1)
        dice = dice_loss(probability[:, index] * seen, truth[:, index] * seen, dice_per)
        parts[f"bce_{name}"], parts[f"dice_{name}"] = entropy, dice
        total = total + weights[index] * (entropy + dice)
    return total / sum(weights), parts


def exclusive_loss(logits: torch.Tensor, targets: torch.Tensor, classes: Sequence[str], weights: Sequence[float],
                   label_smoothing: float,
                   dice_per: str = "batch") -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Class-weighted cross-entropy + mean `dice_loss` of the foreground classes.

    logits: float (B, 1 + K, H, W), channel 0 background; targets: uint8 (B, H, W), 0 background.
    """
    logits, targets = logits.float(), targets.long()
    weight = logits.new_tensor([1.0, *weights])
    entropy = F.cross_entropy(logits, targets, weight, label_smoothing=label_smoothing)
    probability = torch.softmax(logits, dim=1)
    parts = {"cross_entropy": entropy}
    for index, name in enumerate(classes, start=1):
        parts[f"dice_{name}"] = dice_loss(probability[:, index], (targets == index).float(), dice_per)
    dice = sum(w * parts[f"dice_{name}"] for w, name in zip(weights, classes)) / sum(weights)
    return entropy + dice, parts
