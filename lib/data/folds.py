"""Who is where: K stratified folds with a validation set each, or the raw data's own subsets. A patient is never split."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Sequence

import numpy as np

from lib.data.case import Header
from lib.study import Folds, InputError


EXTERNAL = "external"  # the subset of extra test folders


def deal_folds(patients: Sequence[str], strata: Sequence[Sequence[str]], folds: Folds) -> dict[str, int]:
    """patient -> the fold that tests it, stratified and seeded.

    strata: per patient, labels from fine to coarse; a stratum with fewer patients than folds is too rare to be
    spread evenly, so its patients go by their next coarser label. Raises InputError for fewer patients than folds.
    """
    from sklearn.model_selection import StratifiedKFold

    check_folds(len(patients), folds)
    labels = merge_rare(strata, folds.k)
    splitter = StratifiedKFold(folds.k, shuffle=True, random_state=folds.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the rest of the rare strata may be smaller than k
        dealt = splitter.split(np.zeros(len(patients)), labels)
        return {patients[i]: fold for fold, (_, test) in enumerate(dealt) for i in test}


def check_folds(patients: int, folds: Folds) -> None:
    """Raise InputError for fewer patients than folds. patients: those outside of extra test folders."""
    if patients < 2:
        raise InputError(f"{patients} patient{'s' if patients != 1 else ''} found: cross-validation needs at least 2")
    if patients < folds.k:
        raise InputError(f"{patients} patients cannot be dealt into {folds.k} folds: use -k {patients} or fewer")


def merge_rare(strata: Sequence[Sequence[str]], least: int) -> list[str]:
    """One label per patient: the finest that at least `least` patients share, else `other`."""
    labels = [""] * len(strata)
    for level in range(max(map(len, strata), default=0)):
        waiting = [i for i, label in enumerate(labels) if not label]
        counts = Counter(strata[i][level] for i in waiting)
        for i in waiting:
            if counts[strata[i][level]] >= least:
                labels[i] = strata[i][level]
    return [label or "other" for label in labels]


def draw_validation(test_fold: dict[str, int], strata: dict[str, Sequence[str]], folds: Folds,
                    count: int | None = None) -> list[set[str]]:
    """Validation patients of each of `count` folds (default: all): a stratified share of those it does not test.

    Patients that have validated least often go first, so that with three folds or more every patient trains in
    some fold (with two folds each patient is free in one fold only, and its validation patients never train).
    A share that rounds to no patient, or would leave none to train on, gives an empty set.
    """
    validated = Counter()
    drawn = []
    for fold in range(folds.k if count is None else count):
        random = np.random.default_rng([folds.seed, fold, 20])
        rest = sorted(p for p, f in test_fold.items() if f != fold)
        wanted = round(folds.valid_proportion * len(rest))
        if wanted >= len(rest):
            wanted = 0
        by_stratum: dict[str, list[str]] = {}
        for patient in rest:
            by_stratum.setdefault(strata[patient][0], []).append(patient)
        chosen: set[str] = set()
        # a proportional quota per stratum, by largest remainder (Hamilton's method), ties broken at random
        shares = {s: wanted * len(members) / len(rest) for s, members in by_stratum.items()} if rest else {}
        quota = {s: int(share) for s, share in shares.items()}
        remainders = sorted(shares, key=lambda s: (-(shares[s] - quota[s]), random.random()))
        for stratum in remainders[:wanted - sum(quota.values())]:
            quota[stratum] += 1
        for stratum, members in by_stratum.items():
            order = sorted(members, key=lambda p: (validated[p], random.random()))
            chosen.update(order[:quota[stratum]])
        if count is None and folds.k > 2:  # free in K-1 folds, a patient may validate in K-2 and still train in one
            chosen = _spare(chosen, rest, validated, folds.k - 2, random)
        validated.update(chosen)
        drawn.append(chosen)
    return drawn


def _spare(chosen: set[str], rest: list[str], validated: Counter, most: int, random) -> set[str]:
    """Swap patients that would validate more than `most` times for those that validated least."""
    kept = {p for p in chosen if validated[p] < most}
    spare = sorted((p for p in rest if p not in chosen and validated[p] < most), key=lambda p: (validated[p], random.random()))
    return kept | set(spare[:len(chosen) - len(kept)])


def split_rows(test_fold: dict[str, int], validation: list[set[str]]) -> list[dict]:
    """Rows of splits.csv, the only word on who is where: fold, patient, subset."""
    rows = []
    for fold, drawn in enumerate(validation):
        for patient, tested_in in test_fold.items():
            subset = "test" if tested_in == fold else "validation" if patient in drawn else "train"
            rows.append({"fold": fold, "patient": patient, "subset": subset})
    return rows


def external_patients(headers: Sequence[Header], patients: Sequence[str]) -> set[str]:
    """Patients of extra test folders: never trained on, and tested by all folds together.

    Raises InputError for one who (or whose very image) is among the others too.
    """
    external = {patient: header.case for header, patient in zip(headers, patients) if header.subset == EXTERNAL}
    for header, patient in zip(headers, patients):
        if patient in external and header.subset != EXTERNAL:
            raise InputError(f"patient {patient} is in a test folder ({external[patient]}) and outside of it "
                             f"({header.case}). A model would be judged on a patient it knows: move one of them, or leave "
                             "the folder out of data.reader.test_folders")
    return set(external)


def predefined_subsets(headers: Sequence[Header], patients: Sequence[str]) -> dict[str, str]:
    """patient -> train, validation or test, where the raw data says so; else {}.

    Raises InputError for a patient (or one and the same image) in two of them.
    """
    subsets: dict[str, tuple[str, str]] = {}  # patient -> subset, and the case that says so
    for header, patient in zip(headers, patients):
        if header.subset and header.subset != EXTERNAL:
            subset, case = subsets.setdefault(patient, (header.subset, header.case))
            if subset != header.subset:
                raise InputError(f"patient {patient} is in two subsets: {case} in {subset}, {header.case} in "
                                 f"{header.subset}. A model would be judged on a patient it knows: move one of them, or "
                                 "let FoldScan deal all of it into folds with --set data.folds.pool=true")
    return {patient: subset for patient, (subset, _) in subsets.items()}


def subset_rows(subsets: dict[str, str], strata: dict[str, Sequence[str]], folds: Folds) -> tuple[list[dict], list[str]]:
    """Rows of splits.csv of the one fold that predefined subsets make, and what the user should know.

    Where none is for validation, a share of the training patients is drawn. Raises InputError without training
    patients.
    """
    counts, notes = Counter(subsets.values()), []
    if not counts["train"]:
        raise InputError("no training cases: the predefined subsets hold only " + " and ".join(sorted(counts)))
    drawn: set[str] = set()
    if not counts["validation"]:
        rest = {patient: strata[patient] for patient, subset in subsets.items() if subset == "train"}
        drawn = draw_validation(dict.fromkeys(rest, -1), rest, folds, count=1)[0]
        notes.append(f"no validation folder: {len(drawn)} of {counts['train']} training patients validate" if drawn else
                     "no validation folder, and none to draw from the training patients: the LAST epoch will be kept")
    if not counts["test"]:
        notes.append("no test folder: script 4 will score the validation cases, which have chosen the epoch")
    rows = [{"fold": 0, "patient": p, "subset": "validation" if p in drawn else s} for p, s in subsets.items()]
    return rows, notes
