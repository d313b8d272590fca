"""What script 4 draws from results.csv: scores per class and fold, and predicted against true volumes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from lib.reporting.style import COLOURS, pyplot, save

OVERLAPS = ("dice", "hd95_mm")


def draw_results(folder: Path, rows: list[dict]) -> None:
    """Write `<metric>.png` per class and fold, and volumes.png, under `folder`."""
    cases = [row for row in rows if row.get("case")]
    for metric in OVERLAPS:
        draw_metric([r for r in cases if r["metric"] == metric and not math.isnan(r["value"])], metric, folder / f"{metric}.png")
    draw_volumes(cases, folder / "volumes.png")


def draw_metric(rows: list[dict], metric: str, path: Path) -> None:
    if not rows:
        return
    plt = pyplot()
    classes = list(dict.fromkeys(row["class"] for row in rows))
    folds = sorted({row["fold"] for row in rows})
    figure, axis = plt.subplots(figsize=(1.6 + 1.6 * len(classes), 3))
    for index, name in enumerate(classes):
        values = [r["value"] for r in rows if r["class"] == name]
        axis.boxplot(values, positions=[index], widths=0.5, showfliers=False, medianprops={"color": "black"})
        for number, fold in enumerate(folds):
            mine = [r["value"] for r in rows if r["class"] == name and r["fold"] == fold]
            place = index + (number - (len(folds) - 1) / 2) * 0.4 / max(1, len(folds))
            axis.plot([place] * len(mine), mine, "o", ms=3.5, alpha=0.75, color=COLOURS[number % len(COLOURS)],
                      label=f"fold {fold}" if index == 0 else None)
    counts = [sum(r["class"] == name for r in rows) for name in classes]
    axis.set_xticks(range(len(classes)), [f"{name}\nn = {n}" for name, n in zip(classes, counts)])
    axis.set(ylabel=metric, title=f"{metric} of held-out cases")
    axis.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path)


def draw_volumes(rows: list[dict], path: Path) -> None:
    """Predicted against true volume, and their difference against their mean (Bland & Altman 1986)."""
    volumes: dict[str, dict[str, dict]] = {}
    for row in rows:
        if row["metric"] in ("volume_ml", "volume_ml_true"):
            volumes.setdefault(row["class"], {}).setdefault(row["case"], {})[row["metric"]] = row["value"]
    if not volumes:
        return
    plt = pyplot()
    figure, axes = plt.subplots(2, len(volumes), figsize=(3.1 * len(volumes), 5.6), squeeze=False)
    for column, (name, cases) in enumerate(volumes.items()):
        predicted, true = (np.array([c[key] for c in cases.values()]) for key in ("volume_ml", "volume_ml_true"))
        top = max(predicted.max(), true.max(), 1e-3) * 1.05
        above, below = axes[:, column]
        above.plot([0, top], [0, top], color="grey", lw=0.8)
        above.plot(true, predicted, "o", ms=4, alpha=0.75)
        above.set(title=f"{name} (n = {len(true)})", xlabel="true (mL)", ylabel="predicted (mL)",
                  xlim=(-top / 30, top), ylim=(-top / 30, top))
        difference = predicted - true
        bias, spread = difference.mean(), 1.96 * difference.std(ddof=1) if len(difference) > 1 else 0.0
        below.plot((predicted + true) / 2, difference, "o", ms=4, alpha=0.75)
        for level, style in ((bias, "-"), (bias - spread, "--"), (bias + spread, "--")):
            below.axhline(level, color="grey", lw=0.8, ls=style)
        below.set(title=f"bias {bias:.2f} mL, limits {bias - spread:.2f} to {bias + spread:.2f}", xlabel="mean (mL)",
                  ylabel="predicted - true (mL)")
        below.title.set_fontsize(7)
    save(figure, path)
