"""The pictures of report.html: of every case one frame, and over it truth and prediction as layers of their own."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Iterator

import cv2
import numpy as np

from lib.imaging.captions import GAP_PX, draw_marks, extent, shortened, write
from lib.imaging.painting import Upright, panel_scale

LONGER_PX, LEAST_PX = 400, 96  # longer side of a picture; what a very long report may shrink it to
BUDGET = 15_000_000  # bytes of all pictures, which are a third more as text in the page
QUALITY, LEAST_QUALITY = 75, 50  # of WebP
FULL = 0.2  # share of a picture from which a layer is an image of its own rather than lines
COVERED = 0.25  # share of a pixel that is drawn on, from which a shrunk layer has it
TRIED = 40  # pictures by which a smaller size is chosen
LAYERS = ("base", "truth", "prediction")


def draw_layers(task, frames: np.ndarray, prediction, truth: np.ndarray | None,
                case) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """(base uint8 (h, w, 3), truth and prediction uint8 (h, w, 4)) of the frame that the task shows, upright.

    A layer is clear where nothing is drawn, and None if nothing is drawn at all. frames: (n, channels, *grid), as stored.
    """
    frame, scale = task.shown_frame(prediction, truth), panel_scale(case.geometry, LONGER_PX, LONGER_PX)
    view = Upright(case.geometry, scale)

    def shown(prediction, truth) -> np.ndarray:
        return view.show(task.draw(frames, prediction, truth, case, [frame], scale)[0])

    base = shown(None, None)
    marks = [mark for mark in task.marks(prediction, case) if mark.frame == frame]
    predicted = draw_marks(shown(prediction, None), marks, view)
    predicted = with_words(predicted, "prediction", task.words(prediction, None), bottom=True)
    true = base if truth is None else with_words(shown(None, truth), "truth", task.words(None, truth))
    return base, layer(base, true), layer(base, predicted)


def with_words(picture: np.ndarray, whose: str, text: str, bottom: bool = False) -> np.ndarray:
    """The picture with a line of text in its upper or lower left corner, and whose it is; as it is without one."""
    if not text:
        return picture
    picture, text = picture.copy(), shortened(f"{whose}: {text}", picture.shape[1] - 2 * GAP_PX)
    write(picture, text, (GAP_PX, picture.shape[0] - extent(text)[1] - GAP_PX if bottom else GAP_PX), halo=True)
    return picture


def layer(base: np.ndarray, painted: np.ndarray) -> np.ndarray | None:
    """What `painted` has and `base` has not, both uint8 (h, w, 3): uint8 (h, w, 4), clear elsewhere; None if nothing."""
    red, green, blue = cv2.split(cv2.absdiff(base, painted))
    differs = (red | green | blue) > 0
    return np.dstack([painted * differs[..., None], differs * np.uint8(255)]) if differs.any() else None


def picture_legend(task, truths: bool) -> list[tuple[str, str]]:
    """(what is drawn so, "#rrggbb") of the task's classes; then, without a colour, how the prediction is drawn, and the truth
    where there are truths."""
    colours = [(task.shown(name), "#{:02x}{:02x}{:02x}".format(*colour)) for name, colour in task.palette.items()
               if task.coloured]
    how = ", ".join(filter(None, (task.drawn, task.drawn_truth if truths else "")))
    return [*colours, *([(how, "")] if how else [])]


class PictureBook:
    """Pictures as they are drawn, kept in a file: memory does not grow with the cases. Close it, or use it in a `with`.

    spool: a name for that file, which is gone at once for all others. index: key -> which picture; count: how many. note:
    a sentence for readers where pictures had to be made smaller to fit into `budget` bytes.
    """

    def __init__(self, spool: Path, budget: int = BUDGET):
        spool.parent.mkdir(parents=True, exist_ok=True)
        self._file = spool.open("w+b")
        spool.unlink()  # it lives on until it is closed, whatever ends this process
        self.budget, self.index = budget, {}
        self._places: list[tuple[int, tuple[int, ...], tuple[int, int]]] = []  # where it begins, bytes of layers, (w, h)
        self._fitting: tuple[int, int] | None = None

    def __enter__(self) -> PictureBook:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def count(self) -> int:
        return len(self._places)

    @property
    def bytes(self) -> int:
        return sum(sum(lengths) for _, lengths, _ in self._places)

    def add(self, key: str, base: np.ndarray, truth: np.ndarray | None, prediction: np.ndarray | None) -> int:
        """Put in a case's picture, uint8 (h, w, 3), and its layers, uint8 (h, w, 4) of the same size or None; returns its
        index. Raises ValueError for a key that is there already."""
        if key in self.index:
            raise ValueError(f"two pictures of {key!r}")
        base, truth, prediction = (resized(one, LONGER_PX) for one in (base, truth, prediction))
        parts = [b"" if one is None else encoded(one, QUALITY) for one in (base, truth, prediction)]
        self.index[key], self._fitting = self.count, None
        self._places.append((self._file.seek(0, io.SEEK_END), tuple(map(len, parts)), base.shape[1::-1]))
        self._file.write(b"".join(parts))
        return self.index[key]

    @property
    def note(self) -> str:
        longer, _ = self.fitting()
        if longer == LONGER_PX:
            return ""
        return (f"There are {self.count} pictures, so each is at most {longer} px wide and high instead of {LONGER_PX} px, which "
                "keeps this page small; the folder pictures/ has them in full.")

    def pictures(self) -> Iterator[tuple[int, dict[str, bytes | None], tuple[int, int]]]:
        """(index, {"base", "truth", "prediction": WebP, or None}, (width, height)) of each, in the order of `add`."""
        longer, quality = self.fitting()
        for index, (_, _, size) in enumerate(self._places):
            parts = self._read(index)
            if longer < LONGER_PX:
                images = [resized(decoded(part), longer) if part else None for part in parts]
                parts, size = [b"" if one is None else encoded(one, quality) for one in images], images[0].shape[1::-1]
            yield index, {name: part or None for name, part in zip(LAYERS, parts)}, tuple(size)

    def fitting(self) -> tuple[int, int]:
        """(longer side, quality) at which all pictures fit into the budget, as far as some of them tell."""
        if self._fitting is None:
            self._fitting = (LONGER_PX, QUALITY) if self.bytes <= self.budget else self._smaller()
        return self._fitting

    def _smaller(self) -> tuple[int, int]:
        tried = np.unique(np.linspace(0, self.count - 1, min(TRIED, self.count)).astype(int)).tolist()
        images = [[decoded(part) for part in self._read(index) if part] for index in tried]
        most = 0.93 * self.budget * sum(sum(self._places[index][1]) for index in tried) / self.bytes
        longer, quality = LONGER_PX, QUALITY
        while longer > LEAST_PX:
            longer, quality = max(LEAST_PX, math.floor(longer * 0.9)), max(LEAST_QUALITY, quality - 3)
            if sum(len(encoded(resized(one, longer), quality)) for case in images for one in case) <= most:
                break
        return longer, quality

    def _read(self, index: int) -> list[bytes]:
        start, lengths, _ = self._places[index]
        self._file.seek(start)
        return [self._file.read(length) for length in lengths]


def resized(picture: np.ndarray | None, longer_px: int) -> np.ndarray | None:
    """uint8 (h, w, 3 or 4), shrunk to at most so many pixels on its longer side; lines of a layer stay lines."""
    if picture is None or max(picture.shape[:2]) <= longer_px:
        return picture
    scale = longer_px / max(picture.shape[:2])
    size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
    if picture.shape[2] == 3:
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    # colours are means over what is drawn, not over the black of what is clear, and a thin line stays a line
    small = cv2.resize(picture.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    drawn = small[..., 3:] > COVERED * 255
    colours = small[..., :3] * (255 / np.maximum(small[..., 3:], 1))
    return (np.dstack([np.rint(colours).clip(0, 255), np.full(drawn.shape, 255)]) * drawn).astype(np.uint8)


def encoded(picture: np.ndarray, quality: int) -> bytes:
    """uint8 (h, w, 3 or 4) as WebP; a layer of few lines in sharp edges and fewer colours (each off by at most 8 of 255),
    which takes fewer bytes than soft ones."""
    from PIL import Image
    file, how = io.BytesIO(), {"quality": quality, "method": 0}
    if picture.shape[2] == 4 and np.count_nonzero(picture[..., 3]) < FULL * picture[..., 3].size:
        picture, how = picture & np.uint8(0xF0) | picture >> 4, {"lossless": True, "method": 2}
    Image.fromarray(picture).save(file, "WEBP", **how)
    return file.getvalue()


def decoded(data: bytes) -> np.ndarray:
    """WebP -> uint8 (h, w, 3), or (h, w, 4) of a layer."""
    from PIL import Image
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGBA" if image.mode == "RGBA" else "RGB"))
