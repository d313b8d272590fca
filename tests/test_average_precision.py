"""Average precision against pycocotools on random sets, and it, F1 and counts against values worked out by hand."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lib.evaluation import average_precision as module
from lib.evaluation.average_precision import (
    COCO_THRESHOLDS, FEW, RECALL_LEVELS, average_precision, best_confidence, counts_at, f1_curve, weighted_precision,
)

NAN = float("nan")
NONE = np.empty((0, 4))
BOX = (0, 0, 10, 10)
HALF = (0, 0, 10, 5)  # IoU 0.5 with BOX
AWAY = (50, 50, 60, 60)


def boxes(*rows):
    return np.array(rows, dtype=float).reshape(-1, 4)


# against pycocotools

def random_set(rng):
    """truths, boxes and scores, each a list over classes of lists over images.

    Corners on a coarse grid make equal IoUs and IoUs at a threshold; scores on one make ties. Each class and each
    image of a class may lack truths, detections or both; detections repeat truths, miss them or are anywhere.
    """
    step, decimals, side = rng.choice([0.25, 1.0, 4.0]), int(rng.choice([1, 2, 6])), 40
    most, images = int(rng.choice([1, 2, 4])), int(rng.integers(1, 7))

    def anywhere(count):
        corner, size = rng.uniform(0, side / 2, (count, 2)), rng.uniform(0, side / 2, (count, 2))
        return np.concatenate([corner, corner + size], axis=1)

    def on_grid(rows):
        rows = np.round(rows / step) * step
        rows[:, 2:] = np.maximum(rows[:, 2:], rows[:, :2] + step)
        return rows

    truths, found, scores = [], [], []
    for _ in range(int(rng.integers(1, 4))):
        with_truth, with_boxes, blur = rng.random() < 0.85, rng.random() < 0.85, rng.choice([0.0, 1.0, 4.0])
        truths.append([])
        found.append([])
        scores.append([])
        for _ in range(images):
            there = on_grid(anywhere(int(rng.integers(0, most + 1)) * with_truth))
            again = there[rng.random(len(there)) < 0.8]
            again = np.repeat(again, rng.integers(1, 4, len(again)), axis=0)
            given = np.concatenate([again + rng.normal(0, blur, again.shape), anywhere(int(rng.integers(0, 3)))])
            given = on_grid(given[rng.permutation(len(given))][:len(given) * with_boxes])
            truths[-1].append(there)
            found[-1].append(given)
            scores[-1].append(np.round(rng.random(len(given)), decimals))
    return truths, found, scores


def coco_index(lists, scores=None):
    """A COCO of boxes (classes, images), ids from 1 on: COCOeval takes an id of 0 for no match."""
    annotations = []
    for category, images in enumerate(lists):
        for image, rows in enumerate(images):
            for row, (x_min, y_min, x_max, y_max) in enumerate(rows.tolist()):
                sides = x_max - x_min, y_max - y_min
                annotations.append({
                    "id": len(annotations) + 1, "image_id": image, "category_id": category, "iscrowd": 0,
                    "bbox": [x_min, y_min, *sides], "area": sides[0] * sides[1],
                    **({"score": float(scores[category][image][row])} if scores is not None else {})})
    index = COCO()
    index.dataset = {"images": [{"id": image} for image in range(len(lists[0]))], "annotations": annotations,
                     "categories": [{"id": category} for category in range(len(lists))]}
    index.createIndex()
    return index


def pycocotools(truths, found, scores, whole=False):
    """COCOeval, evaluated. whole: with its own areas and limits, and `stats`, which takes ten times as long."""
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(coco_index(truths), coco_index(found, scores), "bbox")
        if not whole:
            judge.params.areaRng, judge.params.areaRngLbl, judge.params.maxDets = [[0, 1e10]], ["all"], [100]
        judge.evaluate()
        judge.accumulate()
        if whole:
            judge.summarize()
    return judge


def ours(truths, found, scores):
    return [average_precision(*lists) for lists in zip(truths, found, scores, strict=True)]


def assert_equal(ours, theirs):
    """Up to 1e-6; NaN here is -1 there."""
    np.testing.assert_allclose(np.nan_to_num(ours, nan=-1), theirs, rtol=0, atol=1e-6)


def totals(*arguments, **keys):
    """(tp, fp, fn) of all images together."""
    return tuple(int(values.sum()) for values in counts_at(*arguments, **keys)[:3])


def mean(values):
    """Over what is not NaN, which is -1 when all is."""
    values = np.asarray(values)
    return values[~np.isnan(values)].mean() if not np.isnan(values).all() else -1


def test_a_thousand_random_sets_have_the_numbers_of_pycocotools():
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(1000):
        lists = random_set(rng)
        judge, classes = pycocotools(*lists), ours(*lists)
        precision, recall = judge.eval["precision"][:, :, :, 0, 0], judge.eval["recall"][:, :, 0, 0]
        levels = np.stack([found.precision for found in classes], axis=2)
        aps, recalls = np.stack([found.ap for found in classes], axis=1), np.stack([c.recall for c in classes], axis=1)
        assert_equal(levels, precision)
        assert_equal(aps, precision.mean(axis=1))
        assert_equal(recalls, recall)
        assert_equal(np.stack([found.scores for found in classes], axis=2), judge.eval["scores"][:, :, :, 0, 0])
        for mine, theirs in ((aps, precision), (aps[0], precision[0]), (recalls, recall)):  # mAP, mAP@0.5, AR
            assert abs(mean(mine) - mean(np.where(theirs > -1, theirs, NAN))) < 1e-6
        seen += aps.ravel().tolist()
    missing = np.isnan(seen)
    assert 0.05 < missing.mean() < 0.5 and 0.1 < np.mean(np.array(seen)[~missing] > 0.3) < 0.9  # not a sham


def test_the_summary_is_that_of_pycocotools():
    rng = np.random.default_rng(1)
    for _ in range(20):
        lists = random_set(rng)
        stats, classes = pycocotools(*lists, whole=True).stats, ours(*lists)
        expected = [mean([found.ap for found in classes]), mean([found.ap[0] for found in classes]),
                    mean([found.recall for found in classes])]
        assert stats[[0, 1, 8]] == pytest.approx(expected, abs=1e-6)  # AP, AP50, AR with 100 detections


def test_only_a_hundred_detections_of_an_image_count():
    rng = np.random.default_rng(2)
    truth = boxes(*((60 * i, 0, 60 * i + 10, 10) for i in range(130)))
    lists = [[truth, truth[:120]]], [[truth, truth[:120]]], [[rng.random(130), np.round(rng.random(120), 1)]]
    (found,) = ours(*lists)
    assert_equal(found.precision, pycocotools(*lists).eval["precision"][:, :, 0, 0, 0])
    assert found.recall == pytest.approx(200 / 250)
    assert totals(*(classes[0] for classes in lists), 0.0) == (250, 0, 0)  # no such limit here


def test_constants_are_those_of_pycocotools():
    params = COCOeval(iouType="bbox").params
    assert COCO_THRESHOLDS.tolist() == params.iouThrs.tolist()
    assert RECALL_LEVELS.tolist() == params.recThrs.tolist()


# average precision by hand

def test_average_precision_by_hand():
    # Falling scores: hit, miss, hit, and one of three truths is never found. Precision is 1 up to recall 1/3 (levels
    # 0 to 0.33) and 2/3 up to recall 2/3 (levels 0.34 to 0.66).
    truths, found = [boxes(BOX), boxes(BOX), boxes(BOX)], [boxes(BOX), boxes(BOX, AWAY), NONE]
    result = average_precision(truths, found, [[0.9], [0.5, 0.7], []], thresholds=[0.5, 1.0])
    assert result.ap == pytest.approx([(34 + 33 * 2 / 3) / 101] * 2)
    assert result.recall == pytest.approx([2 / 3] * 2)
    assert result.precision[0] == pytest.approx([1] * 34 + [2 / 3] * 33 + [0] * 34)
    assert result.scores[0].tolist() == [0.9] * 34 + [0.5] * 33 + [0] * 34
    assert [part.shape for part in result] == [(2,), (2,), (2, 101), (2, 101)]


def test_precision_never_falls_below_what_a_higher_recall_has():
    # miss, hit, hit: precision 0, 1/2, 2/3
    result = average_precision([boxes(BOX)] * 2, [boxes(AWAY, BOX), boxes(BOX)], [[0.9, 0.8], [0.7]])
    assert result.precision == pytest.approx(2 / 3) and result.ap == pytest.approx([2 / 3] * 10)


def test_an_overlap_at_the_threshold_is_a_hit():
    result = average_precision([boxes(BOX)], [boxes(HALF)], [[1.0]])
    assert result.ap == pytest.approx([1] + [0] * 9) and result.recall.tolist() == [1] + [0] * 9


def test_a_second_detection_of_one_truth_is_a_false_positive():
    result = average_precision([boxes(BOX), boxes(BOX)], [boxes(BOX, BOX), boxes(BOX)], [[0.9, 0.8], [0.7]], [0.5])
    assert result.precision[0] == pytest.approx([1] * 51 + [2 / 3] * 50)


def test_the_higher_score_chooses_first():
    # (0, 0, 10, 8) overlaps both truths; the better fitting detection comes second and finds its own truth taken.
    truths, found = [boxes(BOX, (0, 0, 10, 4))], [boxes((0, 0, 10, 8), BOX)]
    assert average_precision(truths, found, [[0.9, 0.8]], [0.5]).recall == 0.5
    assert average_precision(truths, found, [[0.8, 0.9]], [0.5]).recall == 1


def test_of_truths_that_overlap_equally_the_last_is_taken():
    first, last = (0, 0, 8, 10), (2, 0, 10, 10)  # IoU 0.8 with BOX each
    for second, recall in (((0, 0, 6, 10), 1), ((4, 0, 10, 10), 0.5)):  # IoU 0.75 with the first; with the last
        lists = [[boxes(first, last)]], [[boxes(BOX, second)]], [[np.array([0.9, 0.8])]]
        assert ours(*lists)[0].recall[0] == recall == pycocotools(*lists).eval["recall"][0, 0, 0, 0]


def test_a_threshold_of_one_leaves_room_for_rounding():
    found = [boxes((0, 0, 10, 10 - 1e-10)), boxes((0, 0, 10, 10 - 1e-8))]  # IoU 1 - 1e-11, 1 - 1e-9
    assert average_precision([boxes(BOX)] * 2, found, [[0.9], [0.8]], [1.0]).recall == 0.5


def test_without_truth_all_is_nan_and_without_detections_all_is_zero():
    for found, scores in (([boxes(BOX), NONE], [[0.5], []]), ([NONE, NONE], [[], []]), ([[], []], [[], []])):
        assert all(np.isnan(part).all() for part in average_precision([NONE, []], found, scores))
    assert [part.shape for part in average_precision([], [], [])] == [(10,), (10,), (10, 101), (10, 101)]
    result = average_precision([boxes(BOX), NONE], [NONE, []], [[], np.empty(0)])
    assert all((part == 0).all() for part in result) and result.precision.shape == (10, 101)


def test_a_box_of_nan_is_a_false_positive_and_a_truth_without_area_is_never_found():
    result = average_precision([boxes(BOX), boxes((3, 3, 3, 9))], [boxes((NAN,) * 4, BOX), boxes((3, 3, 3, 9))],
                               [[0.9, 0.8], [0.7]], [0.5])
    assert result.recall == 0.5 and result.precision[0] == pytest.approx([0.5] * 51 + [0] * 50)


@pytest.mark.parametrize("arguments, found", [
    (([NONE], [], []), "1, 0 and 0 images"),
    (([NONE], [boxes(BOX)], [[0.5, 0.5]]), "1 boxes and 2 scores"),
    (([NONE, NONE], [boxes(BOX), NONE], [[], [0.5]]), "a score for every box"),
    (([NONE], [boxes(BOX)], [[NAN]]), "NaN"),
])
def test_lists_that_do_not_fit_are_refused(arguments, found):
    for function in (average_precision, f1_curve, lambda *lists: counts_at(*lists, 0.5),
                     lambda *lists: best_confidence(*([part] for part in lists))):
        with pytest.raises(ValueError, match=found):
            function(*arguments)


# F1, confidence, counts

# 0.9 hit, 0.8 miss, 0.6 hit and, with the same score, a miss, 0.3 a second box of a truth that is taken; 3 truths
TRUTHS = [boxes(BOX), boxes(BOX), boxes(BOX), NONE]
FOUND = [boxes(BOX, HALF), boxes(HALF), boxes(AWAY), boxes(BOX)]
SCORES = [[0.9, 0.3], [0.6], [0.8], [0.6]]


def test_f1_curve_by_hand():
    curve = f1_curve(TRUTHS, FOUND, SCORES)
    assert curve.confidences.tolist() == [0.9, 0.8, 0.6, 0.3]
    assert curve.precision == pytest.approx([1, 1 / 2, 2 / 4, 2 / 5])
    assert curve.recall == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert curve.f1 == pytest.approx([2 / 4, 2 / 5, 4 / 7, 4 / 8])
    stricter = f1_curve(TRUTHS, FOUND, SCORES, threshold=0.6)
    assert stricter.recall == pytest.approx([1 / 3] * 4)


def test_f1_curve_of_nothing():
    assert [part.shape for part in f1_curve([boxes(BOX)], [NONE], [[]])] == [(0,)] * 4
    curve = f1_curve([NONE], [boxes(BOX)], [[0.7]])
    assert curve.precision == 0 and np.isnan(curve.recall) and np.isnan(curve.f1)


def test_counts_at_every_cut_are_those_of_the_curve():
    rng = np.random.default_rng(3)
    for _ in range(50):
        for lists in zip(*random_set(rng)):
            curve, truths = f1_curve(*lists), sum(map(len, lists[0]))
            for confidence, precision, recall, f1 in zip(*curve):
                tp, fp, fn = totals(*lists, confidence)
                assert precision == pytest.approx(tp / (tp + fp))
                assert tp + fn == truths
                if truths:
                    assert (recall, f1) == pytest.approx((tp / truths, 2 * tp / (2 * tp + fp + fn)))


def test_counts_by_hand():
    counts = counts_at(TRUTHS, FOUND, SCORES, 0.5)
    assert [values.tolist() for values in counts] == [[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 0], [1, 0.5, 0, 0]]
    assert totals(TRUTHS, FOUND, SCORES, 0.6) == (2, 2, 1)  # the score itself counts
    assert totals(TRUTHS, FOUND, SCORES, 0.61) == (1, 1, 2)
    assert totals(TRUTHS, FOUND, SCORES, 0.1, threshold=0.6) == (1, 4, 2)
    assert totals([NONE], [boxes(BOX)], [[0.9]], 0.95) == (0, 0, 0)
    assert totals([], [], [], 0.5) == (0, 0, 0)
    each_its_own = counts_at(TRUTHS, FOUND, SCORES, np.array([0.1, 0.61, 0.8, 0.6]))
    assert [values.tolist() for values in each_its_own[:3]] == [[1, 0, 0, 0], [1, 0, 1, 1], [0, 1, 1, 0]]


# weights

def repeated(lists, times):
    """The lists over images in which each image stands as often as `times` says."""
    return [[row for row, count in zip(rows, times) for _ in range(int(count))] for rows in lists]


def unlike(rng, lists):
    """The lists with scores that differ within each image (they may be equal in different images)."""
    truths, found, scores = lists
    return truths, found, [rng.permutation(100)[:len(row)] / 100 for row in scores]


def test_weights_are_pycocotools_on_repeated_images():
    rng, looked_at = np.random.default_rng(7), 0
    for _ in range(60):
        truths, found, scores = random_set(rng)
        for lists in zip(truths, found, scores):
            lists = unlike(rng, lists)
            weights = rng.integers(0, 4, (len(lists[0]), FEW + 4)).astype(float)
            metrics = weighted_precision(*lists, np.arange(len(lists[0])))
            ap, recall = metrics(weights)
            few = [np.concatenate(part, axis=1) for part in zip(metrics(weights[:, :5]), metrics(weights[:, 5:10]))]
            assert np.allclose(few, (ap[:, :10], recall[:, :10]), rtol=0, atol=1e-12, equal_nan=True)  # both ways agree
            for column in rng.integers(FEW + 4, size=2):
                again = repeated(lists, weights[:, column])
                if again[0]:
                    judge = pycocotools(*([part] for part in again))
                    theirs = judge.eval["precision"][:, :, 0, 0, 0].mean(axis=1)
                    assert_equal(ap[:, column], theirs)
                    assert_equal(recall[:, column], judge.eval["recall"][:, 0, 0, 0])
                    looked_at += 0 < theirs.max() < 1
    assert looked_at > 40


def test_a_case_of_several_images_brings_them_all(monkeypatch):
    rng = np.random.default_rng(8)
    lists = unlike(rng, [part for part in ([boxes(BOX)] * 9, [boxes(BOX) + rng.integers(0, 6) for _ in range(9)], [[0.0]] * 9)])
    of_case = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3])
    weights = rng.integers(0, 3, (4, 40)).astype(float)
    whole = weighted_precision(*lists, of_case)(weights)
    monkeypatch.setattr(module, "AT_ONCE", 9 * FEW)  # 40 draws in 5 parts
    assert np.array_equal(weighted_precision(*lists, of_case)(weights), whole, equal_nan=True)
    for column, times in enumerate(weights.T):
        expected = average_precision(*repeated(lists, times[of_case]))
        assert whole[0][:, column] == pytest.approx(expected.ap, nan_ok=True)
        assert whole[1][:, column] == pytest.approx(expected.recall, nan_ok=True)


def test_every_level_that_a_recall_reaches_counts_as_in_coco():
    """Recalls that are a level but for rounding (57 of 100): RECALL_LEVELS[57] lies a last bit above 57 / 100."""
    for positives in (10, 20, 40, 100, 200):
        for hits in range(1, positives + 1):
            lists = [boxes(BOX)] * positives, [boxes(BOX)] * hits + [NONE] * (positives - hits), \
                [[1.0]] * hits + [[]] * (positives - hits)
            ap, _ = weighted_precision(*lists, np.arange(positives))(np.ones((positives, FEW)))
            assert ap[0] == pytest.approx(average_precision(*lists).ap[0], abs=1e-9)


def test_draws_without_truth_have_no_average_precision():
    ap, recall = weighted_precision([boxes(BOX), NONE], [boxes(BOX), boxes(BOX)], [[0.9], [0.8]], [0, 1])(
        np.repeat([[0.0, 1.0], [1.0, 0.0]], FEW, axis=1))
    assert np.isnan(ap[:, :FEW]).all() and np.isnan(recall[:, :FEW]).all() and (ap[:, FEW:] == 1).all()
    for weights in (np.ones((1, 1)), np.ones((1, FEW))):
        nothing = weighted_precision([NONE], [NONE], [[]], [0])(weights)
        assert np.isnan(nothing).all() and nothing[0].shape == (10, weights.shape[1])
        missed = weighted_precision([boxes(BOX)], [NONE], [[]], [0])(weights)
        assert (missed[0] == 0).all() and (missed[1] == 0).all()


def test_best_confidence_lies_midway_between_scores():
    assert best_confidence([TRUTHS], [FOUND], [SCORES]) == pytest.approx(0.45)  # of 0.6 and 0.3


def test_best_confidence_pools_the_classes():
    # One class is best above 0.8, the other down to 0.2; together 3 hits and 1 miss down to 0.2 are the best.
    truths = [[boxes(BOX)] * 1, [boxes(BOX)] * 2]
    found = [[boxes(BOX, AWAY)], [boxes(BOX), boxes(BOX)]]
    scores = [[[0.8, 0.4]], [[0.9], [0.2]]]
    assert best_confidence(truths[:1], found[:1], scores[:1]) == pytest.approx(0.6)
    assert best_confidence(truths, found, scores) == pytest.approx(0.1)  # midway between 0.2 and 0


def test_of_equally_good_confidences_the_one_nearest_to_a_half_is_taken():
    # hit, miss, miss, hit, of two truths. F1 2/3, 1/2, 2/5, 4/6: the first and the last are equal.
    truths, found = [[boxes(BOX)] * 2], [[boxes(AWAY, AWAY, BOX), boxes(BOX)]]
    for scores, expected in (([0.8, 0.7, 0.2], 0.85), ([0.8, 0.7, 0.6], 0.3), ([0.8, 0.5, 0.4], 0.2)):
        assert best_confidence(truths, found, [[scores, [0.9]]]) == pytest.approx(expected)
    assert best_confidence(truths, found, [[[0.5, 0.25, 0.25], [0.75]]]) == 0.625  # not 0.125, as far off as 0.875


def test_best_confidence_of_nothing_is_a_half():
    assert best_confidence([], [], []) == 0.5
    assert best_confidence([[NONE]], [[boxes(BOX)]], [[[0.9]]]) == 0.5
    assert best_confidence([[boxes(BOX)]], [[NONE]], [[[]]]) == 0.5


def test_best_confidence_is_met_by_what_it_counts():
    for high in (0.7, np.nextafter(0.7, 1)):  # nothing lies between it and the next lower number
        scores = [[high], [np.nextafter(high, 0)]]
        assert best_confidence([[boxes(BOX), NONE]], [[boxes(BOX), boxes(BOX)]], [scores]) == high
    assert best_confidence([[boxes(BOX)]], [[boxes(BOX)]], [[[0.0]]]) == 0
