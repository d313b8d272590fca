"""What tasks share whose structures may be absent, or change sides in a mirror: folds dealt by what is there, notes."""

from __future__ import annotations

from typing import Sequence

import numpy as np


def presence_strata(patients: Sequence[str], present: Sequence[np.ndarray], classes: Sequence[str], chosen: Sequence[str],
                    things: str) -> dict[str, list[str]]:
    """patient -> labels, fine to coarse: which of the classes `chosen` are there, and how many of all.

    present: of each case bool (classes,); those of a patient are taken together. things: what classes are, in the plural.
    """
    held: dict[str, list[np.ndarray]] = {}
    for patient, there in zip(patients, present):
        held.setdefault(patient, []).append(there)
    asked = [classes.index(name) for name in chosen]
    labels = {}
    for patient, ones in held.items():
        some, lack = np.any(ones, axis=0), len(classes) - float(np.mean([one.sum() for one in ones]))
        share = "all" if lack == 0 else "most" if lack <= 2 else "few"
        pattern = [", ".join(f"{classes[i]} {'present' if some[i] else 'absent'}" for i in asked)] if asked else []
        labels[patient] = [*pattern, f"{share} {things}"]
    return labels


def absence_notes(classes: Sequence[str], present: Sequence[np.ndarray]) -> list[str]:
    """A line for structures that some images lack. present: of each case bool (classes,)."""
    missing = dict(zip(classes, len(present) - np.sum(present, axis=0, dtype=int)))
    rare = ", ".join(f"{name} in {count}" for name, count in missing.items() if count)
    return [f"of {len(present)} images, no {rare}"] if rare else []


def mirror_notes(classes: Sequence[str]) -> list[str]:
    """A line for names that have a left and a right, of a study without `task.swap`."""
    sided = sorted({name for name in classes for side, other in (("left", "right"), ("right", "left"))
                    if name.lower().replace(side, other) in map(str.lower, classes) and side in name.lower()})
    return [f"{', '.join(sided)} change places in a mirror: say so in task.swap, or set augmentation.flip_columns to "
            "false"] if sided else []
