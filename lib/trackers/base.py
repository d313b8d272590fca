"""The face that a tracker shows, which is the tracker `none` too, and what all of them need to know of a run."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping

import numpy as np


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run: a fold of `group`, or (fold None) the parent of all its folds.

    group: name of the run, all folds together. config: nested plain values. workspace: where a tracker keeps its files.
    resume_id: `id` of an earlier tracker of the same run. parent_id: that of the parent's tracker.
    """
    project: str
    group: str
    fold: int | None
    workspace: Path
    config: Mapping = field(default_factory=dict)
    resume_id: str = ""
    parent_id: str = ""

    @property
    def name(self) -> str:
        return f"{self.group}-cv" if self.fold is None else f"{self.group}-k{self.fold}"

    @property
    def job_type(self) -> str:
        return "cross-validation" if self.fold is None else "fold"


class Tracker:
    """The face that training sees. As it stands it is the tracker `none`: it does nothing.

    `id` (str) is kept with the fold, so that a later call continues the same run; `where` says where to look.
    Steps never go back. A `with` block finishes the run, and marks it failed when an exception leaves it.
    """
    package = ""  # what pip installs when the import fails
    nests = False  # folds are runs beneath the parent, which must be there before them

    def __init__(self, run: TrackedRun):
        self.id = ""
        self.where = ""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of one step (epoch)."""

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """uint8 RGB pictures (H, W, 3) of one step, by name."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Single values of the whole run, such as the best epoch and its score. NaN: what had a value is not defined any more."""

    def artifact(self, path: Path | None, name: str, about: Mapping[str, Any]) -> None:
        """A file of the run, such as a model. about: plain values that identify it. path None: by reference, `about` alone."""

    def figures(self, figures: Mapping[str, Path]) -> None:
        """PNG files of the whole run, by name; a name may hold slashes."""

    def finish(self, failed: bool = False) -> None:
        """Close the run. Later calls of any method do nothing."""

    @staticmethod
    def abandon(error: BaseException) -> None:
        """Called in place of `finish` after a failure, also one of the constructor: see that nothing keeps the script from its
        end. Its end is not waited for, beyond some seconds."""

    @staticmethod
    def forget(workspace: Path, group: str) -> None:
        """Called before run `group` is trained with other settings: remove what the new parent would show of the old one."""

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.finish(failed=kind is not None)


def flat(values: Mapping, before: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; lists stay as they are, empty mappings are left out."""
    found = {}
    for key, value in values.items():
        name = f"{before}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def one_line(error: BaseException) -> str:
    return " ".join(f"{error}".split())[:200] or type(error).__name__


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
