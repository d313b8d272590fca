"""Scores with a tolerance against squares worked out on paper, and against disks drawn pixel by pixel."""

import numpy as np
import pytest

from lib.evaluation.metrics import overlap, surface_distances
from lib.evaluation.tolerance import margins, surface_dice, tolerant_overlap

NAN, INF = float("nan"), float("inf")
UNIT = (1, 1, 1)


def square(top, left, height, width=None, shape=(1, 16, 16)):
    """A filled rectangle in every frame."""
    array = np.zeros(shape, bool)
    array[:, top:top + height, left:left + (width or height)] = True
    return array


def disk(mask, spacing, tolerance):
    """bool (rows, columns): dilation, from the definition."""
    rows, columns = np.indices(mask.shape)
    result = np.zeros(mask.shape, bool)
    for row, column in np.argwhere(mask):
        result |= ((rows - row) * spacing[0]) ** 2 + ((columns - column) * spacing[1]) ** 2 <= tolerance**2
    return result


# tolerant_overlap

def test_a_prediction_one_pixel_too_large_is_scored_against_the_dilated_truth():
    # Truth 6 x 6 = 36 pixels, prediction the 8 x 8 = 64 around it: plain Dice 2 * 36 / 100 = 0.72.
    # A disk of radius 1 adds each side's 6 pixels, not the corners: 36 + 24 = 60, all of them predicted:
    # Dice 2 * 60 / 124, precision 60 / 64, recall 1. Eroded to 4 x 4 = 16 it would be 32 / 80.
    truth, prediction = square(5, 5, 6), square(4, 4, 8)
    scores, chosen = tolerant_overlap(prediction, truth, UNIT, 1)
    assert chosen == "dilated"
    assert scores["dice"] == pytest.approx(120 / 124) and scores["precision"] == pytest.approx(60 / 64)
    assert scores["recall"] == 1 and scores["iou"] == pytest.approx(60 / 64)
    assert scores["accuracy"] == pytest.approx(252 / 256) and scores["specificity"] == pytest.approx(192 / 196)
    # sqrt(2) reaches the corners
    assert tolerant_overlap(prediction, truth, UNIT, 2 ** 0.5) == (overlap(prediction, prediction), "dilated")


def test_a_prediction_one_pixel_too_small_is_scored_against_the_eroded_truth():
    # A disk of radius 1 takes a frame of one pixel off 6 x 6 and leaves 4 x 4, which is the prediction.
    truth, prediction = square(5, 5, 6), square(6, 6, 4)
    assert overlap(prediction, truth)["dice"] == pytest.approx(32 / 52)
    scores, chosen = tolerant_overlap(prediction, truth, UNIT, 1)
    assert chosen == "eroded" and scores["dice"] == scores["precision"] == scores["recall"] == 1


def test_the_original_wins_ties_then_the_eroded():
    truth = square(5, 5, 6)
    assert tolerant_overlap(truth, truth, UNIT, 1)[1] == "original"
    assert tolerant_overlap(square(0, 0, 2), truth, UNIT, 1) == (overlap(square(0, 0, 2), truth), "original")  # all 0
    assert tolerant_overlap(square(4, 4, 8), truth, UNIT, 0.99)[1] == "original"  # nothing is within 0.99 of a pixel
    assert tolerant_overlap(square(4, 4, 8), truth, UNIT, 0)[1] == "original"
    # 4 pixels in the eroded truth (of 16), 4 more in the dilated alone (of 60), 20 outside, 28 in all: Dice 8 / 44
    # eroded, 8 / 64 original, 16 / 88 dilated, which is 8 / 44 again.
    prediction = np.zeros((1, 16, 16), bool)
    prediction[0, 7, 6:10] = True
    prediction[0, 4, 5:9] = True  # the row above the truth
    prediction[0, 15, :] = prediction[0, 14, :4] = True
    scores, chosen = tolerant_overlap(prediction, truth, UNIT, 1)
    assert chosen == "eroded" and scores["dice"] == pytest.approx(8 / 44)


def test_what_erosion_would_remove_stays():
    # A line one pixel thick: a tolerance of 1 leaves nothing of it.
    line = square(7, 3, 1, 9)
    eroded, dilated = margins(line, UNIT, 1)
    assert (eroded == line).all() and dilated.sum() == 9 * 3 + 2
    # In a volume frame by frame: the line stays, the square becomes 4 x 4.
    both = np.concatenate([line, square(5, 5, 6), np.zeros_like(line)])
    eroded, dilated = margins(both, UNIT, 1)
    assert (eroded[0] == line[0]).all() and (eroded[1] == square(6, 6, 4)[0]).all() and not eroded[2].any()
    assert not dilated[2].any()  # frames do not grow into each other


def test_pixels_may_be_oblong():
    # 2 mm rows and 0.5 mm columns: 1 mm reaches two columns and no row, 2 mm reaches four columns and one row.
    truth = square(5, 6, 4, 6)
    eroded, dilated = margins(truth, (9, 2.0, 0.5), 1.0)
    assert (dilated == square(5, 4, 4, 10)).all()
    assert (eroded == (truth & square(6, 8, 2, 2) | square(5, 8, 4, 2))).all()
    assert margins(truth, (9, 2.0, 0.5), 2.0)[1].sum() == 4 * 14 + 2 * 6


def test_a_tolerance_of_whole_pixels_reaches_them():
    # 3 * 0.1 is a little more than 0.3 in binary fractions.
    truth = square(6, 6, 3)
    assert margins(truth, (1, 0.1, 0.1), 0.3)[1][0, 7].sum() == 3 + 2 * 3
    assert margins(square(2, 2, 9), (1, 0.1, 0.1), 0.3)[0].sum() == 3 * 3


def test_beyond_the_border_is_neither_truth_nor_background():
    # A region along the left border: eroded from the other three sides only.
    eroded, dilated = margins(square(4, 0, 6), UNIT, 1)
    assert (eroded == square(5, 0, 4, 5)).all()
    assert dilated.sum() == 6 * 6 + 3 * 6
    full = np.ones((1, 5, 5), bool)
    assert all((margin == full).all() for margin in margins(full, UNIT, 2))


def test_an_empty_truth_has_the_plain_scores():
    empty = np.zeros((1, 16, 16), bool)
    scores, chosen = tolerant_overlap(square(5, 5, 3), empty, UNIT, 2)
    assert chosen == "original" and scores == pytest.approx(overlap(square(5, 5, 3), empty), nan_ok=True)
    scores, chosen = tolerant_overlap(empty, square(5, 5, 3), UNIT, 1)
    assert chosen == "original" and scores["dice"] == scores["recall"] == 0


@pytest.mark.parametrize("seed", range(6))
def test_margins_agree_with_disks_drawn_pixel_by_pixel(seed):
    rng = np.random.default_rng(seed)
    spacing, tolerance = rng.uniform(0.3, 2.0, size=3), rng.uniform(0.3, 4.0)
    truth = np.zeros((3, 21, 17), bool)
    for frame in truth:
        for row, column in rng.integers(0, 17, size=(3, 2)):
            frame[row:row + rng.integers(1, 12), column:column + rng.integers(1, 12)] = True
    before = truth.copy()
    eroded, dilated = margins(truth, spacing, tolerance)
    assert (truth == before).all()
    for frame, less, more in zip(truth, eroded, dilated):
        assert (more == disk(frame, spacing[1:], tolerance)).all()
        inner = frame & ~disk(~frame, spacing[1:], tolerance)  # no background within the disk
        assert (less == (inner if inner.any() else frame)).all()
    prediction = rng.random(truth.shape) < 0.4
    scores, chosen = tolerant_overlap(prediction, truth, spacing, tolerance)
    options = {"original": truth, "eroded": eroded, "dilated": dilated}
    dice = {name: overlap(prediction, other)["dice"] for name, other in options.items()}
    assert scores["dice"] == max(dice.values()) and chosen == max(dice, key=dice.get)


def test_arguments_are_checked():
    truth = square(5, 5, 3)
    with pytest.raises(ValueError, match="tolerance must be at least 0, not -1"):
        tolerant_overlap(truth, truth, UNIT, -1)
    with pytest.raises(ValueError, match="at least 0, not nan"):
        surface_dice(np.zeros(1), np.zeros(1), NAN)
    for spacing in [(1, 1), (1, 0, 1), (1, 1, NAN)]:
        with pytest.raises(ValueError, match="3 positive spacings"):
            tolerant_overlap(truth, truth, spacing, 1)
    with pytest.raises(ValueError, match="3 positive spacings"):
        margins(truth[0], UNIT, 1)
    with pytest.raises(ValueError, match="same shape"):
        tolerant_overlap(truth, truth[:, :9], UNIT, 1)
    with pytest.raises(ValueError, match="bool array"):
        tolerant_overlap(truth.astype(np.uint8), truth, UNIT, 1)


# surface_dice

def nsd(prediction, truth, spacing, tolerance):
    return surface_dice(*surface_distances(prediction, truth, spacing), tolerance)


@pytest.mark.parametrize("tolerance, near", [(0, 16), (0.99, 16), (1, 24), (1.5, 24), (2, 40)])
def test_surface_dice_of_a_shifted_square(tolerance, near):
    # The outline of 6 x 6 (20 pixels, rows and columns 0 to 5) and the same 2 columns on. Of the first lie on the
    # second: columns 2 to 5 of its top and bottom rows, 8. At 1: column 1 of these rows, and column 5 in rows 1 and 4,
    # next to the second's top and bottom, 4. At 2: column 0 in all 6 rows, column 5 in rows 2 and 3, 8. And back alike.
    there, back = surface_distances(square(5, 7, 6), square(5, 5, 6), UNIT)
    assert sorted(there) == sorted(back) == [0] * 8 + [1] * 4 + [2] * 8
    assert surface_dice(there, back, tolerance) == pytest.approx(near / 40)


def test_surface_dice_weighs_both_surfaces_by_their_length():
    # 2 x 2 (all 4 pixels are outline) in the middle of 6 x 6 (20): each of the 4 is 2 from the outline around it; back,
    # the 8 pixels facing a side are 2 away, the rest farther: sqrt(4 + 1) the next, then sqrt(8) at the corners.
    truth, prediction = square(5, 5, 6), square(7, 7, 2)
    assert nsd(prediction, truth, UNIT, 1.9) == 0
    assert nsd(prediction, truth, UNIT, 2) == pytest.approx((4 + 8) / 24)
    assert nsd(prediction, truth, UNIT, 2.3) == pytest.approx((4 + 16) / 24)
    assert nsd(prediction, truth, UNIT, 2.9) == 1
    assert nsd(truth, prediction, UNIT, 2) == pytest.approx(12 / 24)
    assert nsd(prediction, truth, (1, 3, 3), 6) == pytest.approx(12 / 24)  # in mm


def test_surface_dice_of_empty_masks():
    some, none = square(5, 5, 4), square(0, 0, 0)
    assert np.isnan(nsd(some, none, UNIT, 3)) and np.isnan(nsd(none, none, UNIT, 3))
    assert nsd(none, some, UNIT, 1e9) == 0
    assert nsd(some, some, UNIT, 0) == 1


@pytest.mark.parametrize("seed", range(3))
def test_surface_dice_agrees_with_the_definition(seed):
    rng = np.random.default_rng(seed)
    spacing = rng.uniform(0.4, 3, size=3)
    masks = rng.random((2, 4, 9, 8)) < 0.5
    points = []
    for mask in masks:
        padded = np.pad(mask, 1)
        neighbours = [np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for step in (1, -1)]
        points.append(np.argwhere(mask & ~np.all(neighbours, axis=0)) * spacing)
    distances = np.sqrt(((points[0][:, None] - points[1][None]) ** 2).sum(axis=2))
    near = (distances.min(axis=1) <= 1).sum() + (distances.min(axis=0) <= 1).sum()
    assert nsd(*masks, spacing, 1.0) == pytest.approx(near / sum(map(len, points)))
