"""A folder per case with NIfTI volumes: one file per channel, one per region; the brain mask is optional."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Sequence

import numpy as np

from lib.imaging.brainmask import METHODS, brain_mask
from lib.imaging.geometry import Geometry
from lib.imaging.nifti import VolumeError, canonical_geometry, read_header, read_volume
from lib.data.case import Case, CaseError, Header, Scan
from lib.progress import READING, bar
from lib.readers.names import check_name, check_pattern, class_numbers, natural, patient_of, printable
from lib.study import Data, InputError, one_of, require

SUFFIXES = (".nii.gz", ".nii")
BRAIN = "brain"  # the region that is computed when no file gives it
SAME_PLACE = 0.25  # of the smallest voxel side: how far apart two files may put one voxel
SOFT = 1e-3  # scaled files say 1.0000001 for 1
# a method of lib.imaging.brainmask -> the threshold that it sets
THRESHOLDS = {"otsu": "Otsu's threshold", "percentile": "a fifth of the way from the 2nd to the 98th percentile"}


@dataclass(frozen=True)
class NiftiFolders:
    """`data.reader` of a NIfTI study.

    channels, truth: name -> file names without suffix, tried in order. brain_mask: how a missing brain mask is
    computed, or `none` if the study has no brain. patient_pattern: regular expression whose first group (or whole
    match) in the folder's name is the patient; empty means that every folder is its own patient. Truth files with
    several labels need the voxel values of each class in `data.classes`.
    """
    data: Data
    channels: dict[str, str | tuple[str, ...]]
    truth: dict[str, str | tuple[str, ...]]
    brain_mask: str = "otsu"
    patient_pattern: str = ""

    def __post_init__(self):
        require(len(self.data.classes) > 0, "data.classes", "none", "at least one class")
        require(len(self.channels) > 0, "data.reader.channels", "none", "at least one channel")
        one_of(self.brain_mask, (*METHODS, "none"), "data.reader.brain_mask")
        for name in self.data.classes:
            if name not in self.truth and not (name == BRAIN and self.brain_mask != "none"):
                raise InputError(f"data.reader.truth: no file name for class {name!r}")
        for key, files in (("channels", self.channels), ("truth", self.truth)):
            for name, options in files.items():
                options = _names(options)
                require(bool(options) and all(options), f"data.reader.{key}.{name}", "no file name", "at least one")
                for option in options:
                    require(not option.endswith(SUFFIXES), f"data.reader.{key}.{name}", option,
                            "the name without .nii.gz or .nii")
        for name in self.truth:
            one_of(name, (*self.data.classes, BRAIN), "data.reader.truth")
        check_pattern(self.patient_pattern)
        _ = self._labels  # bad ones are found here

    @cached_property
    def _labels(self) -> dict[str, tuple[int, ...]]:
        """Class -> the voxel values that mean it."""
        return class_numbers(self.data)

    @property
    def channel_names(self) -> tuple[str, ...]:
        return tuple(self.channels)

    @property
    def expected(self) -> str:
        """What an input folder should hold."""
        return f"a folder per patient holding {', '.join(self.channels)} (see 'Input' in the README)"

    def headers(self, root: Path, labels: bool = True, new: bool = False) -> Scan:
        """Every case folder of `root` (links to folders too), in natural order of names.

        Raises InputError if there is no such folder.
        """
        if not root.is_dir():
            raise InputError(f"input folder {root} " + (
                "is a file: name the folder that holds a folder per patient" if root.exists() else
                "does not exist: make it, or name yours with -i/--input_data"))
        headers, problems, ignored = [], [], []
        folders = sorted((p for p in root.iterdir() if p.is_dir() and p.name[0] != "."), key=lambda p: natural(p.name))
        for folder in bar(folders, len(folders), READING, unit="case"):
            try:
                files = self._files(folder)
                if files:
                    headers.append(self._header(root, folder, files, labels, new or not labels))
                else:
                    ignored.append(printable(folder.name))
            except CaseError as error:
                problems.append(error.problem)
        if not headers and not problems and self._files(root):
            raise InputError(f"input folder {root} is itself a patient's folder: name the folder that holds a folder "
                             "per patient")
        return Scan(headers, problems, ignored)

    def read(self, root: Path, header: Header, labels: bool = True) -> Case:
        """Read one case. Raises CaseError naming the file."""
        shape = header.geometry.shape
        frames = np.empty((len(self.channels), *shape), np.float32)
        for index, name in enumerate(self.channels):
            frames[index] = self._channel(root, header, name)
        truth = {}
        for name in self.data.classes if labels else ():
            if name in header.files and name != BRAIN:
                truth[name] = self._region(root, header, name)
        brain = self._brain(root, header, frames)
        if labels and BRAIN in self.data.classes:
            truth[BRAIN] = brain
        return Case(header, frames, truth, brain)

    def methods(self, headers: Sequence[Header]) -> list[str]:
        """In how many cases the brain mask was computed, and how."""
        bare = sum(BRAIN not in header.files for header in headers) if self.brain_mask != "none" else 0
        whose = "all cases" if bare == len(headers) else f"the {bare:,} case{'s' * (bare != 1)} that had none"
        return [f"The brain mask of {whose} was computed: voxels above {THRESHOLDS[self.brain_mask]} in every median-filtered "
                "channel, the largest component of them, dilated by a voxel and filled."] if bare else []

    def has_truth(self, root: Path, case: str) -> bool:
        """Whether the case's folder holds any region but the brain."""
        return any(role != BRAIN and role not in self.channels for role in self._files(root / case))

    def _files(self, folder: Path) -> dict[str, Path]:
        """role -> file, of those present (a broken link is: it has to be reported)."""
        present = {}
        try:
            for role, names in {**self.truth, **self.channels}.items():
                paths = (folder / (name + suffix) for name in _names(names) for suffix in SUFFIXES)
                path = next((path for path in paths if path.is_file() or path.is_symlink()), None)
                if path is not None:
                    present[role] = path
        except OSError as error:
            raise CaseError(printable(folder.name), "", f"the folder cannot be read ({error.strerror})") from None
        return present

    def _header(self, root: Path, folder: Path, files: dict[str, Path], labels: bool, new: bool) -> Header:
        check_name(folder.name, "the folder")
        case = folder.name
        needed = [*self.channels, *(c for c in self.data.classes if labels and self._required(c))]
        for role in needed:
            if role not in files:
                first = _names({**self.truth, **self.channels}[role])[0]
                raise CaseError(case, f"{first}.nii.gz", f"missing from {folder}")
        if not labels:
            files = {role: path for role, path in files.items() if role in self.channels or role == BRAIN}
        first = None
        for role, path in sorted(files.items(), key=lambda item: item[0] not in self.channels):
            try:
                found = read_header(path)
            except VolumeError as error:
                raise CaseError(case, path.name, str(error)) from None
            if first is None:
                first, first_name = found, path.name
            elif found["shape"] != first["shape"]:
                raise CaseError(case, path.name, f"has shape {_by(found['shape'])}, but {first_name} has "
                                                 f"{_by(first['shape'])}; resample them to one grid")
            elif not _same_place(found, first):
                raise CaseError(case, path.name, f"has another affine than {first_name} (position, orientation or "
                                                 "voxel size differ); register or resample them to one grid")
        shape, spacing = canonical_geometry(first)
        relative = {role: path.relative_to(root).as_posix() for role, path in files.items()}
        # half a turn brings RAS rows (to anterior) and columns (to the left of the picture = the patient's right)
        # to the radiological view
        return Header(case, patient_of(case, case, self.patient_pattern, new), relative,
                      Geometry(shape, spacing, source=first, turn=2), len(self.channels))

    def _required(self, name: str) -> bool:
        return not (name == BRAIN and self.brain_mask != "none")

    def _volume(self, root: Path, header: Header, role: str) -> np.ndarray:
        file = header.files[role]
        try:
            volume = read_volume(root / file, header.geometry.source["orientation"])
        except VolumeError as error:
            raise CaseError(header.case, Path(file).name, str(error)) from None
        if volume.shape != header.geometry.shape:
            raise CaseError(header.case, Path(file).name, "changed while it was being read")
        return volume

    def _channel(self, root: Path, header: Header, name: str) -> np.ndarray:
        volume, file = self._volume(root, header, name), Path(header.files[name]).name
        low, high = float(volume.min()), float(volume.max())  # NaN and Inf show in one of the two
        if not (np.isfinite(low) and np.isfinite(high)):
            count = int(volume.size - np.count_nonzero(np.isfinite(volume)))
            raise CaseError(header.case, file, f"holds {count} NaN or infinite voxels")
        if low == high:
            raise CaseError(header.case, file, "is all zero" if low == 0 else f"every voxel is {low:g}")
        return volume

    def _region(self, root: Path, header: Header, name: str) -> np.ndarray:
        volume, file = self._volume(root, header, name), Path(header.files[name]).name
        low, high = float(volume.min()), float(volume.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise CaseError(header.case, file, "holds NaN or infinite voxels; expected a binary region")
        if name in self._labels:
            return np.isin(volume, self._labels[name])
        mask = volume > 0.5
        if high > SOFT and not mask.any():
            raise CaseError(header.case, file, f"has no value above 0.5 (its largest is {high:g}), but is not empty; "
                                               "expected a binary region (0 and 1)")
        # a soft mask in 0..1 or a mask of one value (such as 255) is binary once cut at 0.5; several labels are not
        if low < -SOFT or (high > 1 + SOFT and float(volume[mask].min()) != high):
            values = np.unique(volume)
            text = ", ".join(f"{v:g}" for v in values[:6]) + (" ..." if len(values) > 6 else "")
            raise CaseError(header.case, file, f"holds the values {text}; expected a binary region (0 and 1), or say "
                            f"in data.classes which values mean it, such as {{{name}: {values[-1]:g}}}")
        return mask

    def _brain(self, root: Path, header: Header, frames: np.ndarray) -> np.ndarray | None:
        if BRAIN in header.files:
            brain = self._region(root, header, BRAIN)
            if not brain.any():
                raise CaseError(header.case, Path(header.files[BRAIN]).name, "is an empty brain mask")
            return brain
        if self.brain_mask == "none":
            return None
        try:
            return brain_mask(list(frames), self.brain_mask)
        except ValueError as error:
            raise CaseError(header.case, "", f"no brain mask could be computed ({error}); add mask.nii.gz") from None


def _names(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _same_place(one: dict, other: dict) -> bool:
    """Whether two grids of one shape put their corners, and so all voxels, in the same places."""
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*one["shape"], 1]
    affines = np.array([one["affine"], other["affine"]])
    apart_mm = np.linalg.norm((corners @ (affines[0] - affines[1]).T)[:, :3], axis=1)
    return float(apart_mm.max()) <= SAME_PLACE * float(np.linalg.norm(affines[:, :3, :3], axis=1).min())


def _by(shape: list[int]) -> str:
    return " x ".join(map(str, shape))
