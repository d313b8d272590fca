"""Paint masks and probabilities over frames, grey or in colour, in colours that colour-blind readers can tell apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Sequence

import cv2
import numpy as np

from lib.imaging.geometry import Geometry, scaled_size

Colour = tuple[int, int, int]

# Given to the classes in order: Okabe & Ito 2008, without black; then, of Paul Tol's light and muted schemes (Colour
# schemes, SRON/EPS/TN/09-002, 2021), what is bright enough for dark frames and keeps farthest from all before it
# (CIEDE2000, under each kind of colour blindness as Machado et al. 2009 simulate it)
PALETTE = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0), (0, 114, 178),
           (153, 221, 255), (255, 170, 187), (170, 68, 153), (17, 119, 51), (68, 187, 153))
TRUTH = ((255, 255, 255), (0, 0, 0))  # dots in turn, so that they show on bright and on dark
DOT_STEP = 3  # pixels of the contour from dot to dot
HEAT_FLOOR = 0.05  # probabilities below it are not painted
HEAT_OPACITY = (0.5, 0.9)  # at the floor, at certainty
OUTLINE = 0.6  # brightness of the outline of a filled area
WHOLE = (slice(None), slice(None))


def parse_colour(value: str | Sequence[int]) -> Colour:
    """"#rrggbb" or [red, green, blue] -> (red, green, blue), each 0..255. Raises ValueError."""
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
    if isinstance(value, (list, tuple)) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value):
        return tuple(value)
    raise ValueError(f"{value!r} is no colour; expected \"#rrggbb\" or [red, green, blue] with whole numbers 0 to 255")


def class_colours(names: Sequence[str], colours: dict[str, Colour] | None = None) -> dict[str, Colour]:
    """The colour of each class: its own where `colours` has one, else its turn of PALETTE."""
    return {name: (colours or {}).get(name, PALETTE[i % len(PALETTE)]) for i, name in enumerate(names)}


def panel_scale(geometry: Geometry, about_px: int, most_px: int) -> float:
    """How much to enlarge (whole times) or to shrink a frame, so that its upright picture measures `about_px` on its
    longer side, and never more than `most_px`."""
    spacing = geometry.spacing[1:]
    longer = max(n * s for n, s in zip(geometry.shape[1:], spacing)) / min(spacing)
    return most_px / longer if longer > most_px else max(1, min(round(about_px / longer), int(most_px // longer)))


def stretched(frames: np.ndarray) -> np.ndarray:
    """float of any shape -> uint8, the 1st to 99.7th percentile of the whole series, all its channels together, over 0..255."""
    low, high = np.percentile(frames, [1, 99.7])
    return np.clip((frames - low) * (255 / max(high - low, 1e-6)), 0, 255).astype(np.uint8)


def overlay(image: np.ndarray, outlines: dict[str, np.ndarray], truths: dict[str, np.ndarray],
            heat: np.ndarray | None = None, scale: float = 1, colours: dict[str, Colour] | None = None) -> np.ndarray:
    """uint8 (n, h, w), or (n, h, w, 3) in colour -> uint8 (n, h * scale, w * scale, 3): heat, then coloured outlines, then
    truth (dots).

    outlines, truths: class -> bool (n, h, w); heat: float32 (n, h, w), 0..1; colours: of the outlines.
    """
    return np.stack([
        paint(frame, {k: m[i] for k, m in outlines.items()}, {k: m[i] for k, m in truths.items()},
              None if heat is None else heat[i], scale, colours) for i, frame in enumerate(image)])


def paint(image: np.ndarray, outlines: dict[str, np.ndarray], truths: dict[str, np.ndarray],
          heat: np.ndarray | None = None, scale: float = 1, colours: dict[str, Colour] | None = None) -> np.ndarray:
    """One frame of `overlay`."""
    picture = canvas(image, scale)
    size = picture.shape[1::-1]
    if heat is not None and float(heat.max()) > HEAT_FLOOR:
        heat = np.clip(cv2.resize(heat.astype(np.float32), size, interpolation=cv2.INTER_LINEAR), 0, 1)
        painted = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
        low, high = HEAT_OPACITY
        opacity = ((heat > HEAT_FLOOR) * (low + (high - low) * heat))[..., None]
        picture = (picture * (1 - opacity) + painted * opacity).astype(np.uint8)
    for name, colour in class_colours(list(outlines), colours).items():
        cv2.polylines(picture, contours(outlines[name], size), True, colour, 1)
    for mask in truths.values():
        for contour in contours(mask, size):
            for turn, colour in enumerate(TRUTH):
                points = contour[turn * DOT_STEP::2 * DOT_STEP, 0]
                picture[points[:, 1], points[:, 0]] = colour
    return picture


def filled(image: np.ndarray, masks: dict[str, np.ndarray], colours: dict[str, Colour] | None = None, scale: float = 1,
           opacity: float = 0.55) -> np.ndarray:
    """uint8 (h, w) or (h, w, 3) -> uint8 (h * scale, w * scale, 3): the areas of the classes in colour, each with a darker
    outline.

    masks: class -> bool (h, w); where classes overlap, the later one is seen.
    """
    bare = canvas(image, scale).astype(np.float32)
    picture, size = bare.astype(np.uint8), bare.shape[1::-1]
    for name, colour in class_colours(list(masks), colours).items():
        area = enlarge(masks[name], size) > 0
        picture[area] = np.rint(bare[area] * (1 - opacity) + np.float32(colour) * opacity).astype(np.uint8)
        cv2.polylines(picture, contours(masks[name], size), True, [round(OUTLINE * c) for c in colour], 1)
    return picture


def canvas(image: np.ndarray, scale: float) -> np.ndarray:
    """uint8 (h, w), or (h, w, 3) red, green, blue -> RGB uint8 (h * scale, w * scale, 3), to paint on."""
    height, width = scaled_size(image.shape[:2], scale)
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC if scale >= 1 else cv2.INTER_AREA)
    return resized if resized.ndim == 3 else cv2.cvtColor(resized, cv2.COLOR_GRAY2RGB)


def enlarge(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool (h, w) -> uint8 0/1 of `size` (width, height); shrunk, a pixel counts if at least half of it is covered."""
    if size[0] >= mask.shape[1]:
        return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    covered = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return (covered >= 0.5 - 1e-4).astype(np.uint8)


def contours(mask: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """Outlines of bool (h, w) at `size` (width, height): int32 (points, 1, 2), x and y, on the mask's own pixels."""
    return list(cv2.findContours(enlarge(mask, size), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0])


def upright(picture: np.ndarray, geometry: Geometry) -> np.ndarray:
    """A native frame (h, w, 3) as the eye expects it: turned, square in mm, and R at the patient's right where known."""
    picture = np.rot90(picture, geometry.turn)
    height, width = _square(picture.shape[:2], geometry)
    picture = np.ascontiguousarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR))
    if geometry.turn == 2 and not geometry.flat:  # radiological view of a RAS volume
        cv2.putText(picture, "R", (3, height // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.42, TRUTH[0], 1, cv2.LINE_AA)
    return picture


def _square(shape: Sequence[int], geometry: Geometry) -> tuple[int, int]:
    """(height, width) of a turned picture once its pixels are as high as they are wide."""
    spacing = geometry.spacing[1:] if geometry.turn % 2 == 0 else geometry.spacing[:0:-1]
    return tuple(round(n * s / min(spacing)) for n, s in zip(shape, spacing))


@dataclass(frozen=True)
class Upright:
    """A view of a frame: painted at `scale`, cut to `box` (rows and columns of what was painted), then made upright.

    It takes points along, so that marks and their text are drawn on the finished view and never lie on their side.
    """
    geometry: Geometry
    scale: float = 1
    box: tuple[slice, slice] = WHOLE

    def show(self, painted: np.ndarray) -> np.ndarray:
        """uint8 (h * scale, w * scale, 3) as `paint` or `filled` gives it -> the view."""
        return upright(painted[self.box], self.geometry)

    def points(self, points: np.ndarray) -> np.ndarray:
        """float (n, 2), row and column of native pixel centres -> row and column in the view."""
        native = self.geometry.shape[1:]
        painted = scaled_size(native, self.scale)
        (top, bottom, _), (left, right, _) = (cut.indices(n) for cut, n in zip(self.box, painted))
        points = _resized(np.asarray(points, np.float64), native, painted) - (top, left)
        size = (bottom - top, right - left)
        for _ in range(self.geometry.turn % 4):  # numpy.rot90, anticlockwise
            points = np.stack([size[1] - 1 - points[:, 1], points[:, 0]], axis=1)
            size = size[::-1]
        return _resized(points, size, _square(size, self.geometry))


def _resized(points: np.ndarray, old: Sequence[int], new: Sequence[int]) -> np.ndarray:
    """Pixel centres under a resize from `old` to `new` (height, width), as OpenCV lays them."""
    return (points + 0.5) * (np.asarray(new) / np.asarray(old)) - 0.5
