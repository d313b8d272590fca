"""Images of one name: copies of each other, of which one is used, or different ones, which become cases of their own."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Sequence

from lib.data.case import CaseProblem
from lib.data.folds import EXTERNAL
from lib.readers.image_files import file_stem
from lib.readers.image_tree import Photo
from lib.readers.names import printable, some

# which of several copies is the case: one that is tested before one that trains
STAYS = (EXTERNAL, "test", "validation", "train", "")


def told_apart(root: Path, photos: Sequence[Photo]) -> list[Photo]:
    """The photos; where several of one name differ, each case's name has the folders in it too: brain-1 and femur-1.

    Copies of one image stay one case.
    """
    named: dict[str, str] = {}
    for several in _by_case(photos):
        contents = _contents(root, several) if len(several) > 1 else []
        if len(set(contents)) > 1:
            first: dict[tuple, str] = {}
            for photo, content in zip(several, contents):
                named[photo.file] = first.setdefault(content, file_stem(photo.path).replace("/", "-"))
    return [replace(photo, known_as=named[photo.file]) if photo.file in named else photo for photo in photos]


def without_copies(root: Path, photos: Sequence[Photo]) -> tuple[list[Photo], list[CaseProblem], list[list[Photo]]]:
    """(one photo per case, problems, copies): of files of one case and the same bytes, one in a test folder stays.

    copies: the photos of each case that has several, that which stays first. Files of one case that differ are a
    problem; none of them is kept.
    """
    kept, problems, copies = [], [], []
    for several in _by_case(photos):
        contents = _contents(root, several) if len(several) > 1 else []
        other = next((photo for photo, content in zip(several, contents) if content != contents[0]), None)
        if other is not None:
            one, two = (printable(photo.file) for photo in sorted((several[0], other), key=photos.index))
            problems.append(CaseProblem(printable(other.case), one, f"{two} has the same name and other content, and both "
                                                                    "would be one case; rename or remove one"))
            continue
        kept.append(several[0])
        if len(several) > 1:
            copies.append(several)
    return kept, problems, copies


def copies_note(copies: Sequence[list[Photo]]) -> str:
    """A line for the user; what `without_copies` gives."""
    pairs = [f"{one.path} = {' = '.join(other.path for other in others)}" for one, *others in copies]
    return (f"{len(copies)} image{'s' * (len(copies) > 1)} with copies, of each of which one is used (that in a test "
            f"folder, if one is): {some(pairs)}")


def _by_case(photos: Sequence[Photo]) -> list[list[Photo]]:
    """The photos of each case, that which stays first."""
    by_case: dict[str, list[Photo]] = {}
    for photo in photos:
        by_case.setdefault(photo.case, []).append(photo)
    return [sorted(several, key=lambda photo: STAYS.index(photo.subset)) for several in by_case.values()]


def _contents(root: Path, photos: Sequence[Photo]) -> list[tuple]:
    """What is equal for files of the same bytes alone. A file that cannot be read equals none."""
    sizes = []
    for photo in photos:
        try:
            sizes.append((root / photo.file).stat().st_size)
        except OSError:
            sizes.append(None)
    counts, contents = Counter(sizes), []
    for photo, size in zip(photos, sizes):
        try:
            shared = counts[size] > 1  # only files of one size can be the same
            contents.append((size, hashlib.sha256((root / photo.file).read_bytes()).hexdigest() if shared else ""))
        except OSError:
            contents.append((photo.file,))
    return contents
