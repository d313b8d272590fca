"""The brain mask and its morphology, on volumes whose masks are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from lib.imaging.brainmask import (METHODS, brain_mask, dilate, fill_holes, largest_component, median_above,
                                   otsu_threshold, percentile_threshold, separable_median)

SHAPE = (16, 48, 56)


def ellipsoid(radii=(6, 18, 21)) -> np.ndarray:
    """A bool body in the middle of SHAPE; radii in voxels."""
    frames, rows, columns = np.ogrid[tuple(slice(-(n // 2), n - n // 2) for n in SHAPE)]
    return (frames / radii[0]) ** 2 + (rows / radii[1]) ** 2 + (columns / radii[2]) ** 2 <= 1


def head(outside: float, seed: int = 0) -> list[np.ndarray]:
    """Two noisy channels: an ellipsoid with ventricles that are dark in b1000, and a bright blob far away."""
    random = np.random.default_rng(seed)
    brain, ventricles = ellipsoid(), ellipsoid((2, 4, 5))
    channels = []
    for tissue, fluid in ((400, 900), (200, 20)):
        volume = np.where(brain, tissue, outside)
        volume[ventricles] = fluid
        volume[2:6, 2:6, 2:6] = 2 * tissue  # an eye, as far as this phantom goes
        channels.append((volume + (volume > 0) * random.normal(0, 12, SHAPE)).astype(np.float32))
    return channels


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("outside", [30.0, 0.0], ids=["air", "skull-stripped"])
def test_finds_the_brain_with_its_ventricles_and_without_the_blob(method, outside):
    mask = brain_mask(head(outside), method)
    assert mask.dtype == bool and mask.shape == SHAPE
    assert dice(mask, dilate(ellipsoid())) > 0.97
    assert mask[ellipsoid((2, 4, 5))].all()
    assert not mask[2:6, 2:6, 2:6].any()


def test_one_channel_and_one_frame_are_enough():
    frame = head(30.0)[0][8:9]
    assert dice(brain_mask([frame]), dilate(ellipsoid()[8:9])) > 0.97


def test_the_channels_may_be_views_of_any_layout_and_stay_as_they_are():
    b0, b1000 = head(30.0)
    turned = [np.asfortranarray(volume) for volume in (b0, b1000)]
    copies = [volume.copy() for volume in turned]
    assert np.array_equal(brain_mask(turned), brain_mask([b0, b1000]))
    assert all(np.array_equal(volume, copy) for volume, copy in zip(turned, copies))


def test_agrees_with_the_recipe_written_out_with_scipy():
    channels = head(30.0)
    smooth = [ndimage.median_filter(channel, 3) for channel in channels]
    mask = np.logical_and.reduce([volume > otsu_threshold(volume) for volume in smooth])
    labels, _ = ndimage.label(mask)
    mask = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    mask = ndimage.binary_fill_holes(ndimage.binary_dilation(mask))
    mask = np.stack([ndimage.binary_fill_holes(frame) for frame in mask])
    assert dice(brain_mask(channels), mask) > 0.99


def broken(change) -> list[np.ndarray]:
    channels = head(30.0)
    channels[1] = change(channels[1])
    return channels


@pytest.mark.parametrize("change, words", [
    (np.zeros_like, "channel 2 of 2 is all zero"),
    (lambda volume: np.full_like(volume, 7), r"channel 2 of 2 is constant \(every voxel is 7\)"),
    (lambda volume: np.where(volume == volume.max(), np.nan, volume), "channel 2 of 2 has .* not finite"),
    (lambda volume: volume[1:], "channel 2 of 2 has the shape .*the same in every channel"),
    (lambda volume: np.broadcast_to(np.arange(SHAPE[2]) > 52, SHAPE), "the brain mask is empty: no voxel"),
])
def test_says_what_is_wrong_with_a_channel(change, words):
    with pytest.raises(ValueError, match=words):
        brain_mask(broken(change))


@pytest.mark.parametrize("method", METHODS)
def test_specks_that_the_median_removes_leave_no_mask(method):
    volume = np.zeros(SHAPE, np.float32)
    volume[4, 10, 10] = 500
    with pytest.raises(ValueError, match="the brain mask is empty"):
        brain_mask([volume], method)


def test_no_channel_at_all():
    with pytest.raises(ValueError, match="at least one channel"):
        brain_mask([])


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown brain mask method 'bet'; known: otsu, percentile"):
        brain_mask(head(30.0), "bet")


# ---- thresholds and medians

def test_otsu_on_a_histogram_worked_out_by_hand():
    # Bins are 1 wide and stand for their upper edges: 6 x 1, 4 x 11, 1 x 201, 1 x 256.
    # Voxels below x voxels above x (difference of means)^2, for the split
    # after 0:   6 x 6 x (1 - 501/6)^2 = 36 x 82.5^2 = 245 025
    # after 10:  10 x 2 x (50/10 - 457/2)^2 = 20 x 223.5^2 = 999 045, the largest
    # after 200: 11 x 1 x (251/11 - 256)^2 = 598 229
    # Every bin from 10 to 199 splits alike; the first is taken, and the threshold is its lower edge.
    volume = np.array([0] * 6 + [10] * 4 + [200, 256], np.float32).reshape(1, 3, 4)
    assert otsu_threshold(volume) == 10.0


def test_otsu_keeps_all_of_a_body_that_stands_in_zeros():
    volume = np.zeros(SHAPE, np.float32)
    volume[ellipsoid()] = np.random.default_rng(0).uniform(900, 1000, ellipsoid().sum())
    assert np.array_equal(volume > otsu_threshold(volume), ellipsoid())


def test_otsu_does_not_depend_on_the_scale():
    volume = head(30.0)[0]
    for scale in (2.0 ** -12, 2.0 ** 8):
        assert otsu_threshold(volume * np.float32(scale)) == pytest.approx(scale * otsu_threshold(volume))


def test_percentile_goes_a_fifth_of_the_way():
    volume = np.repeat(np.arange(101, dtype=np.float32), 4).reshape(101, 2, 2)  # percentile p is p
    assert percentile_threshold(volume) == pytest.approx(2 + 0.2 * 96)
    assert percentile_threshold(volume, 0.5) == pytest.approx(50)


@pytest.mark.parametrize("shape", [(1, 7, 9), (2, 1, 1), (5, 8, 13), (9, 30, 1)])
def test_median_above_is_the_exact_median(shape):
    volume = np.random.default_rng(3).random(shape).astype(np.float32)
    for threshold in (0.3, 0.5, 0.7):
        expected = ndimage.median_filter(volume, 3) > threshold
        assert np.array_equal(median_above(volume, threshold), expected)


def test_separable_median_keeps_steps_and_removes_specks():
    volume = np.zeros((6, 10, 10), np.float32)
    volume[:, :, 5:] = 100
    expected = volume.copy()
    volume[3, 4, 2] = 900
    assert np.array_equal(separable_median(volume), expected)


# ---- morphology

def test_an_empty_mask_has_no_largest_component():
    largest = largest_component(np.zeros((3, 4, 5), bool))
    assert largest.dtype == bool and largest.shape == (3, 4, 5) and not largest.any()


def test_largest_component_counts_voxels_and_joins_through_faces_only():
    mask = np.zeros((3, 6, 6), bool)
    mask[0, 0, 0:3] = True  # 3 voxels
    mask[1, 0, 2] = True    # joined to them through a face: 4
    mask[2, 1, 3] = True    # touches at a corner: apart
    mask[0, 4, 0:3] = True  # 3 others
    expected = np.zeros_like(mask)
    expected[0, 0, 0:3] = expected[1, 0, 2] = True
    assert np.array_equal(largest_component(mask), expected)


def test_of_equal_components_the_first_is_kept():
    mask = np.zeros((2, 3, 7), bool)
    mask[0, 2, 5:7] = mask[1, 0, 0:2] = True
    expected = np.zeros_like(mask)
    expected[0, 2, 5:7] = True
    assert np.array_equal(largest_component(mask), expected)


def test_fill_holes_fills_cavities_and_closed_rings_but_not_bays():
    mask = np.zeros((5, 7, 9), bool)
    mask[1:4, 1:6, 1:6] = True
    solid = mask.copy()
    mask[2, 3, 3] = False     # a cavity in 3-D
    mask[1:4, 4, 2] = False   # a tunnel through all frames: open in 3-D, closed in each frame
    assert np.array_equal(fill_holes(mask), solid)
    solid[:, 3, 4:] = False   # a bay that opens to the side
    assert np.array_equal(fill_holes(solid), solid)


@pytest.mark.parametrize("density", [0.0, 0.3, 0.6, 0.9, 1.0])
def test_morphology_agrees_with_scipy_on_noise(density):
    mask = np.random.default_rng(5).random((6, 21, 24)) < density
    filled = ndimage.binary_fill_holes(mask)
    filled = np.stack([ndimage.binary_fill_holes(frame) for frame in filled])
    assert np.array_equal(fill_holes(mask), filled)
    assert np.array_equal(dilate(mask), ndimage.binary_dilation(mask))
    labels, count = ndimage.label(mask)
    largest = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]) if count else mask
    assert np.array_equal(largest_component(mask), largest)
