"""report.html of a results folder: the facts of data, training and test put together for the page that shows them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Sequence

from lib.report.card import SUBSET_LABELS, missing_parts, model_card, warnings_of
from lib.report.cases import case_rows, directions
from lib.report.facts import Source, fold_rows, installed, patient_flow, provenance_rows, versions_text, without_places
from lib.report.methods import methods_text, trained_study
from lib.reporting.layers import PictureBook, picture_legend
from lib.reporting.page import TRAINING, Chart, Page, render
from lib.reporting.run_curves import draw_run_curves
from lib.reporting.style import Drawing, figure_path
from lib.selection import NO_VALIDATION
from lib.study import Study

REPORT = "report.html"
LEARNING_CURVES = "learning_curves"
GENERATOR = ("onnxruntime", "onnxruntime-gpu", "numpy", "matplotlib")
# stem of a figure -> (section of the page, what to read off it); what is not here is of cases or of sizes
SHOWN_AS = {
    LEARNING_CURVES: (TRAINING, "A line per fold; a ring marks the epoch that was kept."),
    "roc": ("Decisions", "Sensitivity against the share of false alarms at every threshold; the diagonal is guessing."),
    "precision_recall": ("Decisions", "Precision against recall at every threshold."),
    "f1_confidence": ("Decisions", "F1 if only answers at least so sure counted."),
    "reliability": ("Decisions", "How often stated probabilities come true; on the diagonal they say what happens."),
    "confusion_matrix": ("Decisions", "Rows are the truth, columns the prediction; the diagonal is right."),
    "cumulative_error": ("Errors", "The share of the points that lie within each distance of the truth."),
}
BY_CLASS = ("Scores by class and fold", "A dot is a case; the box holds the middle half of the cases, its line is the median.")
AGREEMENT = ("Measured against true values", "Above, predicted against true values, with the line of equality. Below, their "
             "differences against their means, with bias and 95 % limits of agreement (Bland and Altman).")


def write_report(folder: Path, source: Source, judged: Study, task, manifest: dict, rows: Sequence[dict], sheet: Sequence[dict],
                 summary: list[dict], evidence: Sequence[dict], book: PictureBook, drawings: list[Drawing]) -> Path:
    """Write report.html into a results folder that is otherwise whole; returns its path.

    judged: the study that results were judged by; rows: of results.csv; sheet: of the worksheet, a row per case; summary: of
    summary.csv; evidence: of the scored cases; book: their pictures, by `picture_key`; drawings: what `style.collecting`
    has collected, whose block is still open: the learning curves are drawn here.
    """
    subset = manifest.get("subset", "")
    headline = [row for row in summary if row["estimate"] is not None
                and {row["metric"], f"{row['metric']}/{row['class']}"} & set(task.headline)]
    draw_learning(folder, source)
    columns, cases, worst_by = case_rows(rows, sheet, task, book.index)
    warnings = [without_places(line) for line in warnings_of(source, subset, evidence, task)]
    study = trained_study(source)
    page = Page(
        title=f"Results of {source.loaded or source.name}", study_title=study.title or study.name, run=source.name,
        subset_label=SUBSET_LABELS[subset], headline=headline, summary=list(summary),
        fold_columns=[column for column in (summary[0] if summary else {}) if re.fullmatch(r"fold\d+", column)],
        direction=directions(dict.fromkeys(row["metric"] for row in summary), task), folds=fold_rows(source),
        flow=patient_flow(source, subset, folder, sheet, evidence),
        charts=charts_of(drawings, task, len(evidence)), columns=columns, cases=cases, worst_by=worst_by,
        provenance=provenance_rows(source, manifest),
        methods=methods_text(source, subset, manifest["computed_on"], bool(evidence)),
        card=model_card(source, subset, judged, task, headline, warnings, evidence),
        generator=f"FoldScan, {versions_text(installed(GENERATOR))}", warnings=[*warnings, *missing_parts(source, evidence, book.count)],
        picture_legend=picture_legend(task) if book.count else [])
    return render(page, book, folder / REPORT)


def draw_learning(folder: Path, source: Source) -> None:
    """figures/learning_curves.png, where training is known; of folds that were chosen by one score."""
    histories = source.histories
    metrics = [source.models[fold]["metric"] for fold in histories if source.models[fold]["metric"] != NO_VALIDATION]
    kept = {fold: source.models[fold]["epoch"] for fold in histories}
    draw_run_curves(folder / "figures" / f"{LEARNING_CURVES}.png", histories, metrics[0] if metrics else "train_loss", kept)


def charts_of(drawings: Sequence[Drawing], task, count: int) -> list[Chart]:
    """Learning curves first, then scores, decisions and measurements, as each was drawn."""
    by_class = {figure_path(Path(), metric).stem for metric in task.figures}
    charts = []
    for drawing in drawings:
        section, caption = SHOWN_AS.get(drawing.name, BY_CLASS if drawing.name in by_class else AGREEMENT)
        charts.append(Chart(section, drawing.name, drawing.title, drawing.svg, caption))
    order = (TRAINING, BY_CLASS[0], "Decisions", "Errors", AGREEMENT[0])
    return sorted(charts, key=lambda chart: order.index(chart.section))
