"""One look for every figure: colour-blind-safe, readable in print."""

from __future__ import annotations

import contextlib
import io
import re
import textwrap
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Sequence

import numpy as np

from lib.workspace import replacing

# Okabe & Ito 2008; then, for many classes, what keeps farthest from all before it and from white (CIEDE2000, under
# each kind of colour blindness) of Paul Tol's muted scheme, Colour schemes, SRON/EPS/TN/09-002, 2021
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442",
           "#882255", "#332288", "#AA4499", "#88CCEE", "#117733")
DASHES, DOTS, ALIKE = ("-", "--", ":", "-."), "oD^s", 7  # the kind of line or dot changes every seven
SMALL = 7  # points, of what stands beside and inside
TICK_LETTERS = 15  # per inch, of names under ticks
MANY = 3000  # points of a line from which a vector file holds them as pixels
NO_FILE_SIGNS = r'[<>:"/\\|?*@\[\]\x00-\x1f]+'  # what Windows, or a shell, cannot take in the name of a file


def pyplot():
    """matplotlib.pyplot with the house style, drawing to files only."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    plt.rcParams.update({"figure.dpi": 130, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
                         "axes.prop_cycle": plt.cycler(color=COLOURS), "figure.constrained_layout.use": True,
                         "svg.fonttype": "none", "svg.hashsalt": "FoldScan", "pdf.fonttype": 42})  # text stays text
    return plt


def line_style(index: int) -> dict[str, str]:
    """Colour and kind of a figure's line: from the eighth on it takes both to tell lines apart."""
    return {"color": COLOURS[index % len(COLOURS)], "ls": DASHES[index // ALIKE % len(DASHES)]}


def dot_style(index: int) -> dict[str, str]:
    """The same of dots."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": DOTS[index // ALIKE % len(DOTS)]}


def figure_path(folder: Path, name: str) -> Path:
    """`<name>.png`; signs that the name of a file had better not hold become `_`: map@[.5:.95] -> map_.5_.95.png"""
    ends = re.sub(f"^{NO_FILE_SIGNS}|{NO_FILE_SIGNS}$", "", name)
    return folder / f"{re.sub(NO_FILE_SIGNS, '_', ends) or 'figure'}.png"


@dataclass(frozen=True)
class Drawing:
    """A figure that was drawn. name: stem of its file; svg: the same as vectors, its text as text; section, caption: where a
    report shows it, and what it says of it, "" for nothing."""
    name: str
    title: str
    svg: str
    section: str = ""
    caption: str = ""


_drawings: ContextVar[list[Drawing] | None] = ContextVar("drawings", default=None)
_pdf: ContextVar[bool] = ContextVar("pdf", default=False)


@contextlib.contextmanager
def collecting() -> Iterator[list[Drawing]]:
    """A list of every figure that is saved inside the block."""
    token = _drawings.set([])
    try:
        yield _drawings.get()
    finally:
        _drawings.reset(token)


@contextlib.contextmanager
def with_pdf(wanted: bool) -> Iterator[None]:
    """Every figure that is saved inside the block is a PDF too, if `wanted`."""
    token = _pdf.set(wanted)
    try:
        yield
    finally:
        _pdf.reset(token)


def save(figure, path: Path, section: str = "", caption: str = "") -> Path:
    """Write a PNG, and what `with_pdf` and `collecting` ask for; without a date, so that the same figure is the same file.
    section, caption: of its `Drawing`."""
    with replacing(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})
    for line in [line for axis in figure.axes for line in axis.lines]:
        line.set_rasterized(len(line.get_xdata(orig=False)) > MANY)
    if _pdf.get():
        with replacing(path.with_suffix(".pdf")) as temporary:
            figure.savefig(temporary, metadata={"Creator": None, "Producer": None, "CreationDate": None})
    if _drawings.get() is not None:
        _drawings.get().append(Drawing(path.stem, title_in(figure), as_svg(figure), section, caption))
    pyplot().close(figure)
    return path


def title_in(figure) -> str:
    """The figure's title in one line, or that of its first axis."""
    titles = [figure.get_suptitle(), *(axis.get_title() for axis in figure.axes)]
    return " ".join(next((title for title in titles if title), "").replace(r"\$", "$").split())


def as_svg(figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


# --- texts -------------------------------------------------------------------------------------------------------


def nothing(figure, axis):
    """Say that there is nothing to see, rather than leave an empty frame."""
    axis.set(xticks=[], yticks=[], xlabel="", ylabel="")
    axis.spines[:].set_visible(False)
    axis.text(0.5, 0.5, "nothing to show", ha="center", va="center", color="grey", transform=axis.transAxes)
    return figure


def legend(axis, names: Sequence[str]) -> None:
    """Right of the axis, a line of its own for each; the only one without a name needs none."""
    if any(names):
        box = axis.legend(axis.lines[:len(names)], [wrapped(name, 30) for name in names], frameon=False,
                          fontsize=SMALL + 1, loc="center left", bbox_to_anchor=(1, 0.5))
        for handle in box.legend_handles:  # faint little dots show no colour when they are alone
            handle.set(alpha=1, markersize=max(4.5, handle.get_markersize()))


def name_ticks(axis, names: Sequence[str], inches: float) -> None:
    """A name under each tick of a horizontal axis, the ticks so many inches apart: long names take more lines, and
    where a word is too long for that all are slanted."""
    lines = [wrapped(name, round(inches * TICK_LETTERS)) for name in names]
    if max(len(line) for name in lines for line in name.split("\n")) <= round(inches * TICK_LETTERS):
        axis.set_xticks(range(len(names)), lines, fontsize=SMALL + 1)
    else:
        axis.set_xticks(range(len(names)), [wrapped(name, 20) for name in names], fontsize=SMALL + 1, rotation=40,
                        ha="right", rotation_mode="anchor")


def logarithmic(axis, values: Sequence[np.ndarray]) -> None:
    """Both axes logarithmic, with ticks that read as plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter
    axis.set(xscale="log", yscale="log")
    for ticks, numbers in zip((axis.xaxis, axis.yaxis), values):
        decades = np.log10(numbers.max() / numbers.min())
        ticks.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)))
        ticks.set_major_formatter("{x:g}")
        ticks.set_minor_formatter(NullFormatter())


def wrapped(text: str, letters: int) -> str:
    return plain(textwrap.fill(text, letters, break_long_words=False, break_on_hyphens=False))


def plain(text: str) -> str:
    """matplotlib takes text between dollars for a formula, and leaves what starts with _ out of legends."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
