"""Labels by which patients are dealt into folds: lesion present, tertile of its size, share of what lies inside it."""

from __future__ import annotations

from typing import Sequence

import numpy as np

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
