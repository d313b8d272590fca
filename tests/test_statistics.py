"""Bootstrap intervals, thresholds, agreement, its limits and the summary table against values worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lib.evaluation import statistics
from lib.evaluation.agreement import agreement, agreement_intervals, limits_of_agreement
from lib.evaluation.classification import yes_or_no
from lib.evaluation.statistics import (
    bootstrap_intervals, mean_intervals, numbered, percentile_interval, percentiles, youden_threshold,
)
from lib.evaluation.summary import SUMMARY_COLUMNS, fold_columns, summarise
from lib.results import write_summary

NAN = float("nan")


def approx(*expected):
    return pytest.approx(expected, nan_ok=True)


# mean_intervals

def bootstrap_interval(values, groups=None, **draws) -> tuple[float, float, float]:
    """(mean, low, high) of values (n,), NaN left out, as `mean_intervals` gives them. groups: (n,) patient of each value; by
    default each value is its own. draws: resamples, seed and level."""
    values = np.asarray(values, np.float64)
    groups, known = np.arange(len(values)) if groups is None else numbered(list(groups)), ~np.isnan(values)
    sums, counts = np.bincount(groups[known], values[known])[None], np.bincount(groups[known])[None]
    (low,), (high,) = mean_intervals(sums, counts, **draws)
    return sums.sum() / max(1, counts.sum()) if known.any() else NAN, low, high


def test_constant_values_have_no_width():
    for groups in ("abcdefg", "aabccdd"):
        row = summarise([result(0, patient, 0.1, case=str(index)) for index, patient in enumerate(groups)]).iloc[0]
        assert (row["estimate"], row["ci_low"], row["ci_high"]) == (0.1, 0.1, 0.1)


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_interval_of_a_normal_sample_is_close_to_the_t_interval(level):
    values = np.random.default_rng(5).normal(10, 2, size=200)
    estimate, low, high = bootstrap_interval(values, level=level)
    t_low, t_high = stats.t.interval(level, 199, loc=values.mean(), scale=stats.sem(values))
    assert estimate == pytest.approx(values.mean())
    tolerance = 0.1 * (t_high - t_low)
    assert low == pytest.approx(t_low, abs=tolerance) and high == pytest.approx(t_high, abs=tolerance)


def test_two_patients_give_the_four_possible_means():
    # Two patients with 1 and 3: a resample is (1,1), (1,3), (3,1) or (3,3), each a quarter of the time, with
    # means 1, 2, 2, 3: the central 95 % reach from 1 to 3, and the central 40 % are all 2.
    assert bootstrap_interval([1.0, 3.0], level=0.95) == approx(2, 1, 3)
    assert bootstrap_interval([1.0, 3.0], level=0.4) == approx(2, 2, 2)


def test_repeating_the_cases_of_patients_does_not_narrow_the_interval():
    values = np.random.default_rng(1).normal(size=30)
    once = bootstrap_interval(values, groups=np.arange(30))
    fourfold = bootstrap_interval(np.tile(values, 4), groups=np.tile(np.arange(30), 4))
    assert fourfold == pytest.approx(once)
    assert bootstrap_interval(values) == pytest.approx(once)  # without groups each value is its own
    ignored = bootstrap_interval(np.tile(values, 4))  # four times the cases, wrongly taken as independent
    assert ignored[2] - ignored[1] < 0.7 * (once[2] - once[1])


def test_patients_bring_all_their_cases():
    # Patient a has three cases of 0, b one of 1. Resamples aa, ab, ba, bb have means 0, 1/4, 1/4, 1.
    assert bootstrap_interval([0, 1, 0, 0], groups=list("abaa")) == approx(0.25, 0, 1)
    assert bootstrap_interval([0, 1, 0, 0], groups=list("abaa"), level=0.4) == approx(0.25, 0.25, 0.25)


def test_nan_is_left_out():
    assert bootstrap_interval([NAN, 1.0, 3.0, NAN], groups=list("cabc")) == approx(2, 1, 3)


def test_too_little_for_an_interval():
    assert bootstrap_interval([1.0, 2.0], groups=["a", "a"]) == approx(1.5, NAN, NAN)
    assert bootstrap_interval([4.0, NAN], groups=["a", "b"]) == approx(4, NAN, NAN)
    assert bootstrap_interval([]) == approx(NAN, NAN, NAN)
    assert bootstrap_interval([NAN, NAN]) == approx(NAN, NAN, NAN)


def test_same_seed_same_interval_however_the_draws_are_cut(monkeypatch):
    values = np.random.default_rng(2).normal(size=50)
    first = bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) == first
    assert bootstrap_interval(values, seed=4)[1:] != first[1:]
    monkeypatch.setattr(statistics, "AT_ONCE", 50 * 300)  # 2,000 resamples in 7 parts, one smaller
    assert bootstrap_interval(values, seed=3) == pytest.approx(first, abs=1e-12)


def test_interval_arguments_are_checked():
    for wrong in ({"level": 95}, {"level": 0}, {"resamples": 0}):
        with pytest.raises(ValueError, match="resamples must be"):
            bootstrap_interval([1, 2, 3], **wrong)


def slow_draws(patients, seed=0, resamples=2000):
    """The cases of each draw, case by case, of the same random numbers."""
    named = list(dict.fromkeys(patients))
    for row in np.random.default_rng(seed).integers(len(named), size=(resamples, len(named))):
        yield [case for number in row for case, patient in enumerate(patients) if patient == named[number]]


def test_intervals_are_those_of_a_slow_loop_over_draws():
    rng = np.random.default_rng(6)
    patients = [f"p{number}" for number in rng.integers(9, size=20)]
    values, scores, truth = rng.normal(size=20), rng.random(20).round(1), rng.random(20) < 0.4
    decided = scores > 0.5

    def metrics(weights):
        return yes_or_no(scores, decided, truth, weights) | {"median": percentiles(values, [0.5], weights, np.arange(20))[0]}

    draws = [np.array(cases) for cases in slow_draws(patients)]
    once = [{"median": np.median(values[cases]), **{name: value[0] for name, value in yes_or_no(
        scores[cases], decided[cases], truth[cases], np.ones((len(cases), 1))).items()}} for cases in draws]
    for name, limits in bootstrap_intervals(metrics, patients).items():
        assert limits == pytest.approx(np.nanquantile([one[name] for one in once], [0.025, 0.975]), abs=1e-12), name
    means = np.quantile([values[cases].mean() for cases in draws], [0.025, 0.975])
    assert bootstrap_interval(values, patients)[1:] == pytest.approx(means, abs=1e-12)


def test_means_over_the_same_patients_share_their_draws():
    sums, counts = np.array([[1.0, 3, 0], [2, 6, 0], [1, 3, 5]]), np.array([[1, 1, 0], [1, 1, 0], [1, 1, 1]])
    low, high = mean_intervals(sums, counts)
    assert low[:2] == approx(1, 2) and high[:2] == approx(3, 6)  # of the two patients with a value
    assert (low[2], high[2]) == pytest.approx(bootstrap_interval([1, 3, 5])[1:])
    assert np.isnan(mean_intervals(sums[:1, [0, 2]], counts[:1, [0, 2]])).all()  # one patient is left


def test_an_interval_needs_a_tenth_of_the_draws():
    draws = np.full(2000, NAN)
    draws[:199] = 0.5
    assert percentile_interval(draws) == approx(NAN, NAN)
    draws[199] = 0.5
    assert percentile_interval(draws) == (0.5, 0.5)
    assert percentile_interval(draws[200:]) == approx(NAN, NAN) and percentile_interval(draws[:0]) == approx(NAN, NAN)


# percentiles

def test_percentiles_are_numpys_of_repeated_values():
    rng = np.random.default_rng(4)
    for cases, count in ((1, 1), (3, 2), (7, 20), (40, 100), (5, 0), (4, 4)):
        values, of_case = rng.normal(size=count).round(1), rng.integers(cases, size=count)
        weights = rng.integers(0, 4, size=(cases, 30)).astype(float)
        weights[:, 0] = 0
        found = percentiles(values, [0, 0.05, 0.5, 0.95, 1], weights, of_case)
        for column, times in enumerate(weights.T):
            again = np.repeat(values, times[of_case].astype(int))
            expected = np.percentile(again, [0, 5, 50, 95, 100]) if len(again) else [NAN] * 5
            assert found[:, column] == pytest.approx(expected, abs=1e-12, nan_ok=True)


# youden_threshold

@pytest.mark.parametrize("scores, labels, default, expected", [
    ([1, 2, 4, 8], [0, 0, 1, 1], 0, 3),        # all right between 2 and 4
    ([8, 2, 1, 4], [1, 0, 0, 1], 0, 3),        # in any order
    # > 1.5: sensitivity 3/3, specificity 1/3, J 1/3; > 2.5: 2/3 + 1/3 - 1 = 0; > 3.5: 2/3 + 2/3 - 1 = 1/3;
    # > 4.5: 2/3 + 3/3 - 1 = 2/3, the best; > 5.5: 1/3
    ([1, 2, 3, 4, 5, 6], [0, 1, 0, 0, 1, 1], 0, 4.5),
    # > 1.5 finds 2/2 and leaves 1/2, > 3.5 finds 1/2 and leaves 2/2: both J 1/2, > 2.5: 0
    ([1, 2, 3, 4], [0, 1, 0, 1], 3, 3.5),      # the nearer to the default
    ([1, 2, 3, 4], [0, 1, 0, 1], 2, 1.5),
    ([1, 2, 3, 4], [0, 1, 0, 1], 2.5, 1.5),    # as near: the lower
    ([0, 0, 0, 0.4], [0, 0, 0, 1], 5, 0.2),    # equal scores are one step
    ([0, 0, 0, 2], [0, 0, 1, 1], 5, 1),        # a positive among the zeros is lost at any threshold
    ([-4, -3, 1, 3], [0, 1, 1, 1], 9, 0),      # -3.5 would be perfect but lies below 0; > 0 keeps 2/3
    ([-3, -1, 0, 2], [0, 1, 1, 1], 9, 1),      # a score of 0 is not above 0: > 0 finds 1/3, no more than > 1
    ([-1, 0, 2], [1, 0, 1], 0, 0),             # nor is it a false alarm there
    ([4, 3, 2, 1], [0, 0, 1, 1], 0.7, 0.7),    # upside down: no threshold beats chance
    ([5, 5, 5], [0, 1, 1], 0.7, 0.7),          # nothing lies between
    ([1, 2], [1, 1], 0.7, 0.7),                # one class
    ([1, 2], [0, 0], 0.7, 0.7),
    ([], [], 0.7, 0.7),
])
def test_youden_by_hand(scores, labels, default, expected):
    assert youden_threshold(scores, labels, default) == pytest.approx(expected)


def test_youden_is_the_best_of_all_thresholds():
    rng = np.random.default_rng(0)
    labels = rng.random(60) < 0.3
    scores = np.abs(rng.normal(labels, 1.0)).round(1)  # rounded, so that scores of both classes coincide

    def index(threshold):
        return (scores[labels] > threshold).mean() + (scores[~labels] <= threshold).mean() - 1

    threshold = youden_threshold(scores, labels, 0)
    assert index(threshold) == pytest.approx(max(index(other) for other in np.linspace(0, 5, 1001)))
    below, above = scores[scores < threshold].max(), scores[scores > threshold].min()
    assert threshold == pytest.approx((below + above) / 2)


# yes or no

def test_agreement_by_hand():
    # Of 10 patients 4 are positive; 3 of them found, 1 missed, 1 false alarm, 5 rightly negative.
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], bool)
    decisions = [1, 1, 1, 0, 1, 0, 0, 0, 0, 0]
    scores = [9, 8, 7, 2, 6, 5, 4, 3, 1, 0]
    result = yes_or_no(scores, decisions, labels, np.ones((10, 1)))
    # Pairs of a positive above a negative: 6 + 6 + 6 + 2 of 24. Observed agreement 0.8, by chance
    # 0.4 * 0.4 + 0.6 * 0.6 = 0.52: kappa = 0.28 / 0.48.
    assert {name: value[0] for name, value in result.items()} == pytest.approx(
        {"roc_auc": 20 / 24, "kappa": 7 / 12, "sensitivity": 3 / 4, "specificity": 5 / 6, "accuracy": 8 / 10})


def test_scores_and_labels_are_checked():
    for scores, labels, message in [([1, NAN], [0, 1], "finite"), ([1, 2], [0, 2], "bool or 0/1"),
                                    ([1, 2, 3], [0, 1], "3 scores, 2 labels")]:
        with pytest.raises(ValueError, match=message):
            youden_threshold(scores, labels, 0)


# summarise

def result(fold, patient, value, metric="dice", name="stroke", case=None):
    return {"study": "s", "run": "r", "fold": fold, "patient": patient, "case": case or patient,
            "class": name, "metric": metric, "value": value}


# Fold 0: patient a with 0.8, b with two cases 0.4 and 0.6; fold 1: c with 0.9, d with an empty truth (NaN).
# Fold means 0.6 and 0.9: mean 0.75, SD 0.3 / sqrt(2).
# All cases: (0.8 + 0.4 + 0.6 + 0.9) / 4 = 0.675, of 3 patients.
CASES = [result(0, "a", 0.8), result(0, "b", 0.4, case="b1"), result(0, "b", 0.6, case="b2"),
         result(1, "c", 0.9), result(1, "d", NAN)]
# AUC 0.7 and 0.9 in the folds, 0.85 pooled
SETS = [result(0, "", 0.7, "roc_auc", "all"), result(1, "", 0.9, "roc_auc", "all"),
        result("", "", 0.85, "roc_auc", "all")]


def check_summary(summary):
    assert tuple(summary.columns) == (*SUMMARY_COLUMNS, "fold0", "fold1")
    assert summary[["class", "metric"]].values.tolist() == [["stroke", "dice"], ["all", "roc_auc"]]
    dice, auc = summary.to_dict("records")
    assert (dice["folds"], dice["patients"]) == (2, 3)
    assert (dice["mean"], dice["sd"], dice["estimate"]) == approx(0.75, 0.3 / 2 ** 0.5, 0.675)
    # Resamples of a (0.8), b (0.4 and 0.6), c (0.9): the lowest mean is 0.5 (bbb) and the highest 0.9 (ccc),
    # each 1 in 27 = 3.7 %, more than the 2.5 % of a tail.
    assert (dice["ci_low"], dice["ci_high"]) == approx(0.5, 0.9)
    assert (dice["fold0"], dice["fold1"], auc["fold0"], auc["fold1"]) == approx(0.6, 0.9, 0.7, 0.9)
    assert auc["folds"] == 2 and pd.isna(auc["patients"])
    assert [auc[key] for key in ("mean", "sd", "estimate", "ci_low", "ci_high")] == pytest.approx(
        [0.8, 0.2 / 2 ** 0.5, 0.85, NAN, NAN], nan_ok=True)


def test_summary_by_hand():
    check_summary(summarise(CASES + SETS))


def test_the_mean_of_equal_values_is_that_value_in_every_fold():
    """A fold in which a class was never found has a Dice of 0, not of 1e-16, whatever the other folds have."""
    random = np.random.default_rng(1)
    for _ in range(50):
        rows = [{"study": "s", "run": "r", "fold": fold, "patient": f"{fold} {index}", "case": f"{fold} {index}", "class": "stroke",
                 "metric": "dice", "value": 0.0 if fold == 2 else round(random.uniform(0.5, 0.95), 10)}
                for fold in range(3) for index in range(10)]
        assert summarise(rows)["fold2"].item() == 0.0


@pytest.mark.parametrize("keep_default_na", [True, False], ids=["empty is NaN", "empty is text"])
def test_summary_of_a_table_from_a_file(tmp_path, keep_default_na):
    pd.DataFrame(CASES + SETS).to_csv(tmp_path / "results.csv", index=False)
    table = pd.read_csv(tmp_path / "results.csv", keep_default_na=keep_default_na)
    before = table.copy()
    check_summary(summarise(table))
    pd.testing.assert_frame_equal(table, before)  # the caller's table is left alone


@pytest.mark.parametrize("empty, undefined", [
    ("", "nan"), (" ", " "), (None, None), (pd.NA, pd.NA), (NAN, ""),
])
def test_every_way_to_write_an_empty_cell(empty, undefined):
    check_summary(summarise([{**line, "fold": empty if line["fold"] == "" else str(line["fold"]),
                              "patient": empty if line["patient"] == "" else line["patient"],
                              "value": undefined if np.isnan(line["value"]) else str(line["value"])}
                             for line in CASES + SETS]))
    table = pd.DataFrame(CASES + SETS)
    check_summary(summarise(table.assign(fold=table["fold"].replace("", None).astype("Int64"))))


def test_patients_may_be_numbers(tmp_path):
    numbered = [{**line, "patient": line["patient"] and "abcd".index(line["patient"]) + 1}
                for line in CASES + SETS]
    check_summary(summarise(numbered))
    pd.DataFrame(numbered).to_csv(tmp_path / "results.csv", index=False)
    check_summary(summarise(pd.read_csv(tmp_path / "results.csv")))


def test_summary_table_reads_back_with_whole_numbers(tmp_path):
    summarise(CASES + SETS).to_csv(tmp_path / "summary.csv", index=False)
    dice, auc = (tmp_path / "summary.csv").read_text().splitlines()[1:]
    assert dice.startswith("stroke,dice,2,0.75,") and dice.split(",")[5] == "3"
    assert auc.split(",")[5] == "" and auc.split(",")[7:] == ["", "", "0.7", "0.9"]


def test_rows_keep_the_order_first_seen():
    lines = [result(0, "a", 1, "iou", "z"), result(0, "a", 1, "dice", "z"), result(0, "a", 1, "iou", "b"),
             result(1, "b", 1, "dice", "a"), result(1, "b", 1, "iou", "z")]
    found = summarise(lines)[["class", "metric"]].values.tolist()
    assert found == [["z", "iou"], ["z", "dice"], ["b", "iou"], ["a", "dice"]]


def test_one_fold_has_no_sd_and_nothing_has_nothing():
    single, undefined = summarise([CASES[0], result(0, "a", NAN, "hd95_mm")]).to_dict("records")
    assert [single[key] for key in SUMMARY_COLUMNS[2:]] == pytest.approx(
        [1, 0.8, NAN, 1, 0.8, NAN, NAN], nan_ok=True)
    assert [undefined[key] for key in (*SUMMARY_COLUMNS[2:], "fold0")] == pytest.approx(
        [0, NAN, NAN, 0, NAN, NAN, NAN, NAN], nan_ok=True)
    assert tuple(summarise([]).columns) == SUMMARY_COLUMNS and summarise([]).empty


def test_an_empty_fold_does_not_count():
    # Fold 1 has no value at all: one fold remains, though its patient was there.
    row = summarise([CASES[0], CASES[1], result(1, "d", NAN)]).to_dict("records")[0]
    assert (row["folds"], row["mean"], row["sd"], row["fold0"], row["fold1"]) == approx(1, 0.6, NAN, 0.6, NAN)


def test_columns_of_folds_are_in_their_order():
    columns = list(summarise([result(fold, f"p{fold}", fold / 100) for fold in (10, 2, 0)]).columns)
    assert fold_columns(columns) == ["fold0", "fold2", "fold10"] and "folds" in columns
    assert fold_columns(summarise([result("", "a", 0.2)]).columns) == []


def test_numbers_over_the_set_have_the_intervals_that_they_are_given():
    lines = [*SETS, result("", "", 5, "cases", "all"), *CASES, result("", "a", 0.3, "roc_auc", "all")]
    auc, cases, dice, of_cases = summarise(lines, intervals={("all", "roc_auc"): (0.8, 0.95), ("stroke", "dice"): (7, 8)},
                                           set_patients=12).to_dict("records")
    assert (auc["estimate"], auc["patients"], auc["ci_low"], auc["ci_high"]) == (0.85, 12, 0.8, 0.95)
    assert pd.isna(cases["patients"]) and np.isnan(cases["ci_low"]) and cases["estimate"] == 5
    assert (dice["ci_low"], dice["ci_high"]) == approx(0.5, 0.9)  # that of the cases
    assert (of_cases["estimate"], of_cases["patients"]) == (0.3, 1)  # a metric of both kinds has two rows
    single = summarise(SETS, intervals={("all", "roc_auc"): (NAN, NAN)}, set_patients=1).to_dict("records")[0]
    assert single["patients"] == 1 and np.isnan(single["ci_low"])


def test_the_summary_file_says_all_and_leaves_out_which_truth_was_used(tmp_path):
    rows = [{**row, "value": float(row["value"])} for row in
            [*CASES, *SETS, *PAIRS, result(0, "a", 1.0, "tolerance_truth")]]
    records = write_summary(tmp_path / "summary.csv", rows, {("all", "roc_auc"): (0.8, NAN)}, 4)
    written = pd.read_csv(tmp_path / "summary.csv").astype(object).where(lambda table: table.notna(), None).to_dict("records")
    assert [row["metric"] for row in records] == [row["metric"] for row in written] == [
        "dice", "roc_auc", "nt_mm", "nt_mm_true", "nt_mm_error", "nt_mm_abs_error", "nt_mm_loa_low", "nt_mm_loa_high",
        "nt_mm_missed", "nt_mm_spurious"]
    assert list(records[0]) == list(written[0]) == [*SUMMARY_COLUMNS, "fold0", "fold1"]
    auc, low = (next(row for row in records if row["metric"] == metric) for metric in ("roc_auc", "nt_mm_loa_low"))
    assert (auc["patients"], auc["ci_low"], auc["ci_high"]) == (4, 0.8, None)
    assert low["patients"] == 4 and low["ci_low"] < low["estimate"] < low["ci_high"]


def test_cases_without_a_fold_enter_the_estimate_alone():
    row = summarise([result("", "a", 0.2), result("", "b", 0.6)]).to_dict("records")[0]
    assert (row["folds"], row["mean"], row["patients"], row["estimate"]) == approx(0, NAN, 2, 0.4)
    assert (row["ci_low"], row["ci_high"]) == approx(0.2, 0.6)


def test_the_seed_is_used():
    rng = np.random.default_rng(0)
    lines = [result(index % 5, f"p{index}", value) for index, value in enumerate(rng.random(40))]
    pd.testing.assert_frame_equal(summarise(lines), summarise(lines))
    assert summarise(lines)["ci_low"][0] != summarise(lines, seed=1)["ci_low"][0]


def test_summary_refuses_tables_it_would_misread():
    with pytest.raises(ValueError, match="no column metric, value"):
        summarise([{"fold": 0, "patient": "a", "class": "x"}])
    with pytest.raises(ValueError, match="one run at a time, not r, other"):
        summarise([CASES[0], {**CASES[1], "run": "other"}])
    with pytest.raises(ValueError, match="roc_auc of all has two whole-set rows"):
        summarise([*SETS, SETS[2]])
    with pytest.raises(ValueError, match="pooled"):
        summarise([result("pooled", "a", 0.5)])


# agreement

def read_off(patient, predicted, true, fold=0, metric="nt_mm", case=None):
    return [result(fold, patient, predicted, metric, case=case),
            result(fold, patient, true, metric + "_true", case=case)]


# Errors 1, -1, 2, 2 of patients a, b, c, c: bias 1, absolute 1.5; deviations 0, -2, 1, 1: SD sqrt(6 / 3).
PAIRS = [*read_off("a", 3.0, 2.0), *read_off("b", 1.0, 2.0), *read_off("c", 5.0, 3.0, 1, case="c1"),
         *read_off("c", 6.0, 4.0, 1, case="c2")]
# and one without a prediction, two without a truth, one without either
GAPS = [*read_off("d", NAN, 2.0), *read_off("e", 2.0, NAN), *read_off("f", 2.0, NAN), *read_off("g", NAN, NAN)]


def numbers(rows, patient=""):
    return {row["metric"]: row["value"] for row in rows if row["patient"] == patient}


def test_agreement_of_cases_and_set_by_hand():
    derived = agreement(PAIRS + GAPS)
    assert numbers(derived, "a") == {"nt_mm_error": 1, "nt_mm_abs_error": 1}
    assert numbers(derived, "b") == {"nt_mm_error": -1, "nt_mm_abs_error": 1}
    assert all(np.isnan(list(numbers(derived, name).values())).all() for name in "defg")
    spread = 1.96 * 2 ** 0.5
    assert numbers(derived) == pytest.approx({"nt_mm_loa_low": 1 - spread, "nt_mm_loa_high": 1 + spread,
                                              "nt_mm_missed": 1, "nt_mm_spurious": 2})
    assert all(set(row) == set(PAIRS[0]) and type(row["value"]) is float for row in derived)
    (case,) = [row for row in derived if row["case"] == "c2" and row["metric"] == "nt_mm_error"]
    assert case == result(1, "c", 2.0, "nt_mm_error", case="c2")
    assert all([row[key] for key in ("study", "run", "case")] == ["s", "r", ""] for row in derived if row["patient"] == "")
    assert [row["fold"] for row in derived if row["metric"] == "nt_mm_missed"] == [0, 1, ""]


def test_a_size_of_0_is_none():
    """Of a region: predicted 0 of 4 is a miss, 3 of 0 is spurious, 0 of 0 is neither. Of a share, 0 is a value."""
    pairs = [(0.0, 4.0), (3.0, 0.0), (0.0, 0.0), (2.0, 2.0), (5.0, float("nan"))]
    for metric, expected in (("volume_ml", (1, 2)), ("area_px", (1, 2)), ("visible_share", (0, 1))):
        rows = [result(0, f"p{n}", value, f"{metric}{ending}") for n, pair in enumerate(pairs)
                for ending, value in zip(("", "_true"), pair)]
        found = numbers(agreement(rows))
        assert (found[f"{metric}_missed"], found[f"{metric}_spurious"]) == expected


def test_agreement_is_summarised():
    rows = PAIRS + GAPS
    summary = summarise(rows + agreement(rows)).set_index("metric")
    assert list(summary.index) == ["nt_mm", "nt_mm_true", "nt_mm_error", "nt_mm_abs_error", "nt_mm_loa_low",
                                   "nt_mm_loa_high", "nt_mm_missed", "nt_mm_spurious"]
    bias, absolute, low, missed = (summary.loc[f"nt_mm_{name}"] for name in ("error", "abs_error", "loa_low", "missed"))
    # fold 0: errors 1 and -1; fold 1: 2 and 2
    assert (bias["folds"], bias["mean"], bias["estimate"], bias["patients"]) == approx(2, 1, 1, 3)
    assert (absolute["mean"], absolute["sd"], absolute["estimate"]) == approx(1.5, 0.5 ** 0.5, 1.5)
    # Resamples of a (1), b (-1), c (2 and 2): from -1 (bbb) to 2 (ccc), each 1 in 27.
    assert (bias["ci_low"], bias["ci_high"]) == approx(-1, 2)
    # neither fold has the three errors that limits need; the one that is missed is of fold 0
    assert (low["folds"], low["mean"], low["estimate"]) == approx(0, NAN, 1 - 1.96 * 2 ** 0.5)
    assert (missed["estimate"], missed["mean"], missed["fold0"], missed["fold1"]) == (1, 0.5, 1, 0)


def test_limits_misses_and_inventions_have_intervals():
    rows = PAIRS + GAPS
    found = agreement_intervals(rows)
    assert list(found) == [("stroke", f"nt_mm_{name}") for name in ("loa_low", "loa_high", "missed", "spurious")]
    of = {row["case"]: row["value"] for row in agreement(rows) if row["metric"] == "nt_mm_error" and row["patient"]}
    patients = ["a", "b", "c", "c", "d", "e", "f", "g"]
    errors = np.array(list(of.values()))
    lows, missed = [], []
    for cases in slow_draws(patients):
        known = errors[cases][~np.isnan(errors[cases])]
        lows.append(known.mean() - 1.96 * known.std(ddof=1) if len(known) > 2 else NAN)
        missed.append(np.count_nonzero(np.array(patients)[cases] == "d"))
    assert found["stroke", "nt_mm_loa_low"] == pytest.approx(np.nanquantile(lows, [0.025, 0.975]), abs=1e-9)
    assert found["stroke", "nt_mm_missed"] == pytest.approx(np.quantile(missed, [0.025, 0.975]))
    one = agreement_intervals([row for row in PAIRS if row["patient"] == "c"])
    assert all(np.isnan(limits).all() for limits in one.values())
    assert agreement_intervals(CASES) == {}


def test_what_has_no_truth_beside_it_has_no_agreement():
    assert agreement([]) == [] and agreement(CASES + SETS) == []
    alone = [result(0, "z", 7.0, "nt_mm")]  # a case without truth among others
    assert str(agreement(PAIRS + alone)) == str(agreement(PAIRS))  # with its NaN, which equals nothing
    # yes or no, another class's truth, and rows of the whole set
    assert agreement(read_off("a", 1.0, 0.0, metric="present")) == []
    assert agreement([result(0, "a", 1.0, "x", "one"), result(0, "a", 1.0, "x_true", "two")]) == []
    assert agreement([result(0, "", 1.0, "x"), result(0, "", 1.0, "x_true")]) == []
    # a true value without a predicted row is missed too
    assert numbers(agreement([*PAIRS, result(0, "z", 2.0, "nt_mm_true")]))["nt_mm_missed"] == 1


def test_agreement_keeps_classes_metrics_and_folds_apart():
    rows = [{**row, "class": name, "metric": row["metric"].replace("nt_mm", metric)}
            for name, metric in (("x", "nt_mm"), ("x", "nt_px"), ("y", "nt_mm")) for row in PAIRS]
    derived = agreement(rows)
    found = list(dict.fromkeys((row["class"], row["metric"]) for row in derived if "_missed" in row["metric"]))
    assert found == [("x", "nt_mm_missed"), ("x", "nt_px_missed"), ("y", "nt_mm_missed")]
    assert len(derived) == 3 * (4 + 4 + 3 * 4)  # errors, their sizes, and four numbers of two folds and of all
    assert [row["value"] for row in derived if row["metric"] == "nt_px_missed"] == [0, 0, 0]
    assert [row["fold"] for row in derived if row["metric"] == "nt_px_missed"] == [0, 1, ""]
    # one case held by two folds
    twice = agreement([*read_off("a", 3.0, 2.0, fold=0), *read_off("a", 7.0, 2.0, fold=1)])
    assert [(row["fold"], row["value"]) for row in twice if row["metric"] == "nt_mm_error"] == [(0, 1), (1, 5)]


def test_limits_of_agreement():
    assert limits_of_agreement([1.0, 2.0, 3.0, NAN]) == approx(2 - 1.96, 2 + 1.96)
    assert limits_of_agreement([1.0, 1.0, 1.0]) == approx(1, 1)
    for few in ([], [NAN, NAN, NAN], [1.0, 2.0], [1.0, 2.0, NAN]):
        assert limits_of_agreement(few) == approx(NAN, NAN)
    weights = np.array([[1, 2, 0, 1], [1, 0, 1, 0], [1, 1, 1, 1], [7, 7, 7, 7]], float)
    weighted = np.transpose(limits_of_agreement([1.0, 2.0, 4.0, NAN], weights))
    for column, again in enumerate(([1.0, 2.0, 4.0], [1.0, 1.0, 4.0], [2.0, 4.0], [1.0, 4.0])):
        assert weighted[column] == approx(*limits_of_agreement(again))
    normal = np.random.default_rng(0).normal(3, 2, size=20_000)
    low, high = limits_of_agreement(normal)
    assert ((normal > low) & (normal < high)).mean() == pytest.approx(0.95, abs=0.005)
