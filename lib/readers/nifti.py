"""A folder per case with NIfTI volumes: one file per channel, one per region; the brain mask is optional."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lib.imaging.brainmask import METHODS, brain_mask
from lib.imaging.nifti import VolumeError, canonical_geometry, read_header, read_volume
from lib.data.case import Case, CaseError, Header, Scan
from lib.study import Data, InputError, one_of, require

SUFFIXES = (".nii.gz", ".nii")
BRAIN = "brain"  # the region that is computed when no file gives it
SAME_PLACE = 0.25  # of the smallest voxel side: how far apart two files may put one voxel
SOFT = 1e-3  # scaled files say 1.0000001 for 1


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
    label_values: dict[str, int | tuple[int, ...]] = field(default_factory=dict)
    patient_pattern: str = ""

    def __post_init__(self):
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
        for key, names in (("truth", self.truth), ("label_values", self.label_values)):
            for name in names:
                one_of(name, (*self.data.classes, BRAIN), f"data.reader.{key}")
        try:
            re.compile(self.patient_pattern)
        except re.error as error:
            raise InputError(f"data.reader.patient_pattern: not a regular expression ({error})") from None

    @property
    def channel_names(self) -> tuple[str, ...]:
        return tuple(self.channels)

    def headers(self, root: Path, labels: bool = True) -> Scan:
        """Every case folder of `root` (links to folders too), in natural order of names.

        Raises InputError if there is no such folder.
        """
        if not root.is_dir():
            raise InputError(f"input folder {root} " + (
                "is a file: name the folder that holds a folder per patient" if root.exists() else
                "does not exist: make it, or name yours with -i/--input_data"))
        headers, problems, ignored = [], [], []
        for folder in sorted((p for p in root.iterdir() if p.is_dir() and p.name[0] != "."), key=_natural):
            try:
                files = self._files(folder)
                if files:
                    headers.append(self._header(root, folder, files, labels))
                else:
                    ignored.append(_printable(folder.name))
            except CaseError as error:
                problems.append(error.problem)
        if not headers and not problems and self._files(root):
            raise InputError(f"input folder {root} is itself a patient's folder: name the folder that holds a folder "
                             "per patient")
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
            raise CaseError(_printable(folder.name), "", f"the folder cannot be read ({error.strerror})") from None
        return present

    def _header(self, root: Path, folder: Path, files: dict[str, Path], labels: bool) -> Header:
        case = _printable(folder.name)
        if case != folder.name:
            raise CaseError(case, "", "the folder's name holds line breaks, or bytes that are not UTF-8; rename it")
        if case != case.strip():
            raise CaseError(case.strip(), "", "the folder's name begins or ends with a blank; rename it")
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
        return Header(case, self._patient(case), relative, shape, len(self.channels), spacing, first, turn=2)

    def _required(self, name: str) -> bool:
        return not (name == BRAIN and self.brain_mask != "none")

    def _patient(self, case: str) -> str:
        if not self.patient_pattern:
            return case
        match = re.search(self.patient_pattern, case)
        if match is None:
            raise CaseError(case, "", f"its name does not match data.reader.patient_pattern {self.patient_pattern!r}")
        patient = match.group(1) if match.groups() else match.group(0)
        if not patient:
            raise CaseError(case, "", f"data.reader.patient_pattern {self.patient_pattern!r} finds no patient in "
                                      "its name")
        return patient

    def _volume(self, root: Path, header: Header, role: str) -> np.ndarray:
        file = header.files[role]
        try:
            volume = read_volume(root / file, header.source["orientation"])
        except VolumeError as error:
            raise CaseError(header.case, Path(file).name, str(error)) from None
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
            return np.isin(volume, self.label_values[name])
        mask = volume > 0.5
        if high > SOFT and not mask.any():
            raise CaseError(header.case, file, f"has no value above 0.5 (its largest is {high:g}), but is not empty; "
                                               "expected a binary region (0 and 1)")
        # a soft mask in 0..1 or a mask of one value (such as 255) is binary once cut at 0.5; several labels are not
        if low < -SOFT or (high > 1 + SOFT and float(volume[mask].min()) != high):
            values = np.unique(volume)
            text = ", ".join(f"{v:g}" for v in values[:6]) + (" ..." if len(values) > 6 else "")
            raise CaseError(header.case, file, f"holds the values {text}; expected a binary region (0 and 1), or say in "
                            "data.reader.label_values which values mean it")
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


def _natural(path: Path) -> tuple:
    """Patient_2 before Patient_10; names that differ in case or leading zeros alone keep a fixed order too."""
    parts = re.split(r"(\d+)", path.name)  # text and digits in turn
    return [(int(part), "") if odd % 2 else (0, part.lower()) for odd, part in enumerate(parts)], path.name


def _printable(name: str) -> str:
    """A folder's name as one line of UTF-8; what is neither (bytes of old archives' encodings) becomes `?`."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "?", name.encode("utf-8", "replace").decode())


def _same_place(one: dict, other: dict) -> bool:
    """Whether two grids of one shape put their corners, and so all voxels, in the same places."""
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*one["shape"], 1]
    affines = np.array([one["affine"], other["affine"]])
    apart_mm = np.linalg.norm((corners @ (affines[0] - affines[1]).T)[:, :3], axis=1)
    return float(apart_mm.max()) <= SAME_PLACE * float(np.linalg.norm(affines[:, :3, :3], axis=1).min())


def _by(shape: list[int]) -> str:
    return " x ".join(map(str, shape))
