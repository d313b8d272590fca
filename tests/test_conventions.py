"""What all tasks share: numbers of draws are those of repeated cases, and what is undefined is left out, never counted as 0."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from lib.evaluation.summary import summarise
from lib.reporting.plots import draw_plots
from lib.reporting.style import collecting
from lib.results import tidy, write_summary
from lib.study import Data
from lib.tasks.base import ALL, Task
from lib.tasks.classification import Classification
from lib.tasks.detection import Detection
from lib.tasks.landmarks import Landmarks
from lib.tasks.segmentation import Segmentation

NAMES = ("a", "b", "c")
TASKS = ("binary", "classes", "boxes", "points", "regions")


def task_of(kind: str) -> Task:
    data = Data(reader={}, classes=NAMES[:2] if kind == "binary" else NAMES, size=(64, 64))
    if kind == "boxes":
        return Detection(data, {}, {})
    if kind == "points":
        return Landmarks(data, {}, {}, presence_weight=1.0)
    if kind == "regions":
        return Segmentation(data, {}, {}, presence=NAMES)
    return Classification(data, {}, {})


def evidence_of(kind: str, held: list[list[int]], patients: list[str], seed: int = 0) -> list[dict]:
    """A piece of evidence for each list of the classes (0, 1, 2) that a case has; scores are coarse, so that some are equal."""
    random, evidence = np.random.default_rng(seed), []
    for classes, patient in zip(held, patients):
        there = np.isin(np.arange(3), classes)
        scores = np.clip(random.normal(0.3 + 0.4 * there, 0.2), 0, 1).round(1).astype(np.float32)
        one = {"patient": patient, "case": f"c{len(evidence)}", "fold": 0}
        if kind == "boxes":
            boxes = np.float32([0, 0, 20, 20]) + random.integers(0, 30, (1, 3, 1)).astype(np.float32)
            off = random.integers(0, 8, (1, 3, 4)).astype(np.float32)
            truth = np.concatenate([there[None, :, None], boxes * there[None, :, None]], axis=2).astype(np.float32)
            one |= {"scores": scores[None], "boxes": boxes + off, "truth": truth, "confidence": 0.45}
        elif kind == "points":
            errors = np.where(there, random.integers(0, 9, 3), np.nan)[None]
            one |= {"errors": {"px": errors, "mm": errors / 2}, "scores": scores[None], "confidence": 0.45,
                    "truth": there[None, :, None].astype(np.float32)}
        elif kind == "regions":
            one |= {"unit": "ml", "predicted": scores.tolist(), "true": there.astype(float).tolist(),
                    "presence": dict.fromkeys(NAMES, 0.45)}
        else:
            chosen = scores[:2 if kind == "binary" else 3].astype(np.float64) + 0.01
            truth = min(classes[0], len(chosen) - 1)
            probabilities = chosen / chosen.sum()
            one |= {"truth": truth, "predicted": int(probabilities.argmax()), "probabilities": probabilities, "threshold": 0.5}
        evidence.append(one)
    return evidence


def mixed(cases: int, seed: int = 1) -> list[list[int]]:
    """Classes of cases: each has one or two, and all are there."""
    random = np.random.default_rng(seed)
    return [[0], [1], [2], *(sorted(random.permutation(3)[:random.integers(1, 3)].tolist()) for _ in range(cases - 3))]


def classes_of(one: dict) -> np.ndarray:
    """bool (3,): the classes that a case of single frames has."""
    return np.arange(3) == one["truth"] if np.ndim(one["truth"]) == 0 else one["truth"][0, :, 0] > 0


def repeated(evidence: list[dict], times: np.ndarray) -> list[dict]:
    """Each piece of evidence as often as it counts; a patient who is drawn twice is two patients."""
    return [{**one, "patient": f"{one['patient']} {copy}"} for one, count in zip(evidence, times) for copy in range(int(count))]


@pytest.mark.parametrize("kind", TASKS)
def test_weights_say_how_often_a_case_is_there(kind):
    patients = [f"p{number // 2}" for number in range(14)]
    task, evidence = task_of(kind), evidence_of(kind, mixed(14), patients)
    drawn = np.random.default_rng(3).integers(0, 3, (7, 25))
    drawn[:, 0] = 1
    weights = drawn.repeat(2, axis=0).astype(float)
    metrics, looked_at = task.set_metrics(evidence)(weights), 0
    for column, times in enumerate(weights.T):
        alone = task.score_set(repeated(evidence, times))
        for key, values in metrics.items():
            if key[0] == ALL and math.isnan(values[column]) and not math.isnan(alone[key]):
                there = np.array([classes_of(one) for one, count in zip(evidence, times) if count])
                assert (~there.any(axis=0) | there.all(axis=0)).any(), key  # a mean over other classes than the set's
                continue
            assert values[column] == pytest.approx(alone[key], abs=1e-9, nan_ok=True), (key, column)
            looked_at += not math.isnan(values[column])
    assert looked_at > 100
    once = {key: float(values[0]) for key, values in metrics.items()}
    assert once == pytest.approx({key: value for key, value in task.score_set(evidence).items() if key in once}, nan_ok=True)


@pytest.mark.parametrize("kind", TASKS)
def test_every_estimate_has_an_interval_and_every_fact_has_none(kind):
    task, evidence = task_of(kind), evidence_of(kind, mixed(24), [f"p{number // 2}" for number in range(24)])
    scores, intervals, facts = task.score_set(evidence), task.intervals(evidence), task.set_facts(evidence)
    assert set(intervals) == set(scores) - set(facts) and not set(intervals) & set(facts)
    assert intervals == task.intervals(evidence)  # the same draws
    for key, (low, high) in intervals.items():
        assert math.isnan(scores[key]) or low <= high, key
    described = ("threshold", "confidence", "cases", "empty_truth", "images_with", "points", "presence_n", "presence_positives")
    assert all(any(word in metric for word in described) for _, metric in facts)


@pytest.mark.parametrize("kind", TASKS)
def test_one_patient_has_no_interval(kind):
    task, evidence = task_of(kind), evidence_of(kind, mixed(6), ["p"] * 6)
    assert all(math.isnan(low) and math.isnan(high) for low, high in task.intervals(evidence).values())
    assert any(not math.isnan(value) for value in task.score_set(evidence).values())


# metrics of a class that a set does not have
ABSENT = {"classes": ("recall", "roc_auc", "pr_auc"),
          "boxes": ("ap@0.5", "ap@[.5:.95]", "ar@[.5:.95]", "recall", "presence_roc_auc", "presence_sensitivity"),
          "points": ("radial_error_median_px", "radial_error_p95_mm", "presence_roc_auc", "presence_sensitivity"),
          "regions": ("presence_roc_auc", "presence_sensitivity")}
MEANS = {"classes": [("recall", "recall"), ("roc_auc", "roc_auc")],
         "boxes": [("map@0.5", "ap@0.5"), ("mar@[.5:.95]", "ar@[.5:.95]")],
         "points": [("presence_roc_auc", "presence_roc_auc"), ("presence_sensitivity", "presence_sensitivity")], "regions": []}


@pytest.mark.parametrize("kind", ABSENT)
def test_a_class_that_no_case_has_is_undefined_and_left_out_of_means(kind):
    held = [[0] if number % 2 else [1] if number % 3 else [0] for number in range(12)]
    task, evidence = task_of(kind), evidence_of(kind, held, [f"p{number}" for number in range(12)])
    scores, intervals = task.score_set(evidence), task.intervals(evidence)
    for metric in ABSENT[kind]:
        assert math.isnan(scores["c", metric]) and np.isnan(intervals["c", metric]).all(), metric
        assert not math.isnan(scores["a", metric]) and not np.isnan(intervals["a", metric]).any(), metric
    for overall, metric in MEANS[kind]:
        assert scores[ALL, overall] == pytest.approx((scores["a", metric] + scores["b", metric]) / 2)
        assert not np.isnan(intervals[ALL, overall]).any()


@pytest.mark.parametrize("kind", ABSENT)
def test_a_class_missing_in_a_fold_leaves_its_cell_empty(kind, tmp_path):
    task, rows = task_of(kind), []
    folds = {0: evidence_of(kind, mixed(8), [f"p{number}" for number in range(8)]),
             1: evidence_of(kind, [[0], [1], [0], [1]], [f"q{number}" for number in range(4)])}
    cells = {"study": "s", "run": "r", "patient": "", "case": ""}
    for fold, evidence in folds.items():
        rows += tidy({**cells, "fold": fold}, task.score_set(evidence))
    pooled = [one for evidence in folds.values() for one in evidence]
    rows += tidy({**cells, "fold": ""}, task.score_set(pooled))
    table = write_summary(tmp_path / "summary.csv", rows, task.intervals(pooled), 12)
    summary = {(row["class"], row["metric"]): row for row in table}
    for metric in ABSENT[kind]:
        row, other = summary["c", metric], summary["a", metric]
        assert row["fold0"] is not None and row["fold1"] is None and (row["folds"], row["sd"]) == (1, None), metric
        assert row["mean"] == row["fold0"] and row["estimate"] is not None, metric
        assert other["folds"] == 2 and other["sd"] is not None and other["patients"] == 12 and other["ci_low"] is not None


@pytest.mark.parametrize("kind", ABSENT)
def test_a_fold_of_one_class_alone_has_a_value_wherever_there_is_one(kind):
    """Nothing turns into 0 that cannot be known: of cases with the first class only, the others have no recall."""
    scores = task_of(kind).score_set(evidence_of(kind, [[0]] * 4, list("pqrs")))
    for name in ("b", "c"):
        assert all(math.isnan(scores[name, metric]) for metric in ABSENT[kind])
    summary = summarise(tidy({"study": "s", "run": "r", "fold": 0, "patient": "", "case": ""}, scores)).to_dict("records")
    undefined = [row for row in summary if row["class"] == "c" and row["metric"] in ABSENT[kind]]
    assert undefined and all(row["folds"] == 0 and math.isnan(row["mean"]) and math.isnan(row["fold0"]) for row in undefined)


def test_draws_without_a_class_are_left_out_of_its_interval_and_of_means():
    """One patient of six has class c: a third of the draws lack it. Its own box is always right, so that its AP is 1 in all that
    remain, and the mean over classes is never one of two classes."""
    evidence = evidence_of("boxes", [[0, 1]] * 5 + [[0, 1, 2]], list("pqrstu"))
    for one in evidence:
        one["boxes"], one["scores"] = one["truth"][..., 1:].copy(), np.array([[0.9, 0.8, 0.1]], np.float32)
        one["boxes"][0, 1] += 50  # class b is never found
    evidence[-1]["scores"][0, 2] = 0.9
    task = task_of("boxes")
    scores, intervals = task.score_set(evidence), task.intervals(evidence)
    assert intervals["c", "ap@0.5"] == pytest.approx((1, 1)) and intervals["b", "ap@0.5"] == (0, 0)
    assert intervals[ALL, "map@0.5"] == pytest.approx((2 / 3, 2 / 3)) and scores[ALL, "map@0.5"] == pytest.approx(2 / 3)


def test_a_structure_that_is_there_but_never_found_has_precision_0():
    evidence = evidence_of("boxes", [[0, 1]] * 4, list("pqrs"))
    for one in evidence:
        one["scores"] = np.array([[0.9, 0.1, 0.1]], np.float32)
    scores = task_of("boxes").score_set(evidence)
    assert [scores["b", metric] for metric in ("precision", "recall", "f1")] == [0, 0, 0]
    assert math.isnan(scores["c", "precision"]) and math.isnan(scores["b", "iou_of_true_positives"])


def test_presence_is_of_patients_however_many_cases_they_have():
    held, patients = [[0], [], [0], [], []], ["p", "p", "q", "r", "r"]  # p and q have it, r has not
    task, evidence = task_of("regions"), evidence_of("regions", held, patients)
    for one, size in zip(evidence, (0.1, 0.6, 0.2, 0.3, 0.1)):  # largest: p 0.6, q 0.2, r 0.3
        one["predicted"][0] = size
    scores = task.score_set(evidence)
    assert (scores["a", "presence_n"], scores["a", "presence_positives"], scores["a", "cases"]) == (3, 2, 5)
    assert (scores["a", "presence_sensitivity"], scores["a", "presence_specificity"]) == (0.5, 1)
    assert scores["a", "presence_roc_auc"] == 0.5 and scores["a", "presence_accuracy"] == pytest.approx(2 / 3)
    twice = task.set_metrics(evidence)(np.array([[2.0], [2], [0], [1], [1]]))  # p twice, r once
    assert twice["a", "presence_accuracy"] == 1 and twice["a", "presence_roc_auc"] == 1


# --- ROC -----------------------------------------------------------------------------------------------------------------


COUNTED = {"boxes": "images", "points": "images", "regions": "patients"}


def ranked_by_hand(kind: str, evidence: list[dict], index: int) -> tuple[list[bool], list[float]]:
    """(positive, score) of class `index`: of each case, or of each patient the largest sizes."""
    if kind == "regions":
        ones = {patient: [one for one in evidence if one["patient"] == patient] for patient in {e["patient"] for e in evidence}}
        return ([max(one["true"][index] for one in mine) > 0 for mine in ones.values()],
                [max(one["predicted"][index] for one in mine) for mine in ones.values()])
    if kind in COUNTED:
        return [bool(classes_of(one)[index]) for one in evidence], [float(one["scores"][0, index]) for one in evidence]
    return [one["truth"] == index for one in evidence], [float(one["probabilities"][index]) for one in evidence]


@pytest.mark.parametrize("kind", TASKS)
def test_every_roc_auc_has_its_curve(kind, tmp_path):
    """Its points are scikit-learn's, its area and the one in its legend those of summary.csv."""
    held = [[number // 2 % 3] for number in range(24)] if kind == "regions" else mixed(24)  # of two cases of a patient, alike
    task, evidence = task_of(kind), evidence_of(kind, held, [f"p{number // 2}" for number in range(24)])
    for number, one in enumerate(evidence):
        one["fold"] = number // 2 % 2
    cells = {"study": "s", "run": "r", "patient": "", "case": "", "fold": ""}
    table = write_summary(tmp_path / "summary.csv", tidy(cells, task.score_set(evidence)), task.intervals(evidence), 12)
    areas = {row["class"]: row["estimate"] for row in table if row["metric"].endswith("roc_auc")}
    plot, = [plot for plot in task.plots(evidence) if plot.name == "roc"]
    names = {"all folds": (ALL, 1)} if kind == "binary" else {name: (name, index) for index, name in enumerate(NAMES)}
    folds = ["fold 0", "fold 1"] if kind == "binary" else []
    assert [label.split(",")[0] for label in plot.lines] == [*names, *folds] and plot.diagonal
    for (name, (row, index)), (label, (x, y)) in zip(names.items(), plot.lines.items()):
        positive, scores = ranked_by_hand(kind, evidence, index)
        false_alarms, found, _ = sk.roc_curve(positive, scores, drop_intermediate=False)
        assert x == pytest.approx(false_alarms) and y == pytest.approx(found)
        assert sk.auc(x, y) == pytest.approx(areas[row]) and 0 < areas[row]
        count = f", {sum(positive)} of {len(positive)} {COUNTED[kind]} positive" if kind in COUNTED else ""
        assert label == f"{name}, AUC {areas[row]:.2f}{count}"
    for fold, label in enumerate(folds):
        positive, scores = ranked_by_hand(kind, [one for one in evidence if one["fold"] == fold], 1)
        assert list(plot.lines)[fold + 1] == f"{label}, AUC {sk.roc_auc_score(positive, scores):.2f}"


@pytest.mark.parametrize("kind", COUNTED)
def test_a_roc_figure_says_who_is_positive(kind, tmp_path):
    task, evidence = task_of(kind), evidence_of(kind, mixed(8), list("pqrstuvw"))
    with collecting() as drawings:
        draw_plots(tmp_path, task.plots(evidence))
    drawing, = [one for one in drawings if one.name == "roc"]
    assert drawing.section == "Decisions" and drawing.title == "ROC of presence" and "1 - specificity" in drawing.svg
    assert {"regions": "true size is above 0", "boxes": "has the structure", "points": "has the point"}[kind] in drawing.caption
    assert "several models" not in drawing.caption
    evidence[0]["fold"] = 1
    assert "several models" in [plot for plot in task.plots(evidence) if plot.name == "roc"][0].caption


@pytest.mark.parametrize("kind", ABSENT)
def test_what_cannot_be_ranked_has_no_curve(kind):
    held = [[0] if number % 2 else [1] for number in range(8)]  # c is in none
    plot, = [plot for plot in task_of(kind).plots(evidence_of(kind, held, list("pqrstuvw"))) if plot.name == "roc"]
    assert [label.split(",")[0] for label in plot.lines] == ["a", "b"]
    alone, = [plot for plot in task_of(kind).plots(evidence_of(kind, [[0]] * 4, list("pqrs"))) if plot.name == "roc"]
    assert alone.lines == {}  # drawn as "nothing to show"


def test_where_nothing_is_ranked_there_is_no_roc_figure():
    data = Data(reader={}, classes=NAMES, size=(64, 64))
    assert Segmentation(data, {}, {}).plots(evidence_of("regions", mixed(6), list("pqrstu"))) == []
    drawn = Landmarks(data, {}, {}).plots(evidence_of("points", mixed(6), list("pqrstu")))
    assert [plot.name for plot in drawn] == ["cumulative_error"]
