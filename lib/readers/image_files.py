"""What every reader of photographs shares: keys, names of files, conversions, patients and sizes of pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Sequence

from lib.data.case import CaseError, Header
from lib.readers.conversions import OF_IMAGES, conversion_methods
from lib.readers.names import check_pattern, patient_of, printable, stem_of
from lib.readers.tables import SpacingTable, read_spacings
from lib.study import Data, InputError, build, one_of, require

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
SUBSETS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
CHANNELS = {1: ("grey",), 3: ("red", "green", "blue")}
NO_PATTERN = ("no patient_pattern: each image counts as a patient of its own; if a patient has several images, folds "
              "leak and scores are too good")


@dataclass(frozen=True)
class ImageFiles:
    """Keys of `data.reader` in every study of photographs.

    channels: 1 or 3. patient_pattern: regular expression whose first group (or whole match) in the file's name is the
    patient. pixels_per_mm, spacing_table: how large a pixel is.
    """
    data: Data
    channels: int = 1
    patient_pattern: str = ""
    pixels_per_mm: float | None = None
    spacing_table: dict = field(default_factory=dict)  # keys of SpacingTable

    def __post_init__(self):
        check_frames(self.data, self.channels)
        check_pattern(self.patient_pattern)
        require(self.pixels_per_mm is None or 0 < self.pixels_per_mm < math.inf, "data.reader.pixels_per_mm",
                self.pixels_per_mm, "above 0, finite")
        require(self.pixel_sizes is None or self.pixels_per_mm is None, "data.reader",
                "pixels_per_mm and spacing_table", "only one of them")

    @property
    def channel_names(self) -> tuple[str, ...]:
        return CHANNELS[self.channels]

    @cached_property
    def pixel_sizes(self) -> SpacingTable | None:
        values = self.spacing_table
        return build(SpacingTable, values, "data.reader.spacing_table") if values else None

    def _spacings(self, root: Path, new: bool, notes: list[str]) -> dict[str, tuple | str] | None:
        """stem -> (row, column) in mm, or what is wrong with its rows; None without a table."""
        table = self.pixel_sizes
        if table is None:
            return None
        path = root / table.file
        if new and not path.is_file() and table.row_spacing_column:
            raise InputError(f"{path} is missing: without it images of oblong pixels would be shown to the network in "
                             "other proportions than those it was trained on")
        if new and not path.is_file():
            notes.append(f"{table.file} is not in {root}: lengths are in pixels")
            return None
        return read_spacings(root, table, SUFFIXES)

    def _spacing(self, case: str, file: str, name: str, spacings: dict | None) -> tuple[float, float, float] | None:
        """(frame, row, column) in mm of the image `name`. Raises CaseError."""
        if self.pixels_per_mm is not None:
            return 1.0, 1 / self.pixels_per_mm, 1 / self.pixels_per_mm
        if spacings is None:
            return None
        found = spacings.get(file_stem(name), "has no row")
        if isinstance(found, str):
            raise CaseError(case, file, f"{found} in {self.spacing_table['file']}")
        return 1.0, *found

    def methods(self, headers: Sequence[Header]) -> list[str]:
        """How many images were converted, and whence the size of a pixel is."""
        sentences = conversion_methods(OF_IMAGES, headers, "image")
        if self.pixels_per_mm is not None:
            sentences.append(f"A pixel was taken to be {1 / self.pixels_per_mm:.3g} mm wide and high, which the study gives for "
                             "all images.")
        elif self.pixel_sizes:
            sentences.append("The size of a pixel was read from a table that came with the images.")
        return sentences

    def _check_some_match(self, names: list[str], new: bool) -> None:
        """Raise InputError if patient_pattern fits none of the names, unless they are of new data."""
        if self.patient_pattern and names and not new:
            for name in names:
                try:
                    patient_of(name, name, self.patient_pattern)
                    return
                except CaseError:
                    continue
            raise InputError(f"data.reader.patient_pattern {self.patient_pattern!r} finds a patient in none of "
                             f"{len(names)} file names, such as {printable(names[0])}")


def file_stem(name: str) -> str:
    return stem_of(name, SUFFIXES)


def check_frames(data: Data, channels: int) -> None:
    """Raise InputError for grey levels that would be stored as something else, and for a number of channels that is none."""
    require(data.intensity != "none" or data.store == "uint8", "data.store", data.store,
            "uint8 with intensity: none, so that the network scales grey levels")
    one_of(str(channels), [str(n) for n in CHANNELS], "data.reader.channels")


def check_root(root: Path, content: str) -> None:
    """Raise InputError if there is no input folder. content: what it should hold."""
    if not root.is_dir():
        raise InputError(f"input folder {root} " + (
            f"is a file: name the folder that holds {content}" if root.exists() else
            "does not exist: make it, or name yours with -i/--input_data"))
