"""Images by the names that a table gives them."""

from __future__ import annotations

import unicodedata
from pathlib import PureWindowsPath
from typing import Sequence

from lib.readers.image_files import file_stem
from lib.readers.image_tree import Photo
from lib.readers.names import printable


class UnclearName(Exception):
    """A name that says no single image; the message says why, without the name's column. cases: that it may mean."""

    def __init__(self, reason: str, cases: Sequence[str] = ()):
        super().__init__(reason)
        self.cases = cases


class PhotoNames:
    """Photos by what a table may call them: the file's name, or its path in the images' or in the input folder, or in the
    `folder` (with / behind) that the table is of; others than those in it have no name.

    Suffixes may be left out. Exact names win over those that differ in case.
    """

    def __init__(self, photos: Sequence[Photo], folder: str = ""):
        self._whole, self._stems = _Names(), _Names()
        self._found: dict[str, Photo | None] = {}  # an image has many rows
        for photo in photos:
            if not photo.file.startswith(folder):
                continue
            for name in {photo.name, photo.path, photo.file, photo.file.removeprefix(folder)}:
                self._whole.add(name, photo)
                self._stems.add(file_stem(name), photo)

    def find(self, name: str) -> Photo | None:
        """The image that is called so, or None if it is not there. Raises UnclearName."""
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def _find(self, name: str) -> Photo | None:
        parts = name.replace("\\", "/").split("/")
        if not name:
            raise UnclearName("is empty")
        if not parts[0] or PureWindowsPath(name).drive or ".." in parts:
            raise UnclearName(f"is {printable(name)!r}, which leaves the data folder; expected a file name, or a path "
                              "inside the folder")
        name = "/".join(part for part in parts if part not in ("", "."))
        found = (self._stems if file_stem(name) == name else self._whole).get(name)
        cases = sorted({photo.case for photo in found})
        if len(cases) > 1:
            paths = " and ".join(sorted(printable(photo.path) for photo in found))
            raise UnclearName(f"is {printable(name)!r}, which may mean {paths}", cases)
        return found[0] if found else None


class _Names:
    """Name -> photos, exactly or else without regard to case and to how accents are coded."""

    def __init__(self):
        self._exact: dict[str, list[Photo]] = {}
        self._folded: dict[str, list[Photo]] = {}

    def add(self, name: str, photo: Photo) -> None:
        self._exact.setdefault(name, []).append(photo)
        self._folded.setdefault(_folded(name), []).append(photo)

    def get(self, name: str) -> list[Photo]:
        return self._exact.get(name) or self._folded.get(_folded(name), [])


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
