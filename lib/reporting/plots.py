"""Draws what lib/evaluation/plots.py describes: a function per kind of plot, a PNG per plot."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterable

import numpy as np

from lib.evaluation.plots import Bars, Counts, Curves, Dots, Maps, Matrix, Plot
from lib.reporting.style import (COLOURS, SMALL, dot_style, figure_path, legend, line_style, logarithmic, name_ticks,
                                 nothing, plain, pyplot, save, wrapped)

TITLE_LETTERS = 11  # per inch of the figure
BAR_INCHES, CELL_INCHES = 0.8, 0.62  # from bar to bar, from column to column
FEW = 20  # points of a line up to which each is marked
MOST_BARS = 40  # of a histogram; beyond them a bar holds several numbers
MAPS_IN_ROW = 5
HEADROOM = 1.12  # of an axis over its highest bar, for the number above it


def draw_plots(folder: Path, plots: Iterable[Plot]) -> list[Path]:
    """Write `<name>.png` under `folder` for every plot; returns the paths. A plot of nothing says so."""
    paths = []
    for plot in plots:
        path = figure_path(folder, plot.name)
        if path in paths:
            raise ValueError(f"two plots are called {path.name}")
        paths.append(save(DRAW[type(plot)](plot), path, plot.section, plot.caption))
    return paths


def draw_curves(plot: Curves):
    lines = {name: finite(*points) for name, points in plot.lines.items()}
    lines = {name: points for name, points in lines.items() if len(points[0])}
    figure, axis = pyplot().subplots(figsize=(6.2, 4.2))
    label(axis, plot, 6.2)
    if not lines:
        return nothing(figure, axis)
    turns = {name: index for index, name in enumerate(plot.lines)}  # a class keeps its colour when another has no line
    for name, (x, y) in lines.items():
        if x[0] > x[-1]:  # scikit-learn's precision and recall: a step would go to the wrong side
            x, y = x[::-1], y[::-1]
        marked = len(x) == 1 if plot.step else len(x) <= FEW
        axis.plot(x, y, lw=1.5, marker="o" if marked else "", ms=3.5,
                  drawstyle="steps-pre" if plot.step else "default", **line_style(turns[name]))
    if plot.limits:
        for ends, setter in zip(plot.limits, (axis.set_xlim, axis.set_ylim)):
            air = 0.02 * (ends[1] - ends[0])  # lines along the edge are not cut in half
            setter(ends[0] - air, ends[1] + air)
        if plot.limits[0] == plot.limits[1]:
            axis.set_aspect("equal")
    if plot.diagonal:
        (left, right), (low, high) = plot.limits or (axis.get_xlim(), axis.get_ylim())
        axis.plot([left, right], [low, high], color="grey", lw=0.8, ls="--", zorder=0)
    legend(axis, list(lines))
    return figure


def draw_bars(plot: Bars):
    values = np.array(list(plot.values.values()), float)
    shown = np.isfinite(values)
    width = max(4, 1.2 + BAR_INCHES * len(values))
    figure, axis = pyplot().subplots(figsize=(width, 3.4))
    label(axis, plot, width)
    if not shown.any():
        return nothing(figure, axis)
    places = np.arange(len(values))
    bars = axis.bar(places[shown], values[shown], color=COLOURS[0], width=0.7)
    whole_numbers = (values[shown] == np.rint(values[shown])).all()
    axis.bar_label(bars, fmt="{:.0f}" if whole_numbers else "{:.2f}", padding=2, fontsize=SMALL,
                   bbox={"fc": "white", "ec": "none", "pad": 0.5})  # readable where the dashed line passes
    for place in places[~shown]:
        axis.text(place, 0, "undefined", ha="center", va="bottom", color="grey", fontsize=SMALL)
    if plot.whole is not None and np.isfinite(plot.whole):
        axis.axhline(plot.whole, color="grey", lw=0.8, ls="--")
        axis.text(1.01, plot.whole, f"of {plot.whole:g}", color="grey", fontsize=SMALL, va="center",
                  transform=axis.get_yaxis_transform())
    top = max(values[shown].max(), plot.whole or 0)
    axis.set_xlim(-0.6, len(values) - 0.4)
    axis.set_ylim(min(0, values[shown].min()) * HEADROOM, top * HEADROOM if top > 0 else 1)
    if whole_numbers:
        axis.yaxis.get_major_locator().set_params(integer=True)
    name_ticks(axis, list(plot.values), BAR_INCHES)
    return figure


def draw_counts(plot: Counts):
    values = np.asarray(plot.values, float).ravel()
    values = np.rint(values[np.isfinite(values)]).astype(int)
    figure, axis = pyplot().subplots(figsize=(5.2, 3.4))
    label(axis, plot, 5.2)
    if not len(values):
        return nothing(figure, axis)
    low, high = int(values.min()), int(values.max())
    step = -(-(high - low + 1) // MOST_BARS)
    edges = np.arange(low, high + step + 1, step) - 0.5  # a whole number lies in the middle of its bar
    counts, _ = np.histogram(values, edges)
    bars = axis.bar(edges[:-1] + step / 2, counts, width=0.9 * step, color=COLOURS[0])
    if len(counts) <= FEW:
        axis.bar_label(bars, labels=[str(count) if count else "" for count in counts], padding=2, fontsize=SMALL)
    axis.set_ylim(0, counts.max() * HEADROOM)
    middle = (edges[0] + edges[-1]) / 2
    reach = max(edges[-1] - edges[0], 3) / 2 + 0.2 * step  # a single bar does not fill the figure
    axis.set_xlim(middle - reach, middle + reach)
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.get_major_locator().set_params(integer=True)
    axis.text(1, 1, f"n = {len(values)}", ha="right", va="bottom", fontsize=SMALL, color="grey",
              transform=axis.transAxes)
    return figure


def draw_matrix(plot: Matrix):
    values = np.asarray(plot.values, float).reshape(len(plot.rows), len(plot.columns))
    size = (2.2 + CELL_INCHES * len(plot.columns), 1.6 + 0.5 * len(plot.rows))
    figure, axis = pyplot().subplots(figsize=size)
    label(axis, plot, size[0])
    if not np.isfinite(values).any():
        return nothing(figure, axis)
    colours = pyplot().get_cmap("Blues")
    low, high = min(0.0, np.nanmin(values)), np.nanmax(values)
    axis.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=low, vmax=max(high, low + 1e-9), aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            share = (value - low) / max(high - low, 1e-9)
            red, green, blue, _ = colours(share)
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
            axis.text(column, row, f"{value:.0f}" if plot.whole_numbers else f"{value:.2f}", ha="center", va="center",
                      fontsize=SMALL + 1, color="white" if dark else "black")
    axis.set_facecolor("0.9")  # cells without a number
    name_ticks(axis, plot.columns, CELL_INCHES)
    axis.set_yticks(range(len(plot.rows)), [wrapped(name, 20) for name in plot.rows], fontsize=SMALL + 1)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure


def draw_dots(plot: Dots):
    groups = {name: finite(*points) for name, points in plot.groups.items()}
    if plot.logarithmic:
        groups = {name: (x[(x > 0) & (y > 0)], y[(x > 0) & (y > 0)]) for name, (x, y) in groups.items()}
    groups = {name: points for name, points in groups.items() if len(points[0])}
    figure, axis = pyplot().subplots(figsize=(6.2, 4.2))
    label(axis, plot, 6.2)
    if not groups:
        return nothing(figure, axis)
    most = max(len(x) for x, _ in groups.values())
    size, opacity = (4.5, 0.75) if most < 100 else (3.2, 0.6)
    turns = {name: index for index, name in enumerate(plot.groups)}
    for name, (x, y) in groups.items():
        axis.plot(x, y, ls="", ms=size, alpha=opacity, mew=0, **dot_style(turns[name]))
    if plot.logarithmic:
        logarithmic(axis, [np.concatenate(values) for values in zip(*groups.values())])
    legend(axis, [f"{name} (n = {len(x)})" for name, (x, _) in groups.items()])
    return figure


def draw_maps(plot: Maps):
    plt = pyplot()
    if not plot.maps:
        figure, axis = plt.subplots(figsize=(4, 3))
        label(axis, plot, 4)
        return nothing(figure, axis)
    down = -(-len(plot.maps) // MAPS_IN_ROW)
    across = -(-len(plot.maps) // down)
    shape = max((np.shape(values) for values in plot.maps.values()), key=lambda shape: shape[0] / shape[1])
    tall = min(max(1.6 * shape[0] / shape[1], 0.8), 3)
    figure, axes = plt.subplots(down, across, figsize=(max(1.7 * across, 4), 0.5 + (tall + 0.4) * down), squeeze=False)
    figure.suptitle(title_of(plot, max(1.7 * across, 4)))
    for axis in axes.flat[len(plot.maps):]:
        axis.axis("off")
    for axis, (name, values) in zip(axes.flat, plot.maps.items()):
        axis.set_title(wrapped(name, 20), fontsize=SMALL + 1)
        values = np.asarray(values, float)
        most = values.max(initial=0, where=np.isfinite(values))
        axis.imshow(np.ma.masked_invalid(values), cmap="magma", vmin=0, vmax=most or 1)
        if most > 0:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            axis.set_xlabel(f"up to {most:.2g}", fontsize=SMALL, color="grey", labelpad=2)
        else:
            nothing(figure, axis)
    return figure


DRAW: dict[type, Callable] = {Curves: draw_curves, Bars: draw_bars, Counts: draw_counts, Matrix: draw_matrix,
                              Dots: draw_dots, Maps: draw_maps}


# --- what they share ---------------------------------------------------------------------------------------------


def finite(x, y) -> tuple[np.ndarray, np.ndarray]:
    """The points of which both numbers are known."""
    x, y = np.asarray(x, float).ravel(), np.asarray(y, float).ravel()
    known = np.isfinite(x) & np.isfinite(y)
    return x[known], y[known]


def label(axis, plot: Plot, width: float) -> None:
    axis.set_title(title_of(plot, width))
    axis.set(xlabel=plain(getattr(plot, "x_label", "")), ylabel=plain(getattr(plot, "y_label", "")))


def title_of(plot: Plot, width: float) -> str:
    """The title in lines that fit a figure `width` inches wide."""
    return wrapped(plot.title, max(20, round(width * TITLE_LETTERS)))
