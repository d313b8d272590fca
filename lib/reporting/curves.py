"""What a fold's training looked like: loss, and validation's scores, over epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import numpy as np

from lib.reporting.style import COLOURS, plain, pyplot, save


def draw_learning_curves(path: Path, history: Sequence[dict], selected: str, best: int) -> None:
    """Losses beside the overall scores, and where the epoch is that was kept.

    history: rows of metrics.csv. selected: the column that chose the epoch; best: its number, from 0.
    """
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
    for name, label in (("train_loss", "training"), ("validation_loss", "validation")):
        draw_line(left, history, name, label)
    left.set(xlabel="epoch", ylabel="loss", title="loss")
    shown = {selected: f"{selected.removesuffix('/all')}, validation", "accuracy/all": "accuracy, validation",
             "train_accuracy": "accuracy, training"}
    shown = {column: label for column, label in shown.items() if "loss" not in column and any(column in row for row in history)}
    for column, label in shown.items():
        draw_line(right, history, column, label)
    right.set(xlabel="epoch", ylabel="score", title="scores")
    if not shown:
        right.axis("off")
    for axis in (left, right):
        axis.axvline(best + 1, color="grey", lw=0.8, ls="--", label=f"kept: epoch {best + 1}")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(frameon=False)
    save(figure, path)


def draw_line(axis, history: Sequence[dict], column: str, label: str) -> None:
    points = [(row["epoch"] + 1, row[column]) for row in history if np.isfinite(row.get(column, np.nan))]
    if points:
        axis.plot(*zip(*points), ".-", label=plain(label), color=COLOURS[len(axis.lines)])
