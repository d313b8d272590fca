"""What a classifier learns from, in torch: cross-entropy or focal loss, of one logit for two classes or of one per class."""

from __future__ import annotations

from typing import Sequence

import torch
import torch.nn.functional as F

LEAST = 1e-7  # of 1 - p_t: a power below 1 has no slope at 0


def class_loss(logits: torch.Tensor, targets: torch.Tensor, criterion: str, weights: Sequence[float], alpha: float,
               gamma: float, label_smoothing: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The mean loss over the samples, each weighted by its class, and `accuracy`, the share that is right.

    logits: (B, 1) of the second of two classes, or (B, K); targets: int64 (B,), index of the class. weights: of each class;
    as in torch.nn.functional.cross_entropy, the sum is divided by the sum of the samples' weights. criterion:

    - cross_entropy, and bce, which is the same of one logit;
    - focal: (1 - p_t)^gamma times it, where p_t is the probability of the true class; of one logit also times alpha for the
      second class and 1 - alpha for the first, as torchvision.ops.sigmoid_focal_loss has it. Of several classes `weights`
      do what alpha does. Lin et al. 2017, arXiv:1708.02002.
    """
    single = logits.shape[1] == 1
    logits = logits.float()
    pair = torch.cat([torch.zeros_like(logits), logits], dim=1) if single else logits
    parts = {"accuracy": (pair.argmax(dim=1) == targets).float().mean()}
    weight = logits.new_tensor(weights)
    if criterion != "focal":
        return F.cross_entropy(pair, targets, weight, label_smoothing=label_smoothing), parts
    entropy = F.cross_entropy(pair, targets, reduction="none")
    losses = (-torch.expm1(-entropy)).clamp(min=LEAST) ** gamma * entropy
    if single:
        losses = losses * (alpha * targets + (1 - alpha) * (1 - targets))
    of_sample = weight[targets]
    return (losses * of_sample).sum() / of_sample.sum(), parts
