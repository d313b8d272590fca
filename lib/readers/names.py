"""What the readers share: file names, masks and patients by them, values that mean a class."""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Sequence

from lib.data.case import CaseError
from lib.imaging.painting import parse_colour
from lib.study import Data, InputError, require

LONGEST_NAME = 200  # bytes; file systems take 255, and what is written for a case adds to its name


def natural(name: str) -> tuple:
    """Patient_2 before Patient_10; names that differ in case or leading zeros alone keep a fixed order too."""
    parts = re.split(r"(\d+)", name)  # text and digits in turn
    return [(int(part), "") if odd % 2 else (0, part.lower()) for odd, part in enumerate(parts)], name


def printable(name: str) -> str:
    """A file's name as one line of UTF-8; what is neither (bytes of old archives' encodings) becomes `?`."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "?", name.encode("utf-8", "replace").decode())


def relative(root: Path, path: Path) -> str:
    """A path in the input folder as it is shown."""
    return printable(path.relative_to(root).as_posix())


def check_inside(name: str, key: str) -> None:
    """Raise InputError for a path that would leave the input folder."""
    path = Path(name)
    require(not path.is_absolute() and ".." not in path.parts, key, repr(name), "a path inside the input folder")


def stem_of(name: str, suffixes: Sequence[str]) -> str:
    """The name without its suffix, if that is one of `suffixes` (lower case)."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in suffixes else name


def listing(folder: Path) -> list[str]:
    """Names of all entries of a folder, in natural order. Raises InputError if it cannot be read."""
    try:
        return sorted(os.listdir(folder), key=natural)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None


def sorted_out(folder: Path, suffixes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the files with a known suffix, and of all other entries: folders, hidden and other files."""
    names = listing(folder)
    known = [n for n in names if stem_of(n, suffixes) != n and n[0] != "." and not (folder / n).is_dir()]
    return known, sorted(set(names) - set(known), key=natural)


def strangers(root: Path, used: set[Path], walked: set[Path]) -> list[str]:
    """Entries of the input folder, and of the folders that lead to what is `used`, that are not the study's.

    walked: folders that were looked into elsewhere.
    """
    known = used.union(*(path.parents for path in used))
    folders = {root, *(path.parent for path in used if root in path.parents)} - walked
    return [relative(root, folder / name) for folder in sorted(folders) for name in listing(folder)
            if folder / name not in known]


def some(names: Sequence[str], most: int = 10) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(printable(name) for name in names[:most]) + more


class Masks:
    """The files of a folder as the masks of `images` (names), which may be in the same folder.

    pattern: of a mask's name; {name} is that of its image, {stem} that without suffix.
    """

    def __init__(self, folder: Path, pattern: str, images: Sequence[str], suffixes: Sequence[str], together: bool):
        self.folder, self.pattern, self.images, self.suffixes = folder, pattern, images, suffixes
        self.together = together  # in the images' folder
        names, self.other = sorted_out(folder, suffixes)
        self._names = dict.fromkeys(names)  # in order
        self._by_stem: dict[str, list[str]] = {}
        for name in names:
            self._by_stem.setdefault(stem_of(name, suffixes), []).append(name)

    def expected(self, image: str) -> str:
        return mask_name(self.pattern, image, self.suffixes)

    def of(self, image: str) -> list[str]:
        """The mask of that very name, else those with the same stem and another suffix."""
        exact = self.expected(image)
        found = [exact] if exact in self._names else self._by_stem.get(stem_of(exact, self.suffixes), [])
        return [name for name in found if not (self.together and name == image)]

    @cached_property
    def taken(self) -> set[str]:
        """Masks that have an image."""
        return {mask for image in self.images for mask in self.of(image)}

    @property
    def strays(self) -> list[str]:
        """Masks that have none."""
        return [] if self.together else [name for name in self._names if name not in self.taken]


def mask_name(pattern: str, image: str, suffixes: Sequence[str]) -> str:
    """The pattern with {name} and {stem} of an image filled in."""
    parts = {"{name}": image, "{stem}": stem_of(image, suffixes)}
    return "".join(parts.get(part, part) for part in re.split(r"(\{name\}|\{stem\})", pattern))


def check_name(name: str, what: str) -> None:
    """Raise CaseError for a name that tables could not hold; `what` bears it."""
    case = printable(name)
    if case != name:
        raise CaseError(case, "", f"{what}'s name holds line breaks, or bytes that are not UTF-8; rename it")
    if case != case.strip():
        raise CaseError(case.strip(), "", f"{what}'s name begins or ends with a blank; rename it")
    if len(case.encode()) > LONGEST_NAME:
        raise CaseError(case[:40] + "...", "", f"{what}'s name is longer than {LONGEST_NAME} bytes; shorten it, so that "
                                               "results can bear it")


def check_pattern(pattern: str) -> None:
    """Raise InputError if `data.reader.patient_pattern` is no regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(f"data.reader.patient_pattern: not a regular expression ({error})") from None


def patient_of(case: str, name: str, pattern: str, new: bool = False) -> str:
    """The pattern's first group (or whole match) in `name`; the case itself without a pattern, or where `new` data does
    not fit it. Raises CaseError."""
    if not pattern:
        return case
    match = re.search(pattern, name)
    if match is None and new:
        return case
    if match is None:
        raise CaseError(case, "", f"its name does not match data.reader.patient_pattern {pattern!r}")
    patient = match.group(1) if match.groups() else match.group(0)
    if not patient:
        raise CaseError(case, "", f"data.reader.patient_pattern {pattern!r} finds no patient in its name")
    return patient


def class_numbers(data: Data, low: int | None = None, high: int | None = None) -> dict[str, tuple[int, ...]]:
    """Class -> the numbers in a mask that mean it, of the classes that name any. Raises InputError."""
    numbers = {}
    for name, value in data.class_values.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        fine = len(values) > 0 and all(type(v) is int for v in values)
        if not fine or (low is not None and min(values) < low) or (high is not None and max(values) > high):
            bounds = "" if high is None else f" of {low} to {high}"
            raise InputError(f"data.classes.{name}: found {value!r}, expected the mask value that means it, a whole "
                             f"number{bounds}, or a list of such numbers")
        numbers[name] = tuple(values)
    return numbers


def class_colours(data: Data) -> dict[str, tuple[tuple[int, int, int], ...]]:
    """Class -> the (r, g, b) in a mask that mean it, of the classes that name any. Raises InputError."""
    colours = {}
    for name, value in data.class_values.items():
        several = isinstance(value, (list, tuple)) and len(value) > 0 and not isinstance(value[0], int)
        try:
            colours[name] = tuple(parse_colour(v) for v in (value if several else [value]))
        except ValueError:
            raise InputError(f"data.classes.{name}: found {value!r}, expected a colour, [r, g, b] of 0 to 255 or "
                             '"#rrggbb" in quotes, or a list of colours') from None
    return colours


def spellings(data: Data, numbers: bool = False) -> dict[str, str]:
    """Folded spelling -> class: the texts that data.classes gives a class (with `numbers`, whole numbers too), and its own
    name. Raises InputError."""
    known: dict[str, str] = {}
    for name, value in data.class_values.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        if numbers:  # 1.0 is what spreadsheets and data frames make of a 1 in a column with gaps
            values = [text for v in values for text in ([str(v), f"{v}.0"] if type(v) is int else [v])]
        if not values or not all(isinstance(v, str) and v.strip() for v in values):
            raise InputError(f"data.classes.{name}: found {value!r}, expected a name that the table gives it, or a "
                             f"list of such names{'' if numbers else ', in quotes where they are numbers'}")
        for text in values:
            if known.setdefault(folded(text), name) != name:
                raise InputError(f"data.classes.{name}: {text!r} is a name of {known[folded(text)]} too")
    for name in data.classes:
        if known.setdefault(folded(name), name) != name and name not in data.class_values:
            raise InputError(f"data.classes.{name}: this is a name of {known[folded(name)]} too")
    return known


def spelt(name: str, value) -> str:
    """A class with the spellings that data.classes gives it, as messages name it."""
    values = [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
    return f"{name} ({' or '.join(repr(one) for one in values)})" if values else name


def folded(text: str) -> str:
    """A name without regard to case and to how many blanks there are."""
    return " ".join(text.split()).casefold()
