"""The pictures of the report: which frame, truth and prediction as layers of their own, and a book of them that stays small."""

from __future__ import annotations

import dataclasses
import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from lib.data.store import CaseRecord
from lib.imaging.geometry import Fit, Geometry
from lib.reporting.heatmaps import write_heatmap
from lib.reporting.report.layers import LONGER_PX, PictureBook, draw_layers, layer, picture_legend, resized
from lib.study import Data
from lib.tasks.classification import Classification
from lib.tasks.classification import Prediction as ClassPrediction
from lib.tasks.detection import Detection
from lib.tasks.detection import Prediction as BoxPrediction
from lib.tasks.landmarks import Landmarks
from lib.tasks.landmarks import Prediction as PointPrediction
from lib.tasks.segmentation import Prediction as MaskPrediction
from lib.tasks.segmentation import Segmentation

NATIVE, GRID = (60, 100), (64, 64)  # rows, columns


def record(frames=3, spacing=None) -> CaseRecord:
    geometry = Geometry((frames, *NATIVE), spacing, True)
    return CaseRecord(0, "a", "p", geometry, Fit.of(NATIVE, GRID, geometry.spacing[1:]), slice(0, frames), slice(0, 1), "")


def frames_of(count=3) -> np.ndarray:
    """(count, 1, *GRID) uint8, a ramp, so that grey is stretched alike with and without layers."""
    return np.broadcast_to(np.linspace(0, 200, GRID[1]).astype(np.uint8), (count, 1, *GRID)).copy()


def square(frame: int, top: int, left: int, side: int = 20) -> np.ndarray:
    mask = np.zeros((3, *NATIVE), bool)
    mask[frame, top:top + side, left:left + side] = True
    return mask


def segmentation() -> tuple:
    """The truth's second class is largest in frame 1; the prediction lies elsewhere."""
    task = Segmentation(Data(reader={}, classes=("organ", "lesion"), size=GRID), {}, {})
    truth = np.stack([square(0, 5, 5, 30), square(1, 5, 60)])
    masks = np.stack([square(1, 30, 5), square(1, 35, 70)])
    return task, MaskPrediction(masks.astype(np.float32), masks, (0.5, 0.5)), truth, 1


def detection() -> tuple:
    task = Detection(Data(reader={}, classes=("head", "nose"), size=GRID), {}, {})
    truth = np.zeros((3, 2, 5), np.float32)
    truth[2] = [[1, 10, 10, 40, 40], [1, 60, 20, 80, 30]]
    boxes = np.tile(np.array([[50, 5, 90, 50], [5, 45, 20, 55]], np.float32), (3, 1, 1))
    return task, BoxPrediction(np.full((3, 2), 0.9, np.float32), boxes, 0.5, np.ones((3, 2), np.float32)), truth, 2


def landmarks() -> tuple:
    task = Landmarks(Data(reader={}, classes=("tip", "root"), size=GRID), {}, {})
    truth = np.zeros((3, 2, 3), np.float32)
    truth[1] = [[20, 20, 1], [80, 40, 1]]
    places = np.tile(np.array([[50, 10], [30, 50]], np.float32), (3, 1, 1))
    ones = np.ones((3, 2), np.float32)
    return task, PointPrediction(places, ones, ones, 0.0, (6.0, 6.0), ones), truth, 1


def classification() -> tuple:
    task = Classification(Data(reader={}, classes=("poor", "good"), size=GRID), {}, {}, names={"poor": "not readable"})
    cam = np.zeros((2, 3, 4, 4), np.float32)
    cam[1, :, 2, 2] = 1
    return task, ClassPrediction(np.array([0.2, 0.8]), 0.5, cam, 3), np.array([0]), 1


TASKS = {"segmentation": segmentation, "detection": detection, "landmarks": landmarks, "classification": classification}


@pytest.mark.parametrize("kind", TASKS)
def test_the_shown_frame_is_that_of_the_truth_or_of_the_prediction(kind):
    task, prediction, truth, frame = TASKS[kind]()
    assert task.shown_frame(prediction, truth) == frame
    assert 0 <= task.shown_frame(prediction, None) < 3


def test_the_frame_of_a_segmentation_without_truth_is_the_predictions():
    task, prediction, truth, _ = segmentation()
    assert task.shown_frame(prediction, np.zeros_like(truth)) == 1
    moved = MaskPrediction(prediction.probabilities, np.roll(prediction.masks, 1, axis=1), (0.5, 0.5))
    assert task.shown_frame(moved, None) == 2


def test_a_clip_shows_its_middle_frame():
    task, prediction, truth, _ = classification()
    assert [task.shown_frame(ClassPrediction(prediction.probabilities, 0.5, None, count), truth) for count in (1, 2, 5, 32)
            ] == [0, 0, 2, 16]


@pytest.mark.parametrize("kind", ["segmentation", "detection", "landmarks"])
def test_truth_and_prediction_are_drawn_alone(kind):
    task, prediction, truth, frame = TASKS[kind]()
    plain, true, predicted = (task.draw(frames_of(), *drawn, record(), [frame], 2)[0].astype(int)
                              for drawn in ((None, None), (None, truth), (prediction, None)))
    assert np.ptp(plain, axis=2).max() == 0  # grey
    at_truth, at_prediction = ((drawn != plain).any(axis=2) for drawn in (true, predicted))
    assert at_truth.any() and at_prediction.any()
    # the corners of what is true, and of what is predicted: (row, column), enlarged twice
    places = {"segmentation": ((5, 60), (35, 70)), "detection": ((10, 10), (5, 50)), "landmarks": ((20, 20), (10, 50))}[kind]
    for drawn, other, (row, column) in zip((at_truth, at_prediction), (at_prediction, at_truth), places):
        around = np.s_[2 * row - 5:2 * row + 7, 2 * column - 5:2 * column + 7]
        assert drawn[around].any() and not other[around].any()


def test_the_truth_of_every_class_has_its_colour():
    """The class that predictions show as heat among them."""
    task = Segmentation(Data(reader={}, classes=("organ", "lesion"), size=GRID), {}, {}, outlines=("organ",), heat="lesion",
                        colours={"organ": "#00ff00", "lesion": "#ff0000"})
    _, prediction, truth, frame = segmentation()
    truth[0, 1, 30:50, 5:25] = True
    true = task.draw(frames_of(), None, truth, record(), [1])[0].astype(int)
    assert (true == (255, 0, 0)).all(axis=2)[5:25, 60:80].sum() > 5 and (true == (0, 255, 0)).all(axis=2)[30:50, 5:25].sum() > 5


@pytest.mark.parametrize("kind", TASKS)
def test_layers_put_over_the_base_give_the_pictures(kind):
    task, prediction, truth, frame = TASKS[kind]()
    base, true, predicted = draw_layers(task, frames_of(), prediction, truth, record())
    assert base.dtype == true.dtype == predicted.dtype == np.uint8
    assert base.shape == (240, 400, 3) and true.shape == predicted.shape == (240, 400, 4)
    for one in (true, predicted):
        assert set(np.unique(one[..., 3])) == {0, 255} and 0 < (one[..., 3] > 0).mean() < 0.7
        assert (one[one[..., 3] == 0] == 0).all()
        assert (one[..., :3][one[..., 3] > 0] != base[one[..., 3] > 0]).any(axis=1).all()
    if kind != "classification":  # whose words stand on the finished picture
        over = np.where(true[..., 3:] > 0, true[..., :3], base)
        assert (over == task.draw(frames_of(), None, truth, record(), [frame], 4)[0]).all()


def test_without_truth_there_is_no_truth_to_show():
    for make in TASKS.values():
        task, prediction, _, _ = make()
        assert draw_layers(task, frames_of(), prediction, None, record())[1] is None


def test_a_class_is_said_in_words():
    task, prediction, truth, _ = classification()
    assert task.words(None, truth) == "not readable" and task.words(prediction, None) == "good 0.80"
    _, true, predicted = draw_layers(task, frames_of(), prediction, truth, record())
    rows, _ = np.nonzero(true[..., 3])
    assert rows.max() < 40  # on top; the prediction's at the bottom
    without = ClassPrediction(prediction.probabilities, 0.5, None, 3)
    rows, _ = np.nonzero(draw_layers(task, frames_of(), without, truth, record())[2][..., 3])
    assert rows.min() > 200


def test_measurements_belong_to_the_prediction():
    data = Data(reader={}, classes=("tip", "root"), size=GRID)
    line = {"length": {"kind": "distance", "start": "tip", "stop": "root"}}
    places, ones = np.array([[[50, 10], [30, 50]]], np.float32), np.ones((1, 2), np.float32)
    prediction = PointPrediction(places, ones, ones, 0.0, (6.0, 6.0), ones)
    truth = np.array([[[20, 20, 1], [80, 40, 1]]], np.float32)
    plain, marked = (draw_layers(Landmarks(data, keys, {}), frames_of(1), prediction, truth, record(1)) for keys in ({}, line))
    assert (plain[1] == marked[1]).all() and (marked[2][..., 3] > 0).sum() > (plain[2][..., 3] > 0).sum() + 100


def test_pictures_of_unlike_pixels_are_upright_and_square():
    task, prediction, truth, _ = segmentation()
    base, true, _ = draw_layers(task, frames_of(), prediction, truth, record(spacing=(1.0, 2.0, 1.0)))
    assert base.shape[:2] == true.shape[:2] == (360, 300)  # 60 rows of 2 mm, 100 columns of 1 mm, three times enlarged


def test_a_case_is_restored_once_for_all_of_its_pictures(monkeypatch):
    restored, (task, prediction, truth, _) = [], segmentation()
    restore = Fit.restore
    monkeypatch.setattr(Fit, "restore", lambda self, frames: restored.append(frames) or restore(self, frames))
    case, ramp, turned = record(), frames_of(), frames_of()[..., ::-1]
    for frames in (ramp, turned):
        draw_layers(task, frames, prediction, truth, case)
        task.side_by_side(frames, prediction, truth, case)
    assert len(restored) == 2
    here, there = (draw_layers(task, frames, prediction, truth, case)[0] for frames in (ramp, turned))
    assert (here == there[:, ::-1]).all() and (here != there).any()  # other frames of the same case are others


def test_the_legend_names_classes_and_tells_prediction_from_truth():
    assert picture_legend(segmentation()[0], True) == [("organ", "#56b4e9"), ("lesion", "#e69f00"),
                                                       ("lines are the prediction, dots the truth", "")]
    assert picture_legend(detection()[0], True)[-1][0] == "solid boxes are the prediction, dashed ones the truth"
    assert picture_legend(classification()[0], True) == [(classification()[0].drawn, "")]  # its classes have no place


def test_the_legend_names_no_truth_where_there_is_none():
    assert picture_legend(detection()[0], False)[-1] == ("solid boxes are the prediction", "")
    heated = dataclasses.replace(segmentation()[0], heat="lesion")
    assert picture_legend(heated, False)[-1][0] == "lines are the prediction, warm colours the probability of lesion"


# --- colours ---------------------------------------------------------------------------------------------------------

SKIN, MOLE = (210, 150, 120), (90, 40, 60)  # left and right half of a photograph


def photographs(left=SKIN, right=MOLE, dtype=np.uint8) -> np.ndarray:
    """(3, 3, *GRID): frames, then red, green and blue."""
    frames = np.empty((3, 3, *GRID), dtype)
    frames[..., :32], frames[..., 32:] = (np.array(colour, dtype)[:, None, None] for colour in (left, right))
    return frames


def shares(picture: np.ndarray, *colours) -> list[float]:
    """Of uint8 (..., 3): which share of it has exactly this colour."""
    assert picture.dtype == np.uint8 and picture.shape[-1] == 3
    return [float((picture == colour).all(axis=-1).mean()) for colour in colours]


@pytest.mark.parametrize("kind", TASKS)
def test_every_pixel_of_a_photograph_is_shown_as_it_is_stored(kind):
    task, prediction, truth, frame = TASKS[kind]()
    stored = np.random.default_rng(0).integers(0, 256, (3, 3, *GRID), dtype=np.uint8)
    geometry = Geometry((3, *GRID), None, True)
    case = CaseRecord(0, "a", "p", geometry, Fit.of(GRID, GRID, geometry.spacing[1:]), slice(0, 3), slice(0, 1), "")
    assert (task.draw(stored, None, None, case) == stored.transpose(0, 2, 3, 1)).all()
    assert (task.draw(stored, None, None, case, [2], 1)[0] == stored[2].transpose(1, 2, 0)).all()
    for channel in range(3):  # a channel that the study chooses is grey
        chosen = dataclasses.replace(task, background=channel).draw(stored, None, None, case)
        assert np.ptp(chosen, axis=-1).max() == 0
        assert np.corrcoef(chosen[..., 0].ravel(), stored[:, channel].ravel())[0, 1] > 0.99
    volume = dataclasses.replace(case, geometry=Geometry((3, *GRID), (5.0, 1.0, 1.0)))  # its channels are no colours
    assert (task.draw(stored, None, None, volume) == dataclasses.replace(task, background=2).draw(stored, None, None, case)).all()


@pytest.mark.parametrize("kind", TASKS)
def test_all_pictures_of_a_photograph_have_its_colours(kind, tmp_path):
    task, prediction, truth, frame = TASKS[kind]()
    frames, case = photographs(), record()
    case = dataclasses.replace(case, geometry=dataclasses.replace(case.geometry, source={"format": "image"}))
    sheet = np.asarray(Image.open(write_heatmap(tmp_path, task, frames, prediction, truth, case)))
    base, true, predicted = draw_layers(task, frames, prediction, truth, case)
    pictures = {"plain": task.draw(frames, None, None, case, [frame], 3), "samples": task.truth_picture(frames, truth, case),
                "painted": task.draw(frames, prediction, truth, case, [frame], 3), "base": base, "sheet": sheet,
                "beside": task.side_by_side(frames, prediction, truth, case)}
    least = {"plain": 0.47, "base": 0.47, "painted": 0.25, "samples": 0.25, "sheet": 0.15, "beside": 0.1}
    for name, picture in pictures.items():
        assert min(shares(picture, SKIN, MOLE)) > least[name], name
        assert shares(picture, SKIN[::-1], MOLE[::-1]) == [0, 0]
    assert (pictures["painted"] != pictures["plain"]).any(axis=-1).mean() > 0.01  # what is drawn shows
    for one in (true, predicted):
        assert one is not None and 0 < (one[..., 3] > 0).mean() < 0.7


@pytest.mark.parametrize("kind", TASKS)
def test_z_scores_of_colours_are_stretched_together(kind):
    """From -2 to 2: 2 is 255, 1 is 191.25, 0 is 127.5, -1 is 63.75; cut, as grey z-scores are."""
    task, *_ = TASKS[kind]()
    drawn = task.draw(photographs((2, 0, -2), (1, 0, -1), np.float16), None, None, record())
    assert min(shares(drawn, (255, 127, 0), (191, 127, 63))) > 0.48


# --- the book --------------------------------------------------------------------------------------------------------


def noise(rng, size=(200, 300), smooth=5) -> np.ndarray:
    import cv2
    return cv2.GaussianBlur(rng.integers(0, 255, (*size, 3), dtype=np.uint8), (0, 0), smooth)


def lines(size=(200, 300)) -> np.ndarray:
    drawn = np.zeros((*size, 4), np.uint8)
    drawn[20, 10:200] = drawn[20:100, 10] = (255, 40, 0, 255)
    return drawn


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_pictures_come_back_in_order(tmp_path):
    rng = np.random.default_rng(0)
    bases = [noise(rng), noise(rng, (300, 100)), noise(rng)]
    with PictureBook(tmp_path / "deep" / "spool") as book:
        assert [book.add(f"{fold}/a", base, truth, prediction) for fold, base, truth, prediction in zip(
            range(3), bases, (lines(), None, None), (lines(), lines((300, 100)), None))] == [0, 1, 2]
        assert book.count == 3 and book.index == {"0/a": 0, "1/a": 1, "2/a": 2} and book.note == ""
        for _ in range(2):  # it can be read again
            found = list(book.pictures())
            assert [index for index, _, _ in found] == [0, 1, 2]
            assert [size for _, _, size in found] == [(300, 200), (100, 300), (300, 200)]
        for (_, parts, _), base in zip(found, bases):
            assert set(parts) == {"base", "truth", "prediction"} and parts["base"][8:12] == b"WEBP"
            assert np.abs(opened(parts["base"]).astype(int) - base).mean() < 3
        drawn = opened(found[0][1]["truth"]).astype(int)
        assert np.abs(drawn - lines()).max() <= 8 and (drawn[..., 3] == lines()[..., 3]).all()  # lines stay sharp
        assert found[1][1]["truth"] is None and found[2][1]["prediction"] is None
        with pytest.raises(ValueError, match="two pictures of '0/a'"):
            book.add("0/a", bases[0], None, None)


def test_the_spool_leaves_nothing_behind(tmp_path):
    book = PictureBook(tmp_path / "spool")
    book.add("a", noise(np.random.default_rng(0)), None, None)
    assert list(tmp_path.iterdir()) == []
    book.close()


def test_the_same_pictures_are_the_same_bytes(tmp_path):
    made = []
    for _ in range(2):
        with PictureBook(tmp_path / "spool") as book:
            book.add("a", noise(np.random.default_rng(0)), lines(), None)
            made.append(list(book.pictures()))
    assert made[0] == made[1]


def test_large_pictures_are_shrunk_and_lines_keep_their_colour(tmp_path):
    with PictureBook(tmp_path / "spool") as book:
        thick = np.repeat(np.repeat(lines((250, 125)), 4, axis=0), 4, axis=1)
        book.add("a", noise(np.random.default_rng(0), (1000, 500)), thick, None)
        (_, parts, size), = book.pictures()
    assert size == (LONGER_PX // 2, LONGER_PX) and opened(parts["truth"]).shape == (LONGER_PX, LONGER_PX // 2, 4)
    drawn = opened(parts["truth"])
    red, green, blue, opaque = drawn[drawn[..., 3] > 0].T.astype(int)
    assert opaque.min() == 255 and red.min() > 240 and green.max() < 60 and blue.max() < 15  # not mixed with the black of what is clear


def test_too_many_pictures_become_smaller_and_the_page_is_told(tmp_path):
    rng = np.random.default_rng(0)
    with PictureBook(tmp_path / "spool", budget=60_000) as book:
        for number in range(12):
            book.add(str(number), noise(rng, (400, 400), smooth=1.5), lines((400, 400)), None)
        assert book.bytes > 2 * book.budget
        found = list(book.pictures())
        total = sum(len(part) for _, parts, _ in found for part in parts.values() if part)
        assert 0.4 * book.budget < total <= book.budget
        longer, _ = book.fitting()
        assert longer < LONGER_PX and all(size == (longer, longer) for _, _, size in found)
        assert opened(found[3][1]["base"]).shape == (longer, longer, 3) and opened(found[3][1]["truth"]).shape[2] == 4
        assert f"{longer} px" in book.note and "12 pictures" in book.note
        book.add("one more", noise(rng), None, None)
        assert "13 pictures" in book.note


def test_memory_does_not_grow_with_the_pictures(tmp_path):
    base, drawn = noise(np.random.default_rng(0), (300, 300), smooth=1), lines((300, 300))
    with PictureBook(tmp_path / "spool", budget=10_000_000) as book:
        book.add("first", base, drawn, drawn)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(60):
            book.add(str(number), base, drawn, drawn)
        held = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.reset_peak()
        for _ in book.pictures():
            pass
        peak = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        assert book.bytes > 1_000_000
    assert held < 60_000 and peak < 300_000


def test_a_layer_is_what_differs():
    base = np.full((4, 5, 3), 7, np.uint8)
    assert layer(base, base.copy()) is None
    painted = base.copy()
    painted[1, 2] = (7, 7, 8)
    found = layer(base, painted)
    assert found[1, 2].tolist() == [7, 7, 8, 255] and np.count_nonzero(found) == 4
    assert resized(None, 3) is None and resized(base, 5) is base and resized(base, 2).shape == (2, 2, 3)
