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

from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from lib.evaluation.boxes import iou
from lib.evaluation.statistics import AT_ONCE, ratio

COCO_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_LEVELS = np.linspace(0.0, 1.0, 101)
COCO_THRESHOLDS.flags.writeable = RECALL_LEVELS.flags.writeable = False
MOST_PER_IMAGE = 100  # detections of a class that COCO looks at
FEW = 8  # columns of weights that are faster one by one

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


class ImageCounts(NamedTuple):
    """True positives, false positives and false negatives of each image, and the sum of the IoU of its true positives, each
    float64 (images,)."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    overlap: np.ndarray


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
    levels, recall, at = _levels(~np.isnan(_match(pool, thresholds)[:, order]), positives)
    return ClassPrecision(levels.mean(axis=1), recall, levels, np.append(pool.scores[order], 0)[at])


def weighted_precision(truths: Boxes, boxes: Boxes, scores: Scores, of_case: Sequence[int],
                       thresholds: Sequence[float] = COCO_THRESHOLDS) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """A function of weights (n, R), how often each of n cases counts (whole numbers), that gives the average precision and the
    recall of one class, both (T, R), as `average_precision` does of lists in which each case's images stand as often; NaN where
    no image with a truth counts. of_case: (images,) the case that an image is of.

    Images know nothing of each other, so boxes are matched once, whatever the weights. (An image whose own detections have equal
    scores is the exception to "as often": its copies' detections are then ranked by detection, not by copy.)
    Raises ValueError as `average_precision` does.
    """
    thresholds = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
    pool, of_case = _pool(truths, boxes, scores, MOST_PER_IMAGE), np.asarray(of_case, np.intp)
    order = np.argsort(-pool.scores, kind="stable")
    hits, of_detection = ~np.isnan(_match(pool, thresholds)[:, order]), of_case[pool.image[order]]
    truths_of = np.bincount(of_case, pool.there.sum(axis=1)) if len(of_case) else np.zeros(0)

    def metrics(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        positives = truths_of @ weights[:len(truths_of)]
        if weights.shape[1] < FEW:  # as said: each stands there as often
            columns = [_levels(np.repeat(hits, weights[of_detection, r].astype(np.intp), axis=1), positives[r])[:2]
                       for r in range(weights.shape[1])]
            return tuple(np.stack(part, axis=1) for part in zip(*((levels.mean(axis=1), recall) for levels, recall in columns)))
        step = max(FEW, AT_ONCE // max(1, len(order)))
        parts = [_many_draws(hits, weights[of_detection, first:first + step], positives[first:first + step])
                 for first in range(0, weights.shape[1], step)]
        return tuple(np.concatenate(part, axis=1) for part in zip(*parts))

    return metrics


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


def counts_at(truths: Boxes, boxes: Boxes, scores: Scores, confidence: float | np.ndarray,
              threshold: float = 0.5) -> ImageCounts:
    """True and false positives and false negatives of one class, of the detections with score >= confidence, image by image.

    confidence: one for all images, or (images,). threshold: the IoU that makes a true positive.
    Raises ValueError as `average_precision` does.
    """
    pool, images = _pool(truths, boxes, scores), len(truths)
    counted = pool.scores >= np.broadcast_to(confidence, images)[pool.image]
    # A match never depends on lower scores, so all may be matched before they are cut.
    ious = _match(pool, np.array([threshold]))[0]
    hit = counted & ~np.isnan(ious)
    tp, given = (np.bincount(pool.image[chosen], minlength=images).astype(np.float64) for chosen in (hit, counted))
    overlap = np.bincount(pool.image[hit], ious[hit], images)
    return ImageCounts(tp, given - tp, pool.there.sum(axis=1) - tp, overlap)


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


def _levels(hits: np.ndarray, positives: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(precision (T, 101) at RECALL_LEVELS, recall (T,), the rank (T, 101) by which each level is reached, one past the end if it
    is not) of detections from the highest score to the lowest. hits: bool (T, d); without positives all is NaN."""
    if not positives:
        levels = np.full((len(hits), len(RECALL_LEVELS)), np.nan)
        return levels, levels[:, 0].copy(), np.full(levels.shape, hits.shape[1])
    found = np.cumsum(hits, axis=1, dtype=np.float64)
    precision = found / (np.arange(1, found.shape[1] + 1) + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # A level that is not reached points one past the end: precision and score are 0 there.
    at = np.stack([np.searchsorted(row, RECALL_LEVELS, side="left") for row in found / positives])
    levels = np.take_along_axis(np.pad(envelope, ((0, 0), (0, 1))), at, axis=1)
    return levels, found[:, -1] / positives if found.shape[1] else np.zeros(len(hits)), at


def _many_draws(hits: np.ndarray, weights: np.ndarray, positives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(average precision, recall), both (T, R), of detections from the highest score to the lowest. hits: bool (T, d); weights:
    (d, R), how often each is there; positives: (R,) truths.

    With L_k levels of recall reached by detection k, and e_k the best precision from there on, the mean of the precision over the
    levels is the sum of L_k (e_k - e_(k+1)) / 101: one pass from the lowest score up, over a row of all thresholds and draws at a
    time. Only hits matter, since precision falls in between.
    """
    tp = hits.astype(np.float64) @ weights
    recall = ratio(tp, positives)
    best, area, precision, reached, levels, exact = np.zeros((6, *tp.shape))
    more = np.empty(tp.shape, bool)
    ranks, some = np.maximum(np.cumsum(weights, axis=0), 1), np.maximum(positives, 1)  # 0 hits of 0 are a precision of 0
    met = np.where(hits.any(axis=0), len(hits) - hits[::-1].argmax(axis=0), 0)  # thresholds beyond are not met by a detection
    for k in np.flatnonzero(met)[::-1]:
        t, e, a, p, r, n, x, m = (row[:met[k]] for row in (tp, best, area, precision, reached, levels, exact, more))
        np.divide(t, ranks[k], out=p)
        np.maximum(p, e, out=p)
        np.divide(t, some, out=r)
        np.multiply(r, 100, out=n)
        np.floor(np.add(n, 1e-9, out=n), out=n)
        np.multiply(n, 0.01, out=x)  # RECALL_LEVELS[n] to the last bit: where that lies above the recall, it is not reached
        np.add(n, np.less_equal(x, r, out=m), out=n)  # the first level is 0
        np.multiply(n, np.subtract(p, e, out=r), out=n)
        np.add(a, n, out=a)
        e[:] = p
        np.subtract(t, weights[k], out=t, where=hits[:met[k], k, None])
    return np.where(positives > 0, area / len(RECALL_LEVELS), np.nan), recall


def _cuts(truths: Boxes, boxes: Boxes, scores: Scores,
          threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Each score that occurs, falling; how many true positives and detections have it or more; how many truths."""
    pool = _pool(truths, boxes, scores)
    order = np.argsort(-pool.scores, kind="stable")
    ranked = pool.scores[order]
    tp = np.cumsum(~np.isnan(_match(pool, np.array([threshold]))[0, order]))
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], np.ones(len(ranked[:1]), dtype=bool)))
    return ranked[last], tp[last], last + 1, int(np.count_nonzero(pool.there))
