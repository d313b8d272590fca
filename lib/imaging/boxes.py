"""Boxes on finished pictures: solid or dashed, exact to parts of a pixel, each with its label where it hides least."""

from __future__ import annotations

from typing import Sequence

import cv2
import numpy as np

from lib.imaging.captions import COLOURED, DARK, GAP_PX, extent, fitted, write
from lib.imaging.painting import Colour

DASH_PX = 5  # length of a dash and of the dark gap after it, about
GAP_OPACITY = 0.65
AIR_PX, RINGS_PX = 3, (0, 14, 32, 56)  # from a box to its label; how much farther where near places are taken
LEADER_PX = 10  # farther away than this, a thin line leads to the box
LUMINANCE, LEAST_LUMINANCE = (0.299, 0.587, 0.114), 125  # of red, green and blue (ITU-R BT.601)
SWEEPS = 6  # over all labels, each moving to where it hides least, the others as they lie

# What a place costs: the share of a box that it hides; shares of the label that lie in boxes, on coloured lines, on
# brightness; distance in heights of the label; and, by far the most, the share that lies on other labels.
BOX_COST, INSIDE_COST, LINE_COST, GREY_COST, FAR_COST, LABEL_COST = 1.0, 0.3, 1.5, 0.5, 0.12, 20.0


def draw_boxes(picture: np.ndarray, boxes: Sequence[Sequence[float]], labels: Sequence[str], colours: Sequence[Colour],
               dashed: bool | Sequence[bool] = False, thickness: float = 2) -> np.ndarray:
    """A copy of uint8 (h, w, 3) with boxes on it: solid ones, over them the dashed ones, and at last the labels.

    boxes: (n, 4) x_min, y_min, x_max, y_max in pixels of the picture, half-open: the lines are centred on the edges of
    the pixels, pixel i reaching from i to i + 1. What lies outside the picture is clipped; boxes that have nothing in
    it, or a number that is not finite, are left out. labels: n, an empty one writes nothing. dashed: of all, or of
    each; the gaps are dark, so that a dashed box shows on a solid one of its colour. One call for predictions and
    truths together knows all lines before it places a label. Raises ValueError if the numbers of things differ.
    """
    picture = np.ascontiguousarray(picture).copy()
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    colours, labels = list(colours), list(labels)
    if not len(boxes) == len(labels) == len(colours):
        raise ValueError(f"{len(boxes)} boxes, {len(labels)} labels and {len(colours)} colours")
    dashed = np.broadcast_to(dashed, len(boxes))
    shown = [i for i, box in enumerate(boxes) if _inside(box, picture.shape)]
    for index in sorted(shown, key=lambda i: dashed[i]):
        _paint(picture, boxes[index], colours[index], dashed[index], thickness)
    shown = [i for i in shown if labels[i]]
    _write_labels(picture, boxes[shown], [labels[i] for i in shown], [colours[i] for i in shown], thickness)
    return picture


def _inside(box: np.ndarray, shape: Sequence[int]) -> bool:
    x_min, y_min, x_max, y_max = box
    return bool(np.isfinite(box).all() and x_min <= x_max and y_min <= y_max
                and x_min < shape[1] and y_min < shape[0] and x_max > 0 and y_max > 0)


# --- lines -------------------------------------------------------------------------------------------------------


def _paint(picture: np.ndarray, box: np.ndarray, colour: Colour, dashed: bool, thickness: float) -> None:
    half = thickness / 2
    low, high = np.full(2, half), np.maximum(half, np.array(picture.shape[1::-1]) - half)
    (left, top), (right, bottom) = np.clip(box.reshape(2, 2), low, high)  # lines along the border stay whole
    rows = slice(max(0, int(top - half)), int(np.ceil(bottom + half)))
    columns = slice(max(0, int(left - half)), int(np.ceil(right + half)))
    y, x = np.arange(picture.shape[0])[rows], np.arange(picture.shape[1])[columns]
    lines = (np.outer(_covered(y, top - half, bottom + half), _covered(x, left - half, right + half))
             - np.outer(_covered(y, top + half, bottom - half), _covered(x, left + half, right - half)))
    ink, opacity = np.broadcast_to(np.float32(colour), (*lines.shape, 3)), lines
    if dashed:
        upright = np.minimum(np.abs(x + 0.5 - left), np.abs(x + 0.5 - right)) <= half  # the left and the right line
        dash = np.where(upright, _dashes(y + 0.5, top, bottom)[:, None], _dashes(x + 0.5, left, right))
        ink, opacity = np.where(dash[..., None], ink, np.float32(DARK)), lines * np.where(dash, 1, GAP_OPACITY)
    part = picture[rows, columns]
    part[...] = np.rint(part + opacity[..., None] * (ink - part))


def _covered(pixels: np.ndarray, start: float, stop: float) -> np.ndarray:
    """The share of each pixel (i to i + 1) that lies between start and stop."""
    return np.clip(np.minimum(pixels + 1, stop) - np.maximum(pixels, start), 0, 1)


def _dashes(places: np.ndarray, start: float, stop: float) -> np.ndarray:
    """Whether a place of a side is on a dash: as many whole dashes as fit, half a one at either corner."""
    periods = max(1, round((stop - start) / (2 * DASH_PX)))
    phase = (places - start) / max(stop - start, 1e-9) * periods
    return np.abs(phase - np.rint(phase)) <= 0.25


# --- labels ------------------------------------------------------------------------------------------------------


def _write_labels(picture: np.ndarray, boxes: np.ndarray, labels: Sequence[str], colours: Sequence[Colour],
                  thickness: float) -> None:
    if not labels:
        return
    shape = np.array(picture.shape[1::-1])
    boxes = np.concatenate([np.clip(boxes[:, :2], 0, shape), np.clip(boxes[:, 2:], 0, shape)], axis=1)
    texts = [fitted(label, picture.shape) for label in labels]
    sizes = [np.array(extent(*text)) for text in texts]
    places = place_labels(picture, boxes, sizes, thickness / 2 + AIR_PX)
    for box, size, corner, colour in zip(boxes, sizes, places, colours):
        _lead(picture, box, np.concatenate([corner, corner + size]), colour)
    for (text, letters), corner, colour in zip(texts, places, colours):
        write(picture, text, corner, legible(colour), letters, halo=True)


def legible(colour: Colour) -> Colour:
    """A colour for thin letters on dark: mixed with white until its luminance (0..255) is LEAST_LUMINANCE."""
    luminance = float(np.dot(LUMINANCE, colour))
    white = max(0.0, LEAST_LUMINANCE - luminance) / (255 - min(luminance, LEAST_LUMINANCE))
    return tuple(round(c + (255 - c) * white) for c in colour)


def place_labels(picture: np.ndarray, boxes: np.ndarray, sizes: Sequence[np.ndarray], air: float) -> np.ndarray:
    """int (n, 2), the upper left corners (x, y) of labels of `sizes` (width, height), one for each of `boxes` (n, 4).

    Each label starts where it hides least of the picture (uint8 (h, w, 3), boxes already on it); then they make room
    for each other in turn, as in cartographers' point labelling (Christensen, Marks & Shieber 1995), downhill only.
    """
    found = [_candidates(box, size, picture.shape, air) for box, size in zip(boxes, sizes)]
    hidden = _hiding(picture, boxes)
    costs = [hidden(corners, size) + FAR_COST * distance / size[1] for (corners, distance), size in zip(found, sizes)]
    areas = [np.concatenate([corners - 1, corners + size + 1], axis=1) for (corners, _), size in zip(found, sizes)]
    chosen = [int(np.argmin(cost)) for cost in costs]
    for _ in range(SWEEPS):
        before = list(chosen)
        for index, cost in enumerate(costs):
            others = np.array([areas[i][c] for i, c in enumerate(chosen) if i != index]).reshape(-1, 4)
            overlap = _common(areas[index], others).sum(axis=1) / np.prod(sizes[index])
            chosen[index] = int(np.argmin(cost + LABEL_COST * overlap))
        if chosen == before:
            break
    return np.array([corners[c] for (corners, _), c in zip(found, chosen)])


def _candidates(box: np.ndarray, size: np.ndarray, shape: Sequence[int], air: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners (m, 2) around and inside a box, all in the picture, and how much farther than `air` each is from it."""
    corners = []
    for ring in RINGS_PX:
        low, high = box[:2] - size - air - ring, box[2:] + air + ring
        if ring == 0:  # flush with the box's corners, or in the middle of a side
            across, down = (np.linspace(box[k], box[k + 2] - size[k], 3) for k in (0, 1))
        else:
            across, down = (np.linspace(low[k], high[k], 7) for k in (0, 1))
        corners += [(x, y) for y in (low[1], high[1]) for x in across]
        corners += [(x, y) for x in (low[0], high[0]) for y in down]
    inner = box[2:] - box[:2] - 2 * air - size
    if (inner >= 0).all():
        corners += [box[:2] + air + inner * (x, y) for y in (0, 1) for x in (0, 0.5, 1)]
    most = np.maximum(GAP_PX // 2, np.array(shape[1::-1]) - size - GAP_PX // 2)
    corners = np.clip(np.rint(corners), GAP_PX // 2, most).astype(int)
    apart = np.maximum(0, np.maximum(box[:2] - (corners + size), corners - box[2:]))
    return corners, np.maximum(0, np.hypot(*apart.T) - air)


def _hiding(picture: np.ndarray, boxes: np.ndarray):
    """A function (corners (m, 2), size) -> (m,): what labels there hide of boxes, lines and bright anatomy."""
    red, green, blue = cv2.split(picture)
    spread = cv2.max(cv2.max(red, green), blue) - cv2.min(cv2.min(red, green), blue)
    lines = cv2.integral((spread > COLOURED).astype(np.uint8), sdepth=cv2.CV_64F)
    grey = cv2.integral(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), sdepth=cv2.CV_64F) / 255

    def mean(sums: np.ndarray, corners: np.ndarray, size: np.ndarray) -> np.ndarray:
        (x, y), (right, low) = (np.minimum(ends, picture.shape[1::-1]).T for ends in (corners, corners + size))
        return (sums[low, right] - sums[y, right] - sums[low, x] + sums[y, x]) / np.prod(size)

    def cost(corners: np.ndarray, size: np.ndarray) -> np.ndarray:
        common = _common(np.concatenate([corners, corners + size], axis=1), boxes)
        areas = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1)
        return (BOX_COST * (common / areas).sum(axis=1) + INSIDE_COST * common.sum(axis=1) / np.prod(size)
                + LINE_COST * mean(lines, corners, size) + GREY_COST * mean(grey, corners, size))

    return cost


def _common(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The areas that boxes (m, 4) and (n, 4) have in common, (m, n)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.maximum(high - low, 0).prod(axis=2)


def _lead(picture: np.ndarray, box: np.ndarray, label: np.ndarray, colour: Colour) -> None:
    """A thin line from a label that lies far off to the nearest point of its box."""
    from_label = np.clip((box[:2] + box[2:]) / 2, label[:2], label[2:])
    to_box = np.clip(from_label, box[:2], box[2:])
    if np.hypot(*(to_box - from_label)) > LEADER_PX:
        ends = [tuple(int(v) for v in np.rint(end)) for end in (from_label, to_box)]
        for thickness, ink in ((3, DARK), (1, colour)):
            cv2.line(picture, *ends, ink, thickness, cv2.LINE_AA)
