"""Lines, legends and words on finished pictures: calipers and ellipses of measurements, panels side by side."""

from __future__ import annotations

import unicodedata
from typing import Iterable, Sequence

import cv2
import numpy as np

from lib.imaging.painting import Colour, Upright

FONT = cv2.FONT_HERSHEY_SIMPLEX
TEXT, DARK, MARK = (235, 235, 235), (20, 20, 20), (255, 225, 60)
LETTERS = 0.46  # OpenCV's font scale: capitals of about 10 pixels
LINE_PX, GAP_PX, TICK_PX = 22, 6, 5  # height of a line of text; air around things; half a caliper's end tick
HALO = [(across, down) for across in (-2, 0, 2) for down in (-2, 0, 2)]
AIR_PX, FAR_COST = (11, 88), 0.1  # from a mark to its text, near and far; how much text may hide before far is better
COLOURED = 40  # difference between the channels from which a pixel has something painted on it
MOSTLY = 0.5  # share of such pixels from which colours are those of the image itself
PANEL_PX = (256, 640)  # longer side of a panel, at least and at most
SHIFT = 4  # bits of a pixel that OpenCV's lines keep


def write(picture: np.ndarray, text: str, corner: Sequence[float], colour: Colour = TEXT, letters: float = LETTERS,
          halo: bool = False) -> None:
    """Write into `picture`, its upper left corner at (x, y); `halo` makes it readable on any ground."""
    text = printable(text)
    place = (round(corner[0]), round(corner[1]) + cv2.getTextSize(text, FONT, letters, 1)[0][1])
    for across, down in HALO if halo else ():  # a thicker font would be a wider one
        cv2.putText(picture, text, (place[0] + across, place[1] + down), FONT, letters, DARK, 1, cv2.LINE_AA)
    cv2.putText(picture, text, place, FONT, letters, colour, 1, cv2.LINE_AA)


def printable(text: str) -> str:
    """OpenCV's letters are ASCII: accents go, other signs become a question mark."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return plain.encode("ascii", "replace").decode()


def extent(text: str, letters: float = LETTERS) -> tuple[int, int]:
    """(width, height) of a text in pixels, what hangs below the line included."""
    (width, height), below = cv2.getTextSize(printable(text), FONT, letters, 1)
    return width, height + below


def shortened(text: str, width: int, letters: float = LETTERS) -> str:
    """As much of a text as fits into `width` pixels."""
    if extent(text, letters)[0] <= width:
        return text
    while text and extent(text + "..", letters)[0] > width:
        text = text[:-1]
    return text + ".."


def fitted(text: str, shape: Sequence[int]) -> tuple[str, float]:
    """A text and its font scale for a picture of `shape` (height, width, ...): larger on large ones; what is too long
    for the width becomes smaller, and is cut at last."""
    width, letters = shape[1] - 2 * GAP_PX, LETTERS * max(1.0, max(shape[:2]) / 900)
    while extent(text, letters)[0] > width and letters > 0.3:
        letters -= 0.02
    return shortened(text, width, letters), letters


# --- measurements ------------------------------------------------------------------------------------------------


def draw_marks(picture: np.ndarray, marks: Iterable, view: Upright | float = 1, colour: Colour = MARK) -> np.ndarray:
    """A copy of uint8 (h, w, 3) with the marks of its frame on it: calipers, ellipses, and their values beside them.

    marks: each has `points`, float (n, 2), row and column of native pixel centres; `closed`, whether the last point
    is joined to the first; `text`, as far as there is one. view: what was done to the native frame to make the
    picture: the Upright whose `show` gave it, or only the scale that it was painted at.
    """
    picture = picture.copy()
    marks = [mark for mark in marks if len(mark.points) and np.isfinite(mark.points).all()]
    placed = [view.points(mark.points) if isinstance(view, Upright)
              else (np.asarray(mark.points, np.float64) + 0.5) * view - 0.5 for mark in marks]
    placed = [points[:, ::-1] for points in placed]  # x, y
    bare = picture.copy()
    for thickness, ink in ((3, DARK), (1, colour)):
        for mark, points in zip(marks, placed):
            _lines(picture, points, mark.closed, ink, thickness)
    painted = np.ptp(picture, axis=2) > COLOURED
    if painted.mean() > MOSTLY:  # a photograph of skin: only what is drawn here can be told from it
        painted = (picture != bare).any(axis=2)
    for mark, points in zip(marks, placed):
        if mark.text:
            _words(picture, mark.text, points, colour, painted)
    return picture


def _lines(picture: np.ndarray, points: np.ndarray, closed: bool, colour: Colour, thickness: int) -> None:
    paths = [points]
    if len(points) == 2 and not closed:
        along = points[1] - points[0]
        length = np.hypot(*along)
        across = np.array([-along[1], along[0]]) / length if length else np.array([0.0, 1.0])
        paths += [np.stack([end - TICK_PX * across, end + TICK_PX * across]) for end in points]
    for path in paths:
        fixed = np.rint(path * (1 << SHIFT)).astype(np.int32)
        cv2.polylines(picture, [fixed[:, None]], bool(closed), colour, thickness, cv2.LINE_AA, SHIFT)


def _words(picture: np.ndarray, text: str, points: np.ndarray, colour: Colour, painted: np.ndarray) -> None:
    """Beside the mark, or inside it, where the least of what is painted is hidden; `painted` learns of the text."""
    height, width = picture.shape[:2]
    text, letters = fitted(text, picture.shape)
    size = np.array(extent(text, letters))
    low, high = points.min(axis=0), points.max(axis=0)
    middle = (low + high) / 2
    sides = [np.array(side) for side in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))]
    near, far = ([middle + side * ((high - low) / 2 + air + size / 2) for side in sides] for air in AIR_PX)
    places = near + [middle + (0, (high[1] - low[1]) * share) for share in (0, -0.25, 0.25)] + far
    most = np.maximum(GAP_PX, (width, height) - size - GAP_PX)
    corners = [np.clip(np.rint(place - size / 2), GAP_PX, most).astype(int) for place in places]
    boxes = [(slice(y, y + size[1]), slice(x, x + size[0])) for x, y in corners]
    hidden = [painted[box].mean() + FAR_COST * (i >= len(places) - len(far)) for i, box in enumerate(boxes)]
    best = int(np.argmin(hidden))
    painted[boxes[best]] = True
    write(picture, text, corners[best], colour, letters, halo=True)


# --- panels ------------------------------------------------------------------------------------------------------


def row_of(panels: Sequence[tuple[str, np.ndarray]], legend: dict[str, Colour] | None = None) -> np.ndarray:
    """Pictures (uint8 (h, w, 3)) side by side, each under its title, and below them the colours of the classes."""
    pictures = [_fit_panel(picture) for _, picture in panels]
    tallest, columns = max(p.shape[0] for p in pictures), []
    for (title, _), picture in zip(panels, pictures):
        height, width = picture.shape[:2]
        column = np.full((LINE_PX + tallest, width, 3), DARK, np.uint8)
        column[LINE_PX:LINE_PX + height] = picture
        write(column, shortened(title, width - 2 * GAP_PX), (GAP_PX, GAP_PX))
        columns += [column, np.full((LINE_PX + tallest, GAP_PX, 3), DARK, np.uint8)]
    row = np.concatenate(columns[:-1], axis=1)
    return np.concatenate([row, _legend(legend, row.shape[1])]) if legend else row


def _fit_panel(picture: np.ndarray) -> np.ndarray:
    longer = max(picture.shape[:2])
    scale = min(max(longer, PANEL_PX[0]), PANEL_PX[1]) / longer
    if scale == 1:
        return picture
    size = tuple(max(1, round(n * scale)) for n in picture.shape[1::-1])
    return cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA)


def _legend(legend: dict[str, Colour], width: int) -> np.ndarray:
    """A swatch and a name for each class, on as many lines as they need."""
    swatch, places, x, y = LINE_PX // 2, [], GAP_PX, 0
    for name in legend:
        name = shortened(name, width - swatch - 3 * GAP_PX)
        needed = swatch + GAP_PX + extent(name)[0] + GAP_PX
        if x + needed > width and x > GAP_PX:
            x, y = GAP_PX, y + LINE_PX
        places.append((name, x, y))
        x += needed + 2 * GAP_PX
    strip = np.full((y + LINE_PX + 2, width, 3), DARK, np.uint8)
    for (name, x, y), colour in zip(places, legend.values()):
        strip[y + GAP_PX:y + GAP_PX + swatch, x:x + swatch] = colour
        write(strip, name, (x + swatch + GAP_PX, y + GAP_PX))
    return strip
