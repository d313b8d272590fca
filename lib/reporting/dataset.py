"""What script 1 draws: sizes and frequencies per class, intensities, native shapes, folds, and a page of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lib.data.store import Prepared
from lib.progress import no_progress
from lib.reporting.glossary import unit_of, with_unit
from lib.reporting.plots import draw_plots
from lib.reporting.style import COLOURS, plain, pyplot, save, with_pdf
from lib.study import study_from_dict
from lib.tasks import make_task
from lib.workspace import building, read_manifest, read_table

SAMPLES = 12
INTENSITY_FRAMES = 200  # evenly spaced frames that the histograms look at
CHANNEL_COLOURS = {"red": COLOURS[5], "green": COLOURS[2], "blue": COLOURS[0]}  # vermilion and two that are as they are called
SHAPE_BARS = 12  # most native shapes that have a bar each


def draw_dataset(folder: Path, progress=no_progress, pdf: bool = False) -> Path:
    """Draw the figures of a prepared folder into `figures/` in it, and as PDF if wanted; returns that folder."""
    prepared = Prepared(folder, read_manifest(folder))
    task = make_task(study_from_dict(prepared.manifest["study"]))
    with building(folder / "figures") as figures, with_pdf(pdf):
        if task.sized:
            draw_classes(prepared, figures / "classes.png")
        draw_scans(prepared, figures / "scans.png")
        draw_folds(prepared, figures / "folds.png")
        draw_samples(prepared, task, figures / "samples.png")
        cases = [case for case in prepared.cases if case.patient not in prepared.external]
        truths = (prepared.truth(case) for case in progress(cases, len(cases), "figures", unit="case"))
        draw_plots(figures, task.dataset_plots(truths, cases))
    return folder / "figures"


def draw_classes(prepared: Prepared, path: Path) -> None:
    """How many cases hold each class, and how large it is there."""
    plt = pyplot()
    classes = prepared.manifest["study"]["data"]["classes"]
    rows = read_table(prepared.folder / "cases.csv")
    sizes = np.array([[float(row[f"size_{name}"] or "nan") for name in classes] for row in rows])
    metrics = [case.geometry.size_metric for case in prepared.cases]
    metric = max(dict.fromkeys(metrics), key=metrics.count)  # pixels and mm share no axis: the most common one is drawn
    alike = np.array([m == metric for m in metrics])
    figure, (left, right) = plt.subplots(1, 2, figsize=(max(8, 1.2 * len(classes)), 3))
    left.bar([plain(name) for name in classes], (sizes > 0).sum(axis=0), color=COLOURS[0])
    left.axhline(len(rows), color="grey", lw=0.8, ls="--")
    left.set(ylabel="cases with the class", title=f"{len(rows)} cases")
    for index in range(len(classes)):
        present = sizes[alike & (sizes[:, index] > 0), index]
        jitter = np.random.default_rng(index).uniform(-0.15, 0.15, len(present))
        right.plot(index + jitter, present, "o", ms=dot_size(len(present)), alpha=0.7)
    if (sizes[alike] > 0).any():
        right.set(yscale="log")
    kind = metric.split("_")[0]
    left_out = "" if alike.all() else f" ({np.count_nonzero(~alike)} cases in another unit left out)"
    right.set(ylabel=f"{with_unit(kind, unit_of(metric))}, where present", title=f"{kind} per case{left_out}")
    right.set_xticks(range(len(classes)), [plain(name) for name in classes])
    for axis in (left, right) if len(classes) > 5 else ():
        axis.tick_params(axis="x", labelrotation=30)
    save(figure, path)


def draw_scans(prepared: Prepared, path: Path) -> None:
    """Stored intensities per channel, those of colours in their own, and the native sizes and spacings."""
    plt = pyplot()
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3))
    draw_intensities(prepared, left)
    draw_shapes([case.geometry for case in prepared.cases], middle)
    draw_spacings([case.geometry for case in prepared.cases], right)
    save(figure, path)


def draw_intensities(prepared: Prepared, axis) -> None:
    chosen = np.unique(np.linspace(0, len(prepared.frames) - 1, INTENSITY_FRAMES).astype(int))
    frames = prepared.frames[chosen]
    # whole numbers need bins that hold equally many of them
    bins = np.arange(0, 257, 2) if frames.dtype == np.uint8 else 120
    for index, name in enumerate(prepared.manifest["channels"]):
        counts, edges = np.histogram(frames[:, index].astype(np.float32), bins=bins)
        own = {"color": CHANNEL_COLOURS[name]} if name in CHANNEL_COLOURS else {}  # others take their turn
        axis.stairs(np.maximum(counts, 0.5), edges, label=name, **own)
    zscore = prepared.manifest["study"]["data"]["intensity"] == "zscore"
    axis.set(yscale="log", xlabel="stored value" + " (z-score)" * zscore, title="intensities",
             ylabel="pixels" if all(case.geometry.flat for case in prepared.cases) else "voxels")
    axis.legend(frameon=False)


def draw_shapes(geometries: list, axis) -> None:
    """A bar per native shape; a dot per case where there are too many shapes for that."""
    shapes, many = np.unique([geometry.shape for geometry in geometries], axis=0, return_counts=True)
    if len(shapes) > SHAPE_BARS:
        axis.plot([g.shape[2] for g in geometries], [g.shape[1] for g in geometries], "o", alpha=0.6,
                  ms=dot_size(len(geometries)), color=COLOURS[2])
        axis.set(xlabel="columns", ylabel="rows", title=f"{len(shapes)} native sizes")
        return
    deep = bool((shapes[:, 0] > 1).any())
    axis.barh([f"{c} x {r}" + f" x {n}" * deep for n, r, c in shapes.tolist()], many, color=COLOURS[2])
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set(xlabel="cases", title="columns x rows" + " x frames" * deep)


def draw_spacings(geometries: list, axis) -> None:
    """Pixel size against frame distance; of photographs the pixel size alone."""
    known = [g for g in geometries if g.spacing_mm]
    unknown = f" ({len(geometries) - len(known)} cases unknown)" if len(known) < len(geometries) else ""
    if not known:
        axis.axis("off")
        axis.text(0.5, 0.5, "no pixel size known", ha="center", va="center", transform=axis.transAxes)
    elif all(g.flat for g in known):
        axis.hist([g.spacing_mm[1] for g in known], bins=30, color=COLOURS[0])
        axis.set(xlabel="pixel (mm)", ylabel="cases", title=f"pixel size{unknown}")
    else:
        axis.plot([g.spacing_mm[1] for g in known], [g.spacing_mm[0] for g in known], "o", alpha=0.6)
        axis.set(xlabel="pixel (mm)", ylabel="frame distance (mm)", title=f"spacing{unknown}")


def draw_folds(prepared: Prepared, path: Path) -> None:
    """Which stratum went to which fold; patients of predefined training folders and of test folders belong to none."""
    plt = pyplot()
    rows = read_table(prepared.folder / "folds.csv")
    folds = sorted({row["fold"] for row in rows}, key=lambda fold: (fold == "", int(fold or 0)))
    strata = sorted({row["stratum"] for row in rows})
    figure, axis = plt.subplots(figsize=(8, 3))
    below = np.zeros(len(folds))
    for number, stratum in enumerate(strata):
        counts = np.array([sum(r["fold"] == fold and r["stratum"] == stratum for r in rows) for fold in folds])
        axis.bar([fold or "no fold" for fold in folds], counts, bottom=below, label=plain(stratum) or "all",
                 color=plt.cm.viridis(number / max(1, len(strata))))
        below += counts
    axis.set(xlabel="fold that tests the patient", ylabel="patients", title="strata per fold")
    axis.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path)


def dot_size(cases: int) -> float:
    return 4 if cases < 100 else 2


def spread_cases(prepared: Prepared) -> list:
    """SAMPLES cases in order, of each stratum as many as there are turns, spread over it."""
    stratum = {row["patient"]: row["stratum"] for row in read_table(prepared.folder / "folds.csv")}
    groups: dict[str, list] = {}
    for case in prepared.cases:
        groups.setdefault(stratum[case.patient], []).append(case)
    turns = [0] * len(groups)
    while sum(turns) < min(SAMPLES, len(prepared.cases)):
        behind = [i for i, group in enumerate(groups.values()) if turns[i] < len(group)]
        turns[min(behind, key=lambda i: turns[i])] += 1
    chosen = [group[round((turn + 0.5) * len(group) / count - 0.5)] for group, count in zip(groups.values(), turns)
              for turn in range(count)]
    return sorted(chosen, key=lambda case: case.index)


def draw_samples(prepared: Prepared, task, path: Path) -> None:
    """Cases of all strata, each at the frame that holds most of the innermost region, truth outlined."""
    plt = pyplot()
    cases = spread_cases(prepared)
    pictures = [task.truth_picture(prepared.frames[case.frames], prepared.truth(case), case) for case in cases]
    columns = min(4, len(cases))
    rows = -(-len(cases) // columns)
    height = 2.4 * max(picture.shape[0] / picture.shape[1] for picture in pictures) + 0.25
    figure, axes = plt.subplots(rows, columns, figsize=(2.4 * columns, height * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, case, picture in zip(axes.flat, cases, pictures):
        axis.imshow(picture)
        axis.set_title(plain(case.case), fontsize=7)
    handles = [plt.Line2D([], [], color=np.array(colour) / 255, label=plain(task.shown(name))) for name, colour in task.palette.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)), frameon=False, fontsize=7)
    save(figure, path)
