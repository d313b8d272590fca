"""Open what script 1 prepared: memory-mapped frames and targets, the tables, and the packed native truth."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from lib.data.folds import EXTERNAL
from lib.imaging.geometry import Fit, Geometry
from lib.study import InputError, Study, build, differences
from lib.workspace import Workspace, read_manifest, read_table, require_manifest, text_hash


@dataclass(frozen=True)
class CaseRecord:
    """A row of cases.csv. fit: from its native pixels into the grid; frames: its rows in frames.npy; samples: those in
    samples.csv and targets.npy; files: role -> path in the input folder."""
    index: int
    case: str
    patient: str
    geometry: Geometry
    fit: Fit
    frames: slice
    samples: slice
    content: str
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Samples:
    """Samples of some cases. frame, start, stop: int64 (S,) rows of frames.npy; rows: int64 (S,) rows of targets.npy.
    whole: each stands for its whole series, not for its frame."""
    rows: np.ndarray
    frame: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    whole: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen) -> Samples:
        return Samples(self.rows[chosen], self.frame[chosen], self.start[chosen], self.stop[chosen], self.whole)


class Prepared:
    """`prepared/` of a workspace, checked against its manifest. Arrays stay on disk unless `preload`."""

    def __init__(self, folder: Path, manifest: dict, preload: bool = False):
        self.folder, self.manifest = folder, manifest
        self.fingerprint: str = manifest["fingerprint"]
        self.channels: int = len(manifest["channels"])
        try:
            self.frames = np.load(folder / "frames.npy", mmap_mode=None if preload else "r")
            self.targets = np.load(folder / "targets.npy", mmap_mode=None if preload else "r")
        except (OSError, ValueError) as error:
            raise InputError(f"{folder} has unreadable arrays ({error}): run script 1 again") from None
        for name, array in (("frames", self.frames), ("targets", self.targets)):
            if list(array.shape) != manifest[f"{name}_shape"]:
                raise InputError(f"{folder / name}.npy does not have the shape in the manifest: run script 1 again")

    def check_unchanged(self) -> None:
        """Raise InputError if script 1 has replaced the folder since it was opened: numbers would mix two data sets."""
        now = read_manifest(self.folder)
        if now is None or now["fingerprint"] != self.fingerprint:
            raise InputError(f"{self.folder} was prepared anew while this ran: nothing was kept; run this again")

    @cached_property
    def samples(self) -> Samples:
        table = np.loadtxt(self.folder / "samples.csv", delimiter=",", skiprows=1, dtype=np.int64, comments=None,
                           quotechar='"', encoding="utf-8", usecols=(0, 3, 4, 5), ndmin=2)
        return Samples(*(np.ascontiguousarray(column) for column in table.T), whole=self.manifest.get("whole_series", False))

    @cached_property
    def cases(self) -> list[CaseRecord]:
        size = tuple(self.manifest["study"]["data"]["size"])
        records, frame, sample = [], 0, 0
        for index, row in enumerate(read_table(self.folder / "cases.csv")):
            geometry = read_geometry(row["geometry"])
            frames, samples = (slice(first, first + count) for first, count in ((frame, geometry.shape[0]),
                                                                                (sample, int(row["samples"]))))
            records.append(CaseRecord(index, row["case"], row["patient"], geometry, fit_of(geometry, size), frames, samples,
                                      row["content"], json.loads(row["files"])))
            frame, sample = frames.stop, samples.stop
        return records

    @cached_property
    def splits(self) -> dict[int, dict[str, str]]:
        """fold -> patient -> subset."""
        folds: dict[int, dict[str, str]] = {}
        for row in read_table(self.folder / "splits.csv"):
            folds.setdefault(int(row["fold"]), {})[row["patient"]] = row["subset"]
        return folds

    @cached_property
    def external(self) -> set[str]:
        """Patients of extra test folders, who train nowhere."""
        return {patient for where in self.splits.values() for patient, subset in where.items() if subset == EXTERNAL}

    def check_fold(self, fold: int) -> None:
        if fold not in self.splits:
            raise InputError(f"fold {fold} does not exist: {self.folder} has folds 0 to {max(self.splits)} "
                             f"({len(self.splits)} in all)")

    def patients(self, fold: int, subset: str) -> list[str]:
        self.check_fold(fold)
        return [patient for patient, where in self.splits[fold].items() if where == subset]

    def test_hash(self, fold: int) -> str:
        """Of the fold's test patients, without naming them: a model made for others is recognised by it."""
        return text_hash(self.fingerprint, sorted(self.patients(fold, "test")))

    def cases_of(self, fold: int, subset: str) -> list[CaseRecord]:
        patients = set(self.patients(fold, subset))
        return [case for case in self.cases if case.patient in patients]

    def samples_of(self, cases: list[CaseRecord]) -> Samples:
        rows = [np.arange(case.samples.start, case.samples.stop) for case in cases]
        return self.samples.take(np.concatenate(rows) if rows else np.empty(0, np.int64))

    def truth(self, case: CaseRecord) -> np.ndarray:
        """Native truth of a case, as the task made it: of a segmentation bool (classes, frames, rows, columns), of others
        float32."""
        path = truth_path(self.folder, case.index)
        try:
            packed = np.load(path)
        except (OSError, ValueError):
            raise InputError(f"{path} cannot be read: run script 1 again") from None
        if packed.dtype != np.uint8:  # no masks
            return packed
        *others, columns = case.geometry.shape
        if list(packed.shape[-3:]) != [*others, -(-columns // 8)]:
            raise InputError(f"{path} does not hold the truth of {case.case}: run script 1 again")
        return np.unpackbits(packed, axis=-1, count=columns).view(bool)


def truth_path(folder: Path, index: int) -> Path:
    return folder / "truth" / f"{index:06d}.npy"


def save_truth(folder: Path, index: int, truth: np.ndarray) -> None:
    """Write the native truth of a case; masks, bool (..., frames, rows, columns), eight pixels of a row to the byte."""
    np.save(truth_path(folder, index), np.packbits(truth, axis=-1) if truth.dtype == bool else truth)


def fit_of(geometry: Geometry, size: tuple[int, int]) -> Fit:
    """How a case's frames lie in the study's grid."""
    return Fit.of(geometry.shape[1:], size, geometry.spacing[1:])


class Rows:
    """A new .npy file of a known shape, filled rows at a time from several threads; nothing of it stays in memory."""

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...]):
        np.lib.format.open_memmap(path, "w+", dtype, shape)  # the header, and as many zeros
        self.dtype, self.row_bytes = dtype, int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        self.offset = path.stat().st_size - shape[0] * self.row_bytes
        self._file = path.open("r+b", buffering=0)

    def write(self, start: int, rows: np.ndarray) -> None:
        """Put rows (n, ...) at row `start`."""
        left = memoryview(np.ascontiguousarray(rows, self.dtype)).cast("B")
        place = self.offset + int(start) * self.row_bytes
        while left:
            written = os.pwrite(self._file.fileno(), left, place)
            left, place = left[written:], place + written

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *error) -> None:
        self._file.close()


def geometry_text(geometry: Geometry) -> str:
    """As cases.csv holds it."""
    return json.dumps(asdict(geometry))


def read_geometry(text: str) -> Geometry:
    found = json.loads(text)
    spacing = found.pop("spacing_mm")
    return Geometry(tuple(found.pop("shape")), spacing and tuple(spacing), **found)


def open_prepared(space: Workspace, study: Study, overrides: list[str], preload: bool = False) -> tuple[Prepared, Study]:
    """The prepared data, and the study with its `data:` section as it was prepared.

    Raises InputError if nothing is prepared, if a `--set` touches a data key, or if the study's data keys have
    changed since.
    """
    manifest = require_manifest(space.prepared, f"python 1-DataPreparation.py {space.arguments}")
    prepared_study = manifest["study"]
    if prepared_study["name"] != study.name:
        raise InputError(f"{space.prepared} was prepared for study {prepared_study['name']!r}, not {study.name!r}: "
                         "name that study with -s, or another workspace with -o")
    touched = [text for text in overrides if text.split("=")[0].split(".")[0] == "data"]
    if touched:
        raise InputError(f"--set {touched[0]}: data keys are fixed when the data is prepared; give it to "
                         "1-DataPreparation.py instead")
    changed = [line for line in differences(manifest["data_as_written"], study.to_dict()["data"], "data")
               if not line.startswith("data.input:")]  # moving the raw files changes nothing that is prepared
    if changed:
        raise InputError("the study's data keys have changed since the data was prepared ("
                         + "; ".join(changed) + "): run 1-DataPreparation.py again")
    study = build(Study, {**study.to_dict(), "data": prepared_study["data"]}, "")
    return Prepared(space.prepared, manifest, preload), study
