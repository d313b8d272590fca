"""lib.data.folds: patients dealt by hand-checked rules, and what must hold for every size, seed and proportion."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lib.data.case import Header
from lib.data.folds import deal_folds, draw_validation, merge_rare, predefined_subsets, split_rows, subset_rows
from lib.data.tables import alike_notes, group_duplicates
from lib.imaging.geometry import Geometry
from lib.study import Folds, InputError
from lib.tasks.base import Task

SEEDS = range(4)


def cohort(count: int, seed: int) -> dict[str, list[str]]:
    """Patients with strata of uneven sizes: fine label, coarse label, coarsest label."""
    random = np.random.default_rng(seed)
    names = [f"p{number:03d}" for number in random.permutation(count)]
    lesions = random.choice(["none", "small", "large"], count, p=[0.2, 0.5, 0.3])
    visible = random.choice(["part", "most"], count)
    return {name: [f"{lesion}, {share}", lesion, "absent" if lesion == "none" else "present"]
            for name, lesion, share in zip(names, lesions, visible)}


def dealt(strata: dict, folds: Folds) -> tuple[dict[str, int], list[set[str]]]:
    test_fold = deal_folds(list(strata), list(strata.values()), folds)
    return test_fold, draw_validation(test_fold, strata, folds)


def many(ks=(3, 4, 5, 10), proportions=(0.0, 0.1, 0.2, 1 / 3, 0.5, 0.9)):
    """(strata, folds, test fold of each patient, validation patients of each fold), for many data sets."""
    for k in ks:
        for count in (k, k + 1, 2 * k + 1, 5 * k - 1, 47):
            for seed in SEEDS:
                strata = cohort(count, seed)
                for proportion in proportions:
                    folds = Folds(k, proportion, seed)
                    yield strata, folds, *dealt(strata, folds)


def test_rows_by_hand():
    """Three folds of one patient each; fold 0 validates on b, the others on nobody."""
    rows = split_rows({"a": 0, "b": 1, "c": 2}, [{"b"}, set(), set()])
    table = {fold: {r["patient"]: r["subset"] for r in rows if r["fold"] == fold} for fold in range(3)}
    assert table == {0: {"a": "test", "b": "validation", "c": "train"},
                     1: {"a": "train", "b": "test", "c": "train"},
                     2: {"a": "train", "b": "train", "c": "test"}}
    assert len(rows) == 9


def test_two_even_strata_by_hand():
    """Six of each kind into three folds: two of each kind in every fold."""
    strata = {f"p{i}": ["ill" if i % 2 else "well"] for i in range(12)}
    test_fold, validation = dealt(strata, Folds(3, 0.5, 0))
    for fold in range(3):
        assert Counter(strata[p][0] for p, f in test_fold.items() if f == fold) == {"ill": 2, "well": 2}
        # half of the other eight, half of each stratum
        assert Counter(strata[p][0] for p in validation[fold]) == {"ill": 2, "well": 2}


def test_rare_strata_go_by_their_next_coarser_label():
    """Three folds: `a1` has 3 patients and stays; a2 + a3 make 3 of `a`; b1 and c1 are too few at every level."""
    strata = [["a1", "a"], ["a1", "a"], ["a1", "a"], ["a2", "a"], ["a2", "a"], ["a3", "a"], ["b1", "b"], ["c1", "c"]]
    assert merge_rare(strata, 3) == ["a1"] * 3 + ["a"] * 3 + ["other"] * 2
    assert merge_rare([], 3) == []


def test_patients_of_strata_too_rare_at_first_count_together_at_the_next_level():
    """With k = 4 no fine label suffices (3, 2, 1), but the six of them share `a`."""
    strata = [["a1", "a"]] * 3 + [["a2", "a"]] * 2 + [["a3", "a"]] + [["b1", "b"]]
    assert merge_rare(strata, 4) == ["a"] * 6 + ["other"]


def test_each_fold_tests_its_share_of_every_stratum():
    for strata, folds, test_fold, _ in many(proportions=(0.2,)):
        labels = dict(zip(strata, merge_rare(list(strata.values()), folds.k)))
        sizes = Counter(test_fold.values())
        assert set(sizes) == set(range(folds.k)) and max(sizes.values()) - min(sizes.values()) <= 1
        for label, members in Counter(labels.values()).items():
            for fold in range(folds.k):
                found = sum(labels[p] == label for p, f in test_fold.items() if f == fold)
                assert abs(found - members / folds.k) < 1


def test_no_patient_is_in_two_subsets_and_each_is_tested_once():
    for strata, folds, test_fold, validation in many():
        rows = split_rows(test_fold, validation)
        assert len(rows) == folds.k * len(strata)
        assert len({(r["fold"], r["patient"]) for r in rows}) == len(rows)
        tested = [r["patient"] for r in rows if r["subset"] == "test"]
        assert sorted(tested) == sorted(strata)
        for fold, drawn in enumerate(validation):
            assert drawn <= {p for p, f in test_fold.items() if f != fold}
            assert any(r["fold"] == fold and r["subset"] == "train" for r in rows)


def test_every_patient_trains_in_some_fold():
    """The seed marked one fixed fifth of the patients that never trained anywhere."""
    for strata, folds, test_fold, validation in many():
        training = {r["patient"] for r in split_rows(test_fold, validation) if r["subset"] == "train"}
        assert training == set(strata), folds


def test_the_validation_share_is_as_asked():
    """Of the patients that a fold does not test, rounded; as much as three folds can give is a half."""
    for strata, folds, test_fold, validation in many(proportions=(0.0, 0.1, 0.2, 1 / 3)):
        for fold, drawn in enumerate(validation):
            rest = sum(f != fold for f in test_fold.values())
            wanted = round(folds.valid_proportion * rest)
            assert len(drawn) == (wanted if wanted < rest else 0), (folds, len(strata))


def test_v_takes_effect():
    """20 patients, 5 folds: 16 are free in each fold."""
    strata = {f"p{i}": ["same"] for i in range(20)}
    for proportion, expected in ((0.0, 0), (0.1, 2), (0.25, 4), (0.5, 8)):
        assert [len(v) for v in dealt(strata, Folds(5, proportion, 0))[1]] == [expected] * 5


def test_validation_is_stratified():
    """40 patients, 30 ill: of the 30 or so free ones, a fifth validates, ill and well in proportion within 1."""
    strata = {f"p{i}": ["ill" if i % 4 else "well"] for i in range(40)}
    for seed in SEEDS:
        folds = Folds(4, 0.2, seed)
        test_fold, validation = dealt(strata, folds)
        for fold, drawn in enumerate(validation):
            rest = [p for p, f in test_fold.items() if f != fold]
            for label in ("ill", "well"):
                share = len(drawn) * sum(strata[p][0] == label for p in rest) / len(rest)
                assert abs(sum(strata[p][0] == label for p in drawn) - share) < 1


def test_validation_is_drawn_anew_for_each_fold():
    """Ten folds, a fifth each: nobody validates much more often than others (1.8 times on average)."""
    strata = {f"p{i}": ["same"] for i in range(50)}
    times = Counter(p for drawn in dealt(strata, Folds(10, 0.2, 0))[1] for p in drawn)
    assert len(times) == 50 and max(times.values()) <= 3


def test_the_seed_decides():
    strata = cohort(40, 0)
    assert dealt(strata, Folds(5, 0.2, 1)) == dealt(strata, Folds(5, 0.2, 1))
    assert dealt(strata, Folds(5, 0.2, 1))[0] != dealt(strata, Folds(5, 0.2, 2))[0]
    test_fold, validation = dealt(strata, Folds(5, 0.2, 1))
    assert draw_validation(test_fold, strata, Folds(5, 0.2, 2)) != validation


@pytest.mark.parametrize("count, k, message", [
    (3, 5, "3 patients cannot be dealt into 5 folds: use -k 3 or fewer"),
    (2, 10, "2 patients cannot be dealt into 10 folds: use -k 2 or fewer"),
    (1, 2, "1 patient found: cross-validation needs at least 2"),
    (0, 2, "0 patients found: cross-validation needs at least 2"),
])
def test_fewer_patients_than_folds_is_said_with_the_remedy(count, k, message):
    with pytest.raises(InputError) as caught:
        deal_folds([f"p{i}" for i in range(count)], [["same"]] * count, Folds(k))
    assert str(caught.value) == message


def test_two_folds_swap_roles():
    for count in (2, 3, 7, 20):
        strata = cohort(count, 1)
        test_fold, validation = dealt(strata, Folds(2, 0.25, 0))
        for fold, drawn in enumerate(validation):
            rest = {p for p, f in test_fold.items() if f != fold}
            assert drawn < rest and len(drawn) == round(0.25 * len(rest))


def test_as_many_folds_as_patients():
    """Leave one out: every fold tests one patient, and every patient differs in every way."""
    strata = {f"p{i}": [f"kind {i}"] for i in range(5)}
    test_fold, validation = dealt(strata, Folds(5, 0.25, 0))
    assert sorted(test_fold.values()) == [0, 1, 2, 3, 4]
    assert [len(v) for v in validation] == [1] * 5


# --- predefined subsets ----------------------------------------------------------------------------------------------

def headers_of(*rows: tuple[str, str, str]) -> list[Header]:
    """(case, patient, subset) of each."""
    return [Header(case, patient, {}, Geometry((1, 8, 8), None, flat=True), 1, subset) for case, patient, subset in rows]


def subsets_of(*rows):
    headers = headers_of(*rows)
    return predefined_subsets(headers, [header.patient for header in headers])


def test_subsets_of_the_raw_data_are_kept():
    found = subsets_of(("a1", "a", "train"), ("a2", "a", "train"), ("b1", "b", "validation"), ("c1", "c", "test"))
    assert found == {"a": "train", "b": "validation", "c": "test"}
    rows, notes = subset_rows(found, {p: ["s"] for p in found}, Folds(5))
    assert rows == [{"fold": 0, "patient": p, "subset": s} for p, s in found.items()] and notes == []
    assert subsets_of(("a1", "a", ""), ("b1", "b", "")) == {}


def test_a_patient_in_two_subsets_is_named_with_both_cases():
    with pytest.raises(InputError, match="patient a is in two subsets: a1 in train, a2 in test.*data.folds.pool=true"):
        subsets_of(("a1", "a", "train"), ("b1", "b", "train"), ("a2", "a", "test"))


def test_without_a_validation_folder_a_share_of_the_training_patients_validates():
    found = {f"p{i}": "train" for i in range(10)} | {"t": "test"}
    rows, [note] = subset_rows(found, {p: ["s"] for p in found}, Folds(5, 0.3))
    counts = Counter(row["subset"] for row in rows)
    assert counts == {"train": 7, "validation": 3, "test": 1} and "3 of 10 training patients validate" in note
    rows, [note, _] = subset_rows({"a": "train"}, {"a": ["s"]}, Folds(5))
    assert rows == [{"fold": 0, "patient": "a", "subset": "train"}] and "LAST epoch" in note
    with pytest.raises(InputError, match="no training cases: the predefined subsets hold only test"):
        subset_rows({"a": "test"}, {"a": ["s"]}, Folds(5))


def test_names_that_are_almost_the_same_are_noted():
    note, = alike_notes(["P1", "p1", "P2", "7", "007", "7.0", "a10", "a1"])
    assert "007 and 7 and 7.0" in note and "P1 and p1" in note and "a1" not in note and "P2" not in note
    assert alike_notes(["P1", "P2", "P10", "P100"]) == []


class Labels(Task):
    def contradiction(self, one, other):
        return f"{one['class']} and {other['class']}" if one["class"] != other["class"] else ""


def test_the_same_images_may_not_be_of_two_classes():
    headers = [Header(case, patient, {}, Geometry((1, 2, 2), None), 1) for case, patient in (("a", "p"), ("b", "p"), ("c", "q"))]
    task = Labels(None, {}, {})
    facts = [{"content": "x", "class": "good"}, {"content": "x", "class": "good"}, {"content": "x", "class": "good"}]
    patients, notes = group_duplicates(headers, facts, task)
    assert patients == ["p"] * 3
    assert notes == ["b holds the very images of a, and both are counted", "c holds the very images of a: treated as one patient"]
    facts[2]["class"] = facts[1]["class"] = "poor"
    with pytest.raises(InputError, match="different truths.*\n  a and b: good and poor\n  a and c: good and poor"):
        group_duplicates(headers, facts, task)
