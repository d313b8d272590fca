"""A folder per case with NIfTI volumes: one file per channel, one per region; the brain mask is optional."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lib.imaging.brainmask import METHODS, brain_mask
from lib.imaging.nifti import VolumeError, canonical_geometry, read_header, read_volume
from lib.data.case import Case, CaseError, CaseProblem, Header, Scan
from lib.study import Data, InputError, one_of, require

SUFFIXES = (".nii.gz", ".nii")
BRAIN = "brain"  # the region that is computed when no file gives it
SAME_AFFINE_MM = 1e-2


@dataclass(frozen=True)
class NiftiFolders:
    """`data.reader` of a NIfTI study.

    channels, truth: name -> file names without suffix, tried in order. brain_mask: how a missing brain mask is
    computed, or `none` if the study has no brain. label_values: region -> the voxel value that means it, for
    truth files with several labels. patient_pattern: regular expression whose first group (or whole match)
    in the folder's name is the patient; empty means that every folder is its own patient.
    """
    data: Data
    channels: dict[str, str | tuple[str, ...]]
    truth: dict[str, str | tuple[str, ...]]
    brain_mask: str = "otsu"
    label_values: dict[str, int] = field(default_factory=dict)
    patient_pattern: str = ""

    def __post_init__(self):
        require(len(self.channels) > 0, "data.reader.channels", "none", "at least one channel")
        one_of(self.brain_mask, (*METHODS, "none"), "data.reader.brain_mask")
        for name in self.data.classes:
            if name not in self.truth and not (name == BRAIN and self.brain_mask != "none"):
                raise InputError(f"data.reader.truth: no file name for class {name!r}")
        for name in (*self.truth, *self.label_values):
            one_of(name, (*self.data.classes, BRAIN), "data.reader.truth")
        try:
            re.compile(self.patient_pattern)
        except re.error as error:
            raise InputError(f"data.reader.patient_pattern: not a regular expression ({error})") from None

    @property
    def channel_names(self) -> tuple[str, ...]:
        return tuple(self.channels)

    def headers(self, root: Path, labels: bool = True) -> Scan:
        """Every case folder of `root`, in natural order of names. Raises InputError if there is no such folder."""
        if not root.is_dir():
            raise InputError(f"input folder {root} does not exist: make it, or name yours with -i/--input_data")
        headers, problems, ignored = [], [], []
        for folder in sorted((p for p in root.iterdir() if p.is_dir() and p.name[0] != "."), key=_natural):
            files = self._files(folder)
            if not files:
                ignored.append(folder.name)
                continue
            try:
                headers.append(self._header(root, folder, files, labels))
            except CaseError as error:
                problems.append(error.problem)
        return Scan(headers, problems, ignored)

    def read(self, root: Path, header: Header, labels: bool = True) -> Case:
        """Read one case. Raises CaseError naming the file."""
        shape = header.shape
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

    def _files(self, folder: Path) -> dict[str, Path]:
        present = {}
        for role, names in {**self.truth, **self.channels}.items():
            for name in (names,) if isinstance(names, str) else names:
                path = next((folder / (name + s) for s in SUFFIXES if (folder / (name + s)).is_file()), None)
                if path is not None:
                    present[role] = path
                    break
        return present

    def _header(self, root: Path, folder: Path, files: dict[str, Path], labels: bool) -> Header:
        case = folder.name
        needed = [*self.channels, *(c for c in self.data.classes if labels and self._required(c))]
        for role in needed:
            if role not in files:
                names = {**self.truth, **self.channels}[role]
                first = names if isinstance(names, str) else names[0]
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
            elif not np.allclose(found["affine"], first["affine"], atol=SAME_AFFINE_MM):
                raise CaseError(case, path.name, f"has another affine than {first_name} (position, orientation or "
                                                 "voxel size differ); register or resample them to one grid")
        shape, spacing = canonical_geometry(first)
        relative = {role: path.relative_to(root).as_posix() for role, path in files.items()}
        # half a turn brings RAS rows (to anterior) and columns (to the left of the picture = the patient's right)
        # to the radiological view
        return Header(case, self._patient(case), relative, shape, len(self.channels), spacing, first, turn=2)

    def _required(self, name: str) -> bool:
        return not (name == BRAIN and self.brain_mask != "none")

    def _patient(self, case: str) -> str:
        if not self.patient_pattern:
            return case
        match = re.search(self.patient_pattern, case)
        if match is None:
            raise CaseError(case, "", f"its name does not match data.reader.patient_pattern {self.patient_pattern!r}")
        return match.group(1) if match.groups() else match.group(0)

    def _volume(self, root: Path, header: Header, role: str) -> np.ndarray:
        file = header.files[role]
        try:
            volume = read_volume(root / file, header.source["orientation"])
        except VolumeError as error:
            raise CaseError(header.case, Path(file).name, str(error)) from None
        except OSError as error:
            raise CaseError(header.case, Path(file).name, f"cannot be read ({error.strerror})") from None
        if volume.shape != header.shape:
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
        if name in self.label_values:
            return volume == self.label_values[name]
        mask = volume > 0.5
        # a soft mask in 0..1 or a mask of one value (such as 255) is binary once cut at 0.5; several labels are not
        if low < 0 or (high > 1 and float(volume[mask].min()) != high):
            values = ", ".join(f"{v:g}" for v in np.unique(volume)[:6])
            raise CaseError(header.case, file, f"holds the values {values} ...; expected a binary region (0 and 1)")
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


def _natural(path: Path) -> list:
    """Patient_2 before Patient_10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.lower()) for part in re.split(r"(\d+)", path.name)]


def _by(shape: list[int]) -> str:
    return " x ".join(map(str, shape))
