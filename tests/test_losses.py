"""lib.tasks.losses by hand, against torch's own cross-entropy, and by gradients that must be zero."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.study import Data
from lib.tasks.losses import exclusive_loss, region_loss
from lib.tasks.segmentation import Segmentation

NESTED = dict(classes=("brain", "stroke"), parents=(-1, 0))


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def random_case(shape=(2, 2, 4, 5), seed=0):
    """Logits with gradient, and nested targets: brain on the left three columns, stroke inside it."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator).requires_grad_()
    targets = torch.zeros(shape, dtype=torch.uint8)
    targets[:, 0, :, :3] = 1
    targets[:, 1, 1:3, 1:3] = 1
    return logits, targets


def test_one_region_by_hand():
    """Probabilities 0.8, 0.4, 0.5, 0.1 for truth 1, 1, 0, 0: no smoothing, Dice smoothed by one pixel."""
    p, t = np.array([0.8, 0.4, 0.5, 0.1]), np.array([1, 1, 0, 0])
    logits = torch.tensor([logit(x) for x in p]).view(1, 1, 2, 2)
    loss, parts = region_loss(logits, torch.tensor(t, dtype=torch.uint8).view(1, 1, 2, 2), ("a",), (-1,), [1.0], 0.0)
    bce = -(math.log(0.8) + math.log(0.4) + math.log(0.5) + math.log(0.9)) / 4
    dice = 1 - (2 * 1.2 + 1) / (1.8 + 2 + 1)
    assert parts["bce_a"].item() == pytest.approx(bce, rel=1e-6)
    assert parts["dice_a"].item() == pytest.approx(dice, rel=1e-6)
    assert loss.item() == pytest.approx(bce + dice, rel=1e-6)
    assert set(parts) == {"bce_a", "dice_a"}


def test_label_smoothing_by_hand():
    """0.2: the entropy's targets are 0.1 and 0.9; Dice keeps the hard ones."""
    logits = torch.tensor([logit(0.7), logit(0.2)]).view(1, 1, 1, 2)
    targets = torch.tensor([1, 0], dtype=torch.uint8).view(1, 1, 1, 2)
    parts = region_loss(logits, targets, ("a",), (-1,), [1.0], 0.2)[1]
    expected = -(0.9 * math.log(0.7) + 0.1 * math.log(0.3) + 0.1 * math.log(0.2) + 0.9 * math.log(0.8)) / 2
    assert parts["bce_a"].item() == pytest.approx(expected, rel=1e-6)
    hard = region_loss(logits, targets, ("a",), (-1,), [1.0], 0.0)[1]
    assert parts["dice_a"].item() == hard["dice_a"].item()


def test_dice_is_taken_over_the_whole_batch():
    """Two frames, one without the region: 2 * 0.9 + 1 over 0.9 + 0.3 + 1 + 1."""
    logits = torch.tensor([logit(0.9), logit(0.3)]).view(2, 1, 1, 1)
    targets = torch.tensor([1, 0], dtype=torch.uint8).view(2, 1, 1, 1)
    parts = region_loss(logits, targets, ("a",), (-1,), [1.0], 0.0)[1]
    assert parts["dice_a"].item() == pytest.approx(1 - 2.8 / 3.2, rel=1e-6)


def test_outside_the_parent_nothing_counts():
    logits, targets = random_case()
    loss, parts = region_loss(logits, targets, **NESTED, weights=[1.0, 1.0], label_smoothing=0.01)
    (parts["bce_stroke"] + parts["dice_stroke"]).backward()
    outside = targets[:, 0] == 0
    assert (logits.grad[:, 1][outside] == 0).all() and (logits.grad[:, 0] == 0).all()
    assert (logits.grad[:, 1][~outside] != 0).all()
    changed = logits.detach().clone()
    changed[:, 1][outside] += 37.0
    again, again_parts = region_loss(changed, targets, **NESTED, weights=[1.0, 1.0], label_smoothing=0.01)
    assert again.item() == loss.item() and again_parts["dice_stroke"].item() == parts["dice_stroke"].item()


def test_inside_the_parent_it_is_the_loss_of_those_voxels_alone():
    logits, targets = random_case()
    parts = region_loss(logits, targets, **NESTED, weights=[1.0, 1.0], label_smoothing=0.01)[1]
    inside = region_loss(logits[:, 1:, :, :3], targets[:, 1:, :, :3], ("stroke",), (-1,), [1.0], 0.01)[1]
    for name in ("bce_stroke", "dice_stroke"):
        assert parts[name].item() == pytest.approx(inside[name].item(), rel=1e-6)


def test_a_grandchild_is_seen_inside_its_own_parent():
    targets = torch.zeros((1, 3, 1, 4), dtype=torch.uint8)
    targets[0, 0, 0, :3], targets[0, 1, 0, :2], targets[0, 2, 0, :1] = 1, 1, 1
    logits = torch.zeros((1, 3, 1, 4), requires_grad=True)
    region_loss(logits, targets, ("a", "b", "c"), (-1, 0, 1), [1.0] * 3, 0.0)[0].backward()
    assert (logits.grad[0, :, 0] != 0).tolist() == [[True] * 4, [True] * 3 + [False], [True] * 2 + [False] * 2]


def test_an_absent_parent_adds_nothing():
    logits, targets = random_case()
    targets[:] = 0
    loss, parts = region_loss(logits, targets, **NESTED, weights=[1.0, 100.0], label_smoothing=0.01)
    assert parts["bce_stroke"].item() == 0 and parts["dice_stroke"].item() == 0
    assert loss.item() == pytest.approx((parts["bce_brain"] + parts["dice_brain"]).item() / 101, rel=1e-5)
    loss.backward()
    assert (logits.grad[:, 1] == 0).all() and torch.isfinite(logits.grad).all() and (logits.grad[:, 0] != 0).all()


def test_an_absent_child_in_a_present_parent_is_still_learnt():
    logits, targets = random_case()
    targets[:, 1] = 0
    loss, parts = region_loss(logits, targets, **NESTED, weights=[1.0, 1.0], label_smoothing=0.0)
    loss.backward()
    assert (logits.grad[:, 1, :, :3] > 0).all()  # every false positive is pushed down, by the cross-entropy alone
    entropy = torch.nn.functional.softplus(logits.detach()[:, 1, :, :3]).mean().item()  # -log(1 - sigmoid)
    assert parts["bce_stroke"].item() == pytest.approx(entropy, rel=1e-5)
    assert parts["dice_stroke"].item() == 0


def test_weights_make_a_weighted_mean():
    logits, targets = random_case()
    loss, parts = region_loss(logits, targets, **NESTED, weights=[1.0, 3.0], label_smoothing=0.01)
    expected = (parts["bce_brain"] + parts["dice_brain"] + 3 * (parts["bce_stroke"] + parts["dice_stroke"])) / 4
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_perfect_and_sure_answer_costs_nothing():
    _, targets = random_case()
    loss, _ = region_loss((targets.float() - 0.5) * 80, targets, **NESTED, weights=[1.0, 1.0], label_smoothing=0.0)
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_half_precision_logits_are_scored_in_float32():
    logits, targets = random_case()
    half = logits.detach().bfloat16()
    loss, parts = region_loss(half, targets, **NESTED, weights=[1.0, 1.0], label_smoothing=0.01)
    assert loss.dtype == torch.float32 and all(part.dtype == torch.float32 for part in parts.values())
    same, _ = region_loss(half.float(), targets, **NESTED, weights=[1.0, 1.0], label_smoothing=0.01)
    assert loss.item() == same.item()


@pytest.mark.parametrize("weights, smoothing", [([1.0, 1.0], 0.0), ([2.0, 0.5], 0.0), ([2.0, 0.5], 0.1)])
def test_exclusive_is_torchs_cross_entropy_plus_dice_by_hand(weights, smoothing):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 3, 4, 5), generator=generator)
    targets = torch.randint(0, 3, (2, 4, 5), generator=generator, dtype=torch.uint8)
    loss, parts = exclusive_loss(logits, targets, ("a", "b"), weights, smoothing)
    entropy = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, *weights]), label_smoothing=smoothing)
    assert parts["cross_entropy"].item() == pytest.approx(entropy(logits, targets.long()).item(), rel=1e-6)
    p, t = F.softmax(logits.double(), 1).numpy(), targets.numpy()
    dice = [1 - (2 * p[:, k][t == k].sum() + 1) / (p[:, k].sum() + (t == k).sum() + 1) for k in (1, 2)]
    assert [parts["dice_a"].item(), parts["dice_b"].item()] == pytest.approx(dice, rel=1e-5)
    expected = parts["cross_entropy"].item() + np.average(dice, weights=weights)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_exclusive_cross_entropy_by_hand():
    """Two pixels, classes background and a: probabilities of the truth 0.8 (background) and 0.25 (a, weight 3)."""
    logits = torch.tensor([[0.8, 0.75], [0.2, 0.25]]).log().view(1, 2, 1, 2)
    targets = torch.tensor([0, 1], dtype=torch.uint8).view(1, 1, 2)
    parts = exclusive_loss(logits, targets, ("a",), [3.0], 0.0)[1]
    assert parts["cross_entropy"].item() == pytest.approx(-(math.log(0.8) + 3 * math.log(0.25)) / 4, rel=1e-6)
    assert parts["dice_a"].item() == pytest.approx(1 - (2 * 0.25 + 1) / (0.45 + 1 + 1), rel=1e-6)


def test_the_task_hands_its_keys_to_the_loss():
    logits, targets = random_case()
    data = Data(reader={}, classes=("brain", "stroke"), inside={"stroke": "brain"})
    task = Segmentation(data, {}, {}, weights={"stroke": 5.0}, label_smoothing=0.2)
    expected, _ = region_loss(logits, targets, **NESTED, weights=[1.0, 5.0], label_smoothing=0.2)
    assert task.loss({"logits": logits}, targets)[0].item() == expected.item()
    task = Segmentation(Data(reader={}, classes=("a",), encoding="exclusive"), {}, {}, weights={"a": 2.0})
    expected, _ = exclusive_loss(logits, targets[:, 0], ("a",), [2.0], 0.01)
    assert task.loss({"logits": logits}, targets[:, 0])[0].item() == expected.item()
