"""Images in any sub-folders: found, and in the subset that their folder says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Mapping, Sequence

from lib.data.case import Header
from lib.data.folds import EXTERNAL
from lib.readers.image_files import SUBSETS, SUFFIXES, ImageFiles, check_root, file_stem
from lib.readers.names import check_inside, listing, printable, relative, some, sorted_out, strangers
from lib.study import InputError, require


@dataclass(frozen=True)
class Photo:
    """An image file. path: in the images' folder, behind that of its subset where each has one: train/a.png of
    train/images/a.png. file: in the input folder. case: its name without suffix, or `known_as`."""
    path: str
    file: str
    subset: str = ""
    known_as: str = ""

    @cached_property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @cached_property
    def case(self) -> str:
        return self.known_as or file_stem(self.name)


@dataclass(frozen=True)
class ImageTree(ImageFiles):
    """Keys of `data.reader` in studies of images in sub-folders: those of ImageFiles, and

    images: folder in the input folder, or in its train, val and test folders, with images in any sub-folders. Those in
    train, val and test, above or below it, are these subsets. test_folders: sub-folders of it, such as Set2/Test, that
    never train: all folds test them together.
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

    def _folders(self, root: Path, new: bool) -> dict[str, Path]:
        """What paths begin with -> folder of images: "" -> `images`, or "train/" -> train/`images` and so on; of new data
        it may be `root`. Raises InputError if it or a test folder is missing."""
        check_root(root, f"{self.images}/")
        folder = root / self.images
        split = self._split(root)
        if split and self.test_folders and not new:
            raise InputError(f"data.reader.test_folders: there is no folder {self.images}/ that could hold them; images are "
                             f"in {', '.join(relative(root, place) for place in split.values())}, of which test folders "
                             "are tested anyway")
        if split:
            return split
        if not folder.is_dir():
            if new and walk(root)[0]:
                return {"": root}
            held = ", ".join(printable(name) for name in listing(root)[:8])
            raise InputError(f"input folder {root}: there is no folder {self.images}/; it holds {held or 'nothing'}. "
                             f"Expected {self.expected}")
        for name in () if new else self.test_folders:
            if not (folder / name).is_dir():
                held = [entry for entry in listing(folder) if (folder / entry).is_dir()]
                raise InputError(f"data.reader.test_folders: there is no folder {self.images}/{name}/; "
                                 f"{self.images}/ holds {some(held) or 'no folders'}")
        return {"": folder}

    def _split(self, root: Path) -> dict[str, Path]:
        """`_folders` where they are in train, val and test folders; {} elsewhere."""
        if (root / self.images).is_dir():
            return {}
        places = {f"{name}/": root / name / self.images for name in subset_folders(root)}
        return {prefix: place for prefix, place in places.items() if place.is_dir()}

    def _photos(self, root: Path, folders: Mapping[str, Path], new: bool) -> tuple[list[Photo], list[str]]:
        """All images, and the entries that are not the study's."""
        apart = self._apart(root)
        photos, others = [], []
        for prefix, folder in folders.items():
            images, rest = walk(folder, tuple(apart - {folder}))
            if folder in apart:  # label files beside their images
                rest = [path for path in rest if not path.endswith(".txt")]
            base = folder.relative_to(root)
            subsets = self._subsets(folders, prefix, images, new)
            photos += [Photo(prefix + path, (base / path).as_posix(), subset) for path, subset in zip(images, subsets)]
            others += [relative(root, folder / path) for path in rest]
        looked = set(folders.values())
        outside = {path for path in apart if path.exists() and not looked & {*path.parents}}
        ignored = strangers(root, outside | looked, looked | {path for path in outside if path.is_dir()})
        return photos, [*ignored, *others]

    def _subsets(self, folders: Mapping[str, Path], prefix: str, images: Sequence[str], new: bool) -> list[str]:
        """The subset of each of the `images` (paths) of a folder. Raises InputError."""
        folder, pool = folders[prefix], new or self.data.folds.pool
        if prefix:
            for path in () if pool else images:
                _check_link(folders, prefix, path)
            return ["" if pool else subset_of(prefix[:-1])] * len(images)
        predefined = not pool and "train" in map(subset_of, subset_folders(folder))
        tests = {} if new else {name: os.path.realpath(folder / name) for name in self.test_folders}
        holding = {path: [name for name, real in tests.items() if _lies_in(folder, path, name, real)] for path in images}
        for name in tests:
            if not any(name in names for names in holding.values()):
                raise InputError(f"data.reader.test_folders: {self.images}/{name}/ holds no image")
        return [EXTERNAL if holding[path] else _subset(folder, path) if predefined else "" for path in images]


def subset_of(name: str) -> str:
    """The subset that a folder's name means, else empty."""
    return SUBSETS.get(name.lower(), "")


def subset_folders(folder: Path) -> list[str]:
    """Names of its train, val and test folders."""
    return [name for name in listing(folder) if subset_of(name) and (folder / name).is_dir()]


def lonely_subsets(folder: Path, test_folders: Sequence[str]) -> list[str]:
    """A line for val and test folders without a train folder beside them, which are folders like all others."""
    names = [name for name in subset_folders(folder) if name not in test_folders]
    if not names or "train" in map(subset_of, names):
        return []
    return [f"there is {' and '.join(f'{name}/' for name in names)} but no train/ beside it, so all its images are dealt into "
            "folds like the others; rename the folder of the others to train if they are to be apart"]


def _subset(folder: Path, path: str) -> str:
    """Of the train, val and test folders. Raises InputError for an image that a link puts into another one than that which
    holds it."""
    real, top = Path(os.path.realpath(folder / path)), Path(os.path.realpath(folder))
    places = {path, real.relative_to(top).as_posix() if real.is_relative_to(top) else path}
    named = {subset_of(place.split("/")[0]) if "/" in place else "" for place in places}
    if len(named) > 1:
        raise _linked(path, real)
    return named.pop()


def _check_link(folders: Mapping[str, Path], prefix: str, path: str) -> None:
    """Raise InputError if an image truly lies in the folder of another subset."""
    real = Path(os.path.realpath(folders[prefix] / path))
    if any(name != prefix and real.is_relative_to(os.path.realpath(other)) for name, other in folders.items()):
        raise _linked(prefix + path, real)


def _linked(path: str, real: Path) -> InputError:
    return InputError(f"{printable(path)} is a link to {printable(str(real))}: one image in two of the train, val and "
                      "test folders; remove the link")


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


def check_subsets(headers: Sequence[Header]) -> None:
    """Raise InputError if some images lie in train, val and test folders and some beside them."""
    outside = [header.files["image"] for header in headers if not header.subset]
    if outside and any(header.subset not in ("", EXTERNAL) for header in headers):
        raise InputError(f"{len(outside)} of {len(headers)} images lie beside the train, val and test folders, which "
                         f"does not say what they are for: {some(outside)}. Move them, name their folder in "
                         "data.reader.test_folders, or deal all images into folds with --set data.folds.pool=true")
