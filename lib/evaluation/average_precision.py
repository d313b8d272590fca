"""Average precision of boxes as COCO has it, and the confidence at which F1 is greatest.

Everything here is for one class at a time: `truths` and `boxes` are lists over images of (n, 4) arrays (`boxes.py` says
what a box is; an image without any has an empty array of any shape), `scores` one over images of (m,) arrays, 0..1.
To pool classes, join their lists: an image of another class is as good as another image.

Detections are matched image by image from the highest score to the lowest, of equals the first: each takes, of the
truths that none has taken yet, the one that it overlaps most (of equals the last, as pycocotools does), if their IoU
reaches the threshold, and is a true positive then. Lin et al., Microsoft COCO, ECCV 2014, arXiv:1405.0312; the details
(area range "all", no crowds) are those of `COCOeval` in pycocotools, whose numbers these are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from lib.evaluation.boxes import iou

COCO_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_LEVELS = np.linspace(0.0, 1.0, 101)
COCO_THRESHOLDS.flags.writeable = RECALL_LEVELS.flags.writeable = False
MOST_PER_IMAGE = 100  # detections of a class that COCO looks at

Boxes = Sequence[np.ndarray]
Scores = Sequence[np.ndarray]


class ClassPrecision(NamedTuple):
    """Of one class at T thresholds of IoU, float64; all NaN where no image has a truth (pycocotools says -1)."""

    ap: np.ndarray         # (T,) mean of the precision over RECALL_LEVELS
    recall: np.ndarray     # (T,) of all detections; its mean over T is COCO's average recall
    precision: np.ndarray  # (T, 101) at RECALL_LEVELS: the best at that recall or a higher one, 0 if it is not reached
    scores: np.ndarray     # (T, 101) of the detection with which each level is reached, 0 if it is not


class F1Curve(NamedTuple):
    """Every way to cut the detections by confidence, from the highest confidence to the lowest, float64 (cuts,).

    Detections with a score of at least the confidence count. With no truth recall and F1 are NaN.
    """

    confidences: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


class Counts(NamedTuple):
    """True positives, false positives, false negatives, and the IoU (tp,) of each true positive."""

    tp: int
    fp: int
    fn: int
    ious: np.ndarray


def average_precision(truths: Boxes, boxes: Boxes, scores: Scores,
                      thresholds: Sequence[float] = COCO_THRESHOLDS) -> ClassPrecision:
    """COCO's average precision of one class at each threshold of IoU, equal to pycocotools' to rounding.

    Equal scores are ranked in the order of the images (pycocotools takes those by ascending id).
    Raises ValueError for lists of unlike lengths, unlike numbers of boxes and scores, or NaN scores.
    """
    thresholds = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
    pool = _pool(truths, boxes, scores, MOST_PER_IMAGE)
    positives = np.count_nonzero(pool.there)
    if not positives:
        levels = np.full((len(thresholds), len(RECALL_LEVELS)), np.nan)
        return ClassPrecision(levels[:, 0].copy(), levels[:, 0].copy(), levels, levels.copy())
    order = np.argsort(-pool.scores, kind="stable")
    found = np.cumsum(~np.isnan(_match(pool, thresholds)[:, order]), axis=1, dtype=np.float64)
    precision = found / (np.arange(1, len(order) + 1) + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # A level that is not reached points one past the end: precision and score are 0 there.
    at = np.stack([np.searchsorted(row, RECALL_LEVELS, side="left") for row in found / positives])
    envelope, ranked = np.pad(envelope, ((0, 0), (0, 1))), np.append(pool.scores[order], 0)
    levels = np.take_along_axis(envelope, at, axis=1)
    recall = found[:, -1] / positives if len(order) else np.zeros(len(thresholds))
    return ClassPrecision(levels.mean(axis=1), recall, levels, ranked[at])


def f1_curve(truths: Boxes, boxes: Boxes, scores: Scores, threshold: float = 0.5) -> F1Curve:
    """Precision, recall and F1 of one class at every confidence that makes a difference: the scores themselves.

    threshold: the IoU that makes a true positive. No detections: empty arrays. Raises ValueError as
    `average_precision` does.
    """
    confidences, tp, detections, positives = _cuts(truths, boxes, scores, threshold)
    if not positives:
        return F1Curve(confidences, tp / detections, np.full(len(tp), np.nan), np.full(len(tp), np.nan))
    return F1Curve(confidences, tp / detections, tp / positives, 2 * tp / (detections + positives))


def best_confidence(truths: Sequence[Boxes], boxes: Sequence[Boxes], scores: Sequence[Scores],
                    threshold: float = 0.5) -> float:
    """The one confidence for all classes at which their pooled (micro) F1 is greatest.

    truths, boxes, scores: lists over classes of the lists over images that the others take.
    It lies midway between the lowest score that counts and the next lower one, or 0 below the lowest of all, and is
    met by `score >= confidence`. Of equally good ones it is the nearest to 0.5, then the higher; 0.5 where there is
    no truth or no detection. Raises ValueError as `average_precision` does.
    """
    joined = [list(chain.from_iterable(lists)) for lists in (truths, boxes, scores)]
    confidences, tp, detections, positives = _cuts(*joined, threshold)
    if not positives or not len(tp):
        return 0.5
    below = np.append(confidences[1:], min(0.0, confidences[-1]))
    midway = (confidences + below) / 2
    midway = np.where(midway > below, midway, confidences)  # between neighbouring floats there is nothing
    f1 = tp / (detections + positives)  # half of it, which has the same maximum and the same equals
    best = midway[f1 == f1.max()]
    return float(best[np.abs(best - 0.5).argmin()])


def counts_at(truths: Boxes, boxes: Boxes, scores: Scores, confidence: float, threshold: float = 0.5) -> Counts:
    """True and false positives and false negatives of one class, of the detections with score >= confidence.

    threshold: the IoU that makes a true positive. The IoUs come image by image, the highest score first.
    Raises ValueError as `average_precision` does.
    """
    pool = _pool(truths, boxes, scores)
    # A match never depends on lower scores, so all may be matched before they are cut.
    ious = _match(pool, np.array([threshold]))[0][pool.scores >= confidence]
    matched = ious[~np.isnan(ious)]
    tp = len(matched)
    return Counts(tp, len(ious) - tp, int(np.count_nonzero(pool.there)) - tp, matched)


class _Pool(NamedTuple):
    """Images side by side. Detections come image by image, the highest score first."""

    truths: np.ndarray  # (images, most, 4), NaN where an image has fewer than `most`
    there: np.ndarray   # (images, most) bool
    boxes: np.ndarray   # (d, 4)
    scores: np.ndarray  # (d,)
    image: np.ndarray   # (d,) int
    rank: np.ndarray    # (d,) int, 0 for the highest score of its image


def _pool(truths: Boxes, boxes: Boxes, scores: Scores, limit: int | None = None) -> _Pool:
    """All images in one. limit: how many detections of an image to keep."""
    wanted, given, scored = ([len(rows) for rows in lists] for lists in (truths, boxes, scores))
    if len(wanted) != len(given) or given != scored:
        raise ValueError(f"needed: truths, boxes and scores of the same images, and a score for every box; got "
                         f"{len(wanted)}, {len(given)} and {len(scored)} images, {sum(given)} boxes and "
                         f"{sum(scored)} scores")
    wanted, given = np.array(wanted, dtype=np.intp), np.array(given, dtype=np.intp)
    there = np.arange(wanted.max(initial=1)) < wanted[:, None]
    padded = np.full((*there.shape, 4), np.nan)
    padded[there] = _joined(truths, (0, 4))
    rows, flat = _joined(boxes, (0, 4)), _joined(scores, (0,))
    if np.isnan(flat).any():
        raise ValueError("scores must be numbers, not NaN")
    image = np.repeat(np.arange(len(given)), given)
    order = np.lexsort((-flat, image))  # stable; `image` itself stays as it is
    rank = np.arange(len(image)) - (np.cumsum(given) - given)[image]
    kept = rank < (len(rank) if limit is None else limit)
    order = order[kept]
    return _Pool(padded, there, rows[order], flat[order], image[kept], rank[kept])


def _joined(arrays: Sequence[np.ndarray], empty: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([np.empty(empty), *(rows for rows in arrays if len(rows))])


def _match(pool: _Pool, thresholds: np.ndarray) -> np.ndarray:
    """The IoU of each detection with the truth that it takes, NaN where it takes none: (T, d)."""
    floors = np.minimum(thresholds, 1 - 1e-10)[:, None]
    free = np.repeat(pool.there[None], len(thresholds), axis=0)
    matched = np.full((len(thresholds), len(pool.rank)), np.nan)
    # Images know nothing of each other: the first detections of all are matched at once, then the second ones.
    by_rank = np.argsort(pool.rank, kind="stable")
    for members in np.split(by_rank, np.cumsum(np.bincount(pool.rank))[:-1]):
        image = pool.image[members]
        ious = np.where(free[:, image], iou(pool.boxes[members, None], pool.truths[image]), -1)
        best = ious.shape[-1] - 1 - ious[..., ::-1].argmax(axis=-1)  # of equals the last
        taken = np.take_along_axis(ious, best[..., None], axis=-1)[..., 0]
        level, row = np.nonzero(taken >= floors)
        matched[level, members[row]] = taken[level, row]
        free[level, image[row], best[level, row]] = False
    return matched


def _cuts(truths: Boxes, boxes: Boxes, scores: Scores,
          threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Each score that occurs, falling; how many true positives and detections have it or more; how many truths."""
    pool = _pool(truths, boxes, scores)
    order = np.argsort(-pool.scores, kind="stable")
    ranked = pool.scores[order]
    tp = np.cumsum(~np.isnan(_match(pool, np.array([threshold]))[0, order]))
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], np.ones(len(ranked[:1]), dtype=bool)))
    return ranked[last], tp[last], last + 1, int(np.count_nonzero(pool.there))
