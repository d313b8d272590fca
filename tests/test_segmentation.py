"""lib.tasks.segmentation: targets, decoding, scores, calibration and strata, small enough to count by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from lib.data.case import Case, Header
from lib.imaging.geometry import Fit, Geometry
from lib.study import Data, Folds, InputError
from lib.tasks.segmentation import Prediction, Segmentation
from lib.tasks.thresholds import THRESHOLDS

NAN = float("nan")
HALVES = (0.5, 0.5, 0.5)
SHARE = {"share": {"kind": "share", "part": "visible", "whole": "stroke"}}


def stroke(**keys) -> Segmentation:
    """The regions of the default study."""
    data = Data(reader={}, classes=("brain", "stroke", "visible"), inside={"stroke": "brain", "visible": "stroke"},
                folds=Folds(stratify=("stroke", "visible")))
    return Segmentation(data, keys.pop("measurements", {}), keys.pop("calibration", {}), **keys)


def regions(*classes: str, **keys) -> Segmentation:
    return Segmentation(Data(reader={}, classes=classes), {}, keys.pop("calibration", {}), **keys)


def exclusive(*classes: str, **keys) -> Segmentation:
    return Segmentation(Data(reader={}, classes=classes, encoding="exclusive"), {}, {}, **keys)


def case_of(shape=(1, 1, 4), grid=None, spacing=(1.0, 1.0, 1.0), patient="p"):
    return SimpleNamespace(geometry=Geometry(shape, spacing), patient=patient, fit=Fit.of(shape[1:], grid or shape[1:]))


def masks(*rows: str) -> np.ndarray:
    """bool (classes, 1, 1, columns) from '1' and '0'."""
    return np.array([[[[letter == "1" for letter in row]]] for row in rows])


def predicted(truth: np.ndarray, probabilities=None, thresholds=HALVES) -> Prediction:
    return Prediction(truth.astype(np.float32) if probabilities is None else probabilities, truth, thresholds)


def raw_case(**truth: np.ndarray) -> Case:
    first = next(iter(truth.values()))
    header = Header("c", "p", {}, Geometry(first.shape, (1.0, 1.0, 1.0)), 1)
    return Case(header, np.zeros((1, *first.shape), np.float32), truth)


# --- targets ---------------------------------------------------------------------------------------------------------

def test_truth_is_cut_to_its_parent_all_the_way_down():
    """Columns: 0 whole, 1 no visible, 2 stroke outside the brain, 3 visible without stroke."""
    drawn = raw_case(brain=masks("1101")[0], stroke=masks("1110")[0], visible=masks("1011")[0])
    kept = {name: mask.copy() for name, mask in drawn.truth.items()}
    found = stroke().native_truth(drawn)
    np.testing.assert_array_equal(found, masks("1101", "1100", "1000"))
    assert all((drawn.truth[name] == kept[name]).all() for name in kept)  # the reader's masks are not touched


def test_a_later_exclusive_class_wins():
    found = exclusive("a", "b", "c").native_truth(raw_case(a=masks("1110")[0], b=masks("0111")[0], c=masks("0010")[0]))
    np.testing.assert_array_equal(found, masks("1000", "0101", "0010"))


def test_regions_are_encoded_one_per_channel():
    truth = np.zeros((2, 3, 2, 2), bool)
    truth[0, 1, 0, 0], truth[1, 2, 1, 1] = True, True
    found = regions("a", "b").encode(truth, Fit.of((2, 2), (4, 4)))
    assert found.shape == regions("a", "b").targets_shape(3, (4, 4)) == (3, 2, 4, 4) and found.dtype == np.uint8
    np.testing.assert_array_equal(found[1, 0], [[1, 1, 0, 0], [1, 1, 0, 0], [0] * 4, [0] * 4])
    np.testing.assert_array_equal(found[2, 1], [[0] * 4, [0] * 4, [0, 0, 1, 1], [0, 0, 1, 1]])
    assert found.sum() == 8


def test_exclusive_classes_are_encoded_as_numbers():
    task, truth = exclusive("a", "b"), np.zeros((2, 1, 2, 4), bool)
    truth[0, 0, 0, 0], truth[1, 0, 1, 3] = True, True
    found = task.encode(truth, Fit.of((2, 4), (4, 4)))
    assert found.shape == task.targets_shape(1, (4, 4)) == (1, 4, 4) and found.dtype == np.uint8
    np.testing.assert_array_equal(found[0], [[0] * 4, [1, 0, 0, 0], [0, 0, 0, 2], [0] * 4])
    assert (task.outputs, regions("a", "b").outputs) == (3, 2)


# --- decoding --------------------------------------------------------------------------------------------------------

def test_logits_become_probabilities_and_masks():
    """Logits are (frames, classes, rows, columns); 0 is a probability of 0.5, which is not above 0.5."""
    logits = np.array([[[[0.0, 1.0], [-1.0, 200.0]]]], np.float32)
    found = regions("a").decode({"logits": logits}, case_of((1, 2, 2)))
    expected = [[[[0.5, 1 / (1 + np.exp(-1))], [1 / (1 + np.e), 1]]]]
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-6)
    np.testing.assert_array_equal(found.masks, [[[[False, True], [False, True]]]])
    assert found.probabilities.dtype == np.float32 and found.masks.dtype == bool and found.thresholds == (0.5,)


def test_calibrated_thresholds_are_used():
    logits = np.log(np.array([0.35, 0.65, 0.75]) / (1 - np.array([0.35, 0.65, 0.75]))).astype(np.float32)
    outputs = {"logits": np.stack([logits, logits])[None, :, None]}
    task = regions("a", "b").with_calibration({"threshold": {"b": 0.7}})
    assert task.thresholds == (0.5, 0.7)
    np.testing.assert_array_equal(task.decode(outputs, case_of((1, 1, 3))).masks, masks("011", "001"))


def test_decoding_restores_the_native_grid():
    """Grid 4 x 4 from 2 x 1 native pixels: enlarged to 4 x 2 at columns 1 and 2; the padding must not leak in."""
    logits = np.full((1, 1, 4, 4), 50, np.float32)
    logits[0, 0, :2, 1:3] = -50
    found = regions("a").decode({"logits": logits}, case_of((1, 2, 1), grid=(4, 4)))
    assert found.masks.shape == (1, 1, 2, 1)
    np.testing.assert_array_equal(found.masks[0, 0], [[False], [True]])


def test_frames_and_classes_are_not_mixed_up():
    logits = np.full((3, 2, 1, 1), -9, np.float32)
    logits[2, 0], logits[0, 1] = 9, 9
    found = regions("a", "b").decode({"logits": logits}, case_of((3, 1, 1)))
    assert found.masks[:, :, 0, 0].tolist() == [[False, False, True], [True, False, False]]


def test_exclusive_takes_the_most_probable():
    """Column by column: background, a, b, and a with less than a half."""
    probabilities = np.array([[0.8, 0.1, 0.2, 0.3], [0.1, 0.7, 0.2, 0.4], [0.1, 0.2, 0.6, 0.3]])
    task = exclusive("a", "b")
    found = task.decode({"logits": np.log(probabilities).astype(np.float32)[None, :, None] + 100}, case_of())
    np.testing.assert_allclose(found.probabilities[:, 0, 0], probabilities[1:], rtol=1e-4)
    np.testing.assert_array_equal(found.masks, masks("0101", "0010"))
    np.testing.assert_array_equal(task.volume(found), [[[0, 1, 2, 1]]])


def test_only_the_largest_brain_counts_and_what_lies_in_the_other_goes_too():
    probabilities = masks("110111", "100101", "000000").astype(np.float32)
    found = stroke(largest=("brain",)).masks(probabilities, HALVES)
    np.testing.assert_array_equal(found, masks("000111", "000101", "000000"))
    np.testing.assert_array_equal(stroke().masks(probabilities, HALVES), masks("110111", "100101", "000000"))


def test_an_empty_mask_has_no_largest_component():
    found = stroke(largest=("brain", "stroke")).masks(np.zeros((3, 1, 1, 4), np.float32), HALVES)
    assert found.shape == (3, 1, 1, 4) and not found.any()


def test_predicted_regions_are_nested_too():
    found = stroke().masks(masks("1101", "1110", "1011").astype(np.float32), HALVES)
    np.testing.assert_array_equal(found, masks("1101", "1100", "1000"))


def test_folds_vote_by_mean_probability_and_mean_threshold():
    task = regions("a")
    first, second = (predicted(p > t, p, (t,)) for p, t in (
        (np.array([[[[0.2, 0.9, 0.55]]]], np.float32), 0.4), (np.array([[[[0.9, 0.3, 0.35]]]], np.float32), 0.6)))
    fused = task.fuse([first, second])
    np.testing.assert_allclose(fused.probabilities[0, 0, 0], [0.55, 0.6, 0.45])
    assert fused.thresholds == pytest.approx((0.5,))
    np.testing.assert_array_equal(fused.masks, masks("110"))
    np.testing.assert_array_equal(task.agreement([first, second])[0, 0, :, 0], [0.5, 0.5, 0.5])
    alone = task.fuse([first])
    np.testing.assert_array_equal(alone.masks, first.masks)
    assert task.agreement([first, second]).dtype == np.float32


def test_saved_regions_are_the_last_axis():
    found = stroke().volume(predicted(masks("111", "110", "100")))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, [[[[1, 1, 1], [1, 1, 0], [1, 0, 0]]]])


# --- scores ----------------------------------------------------------------------------------------------------------

def test_scores_by_hand():
    """Brain is right; of stroke one voxel is right, one missed; one of visible is too much. A voxel is 50 uL."""
    case = case_of(spacing=(5.0, 2.0, 5.0))
    task = stroke(measurements=SHARE, presence=("visible",))
    rows = task.score(predicted(masks("1111", "1100", "1100")), masks("1111", "0110", "0100"), case)
    assert rows["brain", "dice"] == 1 and rows["brain", "hd95_mm"] == 0
    assert rows["stroke", "dice"] == pytest.approx(2 / 4) and rows["stroke", "iou"] == pytest.approx(1 / 3)
    assert rows["visible", "dice"] == pytest.approx(2 / 3)
    assert rows["all", "dice"] == pytest.approx((1 + 1 / 2 + 2 / 3) / 3)
    assert rows["visible", "volume_ml"] == pytest.approx(0.1)
    assert rows["visible", "volume_ml_true"] == pytest.approx(0.05)
    assert rows["stroke", "false_positive_ml"] == pytest.approx(0.05)
    assert rows["visible", "share"] == 1 and rows["visible", "share_true"] == 0.5
    assert rows["visible", "present_true"] == 1
    quick = task.score(predicted(masks("1111", "1100", "1100")), masks("1111", "0110", "0100"), case, distances=False)
    assert not any("hd95" in metric for _, metric in quick)
    np.testing.assert_equal(quick, {key: rows[key] for key in quick})  # NaN equals NaN here


def test_an_empty_truth_is_neither_0_nor_1():
    case = case_of(spacing=(1.0, 10.0, 10.0))
    rows = stroke().score(predicted(masks("1111", "1100", "0000")), masks("1111", "0000", "0000"), case)
    for metric in ("dice", "iou", "recall", "hd95_mm"):
        assert np.isnan(rows["stroke", metric]) and np.isnan(rows["visible", metric])
        assert rows["all", metric] == rows["brain", metric]  # the mean of those that are defined
    assert rows["stroke", "precision"] == 0 and np.isnan(rows["visible", "precision"])
    assert rows["stroke", "false_positive_ml"] == pytest.approx(0.2)
    nothing = regions("a").score(predicted(masks("1000")), masks("0000"), case)
    assert np.isnan(nothing["all", "dice"])


def test_a_missed_lesion_scores_0():
    rows = regions("a").score(predicted(masks("0000")), masks("0110"), case_of())
    assert (rows["a", "dice"], rows["a", "recall"], rows["all", "dice"]) == (0, 0, 0)
    assert np.isnan(rows["a", "precision"]) and np.isnan(rows["a", "hd95_mm"])


def test_presence_is_judged_by_volume():
    """Two voxels of 0.1 mL: present above the threshold, not at it."""
    case = case_of(spacing=(1.0, 10.0, 10.0))
    for limit, expected in ((0.1, 1), (0.2, 0), (0.3, 0)):
        task = regions("a", presence=("a",), calibration={"presence": {"a": limit}})
        rows = task.score(predicted(masks("1100")), masks("0001"), case)
        assert (rows["a", "present"], rows["a", "present_true"]) == (expected, 1)
        assert task.measure(predicted(masks("1100")), case)["a", "present"] == expected
    default = regions("a", presence=("a",), presence_default=0.15)
    assert default.score(predicted(masks("1000")), masks("0000"), case)["a", "present"] == 0


def test_a_case_without_truth_is_measured():
    task = stroke(measurements=SHARE, presence=("visible",))
    rows = task.measure(predicted(masks("1111", "1100", "1000")), case_of(spacing=(1.0, 10.0, 100.0)))
    assert rows == {("brain", "volume_ml"): 4, ("stroke", "volume_ml"): 2, ("visible", "volume_ml"): 1,
                    ("visible", "present"): 1, ("visible", "share"): 0.5}
    empty = task.measure(predicted(masks("1111", "0000", "0000")), case_of())
    assert np.isnan(empty["visible", "share"])


def test_set_scores_by_hand():
    """Five patients; truth in three; volumes rank two of them above, one below the empty ones."""
    task = regions("a", presence=("a",), calibration={"presence": {"a": 0.15}})
    pairs = (("11110", "11110"), ("11000", "11000"), ("00000", "00001"), ("10000", "00000"), ("11100", "00000"))
    rows = task.score_set([task.evidence(predicted(masks(p)), masks(t), case_of((1, 1, 5), spacing=(1.0, 10.0, 10.0), patient=str(i)))
                           for i, (p, t) in enumerate(pairs)])
    assert (rows["a", "cases"], rows["a", "empty_truth_cases"]) == (5, 2)
    # volumes 0.4, 0.2, 0 against 0.1, 0.3: pairs won 2 + 1 + 0 of 6
    assert rows["a", "presence_roc_auc"] == pytest.approx(3 / 6)
    assert rows["a", "presence_sensitivity"] == pytest.approx(2 / 3)
    assert rows["a", "presence_specificity"] == pytest.approx(1 / 2)
    assert rows["a", "presence_kappa"] == pytest.approx((3 / 5 - 13 / 25) / (1 - 13 / 25))


def test_evidence_of_each_fold_keeps_its_own_threshold():
    case = case_of(spacing=(1.0, 10.0, 10.0))
    strict, loose = (regions("a", presence=("a",), calibration={"presence": {"a": ml}}) for ml in (0.25, 0.05))
    evidence = [strict.evidence(predicted(masks("1100")), masks("0000"), case),
                loose.evidence(predicted(masks("1000")), masks("1000"), case_of(spacing=(1.0, 10.0, 10.0), patient="q"))]
    rows = strict.score_set(evidence)
    assert (rows["a", "presence_sensitivity"], rows["a", "presence_specificity"]) == (1, 1)
    assert evidence[0]["patient"] == "p" and evidence[0]["predicted"] == [pytest.approx(0.2)]


# --- calibration -----------------------------------------------------------------------------------------------------

def calibrated(task: Segmentation, *cases) -> dict:
    """cases: (probabilities per class, truth), each (classes, columns)."""
    made = []
    for probabilities, truth in cases:
        p = np.array(probabilities, np.float32)[:, None, None]
        made.append((Prediction(p, task.masks(p, [0.5] * len(p)), (0.5,) * len(p)), masks(*truth),
                     case_of((1, 1, p.shape[-1]), spacing=(1.0, 10.0, 10.0), patient=f"p{len(made)}")))
    return task.calibrate(lambda: iter(made))


@pytest.mark.parametrize("inside, outside, best", [
    (0.35, 0.25, 0.3),  # only 0.3 parts them
    (0.85, 0.75, 0.8),
    (0.95, 0.05, 0.5),  # every threshold does: the middle one
    (0.45, 0.15, 0.4),  # 0.2, 0.3 and 0.4 do: the one nearest to the middle
    (0.88, 0.62, 0.7),
])
def test_the_threshold_that_parts_lesion_and_rest_is_found(inside, outside, best):
    found = calibrated(regions("a"), ([[inside, inside, outside, outside]], ["1100"]))
    assert found == {"threshold": {"a": best}, "presence": {}, "cases": 1}


def test_empty_truth_does_not_move_the_threshold():
    case = ([[0.35, 0.35, 0.25, 0.25]], ["1100"])
    empty = ([[0.85, 0.85, 0.85, 0.05]], ["0000"])
    assert calibrated(regions("a"), case, empty, empty)["threshold"] == {"a": 0.3}
    assert calibrated(regions("a"), empty)["threshold"] == {"a": 0.5}


def test_each_region_has_its_own_threshold_and_a_child_is_judged_inside_its_parent():
    """Three voxels of stroke at 0.65, 0.35, 0.35, then the rest of the brain, then eight at 0.55 outside the brain:
    0.3 finds all three; without the brain around it, it would find eight wrong ones too, and 0.6 were better."""
    brain, lesion = [0.95] * 4 + [0.05] * 8, [0.65, 0.35, 0.35, 0.15] + [0.55] * 8
    found = calibrated(stroke(), ([brain, lesion, [0.05] * 12], ["1111" + 8 * "0", "111" + 9 * "0", 12 * "0"]))
    assert found["threshold"] == {"brain": 0.5, "stroke": 0.3, "visible": 0.5}


def test_a_child_in_the_list_of_largest_is_calibrated_as_it_is_decoded():
    """Of three and one voxels three are kept, of three single ones one: 0.3 and 0.1 mL, midway is 0.2."""
    data = Data(reader={}, classes=("brain", "stroke"), inside={"stroke": "brain"})
    task = Segmentation(data, {}, {}, largest=("stroke",), presence=("stroke",))
    brain = [0.95] * 8
    sick = ([brain, [0.85, 0.85, 0.85, 0.05, 0.05, 0.85, 0.05, 0.05]], ["11111111", "11100000"])
    well = ([brain, [0.85, 0.05, 0.85, 0.05, 0.85, 0.05, 0.05, 0.05]], ["11111111", "00000000"])
    assert calibrated(task, sick, well)["presence"]["stroke"] == pytest.approx(0.2)


def test_the_presence_threshold_lies_between_sick_and_well():
    """Volumes at the chosen threshold: 0.1 mL and 0.2 mL in the well, 0.4 mL in the sick: midway is 0.3 mL."""
    task = regions("a", presence=("a",), presence_default=7.0)
    low, high = 0.05, 0.95
    found = calibrated(task, ([[high, high, high, high]], ["1111"]), ([[high, high, low, low]], ["0000"]),
                       ([[high, low, low, low]], ["0000"]))
    assert found["presence"]["a"] == pytest.approx(0.3) and found["cases"] == 3
    only_sick = calibrated(task, ([[high, high, high, high]], ["1111"]))
    assert only_sick["presence"] == {"a": 7.0}  # nothing to part: the default


def test_no_validation_cases_no_thresholds():
    task = regions("a")
    assert task.calibrate(lambda: iter([])) == {}
    assert task.with_calibration({}).thresholds == (0.5,)


def test_exclusive_classes_need_no_threshold():
    found = calibrated(exclusive("a", "b"), ([[0.9, 0.1, 0.1], [0.05, 0.8, 0.1]], ["100", "010"]))
    assert found == {"threshold": {}, "presence": {}, "cases": 1}


def test_thresholds_are_tenths():
    assert THRESHOLDS == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


# --- strata ----------------------------------------------------------------------------------------------------------

def test_strata_by_hand():
    """Stroke volumes that are not 0: 1, 2, 3, 10 mL; tertile bounds 2 and 3. Visible shares 0, 1/4, 1/2, 9/10."""
    volumes = {"a": (0, 0), "b": (1, 0), "c": (2, 0.5), "d": (3, 1.5), "e": (10, 9)}
    facts = [{"size_brain": 1000, "size_stroke": s, "size_visible": v} for s, v in volumes.values()]
    found = stroke().strata(list(volumes), facts)
    assert found == {
        "a": ["stroke none, visible none", "stroke none", "stroke absent"],
        "b": ["stroke small, visible none", "stroke small", "stroke present"],
        "c": ["stroke small, visible part", "stroke small", "stroke present"],
        "d": ["stroke medium, visible most", "stroke medium", "stroke present"],
        "e": ["stroke large, visible most", "stroke large", "stroke present"],
    }


def test_cases_of_one_patient_count_together():
    """p: 1 + 3 mL of stroke with 0 + 3 mL visible."""
    facts = [{"size_stroke": s, "size_visible": v} for s, v in ((1, 0), (0, 0), (3, 3))]
    found = stroke().strata(["p", "q", "p"], facts)
    assert list(found) == ["p", "q"]
    assert found["p"][0].endswith("visible most") and found["q"][0] == "stroke none, visible none"


def test_strata_of_a_cohort_without_lesions():
    found = regions("a").strata(["p", "q"], [{"size_a": 0}] * 2)
    assert found == {name: ["a none", "a none", "a absent"] for name in "pq"}


# --- pictures and keys -----------------------------------------------------------------------------------------------

def test_frame_scores_by_hand():
    """Frames: right, half right, missed, false alarm, nothing. Brain is an outer region and does not count."""
    data = Data(reader={}, classes=("brain", "a"), inside={"a": "brain"})
    truth = np.ones((2, 5, 1, 4), bool)
    guess = np.ones((2, 5, 1, 4), bool)
    pairs = (("1100", "1100"), ("1100", "0110"), ("1100", "0000"), ("0000", "1000"), ("0000", "0000"))
    for frame, (t, g) in enumerate(pairs):
        truth[1, frame], guess[1, frame] = masks(t)[0, 0], masks(g)[0, 0]
    task = Segmentation(data, {}, {})
    np.testing.assert_allclose(task.frame_scores(predicted(guess), truth), [1, 0.5, 0, 0, NAN])
    probabilities = np.where(guess, np.float32(0.75), np.float32(0.25))
    probabilities[1, 0, 0, 0] = 0.95
    np.testing.assert_allclose(task.frame_scores(predicted(guess, probabilities), None), [0.85, 0.75, NAN, 0.75, NAN])


def test_frame_scores_average_the_inner_regions_present():
    truth = np.stack([np.ones((1, 1, 4), bool), masks("1100")[0], masks("0000")[0]])
    assert stroke().frame_scores(predicted(truth), truth).tolist() == [1.0]
    guess = np.stack([truth[0], truth[1], masks("1000")[0]])
    assert stroke().frame_scores(predicted(guess), truth).tolist() == [0.5]  # stroke 1, visible 0


@pytest.mark.parametrize("key, value", [("weights", {"bran": 1.0}), ("largest", ("bran",)),
                                        ("presence", ("bran",)), ("outlines", ("bran",)), ("heat", "bran")])
def test_a_class_that_is_none_is_refused(key, value):
    with pytest.raises(InputError, match=f"task.{key}: unknown 'bran' .did you mean 'brain'"):
        stroke(**{key: value})


def test_a_measurement_of_no_class_is_refused_at_once():
    with pytest.raises(InputError, match="measurements"):
        stroke(measurements={"share": {"kind": "share", "part": "visible", "whole": "strok"}})
    with pytest.raises(InputError, match="measurements.share: missing key kind"):
        stroke(measurements={"share": {"part": "visible"}})


# --- photographs -----------------------------------------------------------------------------------------------------

def photograph(spacing=None, shape=(1, 1, 4)):
    geometry = Geometry(shape, spacing, flat=True)
    return SimpleNamespace(geometry=geometry, patient="p", fit=Fit.of(shape[1:], shape[1:]))


def test_units_follow_the_spacing():
    """Two pixels of 2 x 3 mm are 12 mm2; without a spacing they are 2 px; voxels of 2 x 3 x 100 mm hold 0.6 mL."""
    task, mask, truth = regions("a"), masks("1100"), masks("0110")
    for case, size, value, distance in ((photograph((1.0, 2.0, 3.0)), "area_mm2", 12, "hd95_mm"),
                                        (photograph(), "area_px", 2, "hd95_px"),
                                        (case_of(spacing=(100.0, 2.0, 3.0)), "volume_ml", 1.2, "hd95_mm")):
        rows = task.score(predicted(mask), truth, case)
        unit = size.split("_")[1]
        assert rows["a", size] == pytest.approx(value) and rows["a", f"{size}_true"] == pytest.approx(value)
        assert rows["a", f"false_positive_{unit}"] == pytest.approx(value / 2) and ("a", distance) in rows
        assert {m for _, m in rows if m.startswith(("area", "volume", "hd95"))} == {size, f"{size}_true", distance}
        facts = task.facts(Case(Header("c", "p", {}, case.geometry, 1), np.zeros((1, 1, 1, 4)), {"a": truth[0]}), truth)
        assert facts == {"size_unit": unit, "size_a": pytest.approx(value), "cut_a": 0.0}


def test_a_tolerance_adds_scores_and_says_which_truth_was_used():
    """Truth 3 pixels wide in 9; with 1 px tolerance the dilated truth is 5 wide, as the prediction."""
    case = photograph((1.0, 1.0, 1.0), (1, 9, 9))
    truth, mask = np.zeros((2, 1, 1, 9, 9), bool)
    truth[..., 3:6], mask[..., 2:7] = True, True
    plain = regions("a").score(predicted(mask), truth, case)
    rows = regions("a", tolerance_mm=1.0).score(predicted(mask), truth, case)
    assert {key: rows[key] for key in plain} == plain and rows["a", "dice"] == pytest.approx(6 / 8)
    assert rows["a", "dice_tolerant"] == 1 == rows["all", "dice_tolerant"] and rows["a", "tolerance_truth"] == 1
    assert rows["a", "nsd"] == 1 == rows["all", "nsd"] and ("all", "tolerance_truth") not in rows
    sheet = regions("a").worksheet(rows)
    assert sheet["truth used, a"] == "dilated" and sheet["Dice a, with tolerance"] == 1 and sheet["FNR"] == 0


def test_ellipses_replace_what_is_predicted():
    rows, columns = np.mgrid[:60, :80]
    disk = ((rows - 30) / 18) ** 2 + ((columns - 40) / 25) ** 2 <= 1
    bitten = disk.copy()
    bitten[26:34, 56:] = False
    probabilities = np.stack([bitten, disk])[None].astype(np.float32)  # one class, two frames
    whole = regions("a", ellipses=("a",)).masks(probabilities, [0.5])
    assert np.count_nonzero(whole[0, 0] ^ disk) < 0.02 * disk.sum() < np.count_nonzero(bitten ^ disk)
    assert regions("a", ellipses=("a",)).masks(np.zeros((1, 1, 9, 9), np.float32), [0.5]).sum() == 0
    with pytest.raises(InputError, match="task.ellipses"):
        exclusive("a", "b", ellipses=("a",))


def test_the_balanced_sampler_looks_for_inner_then_any_then_rare_classes():
    targets = np.array([[[1, 0, 0]], [[0, 2, 0]], [[0, 0, 0]], [[1, 1, 0]]], np.uint8)
    task = exclusive("a", "b")
    present = task.present(targets)
    assert present.tolist() == [[True, False], [False, True], [False, False], [True, False]]
    assert task.groups(present).tolist() == [True, True, False, True]
    assert task.groups(present[[0, 1, 3]]).tolist() == [False, True, False]  # all have some: the rare class
    nested = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1]], bool)
    assert stroke().groups(nested).tolist() == [False, True, True]


def test_what_the_notes_say():
    header = Header("c", "p", {}, Geometry((1, 1, 4), None, flat=True), 1)
    facts = [{"size_a": 0.0, "cut_a": 0.0}, {"size_a": 3.0, "cut_a": 0.0}]
    assert regions("a").notes([header] * 2, facts) == ["1 of 2 cases have no a (empty masks are kept)"]
    assert regions("a").notes([header], facts[1:]) == []
    with pytest.raises(InputError, match="task.colours.a"):
        regions("a", colours={"a": "#12"})
