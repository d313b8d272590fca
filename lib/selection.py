"""Which epoch is the best: the score that `training.select` names, its direction, and when to stop waiting."""

from __future__ import annotations

import math

from lib.study import InputError, Training, one_of

NO_VALIDATION = "last epoch (no validation patients)"
# undefined only where no validation case has the class at all, or all have it
ALWAYS_DEFINED = ("dice", "iou", "recall", "roc_auc", "pr_auc")


class Selection:
    """The best epoch so far. epoch: -1 before the first; improved: the epoch from which on patience waits."""

    def __init__(self, settings: Training, task, fold: int, has_validation: bool):
        """Raises InputError for what cannot be selected on."""
        self.settings, self.fold, self.has_validation = settings, fold, has_validation
        self.epoch, self.improved, self.score, self.loss = -1, -1, -math.inf, math.inf
        self.select = settings.select or next(iter(task.selectable))  # the task's main metric stands first
        metric, _, name = self.select.partition("/")
        known = {"loss": False, **task.selectable}
        one_of(metric, tuple(known), "training.select")
        if metric != "loss":
            one_of(name or "all", task.selectable_classes(metric), f"training.select, class of {metric}")
        self.larger_is_better: bool = known[metric]

    @property
    def column(self) -> str:
        select = self.select
        return "validation_loss" if select == "loss" else select if "/" in select else f"{select}/all"

    @property
    def metric(self) -> str:
        """What a checkpoint says that its score is."""
        return self.column if self.has_validation else NO_VALIDATION

    def score_of(self, row: dict) -> float:
        """The score in a row of metrics.csv; NaN without validation. Raises InputError where there is none."""
        if not self.has_validation:
            return math.nan
        score = row[self.column_in(row)]
        if math.isnan(score) and self.column.split("/")[0] in ALWAYS_DEFINED:
            raise InputError(f"no validation case of fold {self.fold} has what training.select={self.select} "
                             "scores, so no epoch can be chosen: select another metric or class, or prepare with another "
                             "data.folds.seed or a larger -v")
        if math.isnan(score):  # not defined in this epoch
            return -math.inf if self.larger_is_better else math.inf
        return score

    def column_in(self, row: dict) -> str:
        """The column of the score. Raises InputError if the row has none."""
        if self.column not in row:
            metric = self.column.split("/")[0]
            known = sorted(column for column in row if column.split("/")[0] == metric)
            raise InputError(f"training.select: validation has no {self.column!r}; known: "
                             f"{', '.join(known or sorted(c for c in row if '/' in c))}")
        return self.column

    def take(self, epoch: int, score: float, loss: float = math.inf) -> bool:
        """Whether `epoch` is the best now, of equal scores that with the lower validation loss (few cases have few
        different accuracies); without validation the last always is."""
        better = score > self.score if self.larger_is_better else score < self.score
        better |= self.epoch < 0 or not self.has_validation
        # of epochs without any success, the last
        as_good = score == self.score and (self.nothing_learnt or loss < self.loss)
        if better:
            self.improved = epoch
        if better or as_good:
            self.epoch, self.score, self.loss = epoch, score, loss
        return better or as_good

    def adopt(self, epoch: int, score: float) -> None:
        """Take over an epoch that was found best, and kept, by a process that was killed before it could say so."""
        self.epoch, self.improved, self.score, self.loss = epoch, epoch, score, math.inf

    @property
    def nothing_learnt(self) -> bool:
        """Whether a score that grows from 0 is still there: patience has nothing to wait beside yet."""
        return self.has_validation and self.larger_is_better and self.epoch >= 0 and self.score <= 0

    def out_of_patience(self, epochs_done: int) -> bool:
        if self.nothing_learnt:
            return False
        waited = epochs_done - 1 - self.improved
        return bool(self.settings.patience and self.has_validation and epochs_done and waited >= self.settings.patience)
