"""One look for every figure: colour-blind-safe, readable in print."""

from __future__ import annotations

from pathlib import Path

from lib.workspace import replacing

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")  # Okabe & Ito 2008


def pyplot():
    """matplotlib.pyplot with the house style, drawing to files only."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    plt.rcParams.update({"figure.dpi": 130, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
                         "axes.prop_cycle": plt.cycler(color=COLOURS), "figure.constrained_layout.use": True})
    return plt


def save(figure, path: Path) -> Path:
    """Write a PNG without a date in it, so that the same figure is the same file."""
    with replacing(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})
    pyplot().close(figure)
    return path
