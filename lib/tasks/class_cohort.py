"""What the classes of a study's cases tell before training: notes for the user, strata, and folds that nobody can learn from."""

from __future__ import annotations

from collections import Counter
from typing import Sequence

from lib.study import InputError

UNBALANCED = 2  # times as many cases in the most frequent class as in the rarest: worth a line
SUBSETS = {"train": "training", "validation": "validation", "test": "test"}


def class_notes(classes: Sequence[str], facts: Sequence[dict]) -> list[str]:
    """A line for classes without any case, and one if some are much more frequent than others."""
    counts = Counter(fact["class"] for fact in facts)
    absent = [name for name in classes if not counts[name]]
    notes = [f"no case is of class {', '.join(absent)}: it can be neither learnt nor scored"] if absent else []
    present = [counts[name] for name in classes if counts[name]]
    if max(present, default=0) >= UNBALANCED * min(present, default=1):
        notes.append(f"classes are unbalanced: {', '.join(f'{counts[name]} {name}' for name in classes)} (training.sampler: "
                     "balanced or task.weights makes up for it; balanced_accuracy counts each class alike)")
    return notes


def class_strata(patients: Sequence[str], facts: Sequence[dict]) -> dict[str, list[str]]:
    """patient -> [class of most of its cases; of equally frequent ones that with the fewest cases of all]."""
    overall = Counter(fact["class"] for fact in facts)
    held: dict[str, Counter] = {}
    for patient, fact in zip(patients, facts):
        held.setdefault(patient, Counter())[fact["class"]] += 1
    return {patient: [min(own, key=lambda name: (-own[name], overall[name], name))] for patient, own in held.items()}


def check_class_splits(classes: Sequence[str], rows: Sequence[dict], facts: dict[str, list[dict]]) -> list[str]:
    """Notes on classes that a fold has nowhere in its training, validation or test part; see Task.check_splits.

    Raises InputError, for all folds at once, where the training cases of a fold are all of one class.
    """
    held: dict[str, dict[int, Counter]] = {subset: {} for subset in SUBSETS}
    for row in rows:
        if row["subset"] in held:
            counts = held[row["subset"]].setdefault(int(row["fold"]), Counter())
            counts.update(fact["class"] for fact in facts[row["patient"]])
    single = [f"fold {fold}: all {counts.total()} training cases are {next(iter(counts), 'missing')}"
              for fold, counts in sorted(held["train"].items()) if len(counts) < 2]
    if single:
        raise InputError("nothing can be learnt from a single class:\n  " + "\n  ".join(single) + "\nAdd cases of other classes, "
                         "or deal the patients otherwise: another data.folds.seed, a smaller -v, or more folds")
    known = {fact["class"] for own in facts.values() for fact in own}
    notes = []
    for subset, word in SUBSETS.items():
        absent = {name: [fold for fold, counts in sorted(held[subset].items()) if not counts[name]] for name in classes
                  if name in known}
        folds = len(held[subset])
        listed = [f"no {name}" + ("" if folds == 1 else f" in any of {folds} folds" if len(where) == folds else
                                  f" in fold {', '.join(map(str, where))}") for name, where in absent.items() if where]
        if listed:
            notes.append(f"among the {word} cases there is {'; '.join(listed)}" + (
                ": it cannot be learnt there" if subset == "train" else
                ": scores of that class are undefined there"))
    return notes
