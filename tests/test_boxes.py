"""Areas, overlap and fusion of boxes: by hand, against torchvision, and against a second way of computing them."""

import warnings

import numpy as np
import pytest

from lib.evaluation.boxes import areas, centre_distance, fuse_boxes, iou

NAN, INF = float("nan"), float("inf")
SQUARE = (0, 0, 10, 10)


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def random_boxes(rng, count, whole=False):
    """(count, 4) within 0..100, with sides of 1 or more."""
    corner, sides = rng.uniform(0, 60, (count, 2)), rng.uniform(1, 40, (count, 2))
    boxes = np.concatenate([corner, corner + sides], axis=1)
    return np.floor(boxes) + (0, 0, 1, 1) if whole else boxes


# areas, iou

def test_areas_by_hand():
    boxes = [[SQUARE, (2, 3, 3, 4)], [(0, 0, 2.5, 4), (-3, -2, 1, 1)]]
    np.testing.assert_array_equal(areas(boxes), [[100, 1], [10, 12]])
    assert areas(np.array(SQUARE, np.uint8)) == 100 and areas(np.empty((0, 4))).shape == (0,)


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (5, 5, 9, 5), (5, 5, 5, 5), (9, 5, 5, 9), (9, 9, 5, 5)])
def test_a_box_without_an_area_overlaps_nothing(box):
    assert areas(box) == 0 and iou(box, box) == 0 and iou(box, SQUARE) == 0 and iou(SQUARE, box) == 0


@pytest.mark.parametrize("box", [(NAN,) * 4, (0, 0, NAN, 10), (NAN, 0, 10, 10), (0, 0, 10, INF), (-INF, -INF, INF, INF),
                                 (0, 0, 1e200, 1e200)])
def test_a_box_that_is_not_one_overlaps_nothing(box):
    assert iou(box, SQUARE) == 0 and iou(SQUARE, box) == 0
    if not np.isfinite(box).all():
        assert iou(box, box) == 0


@pytest.mark.parametrize("other, expected", [
    (SQUARE, 1),
    ((10, 0, 20, 10), 0),         # side by side: half-open boxes share no pixel
    ((9, 9, 19, 19), 1 / 199),    # one pixel
    ((5, 0, 15, 10), 50 / 150),
    ((2, 2, 8, 7), 30 / 100),     # inside
    ((20, 20, 30, 30), 0),        # apart along both axes: the product of two negative sides is no overlap
])
def test_iou_by_hand(other, expected):
    assert iou(SQUARE, other) == expected and iou(other, SQUARE) == expected


def test_iou_takes_boxes_that_broadcast():
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 12).reshape(3, 4, 4), random_boxes(rng, 4)
    ious = iou(a, b)
    assert ious.shape == (3, 4) and ious.dtype == np.float64
    assert all(ious[i, j] == iou(a[i, j], b[j]) for i in range(3) for j in range(4))
    assert iou(np.array([0, 0, 255, 255], np.uint8), np.array([0, 0, 255, 255], np.uint8)) == 1  # no overflow


def test_iou_is_that_of_torchvision():
    import torch
    from torchvision.ops import box_iou

    rng = np.random.default_rng(1)
    a, b = random_boxes(rng, 40), random_boxes(rng, 30)
    expected = box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(iou(a[:, None], b), expected, rtol=0, atol=1e-12)
    assert (expected > 0).any() and (expected == 0).any()


def test_iou_counts_pixels():
    rng = np.random.default_rng(2)
    rows, columns = np.mgrid[:110, :110]
    boxes = random_boxes(rng, 12, whole=True)
    masks = [(columns >= x_min) & (columns < x_max) & (rows >= y_min) & (rows < y_max)
             for x_min, y_min, x_max, y_max in boxes]
    expected = [[(a & b).sum() / (a | b).sum() for b in masks] for a in masks]
    np.testing.assert_array_equal(iou(np.asarray(boxes)[:, None], boxes), expected)


def test_iou_of_nothing_is_empty():
    assert iou(np.empty((0, 1, 4)), [SQUARE] * 3).shape == (0, 3)
    assert iou(np.array([SQUARE] * 2)[:, None], np.empty((0, 4))).shape == (2, 0)


# centre_distance

def test_centre_distance_by_hand():
    # centres (x, y): (5, 5), (8, 9) and (5, 7)
    others = [(6, 8, 10, 10), (0, 4, 10, 10)]
    np.testing.assert_array_equal(centre_distance(SQUARE, others), [5, 2])
    np.testing.assert_array_equal(centre_distance(SQUARE, others, spacing=(0.5, 2)), [np.hypot(2, 6), 1])
    assert centre_distance(SQUARE, SQUARE) == 0 and np.isnan(centre_distance(SQUARE, (0, 0, NAN, 10)))


# fuse_boxes

def wbf(boxes, scores, overlap):
    """Weighted boxes fusion in plain Python, with running sums: the winning cluster's box and members."""
    def overlap_of(a, b):
        width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
        both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
        return width * height / (both - width * height)

    clusters = []
    for index in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        found, best = None, overlap
        for cluster in clusters:
            value = overlap_of([part / cluster["sum"] for part in cluster["parts"]], boxes[index])
            if value > best:
                found, best = cluster, value
        if found is None:
            found = {"parts": [0] * 4, "sum": 0, "members": []}
            clusters.append(found)
        found["parts"] = [part + scores[index] * side for part, side in zip(found["parts"], boxes[index])]
        found["sum"] += scores[index]
        found["members"].append(index)
    winner = max(clusters, key=lambda cluster: cluster["sum"])
    return [part / winner["sum"] for part in winner["parts"]], sorted(winner["members"])


def test_fusion_is_that_of_the_paper():
    rng = np.random.default_rng(3)
    sizes = []
    for _ in range(300):
        count = int(rng.integers(1, 11))
        centres = random_boxes(rng, 2)[rng.integers(0, 2, count)]  # the models see one of two things
        boxes = centres + rng.uniform(-3, 3, (count, 4)) + (0, 0, 6, 6)
        scores = rng.uniform(0.01, 1, count)
        overlap = float(rng.choice([0.3, 0.55, 0.8]))
        box, members = fuse_boxes(boxes, scores, overlap)
        expected, indices = wbf(boxes.tolist(), scores.tolist(), overlap)
        np.testing.assert_allclose(box, expected, rtol=0, atol=1e-9)
        assert np.flatnonzero(members).tolist() == indices and members.dtype == bool
        sizes.append((len(indices), count))
    assert any(1 < size < count for size, count in sizes)


def test_one_box_stays_as_it_is():
    box = (0.1, 0.2, 10.3, 20.7)
    for score in (0.7, 0.1, 0.0):
        fused, members = fuse_boxes([box], [score])
        assert fused.tolist() == list(box) and members.tolist() == [True]


def test_two_boxes_are_weighted_by_their_scores():
    fused, members = fuse_boxes([(0, 0, 10, 10), (2, 0, 12, 10)], [0.25, 0.75])  # IoU 80 / 120
    assert fused.tolist() == [1.5, 0, 11.5, 10] and members.all()
    assert fuse_boxes([(0, 0, 10, 10), (2, 0, 12, 10)], [0.25, 0.75], overlap=0.7)[1].tolist() == [False, True]


def test_an_overlap_at_the_limit_does_not_join():
    boxes = [(0, 0, 10, 10), (0, 0, 10, 5)]  # IoU 0.5
    assert fuse_boxes(boxes, [0.9, 0.8], overlap=0.5)[1].tolist() == [True, False]
    assert fuse_boxes(boxes, [0.9, 0.8], overlap=0.49)[1].all()


def test_many_lesser_scores_win_over_one_high_score():
    boxes = [(50, 50, 60, 60), (0, 0, 10, 10), (0, 0, 10, 10)]
    fused, members = fuse_boxes(boxes, [0.75, 0.5, 0.5])
    assert fused.tolist() == [0, 0, 10, 10] and members.tolist() == [False, True, True]


def test_of_equal_sums_the_higher_score_wins_then_the_first():
    near, far = (0, 0, 10, 10), (50, 50, 60, 60)
    assert fuse_boxes([near, near, far], [0.25, 0.25, 0.5])[0].tolist() == list(far)
    assert fuse_boxes([near, far], [0.5, 0.5])[0].tolist() == list(near)
    assert fuse_boxes([far, near], [0.5, 0.5])[0].tolist() == list(far)


def test_a_box_joins_by_the_cluster_as_it_is_by_then():
    # The first two make (1, 0, 11, 10). The third meets the first with 70 / 130 = 0.54, that mean with 80 / 120 = 0.67.
    boxes = [(0, 0, 10, 10), (2, 0, 12, 10), (3, 0, 13, 10)]
    fused, members = fuse_boxes(boxes, [0.5, 0.5, 0.25], overlap=0.55)
    assert members.all() and fused.tolist() == [1.4, 0, 11.4, 10]


def test_scores_of_zero_give_the_plain_mean():
    fused, members = fuse_boxes([(0, 0, 10, 10), (2, 0, 12, 10), (70, 70, 80, 80)], [0, 0, 0])
    assert fused.tolist() == [1, 0, 11, 10] and members.tolist() == [True, True, False]
    fused, members = fuse_boxes([(2, 0, 12, 10), (0, 0, 10, 10)], [0, 0.5])  # beside another it weighs nothing
    assert fused.tolist() == [0, 0, 10, 10] and members.all()


@pytest.mark.parametrize("boxes, scores, found", [
    (np.empty((0, 4)), [], r"\(0, 4\)"),
    ([SQUARE], [0.5, 0.5], r"\(2,\)"),
    (SQUARE, 0.5, r"\(4,\)"),
    ([(0, 0, 1, NAN)], [0.5], "finite"),
    ([SQUARE], [NAN], "finite"),
    ([SQUARE], [-0.1], "negative"),
])
def test_what_cannot_be_fused_is_refused(boxes, scores, found):
    with pytest.raises(ValueError, match=found):
        fuse_boxes(boxes, scores)
