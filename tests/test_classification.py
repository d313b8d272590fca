"""The classification task: its keys, targets, losses by hand, windows and their maps, thresholds, folds, mistakes, pictures."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from lib.data.case import Case, Header
from lib.data.store import CaseRecord
from lib.evaluation.plots import Bars, Counts, Curves, Matrix
from lib.imaging.animation import write_gif
from lib.imaging.geometry import Fit, Geometry
from lib.reporting.misclassified import write_misclassified
from lib.reporting.plots import draw_plots
from lib.study import Data, Folds, InputError, Study, Window
from lib.tasks import make_task
from lib.tasks.base import ALL
from lib.tasks.class_drawing import shown_part
from lib.tasks.class_losses import class_loss
from lib.tasks.class_maps import spread_maps, window_shares
from lib.tasks.classification import Classification, Prediction

TWO, THREE = ("poor", "good"), ("brain", "femur", "thorax")
NATIVE, GRID = (60, 100), (32, 64)  # rows, columns: the frame fills 32 x 53 of the grid


def task_of(classes=TWO, **keys) -> Classification:
    return Classification(Data(reader={}, classes=classes), {}, keys.pop("calibration", {}), **keys)


def record(frames=1, native=NATIVE, grid=GRID, source=None) -> CaseRecord:
    geometry = Geometry((frames, *native), None, True, source or {"format": "image"})
    return CaseRecord(0, "a", "p", geometry, Fit.of(native, grid), slice(0, frames), slice(0, 1), "")


def prediction_of(*probabilities, threshold=None, **keys) -> Prediction:
    threshold = 0.5 if threshold is None and len(probabilities) == 2 else threshold
    return Prediction(np.array(probabilities, np.float32), threshold, **keys)


def header_of(name="a", patient="p") -> Header:
    return Header(name, patient, {}, Geometry((1, *NATIVE), None, True), 1)


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_study_makes_the_task():
    keys = {"kind": "classification", "criterion": "focal", "weights": {"femur": 2}}
    task = make_task(Study("s", Data(reader={}, classes=THREE), keys, {}, window=Window(frames=4)))
    assert isinstance(task, Classification) and task.whole_series and task.window.frames == 4
    assert task.samples(30) == 1 and task.outputs == 3 and task_of().outputs == 1
    assert task_of().reads == {"class_logits": "logit of good, against poor"}


@pytest.mark.parametrize("keys, words", [
    ({"criterion": "dice"}, "unknown 'dice'"), ({"weights": {"god": 1}}, "did you mean 'good'"),
    ({"weights": {"good": 0}}, "task.weights"), ({"alpha": 1.5}, "task.alpha"), ({"gamma": -1.0}, "task.gamma"),
    ({"label_smoothing": 1.0}, "task.label_smoothing"), ({"criterion": "focal", "label_smoothing": 0.1}, "0 with the focal loss"),
    ({"names": {"poor": "good"}}, "different names"), ({"colours": {"good": "blue"}}, "task.colours.good"),
    ({"classes": THREE, "criterion": "bce"}, "bce is for two"), ({"classes": ("alone",)}, "at least two classes"),
    ({"classes": ()}, "at least two classes"), ({"tolerance_mm": 1.0}, "tolerance"),
])
def test_bad_keys_are_refused(keys, words):
    with pytest.raises(InputError, match=words):
        task_of(**keys)


def test_keys_of_masks_are_refused():
    for data, words in ((Data(reader={}, classes=TWO, encoding="exclusive"), "one class as a whole"),
                        (Data(reader={}, classes=TWO, inside={"good": "poor"}), "one class as a whole"),
                        (Data(reader={}, classes=TWO, folds=Folds(stratify=("good",))), "always dealt by class")):
        with pytest.raises(InputError, match=words):
            Classification(data, {}, {})
    with pytest.raises(InputError, match="made of masks"):
        Classification(Data(reader={}, classes=TWO), {"v": {}}, {})
    with pytest.raises(InputError, match="task.background"):
        task_of(background=1).check_channels(1)


def test_selectable_metrics_have_the_rows_that_they_say():
    for task in (task_of(), task_of(THREE)):
        count = len(task.classes)
        predictions = [prediction_of(*np.roll([0.6] + [0.4 / (count - 1)] * (count - 1), i)) for i in range(count)]
        truths = [np.array([i]) for i in range(count)]
        rows = task.score_set([task.evidence(p, t, record()) for p, t in zip(predictions, truths)])
        for prediction, truth in zip(predictions, truths):
            rows |= task.score(prediction, truth, record(), distances=False)
        expected = {(name, metric) for metric in task.selectable for name in task.selectable_classes(metric)}
        assert expected <= set(rows)
        assert not any(metric == "truth" for _, metric in rows)
    assert [metric for metric, larger in task.selectable.items() if not larger] == ["brier", "log_loss", "calibration_error"]


# --- preparation -----------------------------------------------------------------------------------------------------


def test_truth_is_the_index_of_the_class():
    task = task_of(THREE)
    case = Case(header_of(), np.zeros((1, 1, *NATIVE), np.uint8), {name: np.array([name == "femur"]) for name in THREE})
    truth = task.native_truth(case)
    assert truth.dtype == np.int64 and truth.tolist() == [1]
    assert task.encode(truth, record().fit).tolist() == [1] and task.targets_shape(7, GRID) == (7,)
    assert task.facts(case, truth) == {"class": "femur"} and task.truth_records(truth, case.header) == [{"class": "femur"}]


def test_patients_are_dealt_by_the_class_of_most_of_their_cases():
    facts = [{"class": name} for name in ("good", "good", "poor", "poor", "good", "poor", "good", "good")]
    strata = task_of().strata(["a", "a", "a", "b", "b", "c", "d", "d"], facts)
    assert strata == {"a": ["good"], "b": ["poor"], "c": ["poor"], "d": ["good"]}  # b: as many of both, and poor is rarer


def test_notes_tell_unbalanced_and_empty_classes():
    task = task_of(THREE)
    assert task.notes([], [{"class": name} for name in THREE * 3]) == []
    notes = task.notes([], [{"class": "brain"}] * 4 + [{"class": "femur"}])
    assert "no case is of class thorax" in notes[0] and "4 brain, 1 femur, 0 thorax" in notes[1]


def splits(*subsets: str) -> list[dict]:
    """subsets: per fold a letter for each of the patients a, b, c, ...: t(rain), v(alidation), s (test), x (external)."""
    words = {"t": "train", "v": "validation", "s": "test", "x": "external"}
    return [{"fold": fold, "patient": "abcdef"[i], "subset": words[letter]} for fold, letters in enumerate(subsets)
            for i, letter in enumerate(letters)]


def test_a_fold_that_trains_on_one_class_stops_preparation():
    facts = {patient: [{"class": name}] for patient, name in zip("abcd", ("good", "good", "poor", "poor"))}
    with pytest.raises(InputError, match="fold 0: all 2 training cases are good\n  fold 2: all 1 training cases are poor"):
        task_of().check_splits(splits("ttsv", "tsts", "svst"), facts)


def test_classes_that_a_part_of_a_fold_lacks_are_noted():
    facts = {patient: [{"class": name}] for patient, name in zip("abcd", ("good", "poor", "good", "poor"))}
    assert task_of().check_splits(splits("ttss", "sstt"), facts) == []
    notes = task_of().check_splits(splits("ttvs", "ttsv", "ttxs"), facts)
    undefined = ": scores of that class are undefined there"
    assert notes == [f"among the validation cases there is no poor in fold 0; no good in fold 1{undefined}",
                     f"among the test cases there is no poor in fold 1; no good in fold 0, 2{undefined}"]


def test_plots_of_a_data_set_count_patients_where_they_have_several_cases():
    truths, cases = [np.array([0]), np.array([1]), np.array([1])], [record(), record(), replace(record(), patient="q")]
    bars, patients = task_of().dataset_plots(iter(truths), cases)
    assert isinstance(bars, Bars) and bars.values == {"poor": 1, "good": 2}
    assert patients.values == {"poor": 1, "good": 2} and patients.whole == 2
    alone = task_of().dataset_plots(truths[:2], [record(9), replace(record(5), patient="q")])
    assert [type(plot) for plot in alone] == [Bars, Counts] and alone[1].values.tolist() == [9, 5]


# --- training --------------------------------------------------------------------------------------------------------


def test_the_balanced_sampler_draws_each_class():
    task = task_of(THREE)
    present = task.present(np.array([2, 0, 1, 2]))
    assert present.tolist() == [[False, False, True], [True, False, False], [False, True, False], [False, False, True]]
    assert task.groups(present).tolist() == [2, 0, 1, 2]


def test_good_samples_may_become_poor_ones():
    chosen, twins = task_of().low_quality(torch.tensor([1, 0, 1]))
    assert chosen.tolist() == [True, False, True] and twins.tolist() == [0, 0, 0] and twins.dtype == torch.int64
    with pytest.raises(InputError, match="synthetic_low_quality"):
        task_of(THREE).low_quality(torch.tensor([1]))


LOGITS, TARGETS = torch.tensor([[2.0], [-1.0], [0.5]]), torch.tensor([1, 1, 0])


def test_bce_by_hand_and_with_weights():
    entropy = [math.log(1 + math.exp(-2)), math.log(1 + math.e), math.log(1 + math.exp(0.5))]
    loss, parts = task_of().loss({"class_logits": LOGITS}, TARGETS)
    assert float(loss) == pytest.approx(sum(entropy) / 3)
    assert float(parts["accuracy"]) == pytest.approx(1 / 3)
    for criterion in ("bce", "cross_entropy"):
        weighted, _ = task_of(criterion=criterion, weights={"poor": 3.0}).loss({"class_logits": LOGITS}, TARGETS)
        assert float(weighted) == pytest.approx((entropy[0] + entropy[1] + 3 * entropy[2]) / 5)


def test_label_smoothing_of_one_logit():
    loss, _ = task_of(label_smoothing=0.2).loss({"class_logits": LOGITS}, TARGETS)
    expected = F.binary_cross_entropy_with_logits(LOGITS[:, 0], torch.tensor([0.9, 0.9, 0.1]))
    assert float(loss) == pytest.approx(float(expected))


def test_focal_loss_of_two_classes_by_hand():
    probability = [1 / (1 + math.exp(-z)) for z in (2.0, -1.0, 0.5)]
    of_each = [0.25 * (1 - probability[0]) ** 2 * -math.log(probability[0]),
               0.25 * (1 - probability[1]) ** 2 * -math.log(probability[1]),
               0.75 * probability[2] ** 2 * -math.log(1 - probability[2])]
    loss, _ = task_of(criterion="focal").loss({"class_logits": LOGITS}, TARGETS)
    assert float(loss) == pytest.approx(sum(of_each) / 3)


def test_focal_loss_of_two_classes_is_torchvisions():
    from torchvision.ops import sigmoid_focal_loss
    logits, targets = torch.linspace(-9, 9, 20)[:, None], torch.arange(20) % 2
    mine, _ = class_loss(logits, targets, "focal", [1, 1], 0.4, 1.5, 0)
    assert float(mine) == pytest.approx(float(sigmoid_focal_loss(logits[:, 0], targets.float(), 0.4, 1.5, "mean")))


def test_focal_loss_of_three_classes_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]))
    loss, parts = task_of(THREE, criterion="focal", weights={"thorax": 2.0}).loss({"class_logits": logits}, torch.tensor([1, 2]))
    of_each = [0.7 ** 2 * -math.log(0.3), 0.2 ** 2 * -math.log(0.8)]
    assert float(loss) == pytest.approx((of_each[0] + 2 * of_each[1]) / 3)
    assert float(parts["accuracy"]) == 0.5
    without, _ = task_of(THREE, criterion="focal", gamma=0.0).loss({"class_logits": logits}, torch.tensor([1, 2]))
    assert float(without) == pytest.approx(float(F.cross_entropy(logits, torch.tensor([1, 2]))))


def test_the_focal_loss_of_what_is_certain_can_be_learnt_from():
    for gamma in (0.0, 0.5, 2.0):
        logits = torch.tensor([[100.0], [-100.0], [-100.0]], requires_grad=True)
        loss, _ = task_of(criterion="focal", gamma=gamma).loss({"class_logits": logits}, torch.tensor([1, 0, 1]))
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


# --- windows -----------------------------------------------------------------------------------------------------------


def test_logits_of_windows_are_averaged():
    task, outputs = task_of(), {"class_logits": np.array([[1.0], [2.0], [-1.5]], np.float32)}
    assert task.gathered(outputs)["class_logits"].tolist() == [[0.5]]
    assert task.gathered({"class_logits": torch.tensor([[1.0, 3.0], [2.0, 5.0]])})["class_logits"].tolist() == [[1.5, 4.0]]
    prediction = task.decode(outputs, record())
    assert prediction.probabilities == pytest.approx([1 - 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(-0.5))])
    assert prediction.probabilities.dtype == np.float64 and prediction.cam is None and prediction.threshold == 0.5
    several = task_of(THREE).decode({"class_logits": np.log(np.array([[2, 1, 1], [2, 1, 1]], np.float32))}, record())
    assert several.probabilities == pytest.approx([0.5, 0.25, 0.25]) and several.threshold is None and several.predicted == 0


def test_extreme_logits_stay_probabilities():
    for value in (-1e4, 1e4):
        found = task_of().decode({"class_logits": np.array([[value]], np.float32)}, record()).probabilities
        assert found.min() > 0 and found.sum() == pytest.approx(1)


def test_a_clips_maps_lie_evenly_over_its_frames():
    # one window of 4 frames on a series of 4: two maps, whose middles lie at frames 0.5 and 2.5
    shares = window_shares(2, 4, Window(frames=4), 2)
    assert shares.tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    maps = np.array([3.0, 7.0], np.float32).reshape(1, 1, 2, 1, 1)
    spread = spread_maps(maps, 4, Window(frames=4))
    assert spread.shape == (1, 4, 1, 1) and spread.dtype == np.float32
    assert spread.ravel().tolist() == [3, 4, 6, 7]


def test_frames_that_a_stride_leaves_out_lie_between():
    # a window of frames 0, 2, 4 with a map each, in a series of 5
    spread = spread_maps(np.array([0.0, 4.0, 2.0], np.float32).reshape(1, 1, 3, 1, 1), 5, Window(frames=3, stride=2))
    assert spread.ravel().tolist() == [0, 2, 4, 3, 2]


def test_windows_that_overlap_are_averaged_and_gaps_take_the_nearest():
    one_map = np.array([1.0, 5.0], np.float32).reshape(2, 1, 1, 1)  # of two windows, as an image network gives them
    overlapping = spread_maps(one_map, 5, Window(frames=3, test_windows=2))  # frames 0..2 and 2..4
    assert overlapping.ravel().tolist() == [1, 1, 3, 5, 5]
    apart = spread_maps(one_map, 8, Window(frames=2, test_windows=2))  # frames 0, 1 and 6, 7
    assert apart.ravel().tolist() == [1, 1, 1, 1, 5, 5, 5, 5]


def test_a_series_shorter_than_the_window_has_the_mean_of_what_its_last_frame_got():
    # 2 frames seen as 0, 1, 1, 1 with a map each
    spread = spread_maps(np.array([8.0, 1.0, 2.0, 3.0], np.float32).reshape(1, 1, 4, 1, 1), 2, Window(frames=4))
    assert spread.ravel().tolist() == [8, 2]


def test_maps_of_another_number_of_windows_are_refused():
    with pytest.raises(ValueError, match="maps of 2 windows"):
        spread_maps(np.zeros((2, 1, 3, 3), np.float32), 1, Window())


def test_decoding_keeps_the_maps_of_every_class():
    task = task_of(window=Window(frames=2, test_windows=1))
    outputs = {"class_logits": np.zeros((1, 1), np.float32),
               "cam": np.arange(2 * 2 * 9, dtype=np.float32).reshape(1, 2, 2, 3, 3)}
    prediction = task.decode(outputs, record(2, source={"format": "video", "frame_rate": 25.0}))
    assert prediction.cam.shape == (2, 2, 3, 3) and (prediction.cam == outputs["cam"][0]).all()
    assert (prediction.frames, prediction.frame_rate) == (2, 25.0)


def test_fusing_takes_means():
    maps = np.ones((2, 1, 2, 2), np.float32)
    fused = task_of().fuse([prediction_of(0.2, 0.8, threshold=0.3, cam=maps),
                            prediction_of(0.6, 0.4, threshold=0.6, cam=3 * maps)])
    assert fused.probabilities == pytest.approx([0.4, 0.6]) and fused.threshold == pytest.approx(0.45) and fused.predicted == 1
    assert (fused.cam == 2).all() and fused.probabilities.dtype == fused.cam.dtype == np.float32
    assert task_of(THREE).fuse([prediction_of(0.2, 0.8, 0.0)] * 2).threshold is None


# --- thresholds and scores ---------------------------------------------------------------------------------------------


def test_the_threshold_is_youdens_on_validation():
    # positives 0.3 0.35 0.9, negatives 0.1 0.2: all are right between 0.2 and 0.3
    cases = [(prediction_of(1 - p, p), np.array([t]), record()) for p, t in ((0.3, 1), (0.35, 1), (0.9, 1), (0.1, 0), (0.2, 0))]
    found = task_of().calibrate(lambda: iter(cases))
    assert found == {"threshold": pytest.approx(0.25), "cases": 5}
    task = task_of().with_calibration(found)
    outputs = {"class_logits": np.array([[math.log(0.3 / 0.7)]], np.float32)}
    assert (task.decode(outputs, record()).predicted, task_of().decode(outputs, record()).predicted) == (1, 0)
    assert task.pooled_calibration([task, task_of()]) == {"threshold": pytest.approx(0.375)}


def test_what_has_no_threshold_has_no_calibration():
    assert task_of().calibrate(lambda: iter([])) == task_of(THREE).calibrate(lambda: iter([])) == {}
    assert task_of(THREE).calibrate(lambda: iter([(prediction_of(1, 0, 0), np.array([0]), record())])) == {"cases": 1}
    assert task_of(THREE).pooled_calibration([task_of(THREE)]) == {}
    same = [(prediction_of(0.9, 0.1), np.array([1]), record())]
    assert task_of().calibrate(lambda: iter(same)) == {"cases": 1}  # validation cannot tell: it stays at its default


def test_a_case_has_its_scores_and_probabilities():
    rows = task_of(THREE).score(prediction_of(0.2, 0.5, 0.3), np.array([2]), record())
    assert rows[ALL, "accuracy"] == 0 and rows[ALL, "truth_probability"] == pytest.approx(0.3)
    assert rows["femur", "probability"] == 0.5 and rows["thorax", "truth_probability"] == pytest.approx(0.3)
    assert task_of().score(prediction_of(0.6, 0.4, threshold=0.3), np.array([1]), record())[ALL, "accuracy"] == 1


def test_predictions_are_rows_and_the_wrong_ones_come_surest_first():
    task = task_of(THREE)
    row, = task.records(prediction_of(0.2, 0.5, 0.3), np.array([2]), record())
    assert row == pytest.approx({"truth": "thorax", "predicted": "femur", "p_brain": 0.2, "p_femur": 0.5, "p_thorax": 0.3})
    truths = [(0.2, 0.5, 0.3, 2), (0.1, 0.8, 0.1, 0), (0.9, 0.05, 0.05, 0)]
    rows = [task.records(prediction_of(*p), np.array([t]), record())[0] for *p, t in truths]
    wrong = task.mistakes(rows)
    assert [one["kind"] for one in wrong] == ["brain_as_femur", "thorax_as_femur"]
    assert [one["confidence"] for one in wrong] == pytest.approx([0.8, 0.5])
    unknown, = task.records(prediction_of(0.2, 0.5, 0.3), None, record())
    assert unknown["truth"] == "" and task.mistakes([unknown]) is None and task.mistakes(rows[2:]) == []


def test_mistakes_of_two_classes_are_false_positives_and_negatives():
    task = task_of()
    rows = [task.records(prediction_of(1 - p, p, threshold=0.3), np.array([t]), record())[0]
            for p, t in ((0.4, 0), (0.1, 1), (0.9, 1))]
    assert [row["threshold"] for row in rows] == [0.3] * 3 and [row["predicted"] for row in rows] == ["good", "poor", "good"]
    wrong = task.mistakes(rows)
    assert [row["kind"] for row in wrong] == ["false_negatives", "false_positives"]
    # from the threshold to certainty: 0.9 is two thirds of the way from 0.7 to 1, 0.4 a seventh of that from 0.3
    assert [row["confidence"] for row in wrong] == pytest.approx([2 / 3, 1 / 7])


def test_decided_logits_keep_their_order():
    """In float32 both would be 1, and the area under the curve that of a coin."""
    task = task_of()
    ones = [task.decode({"class_logits": np.array([[logit]], np.float32)}, record()) for logit in (18.0, 25.0)]
    assert ones[0].probabilities[1] < ones[1].probabilities[1] < 1
    assert task.score_set([task.evidence(one, np.array([i]), record()) for i, one in enumerate(ones)])[ALL, "roc_auc"] == 1


def test_roc_needs_validation_cases_of_two_classes():
    task = task_of()
    for metric in ("roc_auc", "pr_auc"):
        with pytest.raises(InputError, match=f"training.select={metric}: found only good among the validation cases"):
            task.check_selection(metric, [np.array([1]), np.array([1])])
        task.check_selection(metric, [np.array([1]), np.array([0])])
    task.check_selection("accuracy", [np.array([1]), np.array([1])])


# --- figures and tables --------------------------------------------------------------------------------------------------


def evidence(task, rows, folds=1) -> list[dict]:
    return [{"fold": i % folds, **task.evidence(prediction_of(*p), np.array([t]), replace(record(), patient=f"p{i}"))}
            for i, (*p, t) in enumerate(rows)]


BINARY = [(0.9, 0.1, 0), (0.2, 0.8, 1), (0.4, 0.6, 0), (0.7, 0.3, 1), (0.8, 0.2, 0), (0.1, 0.9, 1), (0.3, 0.7, 0),
          (0.25, 0.75, 1)]


def test_figures_of_two_classes_have_a_line_per_fold_and_one_for_all(tmp_path):
    task = task_of(names={"good": "diagnostic"})
    roc, precision, confusion, reliability = task.plots(evidence(task, BINARY, folds=2))
    assert [type(plot) for plot in (roc, precision, confusion, reliability)] == [Curves, Curves, Matrix, Curves]
    assert list(roc.lines) == ["all folds, AUC 0.88"]  # each of these folds has one class only
    assert confusion.values.tolist() == [[2, 2], [1, 3]] and confusion.rows == ("poor", "diagnostic")
    three = task.plots(evidence(task, BINARY, folds=3))[0]
    assert [name.split(",")[0] for name in three.lines] == ["all folds", "fold 0", "fold 1", "fold 2"]
    single = task.plots(evidence(task, BINARY))[0]
    assert list(single.lines) == ["diagnostic, AUC 0.88"]
    assert len(draw_plots(tmp_path, task.plots(evidence(task, BINARY, folds=3)))) == 4


def test_figures_of_several_classes_have_a_line_per_class(tmp_path):
    task = task_of(THREE)
    rows = evidence(task, [(0.7, 0.2, 0.1, 0), (0.3, 0.6, 0.1, 1), (0.5, 0.4, 0.1, 1)])
    roc, _, confusion, reliability = task.plots(rows)
    assert [name.split(",")[0] for name in roc.lines] == ["brain", "femur"]  # no case is a thorax
    assert list(reliability.lines)[-1].startswith("most likely class")
    assert confusion.values.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert task.tables(rows) == {"confusion_matrix.csv": [
        {"truth": "brain", "predicted_brain": 1, "predicted_femur": 0, "predicted_thorax": 0},
        {"truth": "femur", "predicted_brain": 1, "predicted_femur": 1, "predicted_thorax": 0},
        {"truth": "thorax", "predicted_brain": 0, "predicted_femur": 0, "predicted_thorax": 0}]}
    assert len(draw_plots(tmp_path, task.plots(rows))) == 4
    assert len(draw_plots(tmp_path / "one", task.plots(rows[:1]))) == 4  # one class only: figures say that there is nothing


# --- pictures ------------------------------------------------------------------------------------------------------------


def frames_of(count: int, dtype=np.uint8) -> np.ndarray:
    """(count, 1, *GRID) as stored: a ramp, brighter from frame to frame."""
    ramp = np.linspace(0, 120, GRID[1])[None, :] + np.arange(count)[:, None, None] * 5 + np.zeros((count, *GRID))
    return ramp.astype(dtype)[:, None]


def spot(frames: int, row: int, column: int, classes: int = 2) -> np.ndarray:
    """Maps that look at one of 4 x 8 cells for the first class, and at the opposite one for the others."""
    cam = np.zeros((classes, frames, 4, 8), np.float32)
    cam[0, :, row, column] = 2
    cam[1:, :, 3 - row, 7 - column] = 5
    return cam


def test_frames_without_maps_are_plain():
    task, frames = task_of(), frames_of(1)
    plain = task.draw(frames, None, None, record())
    assert plain.shape == (1, *NATIVE, 3) and plain.dtype == np.uint8
    assert (plain == task.draw(frames, prediction_of(0.2, 0.8), None, record())).all()
    empty = prediction_of(0.2, 0.8, cam=np.zeros((2, 1, 4, 8), np.float32))
    assert (plain == task.draw(frames, empty, None, record())).all()
    assert task.draw(frames, None, None, record(), [0], 2).shape == (1, 120, 200, 3)


def test_the_map_of_the_predicted_class_is_painted_where_it_lies():
    task, frames, cam = task_of(), frames_of(1), spot(1, 0, 1)
    plain = task.draw(frames, None, None, record())[0].astype(int)
    for probabilities, row, column in (((0.9, 0.1), 4, 9), ((0.1, 0.9), 28, 54)):  # cells of 8 x 8 pixels of the grid
        painted = task.draw(frames, prediction_of(*probabilities, cam=cam), None, record())[0].astype(int)
        changed = np.abs(painted - plain).max(axis=2)
        middle = record().fit.restore_points(np.array([column + 3, row]) if column == 9 else np.array([column - 2, row]))
        assert changed[int(middle[1]), int(middle[0])] > 60
        assert (changed[:, 45:55] == 0).all()  # far from both: the image alone


def test_all_frames_of_a_case_share_one_scale():
    task, frames, cam = task_of(), frames_of(2), spot(2, 1, 1)
    cam[:, 1] /= 4
    plain = task.draw(frames, None, None, record(2)).astype(int)
    painted = task.draw(frames, prediction_of(0.9, 0.1, cam=cam, frames=2), None, record(2)).astype(int)
    strength = np.abs(painted - plain).max(axis=(1, 2, 3))
    assert strength[0] > 2 * strength[1] > 0


def test_grey_levels_are_shown_as_they_are():
    flat = np.full((1, 1, *GRID), 77, np.uint8)
    assert set(np.unique(task_of().draw(flat, None, None, record()))) == {77}
    scores = frames_of(1, np.float32) / 50 - 1  # z-scores have no grey levels of their own
    assert np.ptp(task_of().draw(scores, None, None, record())) > 200


def test_beside_the_image_stand_the_likeliest_classes():
    task, frames = task_of(("a", "b", "c", "d", "e")), frames_of(1)
    prediction = prediction_of(0.5, 0.3, 0.1, 0.06, 0.04)
    right, wrong = (task.side_by_side(frames, prediction, np.array([t]), record()) for t in (0, 1))
    other = task.side_by_side(frames, prediction_of(0.1, 0.3, 0.5, 0.06, 0.04), np.array([0]), record())
    assert right.dtype == np.uint8 and right.ndim == 3 and right.shape[2] == 3 and right.shape == wrong.shape == other.shape
    assert (right != wrong).any() and (right != other).any()
    colours = {name: np.array(colour) for name, colour in task.palette.items()}
    lengths = {name: (right == colour).all(axis=2).sum(axis=1).max() for name, colour in colours.items()}
    # bars as long as the probabilities: 0.5, 0.3 and 0.1 of 288 pixels
    assert [lengths[name] for name in "abc"] == pytest.approx([144, 86, 29], abs=1) and lengths["d"] == lengths["e"] == 0
    rare = task.side_by_side(frames, prediction, np.array([4]), record())  # the truth is shown even where it is unlikely
    assert (rare == colours["e"]).all(axis=2).any()


def test_pictures_of_a_clip_show_three_of_its_frames():
    task, case = task_of(), record(9, source={"format": "video", "frame_rate": 10.0})
    picture = task.side_by_side(frames_of(9), prediction_of(0.3, 0.7, frames=9, frame_rate=10.0), np.array([0]), case)
    single = task.side_by_side(frames_of(1), prediction_of(0.3, 0.7), np.array([0]), record())
    assert picture.shape[1] > 2 * (single.shape[1] - 306) and picture.shape[1] > 3 * 200
    without = task.side_by_side(frames_of(9), prediction_of(0.3, 0.7, frames=9), None, case)
    assert without.shape[0] > 0 and (without.shape != picture.shape or (without != picture).any())


@pytest.mark.parametrize("native", [(8, 8), (30, 900), (900, 30)])
@pytest.mark.parametrize("name", ["b", "a very long name of a class that nobody can read in one line of a small picture"])
def test_pictures_of_odd_sizes_and_names(native, name):
    task = task_of(("a", name))
    fit = Fit.of(native, GRID)
    case = replace(record(), geometry=Geometry((1, *native), None, True, {"format": "image"}), fit=fit)
    prediction = prediction_of(0.4, 0.6, cam=spot(1, 1, 1))
    frames, truth = frames_of(1), np.array([1])
    pictures = [task.side_by_side(frames, prediction, truth, case), task.truth_picture(frames, truth, case),
                task.draw(frames, prediction, None, case)[0]]
    for picture in pictures:
        assert picture.dtype == np.uint8 and picture.shape[2] == 3 and max(picture.shape[:2]) < 1400


def test_the_truth_is_written_under_its_picture():
    one, other = (task_of().truth_picture(frames_of(3), np.array([t]), record(3)) for t in (0, 1))
    assert one.shape == other.shape and (one[:-22] == other[:-22]).all() and (one[-22:] != other[-22:]).any()


def test_a_sheet_has_evenly_spaced_frames_and_says_what_went_wrong():
    task = task_of()
    clip = prediction_of(0.3, 0.7, frames=11, frame_rate=20.0)
    assert task.sheet_frames(clip, np.array([0])) == [
        ("frame 1, WRONG: good 0.70 (truth: poor)", 0), ("frame 3, 0.10 s", 2), ("frame 5, 0.20 s", 4), ("frame 7, 0.30 s", 6),
        ("frame 9, 0.40 s", 8), ("frame 11, 0.50 s", 10)]
    assert task.sheet_frames(replace(clip, frames=2, frame_rate=0.0), None) == [("frame 1, good 0.70", 0), ("frame 2", 1)]
    assert task.sheet_frames(prediction_of(0.3, 0.7), np.array([1])) == [("right: good 0.70", 0)]
    mapped = replace(clip, cam=np.ones((2, 11, 2, 2), np.float32))
    assert task.sheet_name(mapped, record()) == "gradcam_a" and task.sheet_name(clip, record()) == "a"
    assert task.frame_scores(clip, np.array([0])) == pytest.approx([0.3] * 11)


def test_clips_with_maps_move(tmp_path):
    task, case = task_of(), record(130, native=(240, 400))
    frames = np.tile(frames_of(1), (130, 1, 1, 1))
    prediction = prediction_of(0.3, 0.7, cam=spot(130, 1, 1), frames=130)
    moving = task.animated(frames, prediction, np.array([0]), case)
    assert moving.dtype == np.uint8 and moving.shape[0] == 44 and max(moving.shape[1:3]) <= 320  # every third frame
    assert task.animated(frames, replace(prediction, cam=None), None, case) is None
    assert task.animated(frames[:1], prediction_of(0.3, 0.7, cam=spot(1, 1, 1)), None, record()) is None


# --- files -----------------------------------------------------------------------------------------------------------------


def test_a_gif_holds_its_frames_and_its_speed(tmp_path):
    frames = np.zeros((3, 20, 30, 3), np.uint8)
    frames[0, :, :10], frames[1, :, 10:20, 0], frames[2, 5:] = 200, 250, (10, 90, 170)
    path = write_gif(tmp_path / "new" / "a.gif", frames, 12.5)
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.info["loop"], gif.info["duration"]) == (3, 0, 80)
        for index, frame in enumerate(frames):
            gif.seek(index)
            assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - frame).max() <= 8
    assert [entry.name for entry in path.parent.iterdir()] == ["a.gif"]
    assert path.read_bytes() == write_gif(tmp_path / "b.gif", frames, 12.5).read_bytes()
    for speed, duration in ((0.0, 70), (float("nan"), 70), (1000.0, 20)):
        with Image.open(write_gif(tmp_path / "c.gif", frames, speed)) as gif:
            assert gif.info["duration"] == duration
    with pytest.raises(ValueError, match="at least one frame"):
        write_gif(tmp_path / "d.gif", frames[:0], 10)


def rows_of(path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_misclassified_cases_lie_by_kind_with_their_sheets(tmp_path):
    sheet = tmp_path / "heatmaps" / "gradcam_x.png"
    sheet.parent.mkdir()
    cv2.imwrite(str(sheet), np.full((4, 4, 3), 9, np.uint8))
    mistakes = [{"truth": t, "predicted": p, "p_a": 0.1, "case": case, "patient": "q", "fold": 1, "key": f"/{case}",
                 "kind": f"{t}_as_{p}", "confidence": c}
                for t, p, case, c in (("a", "b", "x", 0.9), ("b", "a", "y", 0.8), ("a", "b", "z", 0.7))]
    path = write_misclassified(tmp_path, mistakes, {"/x": sheet, "/z": sheet, "/y": tmp_path / "gone.png"})
    assert path == tmp_path / "misclassified.csv"
    rows = rows_of(path)
    assert [(row["kind"], row["rank"], row["case"], row["picture"]) for row in rows] == [
        ("a_as_b", "1", "x", "misclassified/a_as_b/001_x.png"), ("a_as_b", "2", "z", "misclassified/a_as_b/002_z.png"),
        ("b_as_a", "1", "y", "")]
    assert rows[0]["p_a"] == "0.1" and "key" not in rows[0]
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("0*.png")) == [row["picture"] for row in rows[:2]]
    assert (tmp_path / rows[0]["picture"]).read_bytes() == sheet.read_bytes()


def test_no_mistakes_leave_a_header(tmp_path):
    path = write_misclassified(tmp_path, [], {})
    assert path.read_text() == "kind,rank,confidence,case,patient,fold,truth,predicted,picture\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["misclassified.csv"]


def test_names_of_classes_never_leave_the_folder(tmp_path):
    sheet = tmp_path / "s.png"
    sheet.write_bytes(b"picture")
    row = {"truth": "a:b", "predicted": "..", "case": "../x", "patient": "q", "fold": 0, "kind": "../..", "confidence": 1.0}
    write_misclassified(tmp_path / "results", [row], {"../x": sheet})
    written = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png")]
    assert len(written) == 2 and all(name == "s.png" or name.startswith("results/misclassified/") for name in written)


def test_nothing_is_painted_around_the_sector():
    frames = np.zeros((4, 1, 16, 16), np.uint8)
    frames[2, 0, 4:12, 4:12] = 90
    assert shown_part(frames)[4:12, 4:12].all() and shown_part(frames).sum() == 64
    assert shown_part(frames[:1]).all() and shown_part(frames.astype(np.float16)).all()
    task, whole = task_of(), record(4, (16, 16), (16, 16))
    clip = replace(prediction_of(0.3, 0.7, frames=4), cam=np.ones((2, 4, 2, 2), np.float32))
    drawn = task.draw(frames, clip, None, whole, [0])[0]
    assert not drawn[:3].any() and drawn[6:10, 6:10].any()
