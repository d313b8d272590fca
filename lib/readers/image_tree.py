"""Images in any sub-folders: found, told from copies of themselves, and in the subset that their folder says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Sequence

from lib.data.case import CaseProblem, Header
from lib.data.folds import EXTERNAL
from lib.readers.image_files import SUBSETS, SUFFIXES, ImageFiles, check_root, file_stem
from lib.readers.names import check_inside, listing, printable, relative, some, sorted_out, strangers
from lib.study import InputError, require

# which of several copies is the case: one that is tested before one that trains
STAYS = (EXTERNAL, "test", "validation", "train", "")


@dataclass(frozen=True)
class Photo:
    """An image file. path: in the images' folder. file: in the input folder. case: its name without suffix."""
    path: str
    file: str
    subset: str = ""

    @cached_property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @cached_property
    def case(self) -> str:
        return file_stem(self.name)


@dataclass(frozen=True)
class ImageTree(ImageFiles):
    """Keys of `data.reader` in studies of images in sub-folders: those of ImageFiles, and

    images: folder in the input folder, with images in any sub-folders. Those in its own train, val and test are these
    subsets. test_folders: sub-folders of it, such as Set2/Test, that never train: all folds test them together.
    """
    images: str = "images"
    test_folders: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        check_inside(self.images, "data.reader.images")
        require(bool(self.images), "data.reader.images", "none", "the name of a folder, . for the input folder itself")
        for name in self.test_folders:
            check_inside(name, "data.reader.test_folders")
            require(bool(PurePosixPath(name).parts), "data.reader.test_folders", repr(name),
                    f"a sub-folder of {self.images}")

    def _apart(self, root: Path) -> set[Path]:
        """Files and folders of the study that are no images."""
        return {root / self.pixel_sizes.file} if self.pixel_sizes else set()

    def _folder(self, root: Path, new: bool) -> Path:
        """The folder of images; of new data it may be `root`. Raises InputError if it or a test folder is missing."""
        check_root(root, self.images)
        folder = root / self.images
        if not folder.is_dir():
            if new and walk(root)[0]:
                return root
            held = ", ".join(printable(name) for name in listing(root)[:8])
            raise InputError(f"input folder {root}: there is no folder {self.images}/; it holds {held or 'nothing'}. "
                             f"Expected {self.expected}")
        for name in () if new else self.test_folders:
            if not (folder / name).is_dir():
                held = [entry for entry in listing(folder) if (folder / entry).is_dir()]
                raise InputError(f"data.reader.test_folders: there is no folder {self.images}/{name}/; "
                                 f"{self.images}/ holds {some(held) or 'no folders'}")
        return folder

    def _photos(self, root: Path, folder: Path, new: bool) -> tuple[list[Photo], list[str]]:
        """All images, and the entries that are not the study's."""
        apart = self._apart(root)
        images, others = walk(folder, tuple(apart - {folder}))
        if folder in apart:  # label files beside their images
            others = [path for path in others if not path.endswith(".txt")]
        predefined = not (new or self.data.folds.pool) and any(
            SUBSETS.get(name.lower()) == "train" and (folder / name).is_dir() for name in listing(folder))
        base = folder.relative_to(root)
        tests = {} if new else {name: os.path.realpath(folder / name) for name in self.test_folders}
        holding = {path: [name for name, real in tests.items() if _lies_in(folder, path, name, real)] for path in images}
        for name in tests:
            if not any(name in names for names in holding.values()):
                raise InputError(f"data.reader.test_folders: {self.images}/{name}/ holds no image")
        photos = [Photo(path, (base / path).as_posix(),
                        EXTERNAL if holding[path] else _subset(folder, path) if predefined else "") for path in images]
        outside = {path for path in apart if folder not in path.parents}
        ignored = strangers(root, {*outside, folder}, {folder, *(path for path in outside if path.is_dir())})
        return photos, [*ignored, *(relative(root, folder / path) for path in others)]


def _subset(folder: Path, path: str) -> str:
    """Of the train, val and test folders. Raises InputError for an image that a link puts into another one than that which
    holds it."""
    real, top = Path(os.path.realpath(folder / path)), Path(os.path.realpath(folder))
    places = {path, real.relative_to(top).as_posix() if real.is_relative_to(top) else path}
    named = {SUBSETS.get(place.split("/")[0].lower(), "") if "/" in place else "" for place in places}
    if len(named) > 1:
        raise InputError(f"{printable(path)} is a link to {printable(str(real))}: one image in two of the train, val and "
                         "test folders; remove the link")
    return named.pop()


def _lies_in(folder: Path, path: str, name: str, real: str) -> bool:
    """Whether an image is in the sub-folder `name`, truly at `real`, by its own path or by where links lead."""
    inside = PurePosixPath(name).parts
    return (PurePosixPath(path).parts[:len(inside)] == inside
            or Path(os.path.realpath(folder / path)).is_relative_to(real))


def walk(folder: Path, apart: Sequence[Path] = (), suffixes: Sequence[str] = SUFFIXES) -> tuple[list[str], list[str]]:
    """Paths in `folder` of its images (or other `suffixes`), and of what else is there or hidden, in natural order,
    those of sub-folders last.

    apart: folders and files that are neither. Links to folders are followed, each folder once. Raises InputError for
    a folder that cannot be read.
    """
    images, others, seen = [], [], set()

    def visit(place: Path, prefix: str) -> None:
        real = os.path.realpath(place)
        if real in seen:
            return
        seen.add(real)
        known, rest = sorted_out(place, suffixes)
        images.extend(prefix + name for name in known)
        for name in rest:
            if place / name in apart:
                continue
            if name[0] != "." and (place / name).is_dir():
                visit(place / name, f"{prefix}{name}/")
            else:
                others.append(prefix + name)

    visit(folder, "")
    return images, others


def without_copies(root: Path, photos: Sequence[Photo]) -> tuple[list[Photo], list[CaseProblem], list[list[Photo]]]:
    """(one photo per case, problems, copies): of files with one name and the same bytes, one in a test folder stays.

    copies: the photos of each case that has several, that which stays first. Files with one name that differ are a
    problem; none of them is kept.
    """
    by_case: dict[str, list[Photo]] = {}
    for photo in photos:
        by_case.setdefault(photo.case, []).append(photo)
    kept, problems, copies = [], [], []
    for case, several in by_case.items():
        several = sorted(several, key=lambda photo: STAYS.index(photo.subset))
        first = root / several[0].file
        other = next((photo for photo in several[1:] if not _same_bytes(first, root / photo.file)), None)
        if other is not None:
            one, two = (printable(photo.file) for photo in sorted((several[0], other), key=photos.index))
            problems.append(CaseProblem(printable(case), one, f"{two} has the same name and other content, and both "
                                                              "would be one case; rename or remove one"))
            continue
        kept.append(several[0])
        if len(several) > 1:
            copies.append(several)
    return kept, problems, copies


def _same_bytes(one: Path, other: Path) -> bool:
    try:
        return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()
    except OSError:
        return False


def copies_note(copies: Sequence[list[Photo]]) -> str:
    """A line for the user; what `without_copies` gives."""
    pairs = [f"{one.path} = {' = '.join(other.path for other in others)}" for one, *others in copies]
    return (f"{len(copies)} image{'s' * (len(copies) > 1)} with copies, of each of which one is used (that in a test "
            f"folder, if one is): {some(pairs)}")


def check_subsets(headers: Sequence[Header]) -> None:
    """Raise InputError if some images lie in train, val and test folders and some beside them."""
    outside = [header.files["image"] for header in headers if not header.subset]
    if outside and any(header.subset not in ("", EXTERNAL) for header in headers):
        raise InputError(f"{len(outside)} of {len(headers)} images lie beside the train, val and test folders, which "
                         f"does not say what they are for: {some(outside)}. Move them, name their folder in "
                         "data.reader.test_folders, or deal all images into folds with --set data.folds.pool=true")
