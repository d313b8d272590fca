"""Where an image's class is written: in a row of a table, in the name of its folder, or in the value of its mask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Mapping, Sequence

from lib.data.case import CaseError, CaseProblem
from lib.imaging.photographs import MOST_VALUES, MaskCoding, PhotographError, find_values, read_mask
from lib.readers.image_files import SUFFIXES
from lib.readers.image_tree import Photo, subset_of, walk
from lib.readers.images import belonging_mask
from lib.readers.names import Masks, class_numbers, folded, printable, relative, some, spellings, spelt
from lib.readers.photo_rows import Found, ImageRows, Matched, Row, one_each
from lib.readers.tables import RowError, Table
from lib.study import Data, InputError

HIGHEST = 65535  # of a mask's values
Sizes = Mapping[str, tuple[int, int]]  # case -> (rows, columns)


class ClassNames:
    """The classes of a study by how they are spelt; in a study without classes each new spelling is one."""

    def __init__(self, data: Data):
        self.open = not data.classes
        self.classes = data.classes
        self.spelt = [spelt(name, data.class_values.get(name)) for name in data.classes]
        self.known = spellings(data, numbers=True)

    def find(self, text: str) -> str | None:
        if self.open:
            self.known.setdefault(folded(text), " ".join(text.split()))
        return self.known.get(folded(text))

    def unknown(self, text: str) -> str:
        """What to say of it."""
        return f"{printable(text)!r}, which is no class of the study; data.classes has {some(self.spelt, 12)}"

    def check_any(self, texts: Sequence[str], place: str) -> None:
        """Raise InputError if none of the texts is a class."""
        different = list(dict.fromkeys(text for text in texts if text))
        if different and not any(self.find(text) for text in different):
            raise InputError(f"{place} holds {some(different)}, none of which is a class of the study, {some(self.spelt, 12)}; "
                             f"say how it spells them, such as classes: {{{self.classes[0]}: {printable(different[0])}}}")


class TableLabels(ImageRows):
    """Rows of a table: image and label."""

    def __init__(self, tables: Mapping[str, Table], columns: Mapping[str, str], data: Data):
        super().__init__(tables, columns)
        self.names = ClassNames(data)

    def check(self) -> None:
        """Raise InputError if no row has a label that is a class."""
        self.names.check_any([row.cells[0] for _, _, row in self.rows],
                             f"{self.place}: column {self.columns['label']!r} (data.reader.columns.label)")

    def found(self, matched: Matched, sizes: Sizes) -> tuple[dict[str, Found], list[CaseProblem]]:
        """(case -> class, problems) of all rows that have an image."""
        return one_each(matched, self._found)

    def _found(self, photo: Photo, row: Row) -> Found:
        column, label = self.columns["label"], row.cells[0]
        if not label:
            raise RowError(f"{column} is empty")
        name = self.names.find(label)
        if name is None:
            raise RowError(f"{column} is {self.names.unknown(label)}")
        return Found({"class": name}, row.place, **self.patient_and_subset(row))


class FolderLabels:
    """A folder per class: the last above the image that is one, or that directly below train, val and test."""
    missing = "no folder of a class"

    def __init__(self, images: str, data: Data):
        self.images, self.place, self.names = images, f"{printable(images)}/", ClassNames(data)

    def match(self, photos: Sequence[Photo]) -> Matched:
        matched, training = Matched(), any(subset_of(photo.path.split("/")[0]) == "train" for photo in photos)
        for photo in photos:
            folders = photo.path.split("/")[:-1]
            below = bool(folders) and bool(subset_of(folders[0])) and (training or not self._is_class(folders[0]))
            name = self._chosen(folders[below:], below)
            if name:
                matched.rows.append((photo, Row(printable(photo.file), 0, [name])))
        self.names.check_any([row.cells[0] for _, row in matched.rows], self.place)
        matched.found = len(matched.rows)
        return matched

    def found(self, matched: Matched, sizes: Sizes) -> tuple[dict[str, Found], list[CaseProblem]]:
        """(case -> class, problems) of all images in a folder."""
        return one_each(matched, self._found, "a copy of one image")

    def no_match(self, absent: Sequence[str]) -> str:
        return f"{self.place} (data.reader.labels: folders): none of its images is in a folder of a class"

    def absent_note(self, absent: Sequence[str], images: str) -> str:
        return ""

    def absent_reason(self) -> str:
        return ""

    def _is_class(self, folder: str) -> bool:
        return not self.names.open and self.names.find(folder) is not None

    def _chosen(self, folders: Sequence[str], below: bool) -> str:
        """The folder whose name is the label."""
        known = [folder for folder in folders if self._is_class(folder)]
        return known[-1] if known else folders[0 if below else -1] if folders else ""

    def _found(self, photo: Photo, row: Row) -> Found:
        name = self.names.find(row.cells[0])
        if name is None:
            raise RowError(f"is in the folder {self.names.unknown(row.cells[0])}")
        return Found({"class": name}, row.place)


class MaskLabels:
    """A mask per image, in a folder with the sub-folders of the images: its one value besides 0 is the class."""
    missing = "no mask"

    def __init__(self, root: Path, folders: Mapping[str, Path], pattern: str, data: Data, together: bool):
        """folders: what the paths of images begin with -> folder of their masks. together: with their images. Raises
        InputError for a folder that is not there."""
        self.root, self.folders, self.pattern, self.together = root, folders, pattern, together
        for folder in folders.values():
            if not folder.is_dir():
                raise InputError(f"input folder {root}: there is no folder {relative(root, folder)}/ (data.reader.masks)")
        self.place = " and ".join(f"{relative(root, folder)}/" for folder in folders.values())
        self.of_value = {value: name for name, values in class_numbers(data, 0, HIGHEST).items() for value in values}
        self._masks: dict[str, Masks] = {}  # of an image's file: the masks of its folder
        # each value on its own, so that one may be 0
        self.coding = MaskCoding("values", len(self.of_value), tuple((value,) for value in self.of_value))

    def match(self, photos: Sequence[Photo]) -> Matched:
        matched, taken = Matched(), set()
        groups: dict[Path, list[Photo]] = {}
        for photo in photos:
            prefix = next(prefix for prefix in self.folders if photo.path.startswith(prefix))
            place = self.folders[prefix] / photo.path[len(prefix):].rpartition("/")[0]
            groups.setdefault(place, []).append(photo)
        for place, group in groups.items():
            if not place.is_dir():
                continue
            masks = Masks(place, self.pattern, [photo.name for photo in group], SUFFIXES, self.together)
            taken |= {place / name for name in masks.taken}
            for photo in group:
                names = masks.of(photo.name)
                if names:
                    self._masks[photo.file] = masks
                    matched.rows.append((photo, Row(relative(self.root, place / names[0]), 0, names)))
        if not self.together:
            every = [folder / path for folder in self.folders.values() for path in walk(folder)[0]]
            matched.absent = [path.relative_to(self.root).as_posix() for path in every if path not in taken]
        matched.found = len(matched.rows)
        return matched

    def found(self, matched: Matched, sizes: Sizes) -> tuple[dict[str, Found], list[CaseProblem]]:
        """(case -> class, problems) of all images with a mask and of a size that is known; their pixels are read."""
        readable = replace(matched, rows=[(photo, row) for photo, row in matched.rows if photo.case in sizes])
        return one_each(readable, lambda photo, row: self._found(photo, sizes[photo.case]), "the mask of a copy")

    def no_match(self, absent: Sequence[str]) -> str:
        held = f"none of its {len(absent)} masks is that of an image; it holds {some(absent, 5)}"
        return (f"{self.place} (data.reader.masks): {held if absent else 'holds no mask'} (data.reader.mask_name is "
                f"{self.pattern!r})")

    def absent_note(self, absent: Sequence[str], images: str) -> str:
        return (f"{self.place}: {len(absent)} mask{'s' * (len(absent) > 1)} without an image in {images}/ "
                f"(data.reader.mask_name is {self.pattern!r}): {some(absent)}")

    def absent_reason(self) -> str:
        return "is a mask without an image"

    def _found(self, photo: Photo, size: tuple[int, int]) -> Found:
        masks = self._masks[photo.file]
        try:
            name, _ = belonging_mask(self.root, masks, photo.case, photo.name, photo.file, size)
            path = masks.folder / name
            return Found({"class": self._class(path, size)}, relative(self.root, path),
                         files={"mask": path.relative_to(self.root).as_posix()})
        except CaseError as error:
            raise RowError(error.problem.reason) from None
        except PhotographError as error:
            counts = ", ".join(f"{value:g} ({pixels} pixels)" for value, pixels in error.unnamed[:6])
            more = f" and {len(error.unnamed) - 6} values more" if len(error.unnamed) > 6 else ""
            raise RowError(f"holds {counts}{more}, which mean no class; name them in data.classes, or correct the mask"
                           if error.unnamed else str(error)) from None

    def _class(self, path: Path, size: tuple[int, int]) -> str:
        """Raises RowError and PhotographError."""
        if self.of_value:
            regions = read_mask(path, self.coding, size)
            values = [value for value, region in zip(self.of_value, regions) if value and region.any()]
        else:
            values = find_values(path, "values", size)
            if len(values) > MOST_VALUES:
                raise RowError(f"holds more than {MOST_VALUES} values: it looks like an image or a JPG; expected one value "
                               "besides 0, saved as PNG")
            if any(not isinstance(value, int) for value in values):
                raise RowError(f"holds {some([f'{value:g}' for value in values])}, expected whole numbers")
        names = {self.of_value.get(value, f"class_{value}"): value for value in values or [0]}
        if len(names) > 1:
            shown = [f"{value} ({name})" if self.of_value else str(value) for name, value in names.items()]
            raise RowError(f"holds values of {len(names)} classes: {some(shown)}; expected one class in a mask, as its class "
                           "is the image's")
        name, value = next(iter(names.items()))
        if value == 0 and 0 not in self.of_value:
            raise RowError("holds 0 alone, which means no class; name it in data.classes, or correct the mask")
        return name
