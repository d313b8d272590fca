"""A folder of photographs and one of masks with matching names; one pair of folders, or train, val and test pairs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lib.data.case import Case, CaseError, CaseProblem, Header, Scan
from lib.imaging.geometry import Geometry
from lib.imaging.photographs import (MOST_VALUES, Facts, MaskCoding, PhotographError, find_values, read_facts,
                                     read_image, read_mask)
from lib.progress import READING, bar
from lib.readers.conversions import OF_IMAGES, conversion_notes, converted
from lib.readers.image_files import NO_PATTERN, SUBSETS, SUFFIXES, ImageFiles, check_root, file_stem
from lib.readers.names import (Masks, check_inside, check_name, class_colours, class_numbers, listing, mask_name,
                               patient_of, printable, relative, sorted_out, strangers)
from lib.study import InputError, one_of, require

HIGHEST = 65535  # of a mask's values


@dataclass(frozen=True)
class Pair:
    """A folder of images and that of their masks (None where there is none). prefix: of case ids."""
    images: Path
    masks: Path | None
    subset: str = ""
    prefix: str = ""


@dataclass(frozen=True)
class ImagePairs(ImageFiles):
    """`data.reader` of a study of photographs and masks: the keys of ImageFiles, and

    images, masks: folders in the input folder, or in its train, val and test folders. mask_name: of the mask of an
    image; {name} is the image's file name, {stem} that without suffix. mask_encoding: values (grey levels) | colours |
    channels (one per class). validation_images, validation_masks: a second pair of folders, the validation set.
    """
    images: str = "images"
    masks: str = "masks"
    mask_name: str = "{name}"
    mask_encoding: str = "values"
    validation_images: str = ""
    validation_masks: str = ""

    def __post_init__(self):
        super().__post_init__()
        for key in ("images", "masks", "validation_images", "validation_masks"):
            check_inside(getattr(self, key), f"data.reader.{key}")
        require(bool(self.images and self.masks), "data.reader", "images or masks empty", "the names of two folders")
        require(bool(self.validation_images) == bool(self.validation_masks), "data.reader",
                "one of validation_images and validation_masks", "both or none")
        check_mask_name(self.mask_name)
        for images, masks in ((self.images, self.masks), (self.validation_images, self.validation_masks)):
            require(not images or Path(images) != Path(masks) or not self._same_names, "data.reader.masks", masks,
                    "another folder than the images', or a mask_name that tells masks from images")
        one_of(self.mask_encoding, ("values", "colours", "channels"), "data.reader.mask_encoding")
        require(self.mask_encoding != "channels" or self.data.encoding == "regions", "data.reader.mask_encoding",
                "channels with exclusive classes", "encoding: regions, because channels may overlap")
        _ = self.coding  # bad values are found here

    @property
    def _same_names(self) -> bool:
        return same_names(self.mask_name)

    @cached_property
    def coding(self) -> MaskCoding:
        """How masks say classes. Raises InputError naming the class whose value is missing or wrong."""
        classes, encoding = self.data.classes, self.mask_encoding
        if encoding == "channels":
            require(not self.data.class_values, "data.classes", self.data.class_values,
                    "names alone, in the order of the masks' channels (mask_encoding: channels)")
            return MaskCoding(encoding, len(classes))
        values = class_numbers(self.data, 0, HIGHEST) if encoding == "values" else class_colours(self.data)
        missing = [name for name in classes if name not in values]
        if len(classes) > 1 and missing:
            example = "{bone: 255, ligament: 128}" if encoding == "values" else '{bone: "#ff0000", ligament: "#00ff00"}'
            raise InputError(f"data.classes: no mask value for {', '.join(missing)}; say which value means which "
                             f"class, such as classes: {example}, or leave data.classes out to have script 1 list the "
                             "values that it finds")
        return MaskCoding(encoding, len(classes), tuple(values[name] for name in classes if name in values))

    @property
    def expected(self) -> str:
        """What an input folder should hold."""
        return (f"{self.images}/ with images (PNG, JPG, TIFF or BMP) and {self.masks}/ with their masks, named "
                f"{self.mask_name}, or both in train/, val/ and test/ (see 'Input' in the README)")

    # --- what there is -------------------------------------------------------------------------------------------

    def headers(self, root: Path, labels: bool = True, new: bool = False) -> Scan:
        """Every image of `root` in natural order of names, by its first bytes.

        Without `labels`, masks are neither needed nor looked at. `new` data (to be predicted) needs neither the second
        pair of folders nor the spacing table, and `root` may be the folder of images itself.
        Raises InputError for what concerns all: a folder, table or column that is not there, a patient_pattern that
        fits no name.
        """
        new = new or not labels
        pairs, notes = self._pairs(root, labels, new), []
        spacings = self._spacings(root, new, notes)
        headers, problems, names = [], [], []
        ignored = self._strangers(root, pairs)
        for pair in pairs:
            images, other = self._image_names(pair)
            ignored += [relative(root, pair.images / name) for name in other]
            masks = self._masks(pair, images) if labels else None
            if masks and not masks.together:
                ignored += [relative(root, pair.masks / name) for name in masks.other]
            twins = _twins(images)
            for name in bar(images, len(images), READING, unit="image"):
                try:
                    headers.append(self._header(root, pair, name, twins, masks, spacings, new))
                except CaseError as error:
                    problems.append(error.problem)
            for name in masks.strays if masks else ():
                problems.append(CaseProblem(printable(pair.prefix + file_stem(name)), relative(root, pair.masks / name),
                                            f"is a mask without an image in {relative(root, pair.images)}/ "
                                            f"(data.reader.mask_name is {self.mask_name!r})"))
            names += images
        self._check_some_match(names, new)
        notes += conversion_notes(OF_IMAGES, headers, "image")
        if labels and not self.patient_pattern:
            notes.append(NO_PATTERN)
        problems = list(dict.fromkeys(problems))  # two images of one case are one problem
        return Scan(headers, problems, ignored, notes, patients_known=bool(self.patient_pattern))

    def has_truth(self, root: Path, case: str) -> bool:
        """Whether there is a mask of the case, usable or not."""
        for pair in self._pairs(root, labels=False, new=True):
            stem = case.removeprefix(pair.prefix)
            if pair.masks is not None and case == pair.prefix + stem:
                images = [name for name in self._image_names(pair)[0] if file_stem(name) == stem]
                if self._masks(pair, images).taken:
                    return True
        return False

    def find_classes(self, root: Path, headers: list[Header]) -> dict:
        """class -> value, colour [r, g, b], or None for `channels`, of all that the masks hold, ascending.

        A single one is `foreground`, several are class_1, class_2... Masks that cannot be read are passed over.
        Raises InputError if there are none, or too many to be classes.
        """
        found: set = set()
        for header in headers:
            try:
                found |= set(find_values(root / header.files["mask"], self.mask_encoding, header.geometry.shape[1:]))
            except PhotographError:
                continue  # `read` will say so
            if len(found) > MOST_VALUES:
                raise InputError(f"{header.files['mask']}: more than {MOST_VALUES} different values in the masks up to "
                                 "this one, so they look like images or JPGs; save masks as PNG with one value per "
                                 "class, or name the values, such as classes: {bone: 255, ligament: 128}")
        if not found:
            raise InputError(f"data.classes: none given, and none found in {len(headers)} masks, which are all empty "
                             "or cannot be read; name the classes")
        if self.mask_encoding == "channels":
            values = [None] * max(found)
        else:
            values = [list(v) if isinstance(v, tuple) else v for v in sorted(found)]
        return {"foreground" if len(values) == 1 else f"class_{n}": value for n, value in enumerate(values, 1)}

    # --- one case ------------------------------------------------------------------------------------------------

    def read(self, root: Path, header: Header, labels: bool = True) -> Case:
        """Read one case: frames uint8 (channels, 1, rows, columns). Raises CaseError naming the file."""
        size = header.geometry.shape[1:]
        role = "image"
        try:
            frames = read_image(root / header.files[role], self.channels, size)
            truth = {}
            if labels:
                role = "mask"
                regions = read_mask(root / header.files[role], self.coding, size)
                truth = {name: region[None] for name, region in zip(self.data.classes, regions)}
        except PhotographError as error:
            reason = self._unnamed(error) if error.unnamed else str(error)
            raise CaseError(header.case, header.files[role], reason) from None
        return Case(header, frames, truth)

    def _header(self, root: Path, pair: Pair, name: str, twins: dict[str, list[str]], masks: Masks | None,
                spacings: dict[str, tuple | str] | None, new: bool) -> Header:
        case, file = pair.prefix + file_stem(name), relative(root, pair.images / name)
        check_name(file_stem(name), "the file")
        if name in twins:
            raise CaseError(case, relative(root, pair.images), f"holds {' and '.join(twins[name])}, which would be one "
                                                               "case; rename or remove one")
        try:
            facts = read_facts(pair.images / name)
        except PhotographError as error:
            raise CaseError(case, file, str(error)) from None
        files = {"image": file}
        if masks:
            files["mask"] = relative(root, masks.folder / self._check_mask(root, pair, case, name, masks, facts))
        patient = patient_of(case, name, self.patient_pattern, new)
        geometry = Geometry((1, *facts.size), self._spacing(case, file, name, spacings), True, self._source)
        return Header(case, patient, files, geometry, self.channels, pair.subset,
                      about=converted(OF_IMAGES, facts, self.channels))

    def _check_mask(self, root: Path, pair: Pair, case: str, name: str, masks: Masks, facts: Facts) -> str:
        """The name of an image's mask. Raises CaseError if it is missing or cannot belong to the image."""
        found, mask = belonging_mask(root, masks, case, name, relative(root, pair.images / name), facts.size)
        file = relative(root, masks.folder / found)
        if self.mask_encoding == "channels" and mask.channels < len(self.data.classes):
            raise CaseError(case, file, f"has {mask.channels} channel{'s' if mask.channels > 1 else ''}; expected one "
                                        f"for each of {', '.join(self.data.classes)} (mask_encoding: channels)")
        return found

    def _unnamed(self, error: PhotographError) -> str:
        """What to do about the values of a mask that mean no class."""
        shown = ", ".join(f"{_text(value)} ({count} pixels)" for value, count in error.unnamed[:6])
        more = f" and {len(error.unnamed) - 6} more" if len(error.unnamed) > 6 else ""
        if len(error.unnamed) > MOST_VALUES:
            return f"holds {shown}{more}: it looks like an image or a JPG; expected one value per class, saved as PNG"
        if not self.coding.values:
            name, values = self.data.classes[0], ", ".join(_text(value) for value, _ in error.unnamed[:6])
            return (f"holds {shown}{more}; expected one value besides background, or say in data.classes which values "
                    f"mean {name}, such as {{{name}: [{values}]}}")
        return (f"holds {shown}{more}, which mean no class; name them in data.classes, such as "
                f"{{..., other: {_text(error.unnamed[0][0])}}}, or correct the mask")

    @cached_property
    def _source(self) -> dict:
        """What `write_prediction` needs: of several values of a class, one that no other class has too."""
        written = []
        for values in self.coding.values or [(None,)] * len(self.data.classes):
            value = next((v for v in values if self.coding.named.count(v) < 2), values[0])
            written.append(list(value) if isinstance(value, tuple) else value)
        return {"format": "image", "encoding": self.mask_encoding, "classes": list(self.data.classes),
                "values": written}

    # --- folders and tables --------------------------------------------------------------------------------------

    def _masks(self, pair: Pair, images: list[str]) -> Masks:
        return Masks(pair.masks, self.mask_name, images, SUFFIXES, pair.masks == pair.images)

    def _pairs(self, root: Path, labels: bool, new: bool) -> list[Pair]:
        """The pairs of folders. Raises InputError naming the folder that is missing."""
        check_root(root, f"{self.images}/")
        parts = [(root / self.images, root / self.masks, "")]
        if self.validation_images and (not new or (root / self.validation_images).is_dir()):
            parts = [(*parts[0][:2], "train"),
                     (root / self.validation_images, root / self.validation_masks, "validation")]
        elif not parts[0][0].is_dir():
            parts = self._subset_folders(root) or parts
        if new and not parts[0][0].is_dir() and sorted_out(root, SUFFIXES)[0]:
            parts = [(root, root / self.masks if self._same_names else root, "")]  # new data: just the images
        pairs = []
        for images, masks, subset in parts:
            for folder in (images, masks) if labels else (images,):
                if not folder.is_dir():
                    held = ", ".join(printable(name) for name in listing(root)[:8])
                    raise InputError(f"input folder {root}: there is no folder {relative(root, folder)}/; it holds "
                                     f"{held or 'nothing'}. Expected {self.expected}")
            pairs.append(Pair(images, masks if masks.is_dir() else None, "" if self.data.folds.pool else subset,
                              f"{subset}-" if subset else ""))
        return pairs

    def _subset_folders(self, root: Path) -> list[tuple[Path, Path, str]]:
        """(images, masks, subset) of train, val and test folders, in this order."""
        found: dict[str, Path] = {}
        for name in listing(root):
            subset = SUBSETS.get(name.lower())
            if subset and (root / name).is_dir():
                if subset in found:
                    raise InputError(f"input folder {root}: {found[subset].name}/ and {name}/ both mean {subset}; "
                                     "merge them or rename one")
                found[subset] = root / name
        return [(found[subset] / self.images, found[subset] / self.masks, subset)
                for subset in ("train", "validation", "test") if subset in found]

    def _image_names(self, pair: Pair) -> tuple[list[str], list[str]]:
        """Names of images, and of entries that are none, in natural order."""
        images, other = sorted_out(pair.images, SUFFIXES)
        if pair.masks == pair.images:
            taken = self._masks(pair, images).taken
            images = [name for name in images if name not in taken]
        return images, other

    def _strangers(self, root: Path, pairs: list[Pair]) -> list[str]:
        """Entries of the input folder, and of its train, val and test folders, that are not the study's."""
        used = {folder for pair in pairs for folder in (pair.images, pair.masks) if folder}
        if self.pixel_sizes:
            used.add(root / self.pixel_sizes.file)
        return strangers(root, used, {pair.images for pair in pairs})


def check_mask_name(pattern: str) -> None:
    """Raise InputError if `data.reader.mask_name` could name no mask."""
    plain = pattern.replace("{name}", "").replace("{stem}", "")
    require(plain != pattern and not set(plain) & set("{}/\\"), "data.reader.mask_name", repr(pattern),
            "a file name with {name} or {stem}, such as seg_{name} or {stem}_mask.png")


def same_names(pattern: str) -> bool:
    """Whether a mask is named as its image."""
    return mask_name(pattern, "X.png", SUFFIXES) == "X.png"


def belonging_mask(root: Path, masks: Masks, case: str, name: str, image: str, size: tuple[int, int]) -> tuple[str, Facts]:
    """Name and facts of the mask of the image `name`, which is shown as `image` and has `size` (rows, columns). Raises
    CaseError if it is missing or cannot belong to the image."""
    found = masks.of(name)
    file = relative(root, masks.folder / masks.expected(name))
    if not found:
        raise CaseError(case, file, f"missing: there is no mask for {image}")
    if len(found) > 1:
        raise CaseError(case, file, f"is meant, but there are {' and '.join(found)}; remove one")
    file = relative(root, masks.folder / found[0])
    try:
        mask = read_facts(masks.folder / found[0])
    except PhotographError as error:
        raise CaseError(case, file, str(error)) from None
    if mask.size != size:
        raise CaseError(case, file, f"has {mask.rows} x {mask.columns} pixels (rows x columns), but its image {name} has "
                                    f"{size[0]} x {size[1]}; make them equal")
    return found[0], mask


def _twins(images: list[str]) -> dict[str, list[str]]:
    """Name -> all names with its stem, where there are several."""
    by_stem: dict[str, list[str]] = {}
    for name in images:
        by_stem.setdefault(file_stem(name), []).append(name)
    return {name: names for names in by_stem.values() if len(names) > 1 for name in names}


def _text(value) -> str:
    """A mask value as one would write it into a study."""
    return '"#{:02x}{:02x}{:02x}"'.format(*value) if isinstance(value, tuple) else f"{value:g}"
