"""lib.data.batches and lib.prediction: which frames a window holds, reading ahead, and whole cases through a model."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from lib.data.batches import (balanced_order, batches, epoch_order, even_frames, gather, random_windows, read_ahead,
                              spread_windows, training_batches, window_index, window_offsets)
from lib.data.store import Samples
from lib.prediction import predict_cases
from lib.study import Window

SERIES = ((0, 5), (5, 6), (6, 10))  # five frames, one frame, four frames: the whole data set
FRAMES = np.arange(10, dtype=np.float16)[:, None, None, None] * np.ones((1, 2, 3, 4), np.float16)  # frame i is all i


def samples_of(*series) -> Samples:
    frame = np.concatenate([np.arange(start, stop) for start, stop in series])
    start = np.concatenate([np.full(stop - first, first) for first, stop in series])
    stop = np.concatenate([np.full(stop - first, stop) for first, stop in series])
    return Samples(frame, frame, start, stop)


EVERYTHING = samples_of(*SERIES)


@pytest.mark.parametrize("window, offsets", [
    (Window(1, 1), [0]), (Window(7, 1), [-3, -2, -1, 0, 1, 2, 3]), (Window(3, 2), [-2, 0, 2]),
    (Window(2, 1), [-1, 0]), (Window(4, 3), [-6, -3, 0, 3]),  # an even window holds its own frame too
])
def test_offsets(window, offsets):
    assert window_offsets(window).tolist() == offsets


@pytest.mark.parametrize("window, frame, expected", [
    (Window(3, 1), 2, [1, 2, 3]),
    (Window(3, 1), 0, [0, 0, 1]),              # first slice of the data set
    (Window(3, 1), 9, [8, 9, 9]),              # last slice of the data set: its neighbour is 8, as in the middle
    (Window(7, 1), 9, [6, 7, 8, 9, 9, 9, 9]),
    (Window(7, 1), 4, [1, 2, 3, 4, 4, 4, 4]),  # last slice of a series: nothing of the next patient
    (Window(7, 1), 6, [6, 6, 6, 6, 7, 8, 9]),  # first slice of a series: nothing of the patient before
    (Window(5, 1), 5, [5, 5, 5, 5, 5]),        # a series of one frame
    (Window(3, 2), 3, [1, 3, 4]),              # stride 2: frame 5 is another patient's
    (Window(3, 2), 7, [6, 7, 9]),
    (Window(2, 1), 6, [6, 6]),
    (Window(2, 1), 7, [6, 7]),
    (Window(4, 1), 8, [6, 7, 8, 9]),
])
def test_windows_by_hand(window, frame, expected):
    index = window_index(EVERYTHING.take(np.array([frame])), window)
    assert index.tolist() == [expected]
    assert gather(FRAMES, index)[0, :, 1, 2, 3].tolist() == expected


@pytest.mark.parametrize("window", [Window(1), Window(2), Window(7), Window(8, 2), Window(31, 3)])
def test_no_window_crosses_a_series(window):
    index = window_index(EVERYTHING, window)
    assert index.shape == (10, window.frames)
    for sample, (first, stop) in zip(index, zip(EVERYTHING.start, EVERYTHING.stop)):
        assert first <= sample.min() and sample.max() < stop
        assert (np.diff(sample) >= 0).all()
    assert (index[:, window.frames // 2] == EVERYTHING.frame).all()


def test_gather_fills_the_buffer_it_is_given():
    index = window_index(EVERYTHING, Window(3))
    buffer = np.full((10, 3, 2, 3, 4), -1, np.float16)
    found = gather(FRAMES, index, buffer)
    assert found is buffer
    np.testing.assert_array_equal(buffer, FRAMES[index])
    part = gather(FRAMES, index[:2], buffer[:2])  # a last, smaller batch
    assert part.base is buffer and part.shape == (2, 3, 2, 3, 4)


def test_batches_take_every_sample_once_in_order():
    order = np.array([3, 1, 4, 0, 9, 2, 6, 5, 8, 7])
    found = [batch.rows.tolist() for batch in batches(EVERYTHING, order, 4)]
    assert found == [[3, 1, 4, 0], [9, 2, 6, 5], [8, 7]]
    batch = next(batches(EVERYTHING, order, 3))
    assert (batch.start.tolist(), batch.stop.tolist()) == ([0, 0, 0], [5, 5, 5])
    assert list(batches(EVERYTHING, np.array([], int), 3)) == []


def test_an_epoch_has_one_order_and_another_epoch_another():
    first = epoch_order(100, (0, 1, 2))
    assert sorted(first) == list(range(100))
    assert (epoch_order(100, (0, 1, 2)) == first).all()
    for seed in ((0, 1, 3), (0, 2, 2), (1, 1, 2)):
        assert (epoch_order(100, seed) != first).any()


BEFORE: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def threads_before():
    """A training that a test of another file has interrupted may still hold one."""
    BEFORE.clear()
    BEFORE.update(threading.enumerate())


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read_ahead" and thread not in BEFORE]


@pytest.mark.parametrize("depth", [1, 3])
def test_read_ahead_keeps_the_order(depth):
    def load(item):
        time.sleep(0.002 * (item % 3))
        return item * item

    assert list(read_ahead(range(20), load, depth)) == [item * item for item in range(20)]
    assert list(read_ahead([], load, depth)) == []
    assert list(read_ahead([1, 2], lambda item: None, depth)) == [None, None]  # None is a value like any other
    assert reading_threads() == []


def test_read_ahead_reads_while_the_consumer_works_but_not_far():
    loaded = []
    reader = read_ahead(range(50), lambda item: loaded.append(item) or item)
    assert next(reader) == 0
    deadline = time.monotonic() + 5
    while len(loaded) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert loaded == [0, 1, 2]  # one in use, one waiting, one in hand: as many as the trainer has buffers
    reader.close()
    assert reading_threads() == []


def test_an_exception_comes_out_at_its_place():
    def load(item):
        if item == 3:
            raise KeyError("frame 3")
        return item

    seen = []
    with pytest.raises(KeyError, match="frame 3"):
        for item in read_ahead(range(10), load):
            seen.append(item)
    assert seen == [0, 1, 2]
    assert reading_threads() == []


def test_an_exception_of_the_items_themselves_comes_out_too():
    def items():
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(read_ahead(items(), str))


def test_stopping_early_leaves_no_thread():
    for _ in read_ahead(range(1000), str):
        break
    with pytest.raises(RuntimeError, match="the consumer's"):
        for _ in read_ahead(range(1000), str):
            raise RuntimeError("the consumer's")
    deadline = time.monotonic() + 5
    while reading_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert reading_threads() == []


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("window", [Window(1), Window(3), Window(4, 2)])
def test_whole_cases_are_what_a_plain_loop_gives(batch_size, window):
    frames = np.random.default_rng(0).random((10, 2, 3, 4)).astype(np.float16)
    weights = np.arange(1, window.frames + 1)[:, None, None, None]  # so that the order within a window counts
    sizes = []

    def run(windows):
        sizes.append(len(windows))
        return {"logits": (windows * weights).sum(axis=1), "score": windows.mean(axis=(1, 2, 3, 4))}

    series = [(f"case {number}", samples_of(one)) for number, one in enumerate(SERIES)]
    found = list(predict_cases(run, frames, series, window, batch_size))
    assert [case for case, _ in found] == ["case 0", "case 1", "case 2"]
    assert sum(sizes) == 10 and max(sizes) <= batch_size
    assert len(sizes) == sum(-(-(stop - first) // batch_size) for first, stop in SERIES)  # batches never mix cases
    for (_, outputs), (first, stop) in zip(found, SERIES):
        for row, frame in enumerate(range(first, stop)):
            neighbours = [min(max(frame + o, first), stop - 1) for o in window_offsets(window)]
            one = frames[neighbours]
            np.testing.assert_array_equal(outputs["logits"][row], (one * weights).sum(axis=0))
            assert outputs["score"][row] == one[None].mean(axis=(1, 2, 3, 4))[0]
        assert len(outputs["logits"]) == stop - first


def test_no_cases_no_outputs_and_a_case_chosen_out_of_order():
    assert list(predict_cases(lambda w: {}, FRAMES, [], Window(1), 4)) == []
    series = [("late", samples_of((6, 10))), ("early", samples_of((0, 5)))]
    found = dict(predict_cases(lambda w: {"x": w[:, 0, 0, 0, 0]}, FRAMES, series, Window(1), 3))
    assert found["late"]["x"].tolist() == [6, 7, 8, 9] and found["early"]["x"].tolist() == [0, 1, 2, 3, 4]


# --- training order ---------------------------------------------------------------------------------------------------

def test_balanced_order_draws_both_sides_alike():
    present = np.zeros(40, bool)
    present[[3, 17, 30]] = True
    order = balanced_order(present, (0, 1, 2))
    assert len(order) == 40 and present[order].sum() == 20
    counts = np.bincount(order, minlength=40)
    assert sorted(counts[present]) == [6, 7, 7]  # a side that runs out starts again, so its members differ by one at most
    assert counts[~present].max() == 1
    assert (balanced_order(present, (0, 1, 2)) == order).all() and (balanced_order(present, (0, 1, 3)) != order).any()


def test_balanced_order_of_one_side_is_every_sample_once():
    assert sorted(balanced_order(np.zeros(7, bool), (0,))) == list(range(7))


@pytest.mark.parametrize("count, size, expected", [(17, 8, [8, 7, 2]), (16, 8, [8, 8]), (18, 8, [8, 8, 2]), (1, 8, [1]),
                                                   (3, 2, [2, 1]), (9, 8, [7, 2])])
def test_training_batches_avoid_a_batch_of_one(count, size, expected):
    index = np.arange(count)
    made = list(training_batches(Samples(index, index, index * 0, index * 0 + count), index[::-1], size))
    assert [len(batch) for batch in made] == expected
    assert np.concatenate([batch.rows for batch in made]).tolist() == index[::-1].tolist()


def test_balanced_order_draws_every_group_alike():
    groups = np.array([0] * 80 + [2] * 15 + [7] * 5)
    order = balanced_order(groups, (3,))
    assert len(order) == 100 and sorted(np.unique(groups[order], return_counts=True)[1]) == [33, 33, 34]
    drawn = np.bincount(order, minlength=100)
    assert set(drawn[95:]) == {6, 7} and set(drawn[80:95]) == {2, 3} and drawn[:80].max() == 1  # as evenly as it goes


@pytest.mark.parametrize("window, start, stop, expected", [
    (Window(4, 2, test_windows=3), 10, 30, [[10, 12, 14, 16], [16, 18, 20, 22], [23, 25, 27, 29]]),  # 6.5 rounds to even
    (Window(3, 1, test_windows=1), 0, 9, [[3, 4, 5]]),                       # the only window is in the middle
    (Window(4, 2, test_windows=3), 5, 13, [[5, 7, 9, 11], [6, 8, 10, 12]]),  # no window twice
    (Window(4, 1, test_windows=3), 2, 6, [[2, 3, 4, 5]]),
    (Window(4, 1, test_windows=3), 2, 5, [[2, 3, 4, 4]]),                    # the last frame is repeated
    (Window(1, 1, test_windows=3), 7, 8, [[7]]),
])
def test_whole_series_are_seen_through_evenly_spread_windows(window, start, stop, expected):
    series = Samples(np.array([4]), np.array([start]), np.array([start]), np.array([stop]), whole=True)
    spread = spread_windows(series, window)
    assert window_index(spread, window).tolist() == expected and spread.rows.tolist() == [4] * len(expected)
    assert even_frames(start, stop, window).tolist() == spread.frame.tolist()


def test_windows_of_several_series_stay_in_theirs():
    series = Samples(np.array([0, 1]), np.array([0, 20]), np.array([0, 20]), np.array([20, 23]), whole=True)
    spread = spread_windows(series, Window(4, 2, test_windows=2))
    assert spread.rows.tolist() == [0, 0, 1]
    assert window_index(spread, Window(4, 2)).tolist() == [[0, 2, 4, 6], [13, 15, 17, 19], [20, 22, 22, 22]]


def test_training_draws_any_window_that_fits():
    series = Samples(np.zeros(400, int), np.full(400, 10), np.full(400, 10), np.full(400, 20), whole=True)
    window = Window(3, 2)
    drawn = random_windows(series, window, (0, 1))
    index = window_index(drawn, window)
    assert (np.diff(index) == 2).all() and set(index[:, 0]) == set(range(10, 16))  # 10..15 begin a window of five frames
    assert (random_windows(series, window, (0, 1)).frame == drawn.frame).all()
    assert (random_windows(series, window, (0, 2)).frame != drawn.frame).any()


def test_samples_of_single_frames_are_left_alone():
    window = Window(3, 1)
    assert spread_windows(EVERYTHING, window) is EVERYTHING and random_windows(EVERYTHING, window, (0,)) is EVERYTHING
