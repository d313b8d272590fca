"""--compare: the tests by hand, by brute force and against SciPy; then runs on disk, from two results folders to tables."""

from __future__ import annotations

import csv
import itertools
import json
import math
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from lib.comparison import compare_runs, scores_of
from lib.evaluation.classification import roc_auc
from lib.evaluation.paired import (COLUMNS, FEW, NO_DIFFERENCE, ONE_PATIENT, Ranking, bootstrap_p, compare_cases,
                                       compare_sets, delong, delong_difference, holm, paired_intervals, patient_means,
                                       signed_rank)
from lib.evaluation.statistics import bootstrap_interval, patient_weights
from lib.evidence import write_evidence
from lib.imaging.geometry import Geometry
from lib.progress import no_progress
from lib.results import COLUMNS as RESULTS, tidy
from lib.study import InputError, load_study, without_secrets
from lib.tasks import make_task
from lib.tasks.classification import Prediction as Loop
from lib.tasks.segmentation import Prediction as Masks
from lib.tested_run import find_folder, label_of
from lib.workspace import Workspace, file_hash, write_json, write_table

NAN, UNDEFINED = float("nan"), "none: undefined"


# --- Wilcoxon ----------------------------------------------------------------------------------------------------


def by_every_sign(differences) -> float:
    """Two-sided p of the signed-rank test, by listing the signs of all differences."""
    differences = np.asarray(differences)[np.asarray(differences) != 0]
    ranks = stats.rankdata(np.abs(differences))
    found = ranks[differences > 0].sum()
    sums = [sum(rank for rank, up in zip(ranks, signs) if up) for signs in itertools.product((0, 1), repeat=len(ranks))]
    below, above = (np.mean([s <= found + 1e-9 for s in sums]), np.mean([s >= found - 1e-9 for s in sums]))
    return min(1.0, 2 * min(below, above))


def test_signed_rank_by_hand():
    # ranks 1 2 3 4, all positive: 1 of the 16 ways of giving signs is as extreme, on each side
    assert signed_rank(np.array([0.1, 0.2, 0.3, 0.4])) == (2 / 16, "Wilcoxon signed-rank, exact")
    # -1 has rank 1: sums of at least 9 are {1,2,3,4} = 10 and {2,3,4} = 9
    assert signed_rank(np.array([-0.1, 0.2, 0.3, 0.4]))[0] == 2 * 2 / 16
    assert signed_rank(np.array([-1.0, 1.0]))[0] == 1.0


@pytest.mark.parametrize("seed", range(6))
def test_signed_rank_is_exact_with_ties_and_zeros(seed):
    differences = np.random.default_rng(seed).integers(-3, 5, size=11).astype(float)
    assert signed_rank(differences)[0] == pytest.approx(by_every_sign(differences), abs=1e-12)


@pytest.mark.parametrize("count", (5, 20, 50))
def test_signed_rank_without_ties_is_scipys(count):
    differences = np.random.default_rng(count).normal(0.3, 1, count)
    expected = stats.wilcoxon(differences, method="exact").pvalue
    assert signed_rank(differences) == (pytest.approx(expected, rel=1e-9), "Wilcoxon signed-rank, exact")


def test_signed_rank_of_many_is_the_normal_approximation_near_the_exact_one():
    differences = np.random.default_rng(1).normal(0.3, 1, 60)
    p, name = signed_rank(differences)
    assert name == "Wilcoxon signed-rank, normal"
    assert p == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue, rel=0.1)
    tied = np.array([1.0] * 40 + [-1.0] * 25 + [0.0] * 300)  # all ranks are 33: z = (40 - 25) / sqrt(65)
    assert signed_rank(tied)[0] == pytest.approx(2 * stats.norm.sf(15 / math.sqrt(65)), rel=1e-9)


def test_of_right_and_wrong_it_is_mcnemars_exact_test():
    differences = np.array([1.0] * 8 + [-1.0] * 2 + [0.0] * 30)
    assert signed_rank(differences)[0] == pytest.approx(stats.binomtest(2, 10).pvalue, rel=1e-12)


def test_signed_rank_that_cannot_be_says_why():
    for differences, why in (([], "none: no cases"), ([0.3], ONE_PATIENT), ([0.0, 0.0, 0.0], NO_DIFFERENCE)):
        p, name = signed_rank(np.array(differences))
        assert math.isnan(p) and name == why


def test_rounding_makes_no_difference_and_breaks_no_tie():
    a, b = np.array([0.7, 0.4, 0.1 + 0.2, 5.0]), np.array([0.8, 0.5, 0.3, 5.0])
    assert len(set(b - a)) == 4  # in floating point
    means, unit = patient_means(a, b, np.arange(4))
    assert signed_rank(means, unit)[0] == 1 / 2  # two equal differences: 2 of 4 ways
    assert math.isnan(signed_rank(means[2:], unit)[0])
    assert patient_means(np.zeros(2), np.zeros(2), np.arange(2))[1] == 1.0
    tiny = patient_means(np.array([1e-12, 2e-12]), np.array([2e-12, 4e-12]), np.arange(2))  # small numbers are not rounded away
    assert signed_rank(*tiny)[0] == 1 / 2


# --- DeLong ------------------------------------------------------------------------------------------------------


def delong_by_definition(a, b, positive) -> tuple[float, float]:
    """(difference of the areas, its variance), all pairs compared one by one: equations 3 to 8 of DeLong et al."""
    def psi(x, y):
        return 1.0 if y < x else 0.5 if y == x else 0.0

    areas, v10, v01 = [], [], []
    for scores in (a, b):
        xs, ys = [s for s, p in zip(scores, positive) if p], [s for s, p in zip(scores, positive) if not p]
        v10.append([sum(psi(x, y) for y in ys) / len(ys) for x in xs])
        v01.append([sum(psi(x, y) for x in xs) / len(xs) for y in ys])
        areas.append(sum(v10[-1]) / len(xs))
    s = np.cov(v10) / len(v10[0]) + np.cov(v01) / len(v01[0])
    return areas[1] - areas[0], s[0, 0] + s[1, 1] - 2 * s[0, 1]


def test_delong_by_hand():
    # A ranks all pairs rightly: all placements 1. B has positives 3 and 1, negatives 0 and 2: placements of the positives
    # 1 and 1/2, of the negatives 1 and 1/2. Differences 0 and -1/2, twice: variance 1/8 of each kind, over 2, twice
    positive = np.array([True, True, False, False])
    difference, variance = delong_difference(np.array([3.0, 4, 1, 2]), np.array([3.0, 1, 0, 2]), positive)
    assert difference == -0.25 and variance == pytest.approx(1 / 8)


@pytest.mark.parametrize("levels", (0, 4))
def test_delong_by_its_definition(levels):
    random = np.random.default_rng(levels)
    positive = np.arange(40) < 15
    a, b = (random.normal(size=40) + shift * positive for shift in (0.8, 1.5))
    if levels:  # with ties
        a, b = np.round(a), np.round(b)
    difference, variance = delong_difference(a, b, positive)
    assert (difference, variance) == pytest.approx(delong_by_definition(a, b, positive), rel=1e-12)
    assert difference == pytest.approx(roc_auc_score(positive, b) - roc_auc_score(positive, a))
    p, name = delong(Ranking(a, positive, range(40)), Ranking(b, positive, range(40)))
    assert name == "DeLong" and p == pytest.approx(2 * stats.norm.sf(abs(difference) / math.sqrt(variance)), rel=1e-9)


def test_delong_of_one_curve_is_near_the_binormal_variance():
    """Against a useless score that is constant, the variance is that of one area, which simulation gives as well."""
    random, positive = np.random.default_rng(0), np.arange(200) < 80
    areas, variances = [], []
    for _ in range(200):
        b = random.normal(size=200) + positive
        difference, variance = delong_difference(np.zeros(200), b, positive)
        areas.append(difference), variances.append(variance)
    assert np.mean(variances) == pytest.approx(np.var(areas, ddof=1), rel=0.25)


def test_delong_that_cannot_be_says_why():
    positive = np.arange(20) < 8
    scores = np.random.default_rng(0).normal(size=20)
    for a, b, kinds, why in ((scores, scores * 2 + 1, positive, NO_DIFFERENCE), (scores, -scores, np.arange(20) < 4, FEW),
                             (scores, -scores, np.zeros(20, bool), FEW),
                             (positive * 1.0, 1.0 - positive, positive, "none: no variance")):
        p, name = delong(Ranking(a, kinds, range(20)), Ranking(b, kinds, range(20)))
        assert math.isnan(p) and name == why


# --- Holm and the bootstrap ----------------------------------------------------------------------------------------


def test_holm_by_hand():
    # sorted 0.01 0.02 0.03 0.04: times 4, 3, 2, 1 = 0.04 0.06 0.06 0.04, never falling
    assert holm([0.04, 0.01, NAN, 0.03, 0.02]) == pytest.approx([0.06, 0.04, NAN, 0.06, 0.06], nan_ok=True)
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([0.2]) == [0.2] and holm([]) == []
    assert all(map(math.isnan, holm([NAN, NAN])))


def test_bootstrap_p_by_hand():
    draws = np.array([-1.0] + [1.0] * 98)
    assert bootstrap_p(0.9, draws, 10) == (2 * 2 / 100, "bootstrap")
    assert bootstrap_p(0.9, -draws, 10)[0] == 2 * 2 / 100
    assert bootstrap_p(0.0, np.array([-1.0, 1.0]), 10)[0] == 1.0
    assert bootstrap_p(1.0, np.append(draws, NAN), 10)[0] == 2 * 2 / 100  # a draw without a value is no draw
    for difference, some, patients, why in ((0.9, draws, 9, FEW), (0.9, draws, 1, ONE_PATIENT), (NAN, draws, 10, UNDEFINED),
                                            (0.0, draws * 0, 10, NO_DIFFERENCE), (0.9, np.append(draws, [NAN] * 2), 10, FEW)):
        p, name = bootstrap_p(difference, some, patients)
        assert math.isnan(p) and name == why


def slow_interval(differences, patients, seed=0) -> tuple[float, float]:
    """Patients drawn one by one, with all their cases."""
    random, names = np.random.default_rng(seed), sorted(set(patients))
    means = []
    for _ in range(2000):
        drawn = random.integers(len(names), size=len(names))
        means.append(np.mean([d for index in drawn for d, p in zip(differences, patients) if p == names[index]]))
    return tuple(np.quantile(means, (0.025, 0.975)))


def test_paired_interval_draws_patients():
    random = np.random.default_rng(5)
    patients = [f"p{index:02d}" for index in range(15) for _ in range(index % 3 + 1)]
    gaps = np.repeat(random.normal(0.1, 1, 15), [index % 3 + 1 for index in range(15)])  # cases of a patient are all alike
    number = np.unique(patients, return_inverse=True)[1]
    found = paired_intervals({"x": gaps, "y": np.where(number == 3, NAN, gaps), "one": np.where(number == 3, gaps, NAN),
                              "same": np.full(len(gaps), 0.1)}, number)
    assert found["x"] == pytest.approx(slow_interval(gaps, patients), abs=0.04)
    assert found["x"] == pytest.approx(bootstrap_interval(gaps, patients)[1:])
    assert found["y"] != found["x"] and all(map(math.isnan, found["one"])) and found["same"] == (0.1, 0.1)
    alone = paired_intervals({"x": gaps}, np.arange(len(gaps)))["x"]  # as if cases were independent: too narrow
    assert alone[1] - alone[0] < 0.9 * (found["x"][1] - found["x"][0])


# --- tables --------------------------------------------------------------------------------------------------------


def by_key(rows: list[dict]) -> dict[tuple, dict]:
    assert all(list(row) and set(row) == set(COLUMNS) for row in rows)
    return {(row["class"], row["metric"]): row for row in rows}


def test_compare_cases_by_hand():
    patients = ["p1", "p1", "p2", "p3", "p4"]
    a = {("x", "dice"): np.array([0.5, 0.7, 0.2, 0.9, NAN]), ("y", "dice"): np.array([0.1, NAN, 0.1, NAN, 0.1]),
         ("all", "dice"): np.array([0.3] * 5), ("x", "only_a"): np.ones(5)}
    b = {("x", "dice"): np.array([0.6, 0.9, 0.6, NAN, 0.4]), ("y", "dice"): np.array([0.2, 0.3, 0.2, NAN, 0.2]),
         ("all", "dice"): np.array([0.3] * 5)}
    rows = by_key(compare_cases(a, b, patients))
    assert list(rows) == [("x", "dice"), ("y", "dice"), ("all", "dice")]
    x, y, whole = rows.values()
    # cases 1 2 3 count: means 1.4 / 3 and 2.1 / 3; patients p1 (0.1 + 0.2) / 2 and p2 0.4: two patients, 2 of 4 ways
    assert (x["cases"], x["patients"], x["left_out"], x["only_a"], x["only_b"]) == (3, 2, 2, 1, 1)
    assert (x["estimate_a"], x["estimate_b"], x["difference_b_minus_a"]) == pytest.approx((1.4 / 3, 2.1 / 3, 0.7 / 3))
    assert (x["ci_low"], x["ci_high"]) == pytest.approx((0.15, 0.4)) and x["p"] == 0.5
    # three patients, all 0.1 better: 2 of 8 ways; Holm of 0.25 and 0.5 over the two classes
    assert (y["cases"], y["left_out"], y["only_a"], y["only_b"], y["p"]) == (3, 2, 0, 1, 0.25)
    assert (x["p_holm"], y["p_holm"]) == (0.5, 0.5)
    assert whole["difference_b_minus_a"] == 0 and (whole["ci_low"], whole["ci_high"]) == (0, 0)
    assert math.isnan(whole["p"]) and math.isnan(whole["p_holm"]) and whole["test"] == NO_DIFFERENCE


def test_all_stands_alone_and_metrics_do_not_mix():
    random = np.random.default_rng(0)
    a = {(name, metric): random.normal(size=12) for metric in ("dice", "iou") for name in ("x", "y", "all")}
    b = {key: values + 0.4 + random.normal(size=12) for key, values in a.items()}
    rows = by_key(compare_cases(a, b, range(12)))
    for metric in ("dice", "iou"):
        assert rows["all", metric]["p_holm"] == rows["all", metric]["p"]
        pair = [rows[name, metric] for name in ("x", "y")]
        assert [row["p_holm"] for row in pair] == holm([row["p"] for row in pair])
        assert pair[0]["p_holm"] != pair[0]["p"] or pair[1]["p_holm"] != pair[1]["p"]


def test_an_interval_depends_on_no_other_row():
    random = np.random.default_rng(0)
    a, b = ({key: random.normal(size=12) for key in (("x", "dice"), ("y", "dice"))} for _ in range(2))
    both, alone = compare_cases(a, b, range(12)), compare_cases({("y", "dice"): a["y", "dice"]}, b, range(12))
    for key in ("ci_low", "ci_high", "p"):
        assert both[1][key] == pytest.approx(alone[0][key])


def test_one_patient_has_neither_interval_nor_p():
    rows = compare_cases({("x", "dice"): np.array([0.1, 0.2])}, {("x", "dice"): np.array([0.2, 0.4])}, ["p", "p"])
    assert rows[0]["difference_b_minus_a"] == pytest.approx(0.15) and rows[0]["test"] == ONE_PATIENT
    assert all(math.isnan(rows[0][key]) for key in ("ci_low", "ci_high", "p", "p_holm"))
    rows = compare_cases({("x", "dice"): np.array([NAN, 0.2])}, {("x", "dice"): np.array([0.2, NAN])}, ["p", "q"])
    assert rows[0]["cases"] == 0 and rows[0]["test"] == "none: no cases" and math.isnan(rows[0]["estimate_a"])


def ranked(count: int, seed: int = 0, patients=None):
    """(positive, scores of A, scores of B, metrics of A, metrics of B, rankings): B is better."""
    random = np.random.default_rng(seed)
    positive = random.permutation(count) < count // 3
    a, b = (np.round(random.normal(size=count) + gain * positive, 2) for gain in (0.5, 1.5))
    patients = list(range(count)) if patients is None else patients

    def metrics(scores):
        return lambda weights: {("all", "roc_auc"): roc_auc(scores, positive, weights),
                                ("all", "nothing"): weights.sum(axis=0) * 0,
                                ("all", "mean"): (scores @ weights) / weights.sum(axis=0)}

    rankings = {("all", "roc_auc"): tuple(Ranking(scores, positive, patients) for scores in (a, b))}
    return positive, a, b, metrics(a), metrics(b), rankings


def test_compare_sets_uses_the_same_draws_of_patients_for_both():
    patients = [f"p{index // 2}" for index in range(60)]
    positive, a, b, of_a, of_b, rankings = ranked(60, patients=patients)
    rows = by_key(compare_sets(of_a, of_b, patients, rankings, no_progress))
    row = rows["all", "roc_auc"]
    assert row["difference_b_minus_a"] == pytest.approx(roc_auc_score(positive, b) - roc_auc_score(positive, a))
    gaps = []
    for weights in patient_weights(patients, 2000):  # scikit-learn's areas of each draw, one by one
        gaps += [roc_auc_score(positive, b, sample_weight=draw) - roc_auc_score(positive, a, sample_weight=draw)
                 for draw in weights.T[:400]]
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(np.quantile(gaps, (0.025, 0.975)), abs=0.02)
    assert row["test"] == "bootstrap" and row["level"] == "set"  # two cases per patient: DeLong would take them as independent
    assert row["p"] == pytest.approx(2 * (1 + min(np.mean(np.array(gaps) <= 0), np.mean(np.array(gaps) >= 0)) * 2000) / 2001,
                                     abs=0.02)
    assert rows["all", "nothing"]["test"] == NO_DIFFERENCE
    assert rows["all", "mean"]["difference_b_minus_a"] == pytest.approx(float((b - a).mean()))


def test_roc_auc_of_a_score_per_patient_is_tested_by_delong():
    positive, a, b, of_a, of_b, rankings = ranked(60)
    row = by_key(compare_sets(of_a, of_b, range(60), rankings))["all", "roc_auc"]
    difference, variance = delong_by_definition(a, b, positive)
    assert row["test"] == "DeLong" and row["p"] == pytest.approx(2 * stats.norm.sf(abs(difference) / math.sqrt(variance)))
    bootstrapped = by_key(compare_sets(of_a, of_b, range(60)))["all", "roc_auc"]
    assert bootstrapped["test"] == "bootstrap" and bootstrapped["ci_low"] == row["ci_low"]
    assert bootstrapped["p"] == pytest.approx(row["p"], abs=0.03)  # two ways to the same question
    other = {("all", "roc_auc"): (rankings["all", "roc_auc"][0], Ranking(b, positive, range(1, 61)))}
    assert by_key(compare_sets(of_a, of_b, range(60), other))["all", "roc_auc"]["test"] == "bootstrap"


def test_what_a_set_does_not_have_is_not_compared():
    def metrics(first, second):
        return lambda weights: {("x", "ap"): np.full(weights.shape[1], first), ("y", "ap"): np.full(weights.shape[1], second)}

    rows = by_key(compare_sets(metrics(NAN, 0.5), metrics(NAN, NAN), range(20)))
    assert list(rows) == [("y", "ap")] and rows["y", "ap"]["test"] == "none: undefined"
    assert math.isnan(rows["y", "ap"]["difference_b_minus_a"]) and math.isnan(rows["y", "ap"]["ci_low"])


def test_a_set_of_one_patient_and_truths_that_differ():
    positive, a, b, of_a, of_b, rankings = ranked(20)
    rows = compare_sets(of_a, of_b, ["p"] * 20)
    assert {row["test"] for row in rows} == {ONE_PATIENT} and all(math.isnan(row["ci_low"]) for row in rows)
    other = {("all", "roc_auc"): (rankings["all", "roc_auc"][0], Ranking(b, ~positive, range(20)))}
    assert by_key(compare_sets(of_a, of_b, range(20), other))["all", "roc_auc"]["test"] == "bootstrap"


def test_a_rare_class_has_no_bootstrap_p():
    """Three positive patients, all ranked better: every draw that has one says so, but three patients prove nothing."""
    positive = np.arange(40) < 3
    a, b = np.where(positive, 0.0, 1.0) + np.arange(40) / 100, np.where(positive, 2.0, 1.0) + np.arange(40) / 100
    rows = compare_sets(*(lambda weights, s=scores: {("all", "roc_auc"): roc_auc(s, positive, weights)} for scores in (a, b)),
                        range(40))
    assert rows[0]["difference_b_minus_a"] == 1 and rows[0]["test"] == FEW and math.isnan(rows[0]["p"])


def test_true_null_is_seldom_rejected():
    """Clustered cases and no difference between the runs: about 5 % of the p of either kind are below 0.05."""
    random, hits = np.random.default_rng(3), []
    for _ in range(120):
        patients = np.repeat(np.arange(15), 4)
        gaps = np.repeat(random.normal(size=15), 4) + 0.2 * random.normal(size=60)
        a = random.normal(size=60)
        hits.append(compare_cases({("x", "m"): a}, {("x", "m"): a + gaps}, patients)[0]["p"] < 0.05)
    assert 0 <= np.mean(hits) <= 0.12


# --- results folders -----------------------------------------------------------------------------------------------


STUDY, MASKS = "echo_quality", "flair_visibility"
PATIENTS = 24


def prepared_of(place: Path, fingerprint: str = "data-1") -> SimpleNamespace:
    """All that a comparison asks of the prepared data."""
    return SimpleNamespace(fingerprint=fingerprint, folder=place / "prepared")


def write_results(folder: Path, study, run: str, cases: list[tuple], **manifest) -> None:
    """A results folder as script 4 leaves it. cases: (fold, prediction, truth, case) of each."""
    task, rows, evidence = make_task(study), [], []
    for fold, prediction, truth, case in cases:
        cells = {"study": study.name, "run": run, "fold": fold, "patient": case.patient, "case": case.case}
        rows += tidy(cells, task.score(prediction, truth, case))
        evidence.append({"fold": fold, "case": case.case, **task.evidence(prediction, truth, case)})
    rows += tidy({"study": study.name, "run": run, "fold": ""}, task.score_set(evidence))
    write_table(folder / "results.csv", RESULTS, rows)
    write_evidence(folder / "evidence.npz", evidence)
    write_json(folder / "manifest.json", {
        "study": without_secrets(study.to_dict()), "run": run, "fingerprint": "data-1", "subset": "test", "loaded": "",
        "trained": without_secrets(study.to_dict()), "tolerance_mm": study.report.tolerance_mm,
        "finished": {"0": True, "1": True}, **manifest})
    seal(folder)


def seal(folder: Path) -> None:
    """Let the manifest know the files as they are now."""
    change(folder / "manifest.json", files={name: file_hash(folder / name) for name in ("results.csv", "evidence.npz")})


def loops(gain: float, seed: int, count: int = PATIENTS, per_patient: int = 1) -> list[tuple]:
    """Loops of a classifier that is right more often the greater its gain; the truth is the same for every seed."""
    random, cases = np.random.default_rng(seed), []
    for index in range(count * per_patient):
        truth = index // per_patient % 2
        good = 1 / (1 + math.exp(-(gain * (2 * truth - 1) + random.normal())))
        case = SimpleNamespace(case=f"loop {index:02d}", patient=f"p{index // per_patient:02d}")
        cases.append((index // per_patient % 2, Loop(np.array([1 - good, good]), 0.5), np.array([truth]), case))
    return cases


def strokes(shift: int, missed: tuple[int, ...] = ()) -> list[tuple]:
    """Masks of three classes that lie `shift` pixels off, or are missed. Patient p1 has no FLAIR-visible part."""
    geometry, cases = Geometry((1, 12, 12), (1.0, 1.0, 1.0)), []
    for index in range(12):
        truth = np.zeros((3, 1, 12, 12), bool)
        truth[0, 0, 1:11, 1:11] = truth[1, 0, 3:8, 3:6 + index % 3] = True
        truth[2, 0, 4:6, 4:6] = index not in (2, 3)
        masks = np.zeros_like(truth) if index in missed else np.roll(truth, shift * (index % 2), axis=-1)
        case = SimpleNamespace(case=f"scan {index:02d}", patient=f"p{index // 2}", geometry=geometry)
        cases.append((index // 2 % 2, Masks(masks.astype(np.float32), masks, (0.5,) * 3), truth, case))
    return cases


def table_of(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {(row["class"], row["metric"]): row for row in csv.DictReader(file)}


def compare(place: Path, one="weak", other="strong", subset="test", study=STUDY, fingerprint="data-1"):
    return compare_runs(prepared_of(place, fingerprint), load_study(study), Workspace(place, f"-s {study}"), one, other, subset,
                        no_progress)


@pytest.fixture
def two(tmp_path) -> Path:
    """A workspace with the results of two classifiers, the second of which was trained for longer."""
    for run, gain, seed, epochs in (("weak", 0.3, 1, 20), ("strong", 1.5, 2, 40)):
        study = load_study(STUDY, [f"training.epochs={epochs}"])
        write_results(tmp_path / "results" / run, study, run, loops(gain, seed))
    return tmp_path


def test_two_runs_of_a_classifier(two):
    told = compare(two)
    folder = two / "results" / "weak" / "compare-strong"
    assert Path(told.see) == folder and told.done == "weak and strong compared on 24 test cases"
    assert sorted(path.name for path in folder.iterdir()) == ["comparison.csv", "differences.csv", "figures", "manifest.json"]
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "difference_accuracy.png", "difference_brier.png", "difference_over_all_cases.png"}
    rows = table_of(folder / "comparison.csv")
    weak, strong = loops(0.3, 1), loops(1.5, 2)
    truth = np.array([int(one[2][0]) for one in weak])
    right = [np.array([one[1].predicted for one in side]) == truth for side in (weak, strong)]
    accuracy, auc = rows["all", "accuracy"], rows["all", "roc_auc"]
    assert float(accuracy["difference_b_minus_a"]) == pytest.approx(right[1].mean() - right[0].mean())
    discordant = (int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum()))
    assert float(accuracy["p"]) == pytest.approx(stats.binomtest(discordant[0], sum(discordant)).pvalue)
    scores = [[one[1].probabilities[1] for one in side] for side in (weak, strong)]
    difference, variance = delong_by_definition(*scores, truth == 1)
    assert auc["test"] == "DeLong" and float(auc["p"]) == pytest.approx(2 * stats.norm.sf(difference / math.sqrt(variance)))
    assert auc["level"] == "set" and auc["cases"] == "24" and float(auc["estimate_a"]) == pytest.approx(
        roc_auc_score(truth, scores[0]))
    assert rows["all", "kappa"]["test"] == "bootstrap" and ("all", "threshold") not in rows
    assert rows["good", "truth_probability"]["left_out"] == "12"  # of loops that are poor, in both runs
    assert (rows["good", "truth_probability"]["only_a"], rows["good", "truth_probability"]["only_b"]) == ("0", "0")
    lines = told.text.splitlines()
    assert lines[0] == "A is weak, B is strong: 24 test cases of 24 patients, judged by both"
    assert "trained differently (A -> B): training.epochs: 20 -> 40" in lines
    assert lines[-1] == "these are numbers of test patients: report them, do not choose by them"
    shown = next(line for line in lines if line.split()[:2] == ["all", "roc_auc"])
    assert f"{difference:+.3f}" in shown and shown.endswith(" 24") and max(map(len, lines)) <= 130
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["b"]["folder"] == "results/strong" and manifest["a"]["fingerprint"] == "data-1" and manifest["patients"] == 24
    assert str(two) not in (folder / "manifest.json").read_text()


def test_differences_by_case_add_up(two):
    compare(two)
    folder = two / "results" / "weak" / "compare-strong"
    with (folder / "differences.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    brier = [cell for cell in cells if cell["metric"] == "brier"]
    assert len(brier) == 24 and brier[3]["case"] == "loop 03" and brier[3]["patient"] == "p03" and brier[3]["fold"] == "1"
    for cell in brier:
        assert float(cell["difference_b_minus_a"]) == pytest.approx(float(cell["b"]) - float(cell["a"]), abs=1e-9)
    row = table_of(folder / "comparison.csv")["all", "brier"]
    mean = np.mean([float(cell["difference_b_minus_a"]) for cell in brier])
    assert mean == pytest.approx(float(row["difference_b_minus_a"])) and mean < 0  # smaller is better, and stays so


def test_the_other_way_round_is_the_negative(two):
    compare(two), compare(two, "strong", "weak")
    there, back = (table_of(two / "results" / a / f"compare-{b}" / "comparison.csv")
                   for a, b in (("weak", "strong"), ("strong", "weak")))
    for key, row in there.items():
        other = back[key]
        assert (row["estimate_a"], row["test"]) == (other["estimate_b"], other["test"])
        for one, two_ in (("difference_b_minus_a",) * 2, ("ci_low", "ci_high"), ("ci_high", "ci_low")):
            assert float(row[one] or "nan") == pytest.approx(-float(other[two_] or "nan"), abs=1e-9, nan_ok=True)
        assert float(row["p"] or "nan") == pytest.approx(float(other["p"] or "nan"), nan_ok=True)


def test_same_results_same_bytes(two):
    folder = two / "results" / "weak" / "compare-strong"
    compare(two)
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    compare(two)
    assert before == {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_order_of_cases_does_not_matter(two):
    compare(two)
    before = (two / "results" / "weak" / "compare-strong" / "comparison.csv").read_text()
    study, mixed = load_study(STUDY), np.random.default_rng(0).permutation(PATIENTS)
    write_results(two / "results" / "strong", study, "strong", [loops(1.5, 2)[index] for index in mixed])
    compare(two)
    assert (two / "results" / "weak" / "compare-strong" / "comparison.csv").read_text() == before


def test_several_cases_of_a_patient_leave_delong_out(tmp_path):
    for run, gain, seed in (("weak", 0.3, 1), ("strong", 1.5, 2)):
        write_results(tmp_path / "results" / run, load_study(STUDY), run, loops(gain, seed, per_patient=2))
    compare(tmp_path)
    rows = table_of(tmp_path / "results" / "weak" / "compare-strong" / "comparison.csv")
    assert rows["all", "roc_auc"]["test"] == "bootstrap" and rows["all", "accuracy"]["patients"] == "24"
    assert rows["all", "accuracy"]["cases"] == "48"


def test_identical_runs_differ_in_nothing(two):
    shutil.copytree(two / "results" / "weak", two / "results" / "again")
    change(two / "results" / "again" / "manifest.json", run="again")
    told = compare(two, "weak", "again")
    rows = table_of(two / "results" / "weak" / "compare-again" / "comparison.csv")
    assert {row["test"] for row in rows.values()} == {NO_DIFFERENCE} and {row["p"] for row in rows.values()} == {""}
    assert {float(row[key]) for row in rows.values() for key in ("difference_b_minus_a", "ci_low", "ci_high")} == {0}
    assert "no difference" in told.text and "trained differently" not in told.text


def test_runs_of_other_folds_meet_where_both_were(two):
    study = load_study(STUDY)
    write_results(two / "results" / "half", study, "half", [one for one in loops(1.5, 2) if one[0] == 0],
                  finished={"0": False})
    told = compare(two, "weak", "half")
    assert "LEFT OUT: 12 cases that only A (weak) has judged" in told.text and "12 test cases of 12 patients" in told.text
    assert "UNFINISHED training behind the model of fold 0 of B (half)" in told.text
    write_results(two / "results" / "few", study, "few", loops(1.5, 2)[:6])
    told = compare(two, "weak", "few")
    assert "ONLY 6 patients" in told.text and "too few patients" in told.text
    write_results(two / "results" / "one", study, "one", loops(1.5, 2)[:1])
    assert "one patient" in compare(two, "weak", "one").text


def test_a_named_folder_and_results_apart(two, tmp_path):
    apart = two / "results" / "weak" / "load-fold0"
    shutil.copytree(two / "results" / "strong", apart)
    assert Path(compare(two, "strong", str(apart)).see) == two / "results" / "strong" / "compare-weak-load-fold0"
    far = tmp_path / "far" / "echo" / "results" / "weak"
    shutil.copytree(two / "results" / "strong", far)
    assert Path(compare(two, "weak", str(far)).see).name == "compare-echo-weak"
    assert label_of(Workspace(two), two / "results" / "weak" / "validation", "validation") == "weak"


def test_validation_of_several_folds_has_no_number_over_the_set(two):
    for run, gain, seed in (("weak", 0.3, 1), ("strong", 1.5, 2)):
        both = [(fold, *rest) for fold in (0, 1) for _, *rest in loops(gain, seed + fold)]
        write_results(two / "results" / run / "validation", load_study(STUDY), run, both, subset="validation")
    told = compare(two, subset="validation")
    rows = table_of(Path(told.see) / "comparison.csv")
    assert rows["all", "accuracy"]["cases"] == "48" and rows["all", "accuracy"]["patients"] == "24"
    assert ("all", "roc_auc") not in rows and "several folds" in told.text and "VALIDATION" in told.text.splitlines()[-1]
    assert Path(told.see).parent.name == "validation"


# --- masks ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def masks(tmp_path) -> Path:
    study, place = load_study(MASKS), tmp_path / "masks"
    write_results(place / "results" / "weak", study, "weak", strokes(2, missed=(4,)))
    write_results(place / "results" / "strong", study, "strong", strokes(1))
    return place


def test_masks_are_compared_by_what_is_better_or_worse(masks):
    told = compare(masks, study=MASKS)
    rows = table_of(masks / "results" / "weak" / "compare-strong" / "comparison.csv")
    metrics = {metric for _, metric in rows}
    assert {"dice", "hd95_mm", "volume_ml_error", "volume_ml_abs_error", "visible_share_abs_error", "presence_roc_auc"} <= metrics
    assert not {"volume_ml", "present", "visible_share", "cases", "empty_truth_cases"} & metrics
    assert not [metric for metric in metrics if metric.endswith("_true") or "threshold" in metric]
    flair, distance = rows["flair_visible", "dice"], rows["stroke", "hd95_mm"]
    assert (flair["cases"], flair["left_out"], flair["patients"]) == ("10", "2", "5")  # p1 has none of it, in both runs
    assert (distance["cases"], distance["only_a"], distance["only_b"]) == ("11", "0", "1")  # case 4 was missed in A
    assert float(distance["difference_b_minus_a"]) < 0 < float(flair["difference_b_minus_a"])
    assert "hd95_mm of stroke: left out are cases with a value in A only (0) or in B only (1)" in told.text
    classes = [rows[name, "dice"] for name in ("brain", "stroke", "flair_visible")]
    assert [float(row["p_holm"]) for row in classes] == pytest.approx(holm([float(row["p"]) for row in classes]))
    assert rows["all", "dice"]["p_holm"] == rows["all", "dice"]["p"]
    presence = rows["flair_visible", "presence_roc_auc"]
    assert (presence["level"], presence["test"], presence["p"], presence["estimate_b"]) == ("set", NO_DIFFERENCE, "", "1")


def test_means_over_other_classes_are_not_compared(masks):
    """Case 4 was missed in A: its HD95 there is of no class. In case 5 of A the stroke alone is missed, as if by a model that
    skips what is hard: without it the mean over classes would look better."""
    study = load_study(MASKS)
    cases = strokes(2)
    fold, prediction, truth, case = cases[5]
    partly = prediction.masks.copy()
    partly[1:] = False
    cases[5] = (fold, Masks(partly.astype(np.float32), partly, (0.5,) * 3), truth, case)
    write_results(masks / "results" / "weak", study, "weak", cases)
    told = compare(masks, study=MASKS)
    folder = masks / "results" / "weak" / "compare-strong"
    whole, brain = (table_of(folder / "comparison.csv")[name, "hd95_mm"] for name in ("all", "brain"))
    assert (whole["cases"], brain["cases"]) == ("11", "12")
    assert "hd95_mm of all: left out are 1 cases in which it is a mean over other classes in A than in B" in told.text
    assert "dice of all: left out" not in told.text  # a missed class has Dice 0


def test_dice_by_hand(masks):
    """Patients 0 to 5 have scans 2i and 2i + 1, of which only the odd ones are shifted: 2 pixels in A, 1 in B. The brain is 10
    columns wide: Dice 0.8 and 0.9. Scan 4 of A is missed: Dice 0."""
    compare(masks, study=MASKS)
    row = table_of(masks / "results" / "weak" / "compare-strong" / "comparison.csv")["brain", "dice"]
    assert float(row["estimate_a"]) == pytest.approx((5 * 1 + 0 + 6 * 0.8) / 12)
    assert float(row["estimate_b"]) == pytest.approx((6 * 1 + 6 * 0.9) / 12)
    assert float(row["difference_b_minus_a"]) == pytest.approx(1.6 / 12)
    assert float(row["p"]) == pytest.approx(2 / 2**6) and row["test"] == "Wilcoxon signed-rank, exact"


def test_read_outs_count_by_their_error():
    places = [("0", "a"), ("0", "b")]
    values = {("x", "volume_ml"): {places[0]: 3.0, places[1]: 1.0}, ("x", "volume_ml_true"): {places[0]: 5.0, places[1]: NAN},
              ("x", "score"): {places[0]: 0.9}, ("x", "present"): {places[0]: 1.0}, ("x", "present_true"): {places[0]: 1.0},
              ("x", "tolerance_truth"): {places[0]: 1.0}, ("x", "dice"): {places[1]: 0.5}}
    found = {key: column.tolist() for key, column in scores_of(values, places).items()}
    assert found == {("x", "volume_ml_error"): pytest.approx([-2, NAN], nan_ok=True),
                     ("x", "volume_ml_abs_error"): pytest.approx([2, NAN], nan_ok=True),
                     ("x", "dice"): pytest.approx([NAN, 0.5], nan_ok=True)}


# --- what is refused -----------------------------------------------------------------------------------------------


def change(path: Path, **values) -> None:
    write_json(path, json.loads(path.read_text()) | values)


def test_what_is_refused(two):
    weak, strong = (two / "results" / run for run in ("weak", "strong"))
    manifest = json.loads((strong / "manifest.json").read_text())

    def refused(words: str, **keys) -> None:
        with pytest.raises(InputError, match=words):
            compare(two, **keys)
        assert not (weak / "compare-strong").exists()

    refused("the same results", other="weak")
    refused("the same results", other=str(weak))
    refused(r"neither a tested run nor.*tested runs here: strong, weak.*-n RUN", other="strnog")
    refused("not tested on external cases; --split test", subset="external")
    refused("stale: .*prepared anew", fingerprint="data-2")
    renamed = manifest["study"] | {"data": manifest["study"]["data"] | {"classes": ["poor", "better"]}}
    for values, words in (({"fingerprint": "data-0"}, "different prepared data.*data-1 and data-0"),
                          ({"subset": "external"}, "differ in their subset"), ({"study": renamed}, "differ in their classes"),
                          ({"tolerance_mm": 1.5}, "tolerance in mm: 0.0 and 1.5")):
        change(strong / "manifest.json", **values)
        refused(words)
        write_json(strong / "manifest.json", manifest)
    write_results(strong, load_study(MASKS), "strong", strokes(1))
    refused("kind of task: classification and segmentation")


def test_what_is_refused_of_broken_and_older_results(two):
    strong = two / "results" / "strong"
    rows, manifest = (strong / "results.csv").read_text(), json.loads((strong / "manifest.json").read_text())

    def refused(words: str) -> None:
        with pytest.raises(InputError, match=words) as error:
            compare(two)
        assert "-n strong" in str(error.value) or "test" in str(error.value)
        (strong / "results.csv").write_text(rows)
        write_json(strong / "manifest.json", manifest)

    write_json(strong / "manifest.json", {key: value for key, value in manifest.items() if key != "study"})
    refused(r"older version \(no study in manifest.json\): run  python 4-InferenceTest.py -s echo_quality -n strong")
    (strong / "manifest.json").write_text("{")
    refused("not readable")
    change(strong / "manifest.json", study=manifest["study"] | {"novelty": 1})
    refused("another version.*novelty")
    change(strong / "manifest.json", run="weak")  # folders that were exchanged
    refused("holds the results of run 'weak', not 'strong'")
    (strong / "results.csv").write_text(rows.replace("accuracy,0", "accuracy,1"))
    refused("results.csv was changed after script 4 wrote it")
    (strong / "results.csv").write_text("\n".join(line for line in rows.splitlines() if "loop 07" not in line))
    seal(strong)
    refused("not of the same cases")
    (strong / "results.csv").write_text(rows.replace("accuracy,1", "accuracy,one"))
    seal(strong)
    refused("not as script 4 wrote it")
    evidence = (strong / "evidence.npz").read_bytes()
    (strong / "evidence.npz").write_bytes((two / "results" / "weak" / "evidence.npz").read_bytes())
    refused("evidence.npz was changed after script 4 wrote it")
    (strong / "evidence.npz").write_bytes(evidence[:200])
    seal(strong)
    refused("not readable")
    (strong / "evidence.npz").unlink()
    refused("older version.*evidence.npz")


def test_a_killed_test_is_no_run(two):
    shutil.copytree(two / "results" / "strong", two / "results" / "strong.partial")
    with pytest.raises(InputError, match=r"tested runs here: strong, weak\."):
        compare(two, other="strong.partial")


def test_what_is_refused_of_cases(two, masks):
    study = load_study(STUDY)
    for cases, words in (([(1 - fold, *rest) for fold, *rest in loops(1.5, 2)], "another fold's model"),
                         ([(fold, p, t, SimpleNamespace(case=f"other {c.case}", patient=c.patient))
                           for fold, p, t, c in loops(1.5, 2)], "no case in common"),
                         ([(fold, p, t, SimpleNamespace(case=c.case, patient=f"x{c.patient}"))
                           for fold, p, t, c in loops(1.5, 2)], "of another patient")):
        write_results(two / "results" / "strong", study, "strong", cases)
        with pytest.raises(InputError, match=words):
            compare(two)
    changed = load_study(MASKS, ["measurements.visible_share={kind: share, part: flair_visible, whole: brain}"])
    write_results(masks / "results" / "strong", changed, "strong", strokes(1))
    write_results(masks / "results" / "weak", load_study(MASKS), "weak", strokes(2))
    with pytest.raises(InputError, match="visible_share_true of flair_visible is not the same.*different ways"):
        compare(masks, study=MASKS)


def test_a_failed_comparison_leaves_the_last_one(two, monkeypatch):
    compare(two)
    folder = two / "results" / "weak" / "compare-strong"
    before = (folder / "comparison.csv").read_bytes()
    monkeypatch.setattr("lib.comparison.draw_comparison", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compare(two)
    assert (folder / "comparison.csv").read_bytes() == before and not folder.with_name("compare-strong.partial").exists()


def test_no_warning_reaches_the_user(two, masks):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(two)
    assert find_folder(Workspace(two), "weak", "test") == two / "results" / "weak"


# --- what AUCs rank ------------------------------------------------------------------------------------------------


def evidence_by_kind() -> dict[str, list[dict]]:
    random = np.random.default_rng(0)
    frames = {"patient": "", "scores": None, "truth": None, "confidence": 0.5}
    found = {"echo_quality": [], "fetal_biometry": [], "fetal_anatomy": [], "flair_visibility": []}
    for index in range(24):
        who = {"patient": f"p{index // 2}"}
        for study, classes in (("echo_quality", 2), ("fetal_biometry", 8)):
            shares = random.dirichlet(np.ones(classes))
            found[study].append(who | {"truth": index % classes, "predicted": int(shares.argmax()), "probabilities": shares,
                                       "threshold": 0.5})
        truth = (random.random((2, 9, 5)) * 10 + [0, 0, 0, 20, 20]).astype(np.float32)
        truth[..., 0] = random.random((2, 9)) < 0.6
        found["fetal_anatomy"].append(frames | who | {"scores": random.random((2, 9)).astype(np.float32), "truth": truth,
                                                      "boxes": truth[..., 1:] + 1})
        found["flair_visibility"].append(who | {"unit": "ml", "predicted": list(random.random(3)),
                                                "true": [1.0, 1.0, float(index % 5 == 0)], "presence": {"flair_visible": 0.5}})
    return found


@pytest.mark.parametrize("study", ("echo_quality", "fetal_biometry", "fetal_anatomy", "flair_visibility"))
def test_rankings_are_what_the_areas_are_made_of(study):
    task, evidence = make_task(load_study(study)), evidence_by_kind()[study]
    areas = {key: float(values[0]) for key, values in task.set_metrics(evidence)(np.ones((24, 1))).items()
             if key[1].endswith("roc_auc")}
    rankings = task.rankings(evidence)
    assert rankings and set(rankings) == {key for key in areas if len(areas) == 1 or key[0] != "all"}
    for key, (scores, positive, patients) in rankings.items():
        assert len(scores) == len(positive) == len(patients) and set(patients) == {one["patient"] for one in evidence}
        assert roc_auc_score(positive, scores) == pytest.approx(areas[key])
