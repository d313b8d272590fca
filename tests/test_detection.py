"""The detection task: targets and boxes under augmentation by hand, the loss, decoding, fusing, scores of a case and a set."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lib.conversion import compare
from lib.data.augmentation import Warp, random_warp
from lib.data.case import Case, Header
from lib.data.store import CaseRecord
from lib.imaging.geometry import Fit, Geometry
from lib.study import Augmentation, Data, InputError, load_study
from lib.tasks import make_task
from lib.tasks.box_losses import detection_loss, heat_entropy, warp_boxes
from lib.tasks.detection import Detection, Prediction

CLASSES = ("head", "nose")
NATIVE = (60, 100)  # rows, columns


def detection(**keys) -> Detection:
    return Detection(Data(reader={}, classes=CLASSES), {}, keys.pop("calibration", {}), **keys)


def record(spacing=None, grid=(64, 64)) -> CaseRecord:
    geometry = Geometry((1, *NATIVE), spacing, True)
    return CaseRecord(0, "a", "p", geometry, Fit.of(NATIVE, grid), slice(0, 1), slice(0, 1), "")


def truth_of(*boxes) -> np.ndarray:
    """float32 (1, classes, 5) of a box, or None, for each class."""
    return np.array([[[0, 0, 0, 0, 0] if box is None else [1, *box] for box in boxes]], np.float32)


def prediction_of(boxes, scores, confidence=0.5) -> Prediction:
    return Prediction(np.array([scores], np.float32), np.array([boxes], np.float32), confidence,
                      np.ones((1, len(scores)), np.float32))


def case_of(head, nose) -> Case:
    header = Header("a", "p", {}, Geometry((1, *NATIVE), None, True), 1)
    return Case(header, np.zeros((1, 1, *NATIVE), np.uint8),
                {"head": np.array([head], np.float32), "nose": np.array([nose], np.float32)})


# --- targets -------------------------------------------------------------------------------------------------------


def test_native_truth_marks_structures_that_are_not_there():
    truth = detection().native_truth(case_of([10, 20, 30, 40], [np.nan] * 4))
    assert truth.tolist() == [[[1, 10, 20, 30, 40], [0, 0, 0, 0, 0]]]


def test_a_box_is_encoded_as_shares_of_the_padded_grid():
    # 60 x 100 into 64 x 64: scaled to 38 x 64 rows and columns, 13 rows of padding above
    fit = Fit.of(NATIVE, (64, 64))
    assert (fit.scaled, fit.corner) == ((38, 64), (13, 0))
    target = detection().encode(truth_of((0, 0, 100, 60), None), fit)
    assert target[0, 0] == pytest.approx([1, 0.5, 0.5, 1, 38 / 64])
    assert target[0, 1].tolist() == [0, 0, 0, 0, 0]


def test_decoding_an_encoded_box_gives_it_back():
    task, case = detection(), record()
    truth = truth_of((11, 7, 53, 49), (2, 3, 20, 9))
    target = task.encode(truth, case.fit)
    logits = np.array([[2.0, -3.0]], np.float32)
    prediction = task.decode({"presence": logits, "boxes": target[..., 1:]}, case)
    assert prediction.boxes == pytest.approx(truth[..., 1:], abs=1e-4)
    assert prediction.scores == pytest.approx(1 / (1 + np.exp(-logits)))
    assert prediction.found.tolist() == [[True, False]]


def test_decoded_boxes_stay_inside_the_image():
    outputs = {"presence": np.zeros((1, 2), np.float32), "boxes": np.array([[[0.5, 0.5, 3, 3], [0.9, 0.9, 0.5, 0.5]]], np.float32)}
    boxes = detection().decode(outputs, record()).boxes[0]
    assert boxes[0].tolist() == [0, 0, 100, 60]
    assert boxes[:, 2].max() <= 100 and boxes[:, 3].max() <= 60


# --- augmentation --------------------------------------------------------------------------------------------------


def warp_of(matrix, flips=(False, False)) -> Warp:
    return Warp(torch.tensor([matrix], dtype=torch.float32), torch.tensor([flips]), (40, 80))


TARGET = torch.tensor([[[1, 0.25, 0.5, 0.2, 0.4], [0, 0, 0, 0, 0]]])


def test_no_warp_changes_nothing():
    assert warp_boxes(TARGET, warp_of([[1, 0, 0], [0, 1, 0]]), 0.5, [0, 1]) == pytest.approx(TARGET.numpy())


def test_a_mirrored_box_is_on_the_other_side():
    moved = warp_boxes(TARGET, warp_of([[-1, 0, 0], [0, 1, 0]], (False, True)), 0.5, [0, 1])
    assert moved[0, 0].tolist() == pytest.approx([1, 0.75, 0.5, 0.2, 0.4])


def test_a_mirror_swaps_the_names_that_the_study_says():
    moved = detection(swap={"head": "nose"}).transform(TARGET, warp_of([[-1, 0, 0], [0, 1, 0]], (False, True)))
    assert moved[0, 1].tolist() == pytest.approx([1, 0.75, 0.5, 0.2, 0.4])
    assert moved[0, 0, 0] == 0
    turned = detection(swap={"head": "nose"}).transform(TARGET, warp_of([[-1, 0, 0], [0, -1, 0]], (True, True)))
    assert turned[0, 0, 0] == 1  # two mirrors are a turn: left stays left


def test_a_quarter_turn_exchanges_width_and_height_in_pixels():
    aspect = 40 / 80
    target = torch.tensor([[[1, 0.4, 0.5, 0.1, 0.4]]])  # 8 px left of the middle, 8 px wide, 16 px high
    moved = warp_boxes(target, warp_of([[0, -aspect, 0], [1 / aspect, 0, 0]]), 0.5, [0])
    assert moved[0, 0].tolist() == pytest.approx([1, 0.5, 0.7, 16 / 80, 8 / 40])


def test_zoom_enlarges_boxes_and_cuts_them_at_the_frame():
    moved = warp_boxes(TARGET, warp_of([[0.5, 0, 0], [0, 0.5, 0]]), 0.3, [0, 1])  # twice as large, around the middle
    # centre 0.25 -> 0.0, half width 0.2: half of it is outside
    assert moved[0, 0].tolist() == pytest.approx([1, 0.1, 0.5, 0.2, 0.8])


def test_a_box_that_has_mostly_left_the_frame_is_gone():
    moved = warp_boxes(TARGET, warp_of([[0.5, 0, 0], [0, 0.5, 0]]), 0.6, [0, 1])
    assert moved[0, 0].tolist() == [0, 0, 0, 0, 0]


def test_a_turned_box_follows_the_turned_picture():
    """The middle of a bright disc, found in the warped picture, is the middle of its warped box."""
    size, generator = (96, 128), torch.Generator().manual_seed(3)
    settings = Augmentation(transform_prob=1, rotation_range=(-40, 40), zoom_range=(0.8, 1.2), translation_range=(-0.1, 0.1), flip_columns=True)
    rows, columns = np.mgrid[:96, :128] + 0.5
    disc = (((columns - 50) / 20) ** 2 + ((rows - 40) / 10) ** 2 <= 1).astype(np.float32)
    frames = torch.from_numpy(np.repeat(disc[None, None, None], 8, axis=0))
    targets = torch.tensor([[[1, 50 / 128, 40 / 96, 40 / 128, 20 / 96]]]).repeat(8, 1, 1)
    warp = random_warp(settings, 8, size, generator, torch.device("cpu"))
    moved, seen = warp_boxes(targets, warp, 0.9, [0]).numpy(), warp.frames(frames).numpy()[:, 0, 0] > 0.5
    checked = 0
    for box, mask in zip(moved[:, 0], seen):
        if box[0]:
            y, x = np.nonzero(mask)
            sides = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) / [128, 96, 128, 96]
            found = [box[1] - box[3] / 2, box[2] - box[4] / 2, box[1] + box[3] / 2, box[2] + box[4] / 2]
            assert found == pytest.approx(sides.tolist(), abs=0.02)
            checked += 1
    assert checked >= 4


# --- the loss ------------------------------------------------------------------------------------------------------

PARTS = {"presence": 1.0, "heat": 1.0, "overlap": 2.0, "side": 5.0}


def test_the_loss_by_hand():
    outputs = {"presence": torch.tensor([[0.0, math.log(3)]]), "boxes": torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]]])}
    targets = torch.tensor([[[1, 0.5, 0.5, 0.4, 0.2], [0, 0, 0, 0, 0]]])
    total, parts = detection_loss(outputs, targets, [1.0, 3.0], PARTS)
    # -log 0.5, and 3 times -log(1 - 0.75)
    assert float(parts["presence"]) == pytest.approx((math.log(2) + 3 * math.log(4)) / 4)
    assert float(parts["side"]) == pytest.approx(0.2)
    # IoU 0.5, same centre, so only the term of proportions is left
    v = 4 / math.pi ** 2 * (math.atan(2) - math.atan(1)) ** 2
    assert float(parts["overlap"]) == pytest.approx(0.5 + v * v / (0.5 + v), abs=1e-5)
    assert float(total) == pytest.approx(float(parts["presence"] + 2 * parts["overlap"] + 5 * parts["side"]))


def test_absent_structures_give_no_gradient_to_boxes_and_no_nan():
    boxes = torch.rand(2, 2, 4, requires_grad=True)
    outputs = {"presence": torch.zeros(2, 2, requires_grad=True), "boxes": boxes, "heat": torch.zeros(2, 2, 4, 4, requires_grad=True)}
    total, _ = detection_loss(outputs, torch.zeros(2, 2, 5), [1.0, 1.0], PARTS)
    total.backward()
    assert torch.isfinite(total) and float(boxes.grad.abs().sum()) == 0


def test_heat_is_best_where_the_centre_is():
    box = torch.tensor([[0.7, 0.3, 0.1, 0.1]])
    entropies = {}
    for row in range(10):
        for column in range(10):
            heat = torch.full((1, 10, 10), -5.0)
            heat[0, row, column] = 5.0
            entropies[row, column] = float(heat_entropy(heat, box))
    best = min(entropies.values())
    near = {place for place, value in entropies.items() if value < best + 1e-3}
    assert near <= {(2, 6), (2, 7), (3, 6), (3, 7)}


# --- fusing and scoring --------------------------------------------------------------------------------------------


def test_folds_that_agree_outvote_one_that_does_not():
    near = [prediction_of([[10, 10, 30, 30], [0, 0, 5, 5]], [0.9, 0.2], 0.4),
            prediction_of([[12, 10, 32, 30], [0, 0, 5, 5]], [0.6, 0.4], 0.6)]
    far = prediction_of([[60, 10, 80, 30], [0, 0, 5, 5]], [0.9, 0.6], 0.5)
    fused = detection().fuse([*near, far])
    assert fused.boxes[0, 0] == pytest.approx([(0.9 * 10 + 0.6 * 12) / 1.5, 10, (0.9 * 30 + 0.6 * 32) / 1.5, 30])
    assert fused.scores[0] == pytest.approx([0.8, 0.4])
    assert fused.confidence == pytest.approx(0.5)
    assert fused.agreement[0] == pytest.approx([2 / 3, 1])


def test_scores_of_a_case_by_hand():
    truth = truth_of((10, 10, 30, 30), None)
    rows = detection().score(prediction_of([[10, 10, 30, 20], [0, 0, 5, 5]], [0.9, 0.8]), truth, record((1.0, 0.5, 0.25)))
    assert rows["head", "iou"] == rows["all", "iou"] == pytest.approx(0.5)
    assert rows["head", "centre_error_px"] == pytest.approx(5)
    assert rows["head", "centre_error_mm"] == pytest.approx(2.5)  # 5 rows of 0.5 mm
    assert math.isnan(rows["nose", "iou"]) and math.isnan(rows["nose", "centre_error_px"])
    assert (rows["nose", "present"], rows["nose", "present_true"]) == (1, 0)


def test_a_box_below_the_confidence_is_a_miss():
    rows = detection().score(prediction_of([[10, 10, 30, 30], [0, 0, 5, 5]], [0.4, 0.1]), truth_of((10, 10, 30, 30), None), record())
    assert rows["head", "iou"] == 0 and math.isnan(rows["head", "centre_error_px"])


def test_scores_of_a_set_by_hand():
    """Two images: the head is found in both (once with IoU 0.5), the nose is there once and found elsewhere."""
    task, case = detection(), record()
    evidence = [task.evidence(prediction_of([[0, 0, 10, 10], [0, 0, 5, 5]], [0.9, 0.3]), truth_of((0, 0, 10, 10), None), case),
                task.evidence(prediction_of([[0, 0, 10, 5], [50, 50, 60, 60]], [0.8, 0.7]), truth_of((0, 0, 10, 10), (0, 0, 10, 10)), case)]
    rows = task.score_set(evidence)
    assert rows["head", "ap@0.5"] == pytest.approx(1.0)
    # at the nine higher thresholds one of two heads is found, first: precision 1 up to recall 0.5 (51 of 101 points)
    assert rows["head", "ap@[.5:.95]"] == pytest.approx((1 + 9 * 51 / 101) / 10)
    assert rows["head", "ar@[.5:.95]"] == pytest.approx((1 + 9 * 0.5) / 10)
    assert rows["nose", "ap@0.5"] == 0
    assert rows["all", "map@0.5"] == pytest.approx(0.5)
    assert (rows["head", "f1"], rows["nose", "f1"]) == (1, 0)
    assert rows["all", "f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))  # 2 hits, 1 false alarm, 1 miss
    assert rows["all", "iou_of_true_positives"] == pytest.approx(0.75)
    assert rows["nose", "presence_roc_auc"] == 1 and math.isnan(rows["head", "presence_roc_auc"])
    assert rows["nose", "images_with_it"] == 1


def test_a_structure_that_no_image_has_is_left_out_of_the_mean():
    task, case = detection(), record()
    rows = task.score_set([task.evidence(prediction_of([[0, 0, 10, 10], [0, 0, 5, 5]], [0.9, 0.3]), truth_of((0, 0, 10, 10), None), case)])
    assert math.isnan(rows["nose", "ap@0.5"]) and rows["all", "map@0.5"] == pytest.approx(1)


def test_calibration_takes_the_confidence_with_the_best_f1():
    task, case = detection(), record()
    cases = [(prediction_of([[0, 0, 10, 10], [40, 40, 50, 50]], [0.35, 0.15]), truth_of((0, 0, 10, 10), None), case),
             (prediction_of([[0, 0, 10, 10], [40, 40, 50, 50]], [0.30, 0.25]), truth_of((0, 0, 10, 10), None), case)]
    chosen = task.calibrate(lambda: iter(cases))
    assert 0.25 < chosen["confidence"] < 0.30 and chosen["cases"] == 2
    assert task.with_calibration(chosen).confidence == chosen["confidence"]
    assert task.calibrate(lambda: iter(())) == {}


# --- keys ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys, named", [
    ({"names": {"ear": "Ear"}}, "task.names"), ({"weights": {"head": 0}}, "task.weights"), ({"visible": 0}, "task.visible"),
    ({"swap": {"head": "ear"}}, "task.swap.head"), ({"side_weight": -1}, "task.side_weight"),
    ({"colours": {"head": "red"}}, "task.colours.head"), ({"tolerance_mm": 1.0}, "tolerance")])
def test_keys_that_cannot_be_meant(keys, named):
    with pytest.raises(InputError, match=named):
        detection(**keys)


def test_names_that_change_sides_are_pairs():
    data = Data(reader={}, classes=("left", "right", "other"))
    assert Detection(data, {}, {}, swap={"left": "right"}).swapped == {"left": "right", "right": "left"}
    with pytest.raises(InputError, match="task.swap: .* expected pairs"):
        Detection(data, {}, {}, swap={"left": "right", "right": "other"})


def test_sides_without_a_swap_deserve_a_line():
    data, facts = Data(reader={}, classes=("Left hip", "right hip")), [{"size_Left hip": 1, "size_right hip": 1}]
    assert Detection(data, {}, {}).notes([], facts) == ["Left hip, right hip change places in a mirror: say so in task.swap, "
                                                        "or set augmentation.flip_columns to false"]
    assert Detection(data, {}, {}, swap={"Left hip": "right hip"}).notes([], facts) == []


def test_a_mirror_at_the_end_and_names_that_change_sides_exclude_each_other():
    study = load_study("fetal_anatomy", ["task.swap={IT: CM}", "window.mirror=true"])
    with pytest.raises(InputError, match="window.mirror.*task.swap"):
        make_task(study)


def test_parity_judges_every_output_by_its_own_size():
    """Boxes off by a hundredth of the frame pass no more beside heat of 20 than alone."""
    task, case, truth = detection(), record(), truth_of((10, 10, 30, 30), None)
    expected = {"presence": np.array([[3.0, -3.0]], np.float32), "boxes": task.encode(truth, case.fit)[..., 1:],
                "heat": np.full((1, 2, 4, 4), 20.0, np.float32)}
    off = {**expected, "boxes": expected["boxes"] + np.float32([0.01, 0, 0, 0])}
    same, different = (compare(expected, found, task, truth, case, "iou/all") for found in (expected, off))
    assert same["passed"] == "yes" and different["passed"] == "no"
    assert different["output"] == "boxes" and different["largest_difference"] == pytest.approx(0.01, abs=1e-6)
    assert compare(expected, {**expected, "heat": expected["heat"] * np.nan}, task, truth, case, "iou/all")["passed"] == "no"
