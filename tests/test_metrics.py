"""Overlap and surface distance against values worked out by hand, and against brute force."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from lib.evaluation import metrics
from lib.evaluation.metrics import Confusion, confusion, hd95, overlap, surface_distances

NAN, INF = float("nan"), float("inf")


def hausdorff(prediction, truth, spacing):
    """hd95 straight from two masks."""
    return hd95(*surface_distances(prediction, truth, spacing))


def mask(*voxels, shape=(4, 8, 8)):
    """A mask of `shape` with the given voxels (or slices) set."""
    array = np.zeros(shape, bool)
    for voxel in voxels:
        array[voxel] = True
    return array


def row(text):
    """A one-axis mask from '1' and '0'."""
    return np.array([letter == "1" for letter in text], dtype=bool)


# prediction 1110000000, truth 0111100000: 2 common, 1 too many, 2 missed, 5 of neither
PREDICTION, TRUTH = row("1110000000"), row("0111100000")


def test_confusion_by_hand():
    assert confusion(PREDICTION, TRUTH) == Confusion(tp=2, fp=1, fn=2, tn=5)
    assert confusion(TRUTH, PREDICTION) == Confusion(tp=2, fp=2, fn=1, tn=5)
    assert all(type(count) is int for count in confusion(PREDICTION, TRUTH))


def test_confusion_takes_views_of_any_shape_and_order():
    volume = np.stack([np.tile(PREDICTION, (3, 1)), np.tile(TRUTH, (3, 1))])  # (2, 3, 10)
    assert confusion(volume[0].T, np.asfortranarray(volume[1].T)) == Confusion(6, 3, 6, 15)


def test_overlap_by_hand():
    expected = {"dice": 4 / 7, "iou": 2 / 5, "precision": 2 / 3, "recall": 2 / 4, "specificity": 5 / 6,
                "accuracy": 7 / 10}
    assert overlap(PREDICTION, TRUTH) == pytest.approx(expected)


@pytest.mark.parametrize("prediction, truth, expected", [
    # dice, iou, precision, recall, specificity, accuracy
    ("0000", "0000", (NAN, NAN, NAN, NAN, 1, 1)),        # nothing to find, nothing found
    ("1000", "0000", (NAN, NAN, 0, NAN, 3 / 4, 3 / 4)),  # nothing to find, a false positive
    ("0000", "1100", (0, 0, NAN, 0, 1, 2 / 4)),          # missed altogether
    ("0011", "1100", (0, 0, 0, 0, 0, 0)),                # all wrong
    ("1111", "1111", (1, 1, 1, 1, NAN, 1)),              # no negatives
    ("0110", "0110", (1, 1, 1, 1, 1, 1)),                # identical
    ("", "", (NAN, NAN, NAN, NAN, NAN, NAN)),            # no voxels
])
def test_overlap_of_empty_and_full_masks(prediction, truth, expected):
    result = overlap(row(prediction), row(truth))
    assert list(result) == ["dice", "iou", "precision", "recall", "specificity", "accuracy"]
    assert tuple(result.values()) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("axis, expected", [(0, 5.0), (1, 2.0), (2, 0.5)])
def test_hd95_of_cubes_one_voxel_apart(axis, expected):
    # Of the 8 voxels of a cube 4 lie on the other and 4 are one voxel away: the 95th percentile is that step.
    shifted = [slice(1, 3)] * 3
    shifted[axis] = slice(2, 4)
    cube, other = mask(np.s_[1:3, 1:3, 1:3]), mask(tuple(shifted))
    assert hausdorff(cube, other, (5.0, 2.0, 0.5)) == pytest.approx(expected)


def test_hd95_of_single_voxels():
    # 3 frames of 4 mm and 2 columns of 2.5 mm apart: sqrt(12^2 + 5^2) = 13
    assert hausdorff(mask((0, 4, 1)), mask((3, 4, 3)), (4.0, 1.0, 2.5)) == pytest.approx(13.0)
    assert hausdorff(mask((2, 3, 4)), mask((2, 3, 4)), (4.0, 1.0, 2.5)) == 0


def test_hd95_is_the_greater_directed_percentile():
    # A point and a line of 21 from it: 0 there; 0, 1, .. 20 back, whose 95th percentile is 19.
    # The maximum would be 20 and the percentile of both pooled (22 values) 18.95.
    point, line = mask((1, 0), shape=(3, 30)), mask(np.s_[1, 0:21], shape=(3, 30))
    assert hausdorff(point, line, (1, 1)) == pytest.approx(19.0)
    assert hausdorff(line, point, (1, 1)) == pytest.approx(19.0)


def test_hd95_interpolates_between_voxels():
    # A line of 11 back to its end: 0 .. 10 in steps of 2 mm, position 0.95 * 10 = 9.5 -> 19 mm
    end, line = mask((0, 0), shape=(3, 30)), mask(np.s_[0, 0:11], shape=(3, 30))
    assert hausdorff(end, line, (1, 2)) == pytest.approx(19.0)


def test_hd95_is_zero_for_identical_masks_and_ignores_a_hollow():
    solid = mask(np.s_[0:5, 1:6, 1:6], shape=(6, 8, 8))
    assert hausdorff(solid, solid.copy(), (3, 1, 1)) == 0
    # A shell one voxel thick has the same outer surface, and all of its voxels belong to it.
    shell = solid & ~mask(np.s_[1:4, 2:5, 2:5], shape=(6, 8, 8))
    assert hausdorff(solid, shell, (3, 1, 1)) == 0


@pytest.mark.parametrize("dense", [0.0, 1.0], ids=["distance transform", "nearest neighbours"])
@pytest.mark.parametrize("prediction, truth, there, back", [
    (mask(), mask((1, 1, 1), (2, 5, 5)), [], [INF, INF]), (mask((1, 1, 1)), mask(), [INF], []),
    (mask(), mask(), [], []),
])
def test_hd95_of_an_empty_mask_is_undefined(monkeypatch, dense, prediction, truth, there, back):
    # An empty mask has no surface to measure from, and nothing is near it.
    monkeypatch.setattr(metrics, "_DENSE", dense)
    assert [distances.tolist() for distances in surface_distances(prediction, truth, (1, 1, 1))] == [there, back]
    assert np.isnan(hausdorff(prediction, truth, (1, 1, 1)))


@pytest.mark.parametrize("dense", [0.0, 1.0], ids=["distance transform", "nearest neighbours"])
def test_surface_distances_come_in_the_order_of_the_voxels(monkeypatch, dense):
    monkeypatch.setattr(metrics, "_DENSE", dense)
    # The ends 2 and 5 of a line against 2, 3 and 7, in steps of 1.5 mm: 0 and 2 there; 0, 1 and 2 back.
    there, back = surface_distances(row("00111100"), row("00110001"), (1.5,))
    assert there.tolist() == [0, 3.0] and back.tolist() == [0, 1.5, 3.0]


def test_only_the_surface_counts():
    # From the centre of a 5-cube its surface is two voxels away, though the centre itself is in the cube.
    there, back = surface_distances(mask((2, 3, 3), shape=(7, 7, 7)),
                                       mask(np.s_[0:5, 1:6, 1:6], shape=(7, 7, 7)), (1, 1, 1))
    assert there == pytest.approx([2.0])
    assert len(back) == 125 - 27  # all but the inner 3-cube
    assert sorted(back)[:6] == pytest.approx([2.0] * 6)  # the middles of the six sides
    assert max(back) == pytest.approx(12 ** 0.5)  # the corners


def test_a_mask_that_fills_the_volume_has_its_border_as_surface():
    there, back = surface_distances(mask((1, 1, 1), shape=(3, 3, 3)), np.ones((3, 3, 3), bool), (1, 2, 3))
    assert there == pytest.approx([1.0])
    assert len(back) == 26


def test_a_single_image_has_its_outline_as_surface():
    # 5 x 5 pixels and their centre; were the frame a slab, every pixel would be surface and the way there 0.
    full, centre = np.ones((1, 5, 5), bool), mask((0, 2, 2), shape=(1, 5, 5))
    there, back = surface_distances(centre, full, (9.0, 1.5, 1.0))
    assert there == pytest.approx([2.0]) and len(back) == 16
    assert hausdorff(centre, full, (9.0, 1.5, 1.0)) == hausdorff(centre[0], full[0], (1.5, 1.0))


def brute_force_hd95(prediction, truth, spacing):
    """The definition, with a table of all distances."""
    points = [np.argwhere(array & ~binary_erosion(array)) * spacing for array in (prediction, truth)]
    table = cdist(*points)
    return max(np.percentile(table.min(axis=1), 95), np.percentile(table.min(axis=0), 95))


@pytest.mark.parametrize("dense", [0.0, 1.0], ids=["distance transform", "nearest neighbours"])
@pytest.mark.parametrize("seed", range(4))
def test_hd95_agrees_with_brute_force_either_way(monkeypatch, dense, seed):
    monkeypatch.setattr(metrics, "_DENSE", dense)
    rng = np.random.default_rng(seed)
    spacing = rng.uniform(0.4, 6.0, size=3)
    prediction, truth = rng.random((2, 7, 11, 9)) < rng.uniform(0.02, 0.9, size=(2, 1, 1, 1))
    prediction[:, :, 7:] = False  # a box that leaves out part of one side only
    assert hausdorff(prediction, truth, spacing) == pytest.approx(brute_force_hd95(prediction, truth, spacing))


def test_arguments_are_checked_and_left_alone():
    inputs = mask((1, 1, 1)), mask(np.s_[1:3, 1:3, 1:3])
    copies = [array.copy() for array in inputs]
    hausdorff(*inputs, (1, 1, 1))
    overlap(*inputs)
    assert all((array == copy).all() for array, copy in zip(inputs, copies))
    with pytest.raises(ValueError, match="same shape"):
        confusion(np.ones((2, 3), bool), np.ones((3, 2), bool))
    with pytest.raises(ValueError, match="truth must be a bool array, not float64"):
        overlap(np.ones(3, bool), np.full(3, 0.3))
    with pytest.raises(ValueError, match="prediction must be a bool array, not uint8"):
        surface_distances(np.ones(3, np.uint8), np.ones(3, bool), (1,))
    for spacing in [(1, 1), (1, 1, 0), (1, 1, NAN), 1.0]:
        with pytest.raises(ValueError, match="3 positive numbers"):
            hausdorff(*inputs, spacing)
