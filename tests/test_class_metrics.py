"""Metrics of a classifier: by hand, against scikit-learn with and without weights, where undefined, and their intervals."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from test_statistics import bootstrap_interval

from lib.evaluation import classification as ours
from lib.evaluation import statistics
from lib.evaluation.statistics import bootstrap_intervals, patient_weights
from lib.tasks.base import ALL
from lib.tasks.class_scores import PER_CLASS, case_scores, set_facts, set_metrics

NAN = float("nan")
TWO, THREE = ("poor", "good"), ("brain", "femur", "thorax")


def evidence_of(truth, probabilities, predicted=None, patients=None, threshold=None) -> list[dict]:
    probabilities = np.asarray(probabilities, np.float64)
    predicted = probabilities.argmax(axis=1) if predicted is None else predicted
    patients = [f"p{index}" for index in range(len(probabilities))] if patients is None else patients
    return [{"patient": patient, "truth": int(t), "predicted": int(p), "probabilities": row, "threshold": threshold}
            for patient, t, p, row in zip(patients, truth, predicted, probabilities)]


def of_two(truth, scores, threshold=0.5, **keys) -> list[dict]:
    scores = np.asarray(scores, np.float64)
    return evidence_of(truth, np.stack([1 - scores, scores], axis=1), scores > threshold, threshold=threshold, **keys)


def set_scores(classes, evidence) -> dict:
    """As `Task.score_set` puts them together."""
    once = set_metrics(classes, evidence)(np.ones((len(evidence), 1)))
    return {key: float(values[0]) for key, values in once.items()} | set_facts(classes, evidence)


def set_intervals(classes, evidence) -> dict:
    return bootstrap_intervals(set_metrics(classes, evidence), [one["patient"] for one in evidence])


def drawn(cases: int, classes: int, seed: int = 0, decimals: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """(truth, probabilities), with ties: they are rounded."""
    random = np.random.default_rng(seed)
    truth = random.integers(classes, size=cases)
    logits = random.normal(size=(cases, classes))
    logits[np.arange(cases), truth] += 1
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return truth, np.round(probabilities, decimals)


# --- by hand -------------------------------------------------------------------------------------------------------


def test_areas_by_hand():
    # positives 0.35 and 0.8, negatives 0.1 and 0.4: three of four pairs are in order
    scores, positive = [0.1, 0.4, 0.35, 0.8], [False, False, True, True]
    assert ours.roc_auc(scores, positive) == 0.75
    assert ours.pr_auc(scores, positive) == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_equal_scores_count_half_whatever_their_order():
    for positive in ([True, False, True], [False, True, True], [True, True, False]):
        assert ours.roc_auc([0.5, 0.5, 0.5], positive) == 0.5
        assert ours.pr_auc([0.5, 0.5, 0.5], positive) == pytest.approx(2 / 3)


def test_rates_by_hand():
    # truth 0 0 0 1 1, predicted 0 1 1 1 0: TP 1, FP 2, FN 1, TN 1
    confusion = ours.confusion_matrix([0, 0, 0, 1, 1], [0, 1, 1, 1, 0], 2)
    assert confusion.tolist() == [[1, 2], [1, 1]]
    found = ours.rates(ours.counts_of(confusion, 1))
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {"precision": 1 / 3, "recall": 1 / 2, "f1": 2 / 5, "specificity": 1 / 3})
    assert ours.balanced_accuracy(confusion) == pytest.approx((1 / 2 + 1 / 3) / 2)
    # observed 2/5; by chance 3/5 * 2/5 + 2/5 * 3/5 = 12/25
    assert ours.kappa(confusion) == pytest.approx((2 / 5 - 12 / 25) / (1 - 12 / 25))


def test_calibration_error_by_hand():
    # bin (0.2, 0.3]: 0.22 and 0.3, one of two is positive; bin (0.9, 1]: 0.95, not positive
    error = ours.calibration_error([0.22, 0.3, 0.95], [True, False, False])
    assert error == pytest.approx(2 / 3 * abs(0.26 - 0.5) + 1 / 3 * 0.95)
    assert ours.calibration_error([0.0, 1.0], [False, True]) == 0


def test_case_scores_by_hand():
    rows = case_scores(TWO, np.float32([0.25, 0.75]), 1, 0)
    assert rows[ALL, "accuracy"] == 0 and rows[ALL, "truth_probability"] == rows["poor", "truth_probability"] == 0.25
    assert rows[ALL, "brier"] == pytest.approx(0.75 ** 2) and rows[ALL, "log_loss"] == pytest.approx(math.log(4))
    rows = case_scores(THREE, np.float32([0.5, 0.25, 0.25]), 0, 0)
    assert rows[ALL, "accuracy"] == 1 and rows[ALL, "brier"] == pytest.approx(0.25 + 0.0625 + 0.0625)
    assert math.isfinite(case_scores(TWO, np.float32([0, 1]), 1, 0)[ALL, "log_loss"])


# --- against scikit-learn --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_two_classes_are_scikit_learns_numbers(seed):
    truth, probabilities = drawn(60, 2, seed, decimals=1)
    scores = probabilities[:, 1]
    found, predicted = set_scores(TWO, of_two(truth, scores, 0.3)), scores > 0.3
    expected = {"balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
                "kappa": sk.cohen_kappa_score(truth, predicted),
                "precision": sk.precision_score(truth, predicted), "recall": sk.recall_score(truth, predicted),
                "f1": sk.f1_score(truth, predicted), "specificity": sk.recall_score(truth, predicted, pos_label=0),
                "roc_auc": sk.roc_auc_score(truth, scores), "pr_auc": sk.average_precision_score(truth, scores)}
    assert {metric: found[ALL, metric] for metric in expected} == pytest.approx(expected, abs=1e-12)
    assert found[ALL, "threshold"] == 0.3
    assert {name for name, _ in found} == {ALL}


@pytest.mark.parametrize("seed", range(4))
def test_several_classes_are_scikit_learns_numbers_one_against_the_rest(seed):
    truth, probabilities = drawn(60, 3, seed)
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    found, predicted = set_scores(THREE, evidence_of(truth, probabilities)), probabilities.argmax(axis=1)
    of_each = {"precision": sk.precision_score(truth, predicted, average=None),
               "recall": sk.recall_score(truth, predicted, average=None), "f1": sk.f1_score(truth, predicted, average=None),
               "roc_auc": sk.roc_auc_score(truth, probabilities, multi_class="ovr", average=None),
               "pr_auc": sk.average_precision_score(np.eye(3)[truth], probabilities, average=None),
               "specificity": [sk.recall_score(truth == i, predicted == i, pos_label=False) for i in range(3)]}
    assert set(of_each) == set(PER_CLASS)
    for metric, expected in of_each.items():
        assert [found[name, metric] for name in THREE] == pytest.approx(list(expected), abs=1e-12), metric
        assert found[ALL, metric] == pytest.approx(np.mean(expected), abs=1e-12), metric
    assert found[ALL, "balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, predicted), abs=1e-12)
    assert found[ALL, "kappa"] == pytest.approx(sk.cohen_kappa_score(truth, predicted), abs=1e-12)
    assert found[ALL, "roc_auc"] == pytest.approx(sk.roc_auc_score(truth, probabilities, multi_class="ovr"), abs=1e-12)
    top = ours.calibration_error(probabilities.max(axis=1), predicted == truth)
    assert found[ALL, "calibration_error"] == pytest.approx(top, abs=1e-12)


def test_weights_count_as_scikit_learns_sample_weight():
    truth, probabilities = drawn(50, 2, seed=5, decimals=1)
    scores, predicted = probabilities[:, 1], probabilities[:, 1] > 0.5
    weights = np.random.default_rng(1).integers(0, 4, size=(50, 6)).astype(np.float64)
    areas = ours.areas(scores, truth == 1, weights)
    confusion = ours.confusion_matrix(truth, predicted, 2, weights)
    error = ours.calibration_error(scores, truth == 1, weights)
    decided = ours.yes_or_no(scores, predicted, truth == 1, weights)
    assert (ours.roc_auc(scores, truth == 1, weights) == areas[0]).all()
    for column, weight in enumerate(weights.T):
        assert areas[0][column] == pytest.approx(sk.roc_auc_score(truth, scores, sample_weight=weight), abs=1e-12)
        assert areas[1][column] == pytest.approx(sk.average_precision_score(truth, scores, sample_weight=weight), abs=1e-12)
        assert confusion[..., column].tolist() == sk.confusion_matrix(truth, predicted, sample_weight=weight).tolist()
        kappa = sk.cohen_kappa_score(truth, predicted, sample_weight=weight)
        assert ours.kappa(confusion)[column] == pytest.approx(kappa, abs=1e-12)
        expected = {"roc_auc": areas[0][column], "kappa": kappa,
                    "accuracy": sk.accuracy_score(truth, predicted, sample_weight=weight),
                    "sensitivity": sk.recall_score(truth, predicted, sample_weight=weight),
                    "specificity": sk.recall_score(truth, predicted, pos_label=0, sample_weight=weight)}
        assert {name: values[column] for name, values in decided.items()} == pytest.approx(expected, abs=1e-12)
        again = np.repeat(np.arange(50), weight.astype(int))  # a case that counts twice is there twice
        assert error[column] == pytest.approx(ours.calibration_error(scores[again], (truth == 1)[again]), abs=1e-12)


def test_case_means_are_scikit_learns_brier_score_and_log_loss():
    truth, probabilities = drawn(40, 2, seed=3)
    probabilities = np.clip(probabilities, 0.01, 0.99)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    rows = [case_scores(TWO, row.astype(np.float32), int(row[1] > 0.5), int(t)) for t, row in zip(truth, probabilities)]
    mean = {metric: np.mean([row[ALL, metric] for row in rows]) for metric in ("brier", "log_loss", "accuracy")}
    expected = {"brier": sk.brier_score_loss(truth, probabilities[:, 1]), "log_loss": sk.log_loss(truth, probabilities),
                "accuracy": sk.accuracy_score(truth, probabilities[:, 1] > 0.5)}
    assert mean == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_curves_are_scikit_learns(seed):
    truth, probabilities = drawn(40, 2, seed, decimals=1)
    scores = probabilities[:, 1]
    fpr, tpr, _ = sk.roc_curve(truth, scores, drop_intermediate=False)
    assert np.allclose(ours.roc_curve(scores, truth == 1), (fpr, tpr), atol=1e-12)
    precision, recall, _ = sk.precision_recall_curve(truth, scores)
    x, y = ours.precision_recall_curve(scores, truth == 1)
    assert np.allclose((x[1:], y[1:]), (recall[-2::-1], precision[-2::-1]), atol=1e-12)
    assert (np.diff(x) * y[1:]).sum() == pytest.approx(ours.pr_auc(scores, truth == 1))
    observed, predicted = calibration_curve(truth, scores, n_bins=10)
    assert np.allclose(ours.reliability_curve(scores, truth == 1), (predicted, observed), atol=1e-12)


# --- undefined -------------------------------------------------------------------------------------------------------


def test_a_set_of_one_class_has_no_areas():
    found = set_scores(TWO, of_two([1, 1, 1], [0.9, 0.8, 0.2]))
    assert math.isnan(found[ALL, "roc_auc"]) and math.isnan(found[ALL, "pr_auc"]) and math.isnan(found[ALL, "specificity"])
    assert found[ALL, "recall"] == found[ALL, "balanced_accuracy"] == pytest.approx(2 / 3) and found[ALL, "precision"] == 1
    found = set_scores(TWO, of_two([0, 0], [0.9, 0.2]))
    assert math.isnan(found[ALL, "recall"]) and found[ALL, "precision"] == 0 and found[ALL, "specificity"] == 0.5
    found = set_scores(TWO, of_two([0, 0], [0.1, 0.2]))
    assert all(math.isnan(found[ALL, metric]) for metric in ("recall", "precision", "f1", "kappa", "roc_auc"))


def test_a_class_with_cases_that_is_never_predicted_has_precision_0():
    found = set_scores(TWO, of_two([0, 1, 1], [0.1, 0.2, 0.3]))
    assert found[ALL, "precision"] == found[ALL, "recall"] == found[ALL, "f1"] == 0


def test_a_class_that_no_case_has_is_left_out_of_the_mean():
    probabilities = [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.6, 0.3, 0.1]]  # thorax: neither a truth nor predicted
    found = set_scores(THREE, evidence_of([0, 1, 1], probabilities))
    assert all(math.isnan(found["thorax", metric]) for metric in ("recall", "precision", "f1", "roc_auc", "pr_auc"))
    assert found["thorax", "specificity"] == 1
    assert found[ALL, "recall"] == pytest.approx((1 + 0.5) / 2) and found[ALL, "precision"] == pytest.approx((0.5 + 1) / 2)
    assert found[ALL, "balanced_accuracy"] == pytest.approx((1 + 0.5) / 2)


def test_scores_that_are_no_numbers_and_foreign_classes_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        ours.roc_auc([0.5, float("nan")], [True, False])
    with pytest.raises(ValueError, match="0 to 1"):
        ours.confusion_matrix([0, 2], [0, 1], 2)


@pytest.mark.parametrize("decisions, truths, expected", [
    # roc_auc, kappa, sensitivity, specificity, accuracy
    ([1, 1, 1], [1, 1, 1], (NAN, NAN, 1, NAN, 1)),
    ([0, 0, 0], [0, 0, 0], (NAN, NAN, NAN, 1, 1)),
    ([0, 0, 1], [1, 1, 1], (NAN, 0, 1 / 3, NAN, 1 / 3)),
    ([], [], (NAN, NAN, NAN, NAN, NAN)),
])
def test_yes_or_no_of_one_class_is_undefined_and_silent(decisions, truths, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ours.yes_or_no(np.arange(len(truths)), decisions, np.array(truths, bool), np.ones((len(truths), 1)))
    assert list(found) == ["roc_auc", "kappa", "sensitivity", "specificity", "accuracy"]
    assert [values[0] for values in found.values()] == pytest.approx(expected, nan_ok=True)


def test_the_mean_over_classes_of_a_draw_is_that_of_the_same_classes():
    values = [np.array([0.5, NAN, 0.2]), np.array([0.7, 0.9, NAN]), np.array([NAN, NAN, NAN])]
    assert ours.mean_over_classes(values) == pytest.approx([0.6, 0.9, 0.2])
    assert ours.mean_over_classes(values, [True, True, False]) == pytest.approx([0.6, NAN, NAN], nan_ok=True)
    assert np.isnan(ours.mean_over_classes(values[2:], [False])).all()


# --- intervals -------------------------------------------------------------------------------------------------------


PATIENTS = ["a", "a", "b", "c", "c", "c", "d", "e", "f", "f", "g", "h"]


def test_patients_are_drawn_whole():
    weights = np.concatenate(list(patient_weights(PATIENTS, 50)), axis=1)
    assert weights.shape == (12, 50)
    assert (weights[0] == weights[1]).all() and (weights[3:6] == weights[3]).all() and (weights[0] != weights[3]).any()
    first = [PATIENTS.index(patient) for patient in sorted(set(PATIENTS))]
    assert (weights[first].sum(axis=0) == 8).all()  # as many patients as there are, in every draw


def test_draws_do_not_depend_on_how_many_are_held_at_once(monkeypatch):
    whole = np.concatenate(list(patient_weights(PATIENTS, 50)), axis=1)
    monkeypatch.setattr(statistics, "AT_ONCE", 7 * len(PATIENTS))
    parts = list(patient_weights(PATIENTS, 50))
    assert len(parts) == 8 and (np.concatenate(parts, axis=1) == whole).all()


def test_the_interval_of_a_mean_is_that_of_the_statistics():
    values = np.random.default_rng(2).random(12)
    found = bootstrap_intervals(lambda weights: {"mean": (values @ weights) / weights.sum(axis=0)}, PATIENTS)
    _, low, high = bootstrap_interval(values, PATIENTS)
    assert found["mean"] == pytest.approx((low, high), abs=1e-12)


def test_intervals_hold_every_score_and_repeat():
    truth, probabilities = drawn(60, 3, seed=1)
    evidence = evidence_of(truth, probabilities, patients=[f"p{i // 2}" for i in range(60)])
    scores, found = set_scores(THREE, evidence), set_intervals(THREE, evidence)
    assert set(found) == set(scores) and found == set_intervals(THREE, evidence)
    assert all(low <= high for low, high in found.values())
    low, high = found[ALL, "roc_auc"]
    assert low < scores[ALL, "roc_auc"] < high
    single = set_intervals(THREE, evidence_of(truth, probabilities))  # patients with one case each are other draws
    assert single[ALL, "roc_auc"] != found[ALL, "roc_auc"]


def test_resamples_without_a_class_are_left_out_of_its_intervals():
    # one positive patient of three: a third of the draws (8/27) are without
    evidence = of_two([1, 0, 0], [0.9, 0.1, 0.4])
    assert set_intervals(TWO, evidence)[ALL, "roc_auc"] == (1, 1)
    low, high = set_intervals(TWO, of_two([1, 1], [0.9, 0.8]))[ALL, "roc_auc"]
    assert math.isnan(low) and math.isnan(high)


def test_one_patient_has_no_interval():
    evidence = of_two([1, 0, 1, 0], [0.9, 0.1, 0.4, 0.6], patients=["a"] * 4)
    assert set_scores(TWO, evidence)[ALL, "recall"] == 0.5
    assert all(math.isnan(low) and math.isnan(high) for low, high in set_intervals(TWO, evidence).values())


def test_draws_without_a_class_say_nothing_of_means_over_classes():
    """Ten cases, one of them positive, all called negative: balanced accuracy is 0.5 in every draw that can tell."""
    rows = [{"patient": f"p{i}", "truth": int(i == 0), "predicted": 0, "probabilities": np.array([0.8, 0.2]), "threshold": 0.5}
            for i in range(10)]
    assert set_intervals(("poor", "good"), rows)["all", "balanced_accuracy"] == (0.5, 0.5)


def test_draws_without_one_of_several_classes_have_no_mean_over_them():
    truth, probabilities = drawn(30, 3, seed=2)
    evidence = evidence_of(truth, probabilities)
    weights = np.stack([np.ones(30), truth != 2], axis=1).astype(np.float64)
    found = set_metrics(THREE, evidence)(weights)
    for metric in ("balanced_accuracy", *PER_CLASS):
        assert not math.isnan(found[ALL, metric][0]) and math.isnan(found[ALL, metric][1]), metric
    assert not np.isnan(found["brain", "recall"]).any() and math.isnan(found["thorax", "recall"][1])
    assert not np.isnan(found[ALL, "kappa"]).any()
