"""lib.imaging.geometry and intensity: fitted without cropping, in proportion, and restored."""

from __future__ import annotations

import numpy as np
import pytest

from lib.imaging.geometry import Fit
from lib.imaging.intensity import zscore, zscore_parameters

# native size, grid, spacing (mm); odd and even, enlarged, shrunk, unequal pixels
SIZES = [((37, 53), (64, 64), (1.0, 1.0)), ((5, 7), (256, 256), (1.0, 1.0)), ((63, 64), (64, 64), (1.0, 1.0)),
         ((101, 33), (256, 192), (0.9, 2.1)), ((255, 127), (256, 256), (1.0, 1.0)), ((1, 9), (32, 32), (1.0, 1.0)),
         ((31, 90), (96, 128), (2.0, 1.3))]
LARGER = [((301, 257), (128, 128), (1.0, 1.0)), ((513, 400), (256, 256), (0.5, 0.5)), ((131, 77), (64, 96), (1.0, 1.0))]


def waves(shape) -> np.ndarray:
    """A smooth picture: one period along each axis, 0..1."""
    rows, columns = (np.linspace(0, 2 * np.pi, n) for n in shape)
    return (0.5 + 0.25 * np.sin(rows)[:, None] + 0.25 * np.cos(columns)).astype(np.float32)


def test_enlarged_twice_by_hand():
    """Pixel centres of the larger grid lie at -1/4, 1/4, 3/4, 5/4 of the smaller; beyond the border is the border."""
    fit = Fit.of((2, 2), (4, 4))
    assert (fit.scaled, fit.corner) == ((4, 4), (0, 0))
    found = fit.fit(np.array([[0, 4], [8, 12]], np.float32))
    np.testing.assert_array_equal(found, [[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]])
    labels = fit.fit_labels(np.array([[1, 2], [3, 4]], np.uint8))
    np.testing.assert_array_equal(labels, [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]])


def test_halved_by_hand():
    """Shrinking averages areas."""
    frame = np.array([[0, 2, 10, 10], [4, 6, 10, 10], [1, 1, 0, 8], [1, 1, 0, 0]], np.float32)
    np.testing.assert_array_equal(Fit.of((4, 4), (2, 2)).fit(frame), [[3, 10], [1, 2]])
    np.testing.assert_array_equal(Fit.of((4, 4), (1, 1)).fit(frame), [[4]])  # of all 16, not of the middle 4


def test_padding_is_even_and_has_the_value_asked_for():
    fit = Fit.of((2, 4), (4, 4))
    frame = np.arange(8, dtype=np.float32).reshape(2, 4)
    expected = np.full((4, 4), -7.5, np.float32)
    expected[1:3] = frame
    np.testing.assert_array_equal(fit.fit(frame, outside=-7.5), expected)
    np.testing.assert_array_equal(fit.fit_labels(np.ones((2, 4), bool)), [[0] * 4, [1] * 4, [1] * 4, [0] * 4])
    assert (Fit.of((3, 3), (4, 9)).scaled, Fit.of((3, 3), (4, 9)).corner) == ((4, 4), (0, 2))


@pytest.mark.parametrize("native, spacing, grid, scaled, corner", [
    ((10, 20), (3.0, 1.0), (60, 60), (60, 40), (0, 10)),      # 30 x 20 mm
    ((100, 50), (1.0, 2.0), (256, 256), (256, 256), (0, 0)),  # 100 x 100 mm
    ((512, 256), (0.5, 0.5), (128, 128), (128, 64), (0, 32)),
    ((40, 40), (1.0, 1.0), (64, 32), (32, 32), (16, 0)),
    ((1000, 1), (1.0, 1.0), (16, 16), (16, 1), (0, 7)),       # a sliver keeps one column
])
def test_proportions_in_mm_are_kept(native, spacing, grid, scaled, corner):
    fit = Fit.of(native, grid, spacing)
    assert (fit.scaled, fit.corner) == (scaled, corner)


@pytest.mark.parametrize("native, grid, spacing", SIZES + LARGER)
def test_restore_gives_the_native_shape_and_a_smooth_picture_back(native, grid, spacing):
    fit = Fit.of(native, grid, spacing)
    picture = np.stack([waves(native), 1 - waves(native)])[None]  # (1, 2, rows, columns)
    fitted = fit.fit(picture)
    assert fitted.shape == (1, 2, *grid) and fitted.dtype == np.float32
    restored = fit.restore(fitted)
    assert restored.shape == picture.shape and restored.dtype == np.float32
    assert np.abs(restored - picture).max() < (0.01 if min(native) > 9 else 0.1)


@pytest.mark.parametrize("native, grid, spacing", SIZES)
def test_labels_that_were_enlarged_come_back_exactly(native, grid, spacing):
    """Even noise: each native pixel's centre falls into its own enlarged pixels."""
    labels = np.random.default_rng(0).integers(0, 4, (3, *native)).astype(np.uint8)
    fit = Fit.of(native, grid, spacing)
    assert fit.scaled[0] >= native[0] and fit.scaled[1] >= native[1]
    restored = fit.restore_labels(fit.fit_labels(labels))
    assert restored.shape == labels.shape and restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, labels)


@pytest.mark.parametrize("native, grid, spacing", LARGER)
def test_labels_that_were_shrunk_come_back_nearly(native, grid, spacing):
    rows, columns = np.ogrid[:native[0], :native[1]]
    disc = (rows - native[0] / 2) ** 2 + (columns - native[1] / 2) ** 2 < (min(native) / 3) ** 2
    fit = Fit.of(native, grid, spacing)
    restored = fit.restore_labels(fit.fit_labels(disc)).astype(bool)
    assert 2 * (restored & disc).sum() / (restored.sum() + disc.sum()) > 0.97


@pytest.mark.parametrize("native, grid, spacing", SIZES + LARGER)
def test_nothing_is_cropped(native, grid, spacing):
    """What lies in the corners is still in the corners of the fitted frame, and the padding holds nothing of it."""
    fit = Fit.of(native, grid, spacing)
    block = tuple(max(1, n // 8) for n in native)
    frame = np.zeros(native, np.float32)
    for rows in (slice(block[0]), slice(-block[0], None)):
        for columns in (slice(block[1]), slice(-block[1], None)):
            frame[rows, columns] = 1
    fitted, labels = fit.fit(frame), fit.fit_labels(frame.astype(bool))
    inner, inner_labels = fitted[fit.inner].copy(), labels[fit.inner].copy()
    assert inner.shape == fit.scaled
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert inner[corner] == 1 and inner_labels[corner] == 1
    fitted[fit.inner] = labels[fit.inner] = 0
    assert not fitted.any() and not labels.any()
    assert inner.mean() == pytest.approx(frame.mean(), rel=0.15)


@pytest.mark.parametrize("native, spacing", [((256, 16), (0.25, 4.0)), ((16, 256), (4.0, 0.25)),
                                             ((300, 20), (0.4, 6.0))])
def test_one_axis_shrinks_while_the_other_grows(native, spacing):
    """Long thin pixels: a ramp along each axis must stay where it is, without a shift.

    (OpenCV's INTER_AREA averages areas only if both axes shrink; else it blends two neighbours, off by pixels.)
    """
    grid = (64, 64)
    fit = Fit.of(native, grid, spacing)
    assert fit.scaled == grid
    rows, columns = np.mgrid[:native[0], :native[1]].astype(np.float32)
    for axis, ramp in enumerate((rows, columns)):
        ratio = native[axis] / grid[axis]
        centres = (np.arange(64) + 0.5) * ratio - 0.5  # in native pixels
        found = fit.fit(ramp).mean(axis=1 - axis)
        assert np.abs(found - centres)[4:-4].max() < 0.1 * max(1, ratio)


def test_zscore_by_hand():
    """Inside: 2, 4, 6, 8: mean 5, standard deviation sqrt(5)."""
    frames = np.array([[[2, 4], [6, 8], [100, -100]]], np.float32)
    inside = np.array([[[1, 1], [1, 1], [0, 0]]], bool)
    mean, deviation = zscore_parameters(frames, inside)
    assert (mean, deviation) == (5.0, pytest.approx(5 ** 0.5))
    scores = zscore(frames, mean, deviation, 10.0)
    np.testing.assert_allclose(scores[inside], np.array([-3, -1, 1, 3]) / 5 ** 0.5, rtol=1e-6)
    np.testing.assert_array_equal(scores[~inside], [10, -10])
    assert zscore_parameters(frames, None)[0] == pytest.approx(20 / 6)
    with pytest.raises(ValueError, match="same value"):
        zscore_parameters(np.ones((1, 2, 2), np.float32), None)
