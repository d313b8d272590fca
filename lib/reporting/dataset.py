"""What script 1 draws: volumes and frequencies per class, intensities, scan sizes, folds, and a page of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lib.data.store import Prepared
from lib.reporting.style import pyplot, save
from lib.study import study_from_dict
from lib.tasks import make_task
from lib.workspace import building, read_manifest, read_table

SAMPLES = 12
INTENSITY_FRAMES = 200  # evenly spaced frames that the histograms look at


def draw_dataset(folder: Path) -> Path:
    """Draw the figures of a prepared folder into `figures/` in it; returns that folder."""
    prepared = Prepared(folder, read_manifest(folder))
    with building(folder / "figures") as figures:
        draw_classes(prepared, figures / "classes.png")
        draw_scans(prepared, figures / "scans.png")
        draw_folds(prepared, figures / "folds.png")
        draw_samples(prepared, figures / "samples.png")
    return folder / "figures"


def draw_classes(prepared: Prepared, path: Path) -> None:
    """How many cases hold each class, and how large it is there."""
    plt = pyplot()
    classes = prepared.manifest["study"]["data"]["classes"]
    rows = read_table(prepared.folder / "cases.csv")
    volumes = [np.array([float(row[f"volume_ml_{name}"]) for row in rows]) for name in classes]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    left.bar(classes, [(v > 0).sum() for v in volumes], color="#0072B2")
    left.axhline(len(rows), color="grey", lw=0.8, ls="--")
    left.set(ylabel="cases with the class", title=f"{len(rows)} cases")
    for index, v in enumerate(volumes):
        present = v[v > 0]
        jitter = np.random.default_rng(index).uniform(-0.15, 0.15, len(present))
        right.plot(index + jitter, present, "o", ms=4, alpha=0.7)
    right.set(yscale="log", ylabel="volume (mL), where present", title="volume per case")
    right.set_xticks(range(len(classes)), classes)
    save(figure, path)


def draw_scans(prepared: Prepared, path: Path) -> None:
    """Stored intensities per channel, and the native sizes and spacings."""
    plt = pyplot()
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3))
    chosen = np.unique(np.linspace(0, len(prepared.frames) - 1, INTENSITY_FRAMES).astype(int))
    frames = prepared.frames[chosen]
    for index, name in enumerate(prepared.manifest["channels"]):
        counts, edges = np.histogram(frames[:, index].astype(np.float32), bins=120)
        left.stairs(np.maximum(counts, 0.5), edges, label=name)
    left.set(yscale="log", xlabel="stored value (z-score)", ylabel="voxels", title="intensities")
    left.legend(frameon=False)
    shapes, many = np.unique([case.shape for case in prepared.cases], axis=0, return_counts=True)
    middle.barh([f"{c} x {r} x {n}" for n, r, c in shapes.tolist()], many, color="#009E73")
    middle.xaxis.get_major_locator().set_params(integer=True)
    middle.set(xlabel="cases", title="columns x rows x frames")
    spacing = np.array([case.spacing_mm for case in prepared.cases])
    right.plot(spacing[:, 1], spacing[:, 0], "o", alpha=0.6)
    right.set(xlabel="pixel (mm)", ylabel="frame distance (mm)", title="spacing")
    save(figure, path)


def draw_folds(prepared: Prepared, path: Path) -> None:
    """Which stratum went to which fold."""
    plt = pyplot()
    rows = read_table(prepared.folder / "folds.csv")
    folds, strata = sorted({int(row["fold"]) for row in rows}), sorted({row["stratum"] for row in rows})
    figure, axis = plt.subplots(figsize=(8, 3))
    below = np.zeros(len(folds))
    for number, stratum in enumerate(strata):
        counts = np.array([sum(int(r["fold"]) == f and r["stratum"] == stratum for r in rows) for f in folds])
        axis.bar([str(f) for f in folds], counts, bottom=below, label=stratum, color=plt.cm.viridis(number / max(1, len(strata))))
        below += counts
    axis.set(xlabel="fold that tests the patient", ylabel="patients", title="strata per fold")
    axis.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path)


def draw_samples(prepared: Prepared, path: Path) -> None:
    """Cases spread over the data set, each at the frame that holds most of the innermost region, truth outlined."""
    plt = pyplot()
    study = study_from_dict(prepared.manifest["study"])
    task = make_task(study)
    chosen = np.unique(np.linspace(0, len(prepared.cases) - 1, SAMPLES).astype(int))
    columns = min(4, len(chosen))
    rows = -(-len(chosen) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.4 * columns, 2.5 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, index in zip(axes.flat, chosen):
        case = prepared.cases[index]
        truth = prepared.truth(case)
        axis.imshow(task.truth_picture(prepared.frames[case.samples], truth, case))
        axis.set_title(case.case, fontsize=7)
    save(figure, path)
