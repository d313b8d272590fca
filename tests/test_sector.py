"""The ultrasound sector: what moves is kept with what it encloses, burnt-in text is gone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from conftest import ROOT
from lib.imaging.loops import read_facts, read_frames
from lib.imaging.sector import Extent, find_sector

SHARED = ROOT.parent / "shared" / "data" / "dicom"
SIZE = (240, 320)


def fan(size=SIZE) -> np.ndarray:
    """bool: 76 degrees wide, from a tenth of the rows to nine tenths."""
    rows, columns = np.mgrid[:size[0], :size[1]]
    y, x = rows - 0.06 * size[0], columns - size[1] / 2
    return (np.hypot(y, x) < 0.84 * size[0]) & (np.hypot(y, x) > 0.04 * size[0]) & (np.abs(np.arctan2(x, y)) < np.radians(38))


def text(size=SIZE) -> np.ndarray:
    """bool: letters in the corners and beside the sector."""
    drawn = np.zeros(size, np.uint8)
    for words, row, column in (("DOE^JANE 1951-08-29", 0.07, 0.02), ("MI 0.9", 0.2, 0.02), ("15cm", 0.97, 0.8)):
        cv2.putText(drawn, words, (int(column * size[1]), int(row * size[0])), 0, size[0] / 600, 255, 1)
    return drawn > 0


def loop(count: int = 20, size=SIZE, seed: int = 0, cavity: float = 0.15, noise: float = 8.0) -> np.ndarray:
    """uint8 (n, rows, columns): speckle that decorrelates, and a dark cavity that never changes."""
    random, inside = np.random.default_rng(seed), fan(size)
    rows, columns = np.mgrid[:size[0], :size[1]]
    dark = np.hypot(rows - 0.55 * size[0], columns - size[1] / 2) < cavity * size[0]
    still = cv2.GaussianBlur(random.rayleigh(60, size), (0, 0), 1.5)
    frames = np.zeros((count, *size), np.uint8)
    for frame in frames:
        frame[inside] = np.clip(still + random.normal(0, noise, size), 0, 255)[inside]
        frame[dark] = 0
        frame[text(size)] = 255
    return frames


def sector_of(frames: np.ndarray) -> np.ndarray | None:
    extent = Extent()
    for frame in frames:
        extent.add(frame)
    return find_sector(extent.change)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def test_extent_is_the_most_that_a_pixel_of_any_channel_changes():
    extent, frames = Extent(), np.random.default_rng(0).integers(0, 256, (5, 3, 4, 6)).astype(np.uint8)
    for frame in frames:
        extent.add(frame)
    np.testing.assert_array_equal(extent.change, np.ptp(frames.astype(int), axis=0).max(axis=0))
    assert extent.change.dtype == np.uint8


@pytest.mark.parametrize("size", [SIZE, (600, 800), (112, 112)])
def test_a_fan_is_found_with_its_dark_cavity_and_without_text(size):
    frames = loop(12, size)
    found = sector_of(frames)
    assert found.dtype == bool and found.shape == size
    assert overlap(found, fan(size)) > (0.96 if size[0] > 200 else 0.93)
    assert found[int(0.55 * size[0]), size[1] // 2]  # within the cavity
    outside = text(size) & ~fan(size)
    assert outside.any() and not (found & outside).any()


def test_a_rectangle_of_a_linear_probe():
    frames = np.zeros((10, *SIZE), np.uint8)
    frames[:, 40:220, 60:260] = np.random.default_rng(0).integers(20, 120, (10, 180, 200))
    frames[:, 5:20, 5:120] = 255
    expected = np.zeros(SIZE, bool)
    expected[40:220, 60:260] = True
    assert overlap(sector_of(frames), expected) > 0.98


def test_a_shadow_at_the_edge_belongs_to_the_sector():
    frames = loop()
    rows, columns = np.mgrid[:SIZE[0], :SIZE[1]]
    frames[:, (columns > 200) & (columns < 215) & (rows > 120) & fan()] = 0
    assert overlap(sector_of(frames), fan()) > 0.95


def test_an_ecg_and_changing_digits_are_no_part_of_it():
    frames = loop(25)
    for index, frame in enumerate(frames):
        points = np.array([(8 + 3 * k, 226 - (14 if k % 24 == 3 else 0)) for k in range(100)], np.int32)
        cv2.polylines(frame, [points[:8 + 4 * index]], False, 200, 1)  # drawn on from frame to frame
        cv2.putText(frame, f"{60 + index}", (290, 60), 0, 0.4, 255, 1)
    found = sector_of(frames)
    assert overlap(found, fan()) > 0.95 and not found[228:].any() and not found[:, 288:].any()


def test_noise_everywhere_as_of_an_analogue_cable_does_not_hide_the_sector():
    random = np.random.default_rng(1)
    frames = np.clip(loop(noise=25).astype(int) + random.integers(-2, 3, (20, *SIZE)), 0, 255).astype(np.uint8)
    found = sector_of(frames)
    assert overlap(found, fan()) > 0.95 and not (found & text() & ~fan()).any()


def test_a_loop_cut_to_its_sector_is_kept_whole():
    frames = np.random.default_rng(0).integers(0, 256, (6, 50, 60)).astype(np.uint8)
    assert sector_of(frames).mean() > 0.98


def test_of_two_sectors_side_by_side_the_text_between_them_is_not_kept():
    """They touch, so that they are one region, but far from convex."""
    size = (240, 480)
    random, inside = np.random.default_rng(0), np.zeros((240, 480), bool)
    for middle in (140, 340):
        rows, columns = np.mgrid[:240, :480]
        y, x = rows - 10, columns - middle
        inside |= (np.hypot(y, x) < 215) & (np.abs(np.arctan2(x, y)) < np.radians(34))
    frames = np.where(inside, random.integers(0, 256, (8, *size)), 0).astype(np.uint8)
    found = sector_of(frames)
    assert overlap(found, inside) > 0.9 and not found[10:40, 215:265].any()


def test_what_hardly_moves_tells_nothing():
    still = np.repeat(loop(1), 5, axis=0)
    assert sector_of(still) is None and sector_of(loop(1)) is None
    assert sector_of(still + np.arange(5, dtype=np.uint8)[:, None, None] % 2) is None  # one grey level of flicker
    blinking = still.copy()
    blinking[::2, 100:108, 100:108] = 255
    assert sector_of(blinking) is None  # 0.1 % of the frame
    assert find_sector(np.zeros((1, 1), np.uint8)) is None


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")
def test_real_loops():
    """A heart in a fan, and a probe in air with a patient's banner (rows 0 to 24) and words on its left."""
    for name, low, high in (("examples_ybr_color", 0.3, 0.45), ("GREYSCALE_CINE", 0.25, 0.6)):
        path = SHARED / f"{name}.dcm"
        frames = np.stack([frame[0] for frame in read_frames(path, read_facts(path, 1).shape, 1)])
        found = sector_of(frames)
        assert low < found.mean() < high
        kept = frames[0] * found
        if name == "GREYSCALE_CINE":
            assert frames[0][:24].max() == 254 and not kept[:60].any() and not kept[:, :95].any() and not kept[:, 705:].any()
            assert found[400:550, 110:690].all()  # where reverberations flicker
        else:
            assert frames[0][:30, :40].max() > 100 and not kept[:30, :40].any()
            assert not kept[:, 305:].any() and not kept[225:].any()
            assert found[40:190, 150:180].all()  # the heart, dark chambers included
