"""What tasks share whose structures may be absent, or change sides in a mirror: their keys, folds by what is there, notes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Sequence

import numpy as np

from lib.study import one_of, require
from lib.tasks.base import NamedTask


@dataclass(frozen=True)
class SidedTask(NamedTask):
    """A task that finds each of its classes once in a frame. Targets are float32, whether it is there among them.

    swap: class -> the class that it becomes in a mirror ({left_hip: right_hip}).
    """
    swap: dict[str, str] = field(default_factory=dict)

    things: ClassVar[str] = "structures"  # what classes are, in the plural

    @property
    def outputs(self) -> int:
        return len(self.classes)

    @property
    def targets_dtype(self) -> str:
        return "float32"

    @cached_property
    def swapped(self) -> dict[str, str]:
        return self.swap | {other: one for one, other in self.swap.items()}

    @property
    def mirror_order(self) -> list[int]:
        """Of each class the index of that which it becomes in a mirror."""
        return [self.classes.index(self.swapped.get(name, name)) for name in self.classes]

    def check_swap(self) -> None:
        """Raise InputError for names of no class, and for anything but pairs."""
        self.check_names(swap=self.swap)
        for one, other in self.swap.items():
            one_of(other, self.classes, f"task.swap.{one}")
        require(all(self.swapped[self.swapped[name]] == name for name in self.swapped), "task.swap", self.swap,
                "pairs: each class with one other")

    def check_window(self, window) -> None:
        """Raises InputError for a mirror that the network cannot see through."""
        require(not (window.mirror and self.swap), "window.mirror", "true with task.swap",
                "one of them: the mean of both views would mix the names that change sides")

    def strata(self, patients: Sequence[str], facts: Sequence[dict]) -> dict[str, list[str]]:
        """patient -> labels, fine to coarse: which of `data.folds.stratify` are there, and how many classes."""
        return presence_strata(patients, self.present_in(facts), self.classes, self.data.folds.stratify, self.things)

    def groups(self, present: np.ndarray) -> np.ndarray:
        """bool (S,): which samples the balanced sampler draws as often as all others: those that lack a class, from which
        absence is learnt."""
        return ~present.all(axis=1)


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
