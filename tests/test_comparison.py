"""--compare: its tests and intervals by hand, by brute force and against SciPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from test_statistics import bootstrap_interval

from lib.evaluation.classification import roc_auc
from lib.evaluation.paired import (COLUMNS, EXACT, FEW, NO_DIFFERENCE, ONE_PATIENT, Ranking, bootstrap_p, compare_cases,
                                   compare_sets, delong, delong_difference, holm, paired_intervals, patient_means, signed_rank)
from lib.evaluation.statistics import RESAMPLES, patient_weights
from lib.progress import no_progress
from lib.reporting.comparison import chance
from lib.study import load_study
from lib.tasks import make_task

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


@pytest.mark.parametrize("count", (5, 20, 50, 120, EXACT))
def test_signed_rank_without_ties_is_scipys(count):
    differences = np.random.default_rng(count).normal(0.3, 1, count)
    expected = stats.wilcoxon(differences, method="exact").pvalue
    assert signed_rank(differences) == (pytest.approx(expected, rel=1e-9), "Wilcoxon signed-rank, exact")


def test_signed_rank_of_many_is_the_normal_approximation_near_the_exact_one():
    differences = np.random.default_rng(1).normal(0.1, 1, EXACT + 1)
    p, name = signed_rank(differences)
    assert name == "Wilcoxon signed-rank, normal" and 0.01 < p < 0.9
    assert p == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue, rel=0.02)
    # 100 of size 1 have rank 50.5, 150 of size 2 rank 175.5; up are 40 and 90: 17815 of 31375 in all, variance their squares / 4
    tied = np.repeat([1.0, -1, 2, -2, 0], (40, 60, 90, 60, 300))
    z = (17815 - 31375 / 2) / math.sqrt((100 * 50.5 ** 2 + 150 * 175.5 ** 2) / 4)
    assert signed_rank(tied) == (pytest.approx(2 * stats.norm.sf(z), rel=1e-9), "Wilcoxon signed-rank, normal")


@pytest.mark.parametrize("better, worse", ((8, 2), (20, 35), (18, 34), (85, 115), (86, 115), (600, 700), (0, 1200)))
def test_of_right_and_wrong_it_is_mcnemars_exact_test(better, worse):
    differences = np.repeat([1.0, -1.0, 0.0], (better, worse, 30))
    expected = stats.binomtest(better, better + worse).pvalue
    assert signed_rank(differences) == (pytest.approx(expected, rel=1e-9, abs=0), "Wilcoxon signed-rank, exact")


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
    scores, stairs = np.random.default_rng(0).normal(size=20), np.arange(20) % 10 - 0.5 * (np.arange(20) < 10)
    for a, b, kinds, why in ((scores, scores * 2 + 1, positive, NO_DIFFERENCE), (scores, -scores, np.arange(20) < 4, FEW),
                             (scores, -scores, np.zeros(20, bool), FEW),
                             (positive * 1.0, 1.0 - positive, positive, "none: no variance"),
                             (stairs, stairs + (np.arange(20) < 10), np.arange(20) < 10, "none: no variance")):
        p, name = delong(Ranking(a, kinds, range(20)), Ranking(b, kinds, range(20)))
        assert math.isnan(p) and name == why


@pytest.mark.parametrize("count", (5, 6, 10, 20, 30, 49))
def test_delong_of_a_staircase_has_no_variance(count):
    """Positive and negative patients take turns, and in B each positive one has moved up by one negative: all placements change
    by the same, of which rounding must not make a variance. Where one of them moves by two, there is some."""
    positive, stairs = np.arange(2 * count) < count, np.arange(count, dtype=float)
    a, b = (np.append(stairs + step, stairs) for step in (-0.5, 0.5))
    assert delong_difference(a, b, positive) == (pytest.approx(1 / count), 0.0)
    p, name = delong(Ranking(a, positive, range(2 * count)), Ranking(b, positive, range(2 * count)))
    assert math.isnan(p) and name == "none: no variance"
    b[0] += 1
    difference, variance = delong_difference(a, b, positive)
    assert (difference, variance) == pytest.approx(delong_by_definition(a, b, positive), rel=1e-9) and variance > 0
    assert delong(Ranking(a, positive, range(2 * count)), Ranking(b, positive, range(2 * count)))[1] == "DeLong"


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


def test_the_least_bootstrap_p_is_shown_as_it_is():
    least = bootstrap_p(1.0, np.ones(RESAMPLES), 10)[0]
    assert least == 2 / 2001 and chance(least) == "0.001"
    assert [chance(p) for p in (0.00049, 0.00051, 0.0123, 1.0)] == ["<0.001", "0.001", "0.012", "1.000"]


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
    """Clustered cases and no difference between the runs: about 5 % of the p of either kind are below 0.05 (of a bootstrap
    of 15 patients somewhat more), and their mean is about 0.5."""
    random, patients, found = np.random.default_rng(3), np.repeat(np.arange(15), 4), []

    def mean_of(values):
        return lambda weights: {("x", "m"): (values @ weights) / weights.sum(axis=0)}

    for _ in range(120):
        gaps = np.repeat(random.normal(size=15), 4) + 0.2 * random.normal(size=60)
        a = random.normal(size=60)
        of_cases = compare_cases({("x", "m"): a}, {("x", "m"): a + gaps}, patients)[0]
        of_set = compare_sets(mean_of(a), mean_of(a + gaps), patients)[0]
        assert of_cases["test"].startswith("Wilcoxon") and of_set["test"] == "bootstrap"
        found.append((of_cases["p"], of_set["p"]))
    for p in np.transpose(found):
        assert 0.01 < np.mean(p < 0.05) <= 0.12 and np.mean(p) == pytest.approx(0.5, abs=0.1)


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
