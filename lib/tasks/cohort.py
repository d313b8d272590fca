"""What the cases of a study tell before training: notes for the user, and labels by which patients are dealt into folds."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from lib.data.case import Header
from lib.study import InputError

CUT_WARNING = 0.05  # share of a region outside its parent that deserves a line
HALF = 0.5  # of the parent's size: below it the inner region is a part, from it on most


def size_strata(patients: Sequence[str], facts: Sequence[dict], names: Sequence[str],
                  inside: dict[str, str]) -> dict[str, list[str]]:
    """patient -> labels, fine to coarse: all `names` together, the first one's label, whether the first is present.

    facts: per case, its `size_<name>`; the cases of a patient are added up. inside: region -> its parent.
    """
    sizes: dict[str, np.ndarray] = {}
    for patient, fact in zip(patients, facts):
        sizes[patient] = sizes.get(patient, 0) + np.array([fact[f"size_{n}"] for n in names])
    table = dict(zip(names, np.array(list(sizes.values())).T))
    labels = [share_labels(name, table[name], table[inside[name]]) if inside.get(name) in names
              else tertile_labels(name, table[name]) for name in names]
    present = [f"{names[0]} {'present' if v > 0 else 'absent'}" for v in table[names[0]]]
    return {patient: [", ".join(column[row] for column in labels), labels[0][row], present[row]]
            for row, patient in enumerate(sizes)}


def share_labels(name: str, size: np.ndarray, whole: np.ndarray) -> list[str]:
    share = size / np.maximum(whole, 1e-9)
    return [f"{name} " + ("none" if s == 0 else "part" if s < HALF else "most") for s in share]


def tertile_labels(name: str, size: np.ndarray) -> list[str]:
    """Tertiles of the sizes above 0."""
    low, high = np.quantile(size[size > 0], [1 / 3, 2 / 3]) if (size > 0).any() else (0, 0)
    return [f"{name} " + ("none" if v == 0 else "small" if v <= low else "medium" if v <= high else "large")
            for v in size]


def case_notes(classes: Sequence[str], inside: dict[str, str], headers: Sequence[Header],
               facts: Sequence[dict]) -> list[str]:
    """Lines for the user: regions that were cut by their parents, and how many cases are without a class.

    facts: per case, its `size_<name>` and `cut_<name>` (share that the parent cut off). Raises InputError for a region
    that lies wholly outside its parent in every case that has it: it was never meant so.
    """
    notes = []
    for name in classes:
        drawn = [fact[f"cut_{name}"] for fact in facts if fact[f"cut_{name}"] or fact[f"size_{name}"]]
        if drawn and min(drawn) == 1:
            raise InputError(f"{name} lies wholly outside {inside.get(name, 'its parent')} in all {len(drawn)} cases that "
                             "have it. If one file holds both as labels, let the outer region take both values, such as "
                             "classes: {liver: [1, 2], tumour: 2}, or use encoding: exclusive")
        notes += [f"{h.case}: {f[f'cut_{name}']:.0%} of {name} lies outside its parent region and was cut off; look at its "
                  "masks" for h, f in zip(headers, facts) if f[f"cut_{name}"] > CUT_WARNING]
        if len(drawn) < len(facts):
            notes.append(f"{len(facts) - len(drawn)} of {len(facts)} cases have no {name} (empty masks are kept)")
    return notes
