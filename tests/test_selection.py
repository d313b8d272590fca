"""lib.selection: which epoch is the best, and when to stop waiting for a better one."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from lib.selection import NO_VALIDATION, Selection
from lib.study import InputError, Training

TASK = SimpleNamespace(selectable={"dice": True, "volume_error": False}, selectable_classes=lambda metric: ("all", "head"))


def selection(select="dice", patience=2, has_validation=True) -> Selection:
    return Selection(Training(select=select, patience=patience), TASK, 1, has_validation)


def best_of(made: Selection, scores) -> list[int]:
    """The best epoch after each score."""
    found = []
    for epoch, score in enumerate(scores):
        made.take(epoch, score)
        found.append(made.epoch)
    return found


def test_the_first_of_equals_stays_the_best():
    assert best_of(selection(), [0.1, 0.5, 0.5, 0.4, 0.6]) == [0, 1, 1, 1, 4]
    assert best_of(selection("volume_error"), [3, 2, 2, 5, 1]) == [0, 1, 1, 1, 4]
    assert best_of(selection("loss"), [3, 2, 4]) == [0, 1, 1]


def test_without_validation_the_last_epoch_is_kept():
    made = selection(has_validation=False)
    assert best_of(made, [math.nan] * 3) == [0, 1, 2] and made.metric == NO_VALIDATION
    assert math.isnan(made.score_of({})) and not made.out_of_patience(99)


def test_patience_counts_epochs_since_the_best():
    made = selection(patience=2)
    best_of(made, [0.5, 0.4, 0.3])  # the best is epoch 0; 1 and 2 were not better
    assert not made.out_of_patience(2) and made.out_of_patience(3)
    assert not selection(patience=0).out_of_patience(99)


def test_patience_does_not_begin_before_anything_is_learnt():
    """Of epochs that all score 0 the last is kept, and none of them counts as waiting."""
    made = selection(patience=2)
    assert best_of(made, [0.0, 0.0, 0.0, 0.0]) == [0, 1, 2, 3] and made.nothing_learnt and not made.out_of_patience(4)
    made.take(4, 0.1)
    assert not made.take(5, 0.1) and not made.nothing_learnt
    assert not made.out_of_patience(6) and made.out_of_patience(7)
    assert not selection("loss").nothing_learnt


def test_the_score_is_read_from_the_column_that_is_selected_on():
    row = {"dice/all": 0.5, "dice/head": 0.7, "validation_loss": 2.0}
    assert [selection(s).score_of(row) for s in ("dice", "dice/head", "loss")] == [0.5, 0.7, 2.0]
    assert selection("volume_error").score_of({"volume_error/all": math.nan}) == math.inf  # undefined: never better
    with pytest.raises(InputError, match="no validation case of fold 1 has what training.select=dice"):
        selection().score_of({"dice/all": math.nan})
    with pytest.raises(InputError, match="validation has no 'dice/all'; known: iou/all"):
        selection().score_of({"iou/all": 1.0})


def test_what_cannot_be_selected_on_is_refused():
    for select, message in (("dise", "unknown 'dise'"), ("dice/hed", "unknown 'hed' .did you mean 'head'")):
        with pytest.raises(InputError, match=message):
            selection(select)


def test_of_equal_scores_the_lower_loss_is_kept():
    choice = selection("dice")
    assert [choice.take(epoch, score, loss) for epoch, (score, loss) in enumerate(
        ((0.5, 2.0), (0.5, 2.5), (0.5, 1.0), (0.4, 0.5), (0.5, 1.0)))] == [True, False, True, False, False]
    assert (choice.epoch, choice.score, choice.loss) == (2, 0.5, 1.0)


def test_a_study_that_names_no_metric_is_selected_on_the_main_one_of_its_task():
    assert Selection(Training(), TASK, 0, True).column == "dice/all"
