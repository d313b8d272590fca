"""What reading changes of an image or a video on its way to 8 bits and the study's channels: noted with each case, told to
the user, and told in a report's methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Sequence

from lib.data.case import Header
from lib.imaging.cine import CineFacts
from lib.imaging.photographs import Facts

COLUMN = "converted"  # of cases.csv, where anything was; it holds names of Conversions
BETWEEN = "; "


@dataclass(frozen=True)
class Conversion:
    """happens(facts, channels): whether it is done to a file. note, method: what follows "3 images" in a line of script 1,
    and in a sentence of a report's methods, where {} is was or were."""
    name: str
    happens: Callable[[Facts | CineFacts, int], bool]
    note: str
    method: str


TO_COLOURS = Conversion("repeated", lambda facts, channels: not facts.colour and channels == 3,
                        "in grey: repeated as red, green and blue", "in grey {} repeated as red, green and blue")
OF_IMAGES = (
    TO_COLOURS,
    Conversion("8 bits", lambda facts, channels: facts.deep,
               "of more than 8 bits: converted to 8 bits, each from its own minimum and maximum",
               "of more than 8 bits {} converted to 8 bits, each from its own minimum and maximum"),
    Conversion("without alpha", lambda facts, channels: facts.alpha,
               "with alpha, which was dropped", "with alpha {} used without it"),
    Conversion("grey", lambda facts, channels: facts.colour and channels == 1,
               "with colours: turned grey (channels: 3 would keep them)", "with colours {} turned grey"),
)
OF_VIDEOS = (
    Conversion("grey", lambda facts, channels: facts.colour and channels == 1,
               "stored with colours: turned grey (channels: 3 would keep them)", "stored with colours {} turned grey"),
    TO_COLOURS,
    Conversion("8 bits", lambda facts, channels: facts.deep,
               "of more or fewer than 8 bits: converted to 8 bits by its own window, or the range of its frames",
               "of more or fewer than 8 bits {} converted to 8 bits, each by its own window or the range of its frames"),
)


def converted(kinds: Sequence[Conversion], facts: Facts | CineFacts, channels: int) -> dict[str, str]:
    """Of `Header.about`: what is done to a file of these facts; {} if nothing is."""
    names = [kind.name for kind in kinds if kind.happens(facts, channels)]
    return {COLUMN: BETWEEN.join(names)} if names else {}


def conversion_notes(kinds: Sequence[Conversion], headers: Sequence[Header], thing: str) -> list[str]:
    """Lines for the user of how many images (`thing`: image) are converted, and how."""
    return [f"{count} {thing}{'s' * (count != 1)} {kind.note}" for kind, count in _counts(kinds, headers) if count]


def conversion_methods(kinds: Sequence[Conversion], headers: Sequence[Header], thing: str) -> list[str]:
    """Sentences of a methods section on the same."""
    return [f"{counted(count, thing)} {kind.method.format('was' if count == 1 else 'were')}."
            for kind, count in _counts(kinds, headers) if count]


def counted(count: int, thing: str) -> str:
    """1 image, 1,200 images."""
    return f"{count:,} {thing}{'s' * (count != 1)}"


def _counts(kinds: Sequence[Conversion], headers: Sequence[Header]) -> list[tuple[Conversion, int]]:
    said = [header.about.get(COLUMN, "").split(BETWEEN) for header in headers]
    return [(kind, sum(kind.name in names for names in said)) for kind in kinds]
