"""A folder of photographs with a class each: from a table, from their folders' names, or from the values of masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Mapping

import numpy as np

from lib.data.case import Case, CaseError, Header
from lib.readers.class_rows import HIGHEST, FolderLabels, MaskLabels, TableLabels
from lib.readers.image_files import SUFFIXES
from lib.readers.image_tree import Photo
from lib.readers.images import check_mask_name, same_names
from lib.readers.labelled_tree import LabelledTree
from lib.readers.names import Masks, check_inside, class_numbers, natural, printable, spellings
from lib.study import InputError, one_of, require


@dataclass(frozen=True)
class ImageLabels(LabelledTree):
    """`data.reader` of a study of photographs with a class each: the keys of LabelledTree, whose table has a row per image
    (`label`, and as its columns say the `patient` and the `subset`: train, val or test), or instead of a table

    labels: `folders`: the name of the last folder above an image, or of that directly below train, val and test.
    masks: folder in the input folder, or in its train, val and test folders, with the sub-folders of the images: the one
    value besides 0 of an image's mask, as data.classes has it. mask_name: of the mask of an image; {name} is the image's
    file name, {stem} that without suffix.
    """
    labels: str = ""
    masks: str = ""
    mask_name: str = "{name}"

    COLUMNS: ClassVar[dict[str, str]] = {"image": "image", "label": "label"}
    OPTIONAL: ClassVar[tuple[str, ...]] = ("patient", "subset")

    def __post_init__(self):
        super().__post_init__()
        given = [key for key in ("table", "labels", "masks") if getattr(self, key)]
        require(len(given) == 1, "data.reader", " and ".join(given) or "none of table, labels and masks",
                "one of table, labels and masks: where the classes of the images are")
        if self.labels:
            one_of(self.labels, ("folders",), "data.reader.labels")
        self._check_table(given[0] if not self.table else "")
        check_inside(self.masks, "data.reader.masks")
        require(bool(self.masks) or self.mask_name == "{name}", "data.reader.mask_name", repr(self.mask_name),
                "none without masks")
        check_mask_name(self.mask_name)
        require(not self._together or not same_names(self.mask_name), "data.reader.masks", self.masks,
                "another folder than the images', or a mask_name that tells masks from images")
        if self.masks:
            self._check_values()
        else:
            spellings(self.data, numbers=True)  # bad ones are found here

    def _check_values(self) -> None:
        """Raise InputError unless each class has mask values of its own."""
        of_class = class_numbers(self.data, 0, HIGHEST)
        missing = [name for name in self.data.classes if name not in of_class]
        if missing:
            raise InputError(f"data.classes: no mask value for {', '.join(missing)}; say which value means which class, such "
                             "as classes: {brain: 255, femur: 128}, or leave data.classes out to have script 1 list the "
                             "values that it finds")
        first: dict[int, str] = {}
        for name, values in of_class.items():
            for value in values:
                if first.setdefault(value, name) != name:
                    raise InputError(f"data.classes.{name}: {value} means {first[value]} too; one class for each value")

    @property
    def _together(self) -> bool:
        """Whether images and masks are in one folder."""
        return bool(self.masks) and Path(self.images) == Path(self.masks)

    @property
    def expected(self) -> str:
        """What an input folder should hold."""
        labels = (f"{self.table} with a row for each image" if self.table else
                  "a folder in it for each class" if self.labels else
                  f"{self.masks}/ with a mask for each, named {self.mask_name}")
        return (f"{self.images}/ with images (PNG, JPG, TIFF or BMP), in sub-folders too, and {labels}; or both in train/, "
                "val/ and test/ (see 'Input' in the README)")

    def find_classes(self, root: Path, headers: list[Header]) -> dict:
        """class -> None, or its mask value, of all that the labels say, in natural order. Raises InputError if there are
        not two at least, or some that could name no class."""
        names = sorted({header.labels["class"] for header in headers}, key=natural)
        if len(names) < 2:
            raise InputError(f"data.classes: none given, and {' and '.join(names) or 'none'} alone is found in "
                             f"{len(headers)} images; expected two classes at least")
        for name in names:
            if name in ("all", "unit") or "/" in name or not name.isprintable():
                raise InputError(f"data.classes: none given, and {printable(name)!r} can name no class; name the classes "
                                 f'in data.classes, such as {{other: "{printable(name)}"}}')
        return {name: int(name.removeprefix("class_")) if self.masks else None for name in names}

    def read(self, root: Path, header: Header, labels: bool = True) -> Case:
        """One case: frames uint8 (channels, 1, rows, columns); truth bool (1,) of every class, one of them True. Raises
        CaseError naming the file."""
        frames, label = self._frames(root, header), header.labels.get("class")
        if labels and label not in self.data.classes:
            raise CaseError(header.case, header.files["image"], f"its class is {label!r}, expected one of "
                                                                f"{', '.join(self.data.classes)}")
        truth = {name: np.array([name == label]) for name in (self.data.classes if labels else ())}
        return Case(header, frames, truth)

    @property
    def _where(self) -> str:
        return self.table or f"{self.masks or self.images}/"

    def _mask_folders(self, root: Path, folders: Mapping[str, Path]) -> dict[str, Path]:
        return {prefix: root / prefix / self.masks for prefix in folders} if not self._together else dict(folders)

    def _apart(self, root: Path) -> set[Path]:
        if not self.masks:
            return super()._apart(root)
        places = [root, *(root / name for name in self._split(root))]
        return {place / self.masks for place in places} | super()._apart(root)

    def _source(self, root: Path, folders: Mapping[str, Path], new: bool) -> TableLabels | FolderLabels | MaskLabels:
        if self.labels:
            return FolderLabels(self.images, self.data)
        if self.masks:
            return MaskLabels(root, self._mask_folders(root, folders), self.mask_name, self.data, self._together)
        tables = self._tables(root)
        return TableLabels(tables, self._rows_of(tables, new), self.data)

    def _photos(self, root: Path, folders: Mapping[str, Path], new: bool) -> tuple[list[Photo], list[str]]:
        photos, ignored = super()._photos(root, folders, new)
        if self._together:
            places: dict[Path, list[str]] = {}
            for photo in photos:
                places.setdefault((root / photo.file).parent, []).append(photo.name)
            taken = {place / name for place, names in places.items()
                     for name in Masks(place, self.mask_name, names, SUFFIXES, True).taken}
            photos = [photo for photo in photos if root / photo.file not in taken]
        return photos, ignored
