"""Learning curves of all folds of a run in one figure: losses and the score that chose the epoch, a line per fold."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import numpy as np

from lib.reporting.glossary import score_label
from lib.reporting.report.page import TRAINING
from lib.reporting.style import legend, line_style, pyplot, save

LOSSES = ("train_loss", "validation_loss")
FEW = 30  # epochs up to which each is marked


def draw_run_curves(path: Path, histories: dict[int, Sequence[dict]], column: str, kept: dict[int, int]) -> Path | None:
    """Write the figure; None, and no file, where nothing was recorded.

    histories: fold -> rows of its metrics.csv, as numbers, NaN where empty. column: of the score that chose the epoch, which
    may be validation_loss; kept: fold -> the epoch that was kept, from 0: a ring on each of its lines.
    """
    titles = {name: score_label(name) for name in (*LOSSES, column)}
    shown = {name: title for name, title in titles.items() if any(len(points(rows, name)[0]) for rows in histories.values())}
    if not shown:
        return None
    figure, axes = pyplot().subplots(1, len(shown), figsize=(3.3 * len(shown) + 0.9, 3), squeeze=False)
    figure.suptitle("Learning curves of the folds")
    folds = sorted(histories)
    for axis, (name, title) in zip(axes[0], shown.items()):
        for turn, fold in enumerate(folds):
            epochs, values = points(histories[fold], name)
            axis.plot(epochs, values, lw=1.2, marker="." if len(epochs) <= FEW else "", **line_style(turn))
        for turn, fold in enumerate(folds):
            epochs, values = points(histories[fold], name)
            at = epochs == kept.get(fold, -1) + 1
            axis.plot(epochs[at], values[at], "o", ms=6, mfc="none", color=line_style(turn)["color"])
        count = sum(len(points(rows, name)[0]) > 0 for rows in histories.values())
        axis.set(xlabel="epoch", ylabel=title, title=f"{title}, n = {count} fold{'s' * (count > 1)}")
        axis.xaxis.get_major_locator().set_params(integer=True)
    legend(axes[0][-1], [f"fold {fold}" for fold in folds])
    return save(figure, path, TRAINING, "A line per fold; a ring marks the epoch that was kept.")


def points(rows: Sequence[dict], column: str) -> tuple[np.ndarray, np.ndarray]:
    """(epochs from 1, values) where there is a value."""
    epochs = np.array([row["epoch"] + 1 for row in rows], float)
    values = np.array([row.get(column, np.nan) for row in rows], float)
    known = np.isfinite(values)
    return epochs[known], values[known]
