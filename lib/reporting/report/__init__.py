"""report.html of a results folder: the facts of data, training and test put together for the page that shows them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Sequence

from lib.evaluation.plots import DECISIONS, ERRORS
from lib.evaluation.summary import fold_columns, is_asked
from lib.packages import versions
from lib.reporting.glossary import unit_of, with_unit
from lib.reporting.report.card import missing_parts, model_card, subset_label, warnings_of
from lib.reporting.report.cases import case_rows, directions
from lib.reporting.report.facts import fold_rows, is_known, patient_flow, without_places
from lib.reporting.report.methods import methods_text, trained_study
from lib.reporting.report.layers import PictureBook, picture_legend
from lib.reporting.report.provenance import provenance_rows, versions_text
from lib.reporting.report.page import TRAINING, Chart, Page
from lib.reporting.report.rendering import render
from lib.reporting.report.run_curves import draw_run_curves
from lib.reporting.report.source import Source
from lib.reporting.results import AGREEMENT, BY_CLASS
from lib.reporting.style import Drawing
from lib.selection import NO_VALIDATION
from lib.study import Study

REPORT = "report.html"
LEARNING_CURVES = "learning_curves"
GENERATOR = ("onnxruntime", "onnxruntime-gpu", "numpy", "matplotlib")
FURTHER = "Further figures"  # the section of those that name none
SECTIONS = (TRAINING, BY_CLASS[0], DECISIONS, ERRORS, AGREEMENT[0])  # in this order; then those that only a task knows


def write_report(folder: Path, source: Source, judged: Study, task, manifest: dict, rows: Sequence[dict], sheet: Sequence[dict],
                 summary: list[dict], evidence: Sequence[dict], book: PictureBook, drawings: list[Drawing]) -> Path:
    """Write report.html into a results folder that is otherwise whole; returns its path.

    judged: the study that results were judged by; rows: of results.csv; sheet: of the worksheet, a row per case; summary: of
    summary.csv; evidence: of the scored cases; book: their pictures, by `picture_key`; drawings: what `style.collecting`
    has collected, whose block is still open: the learning curves are drawn here.
    """
    subset = manifest.get("subset", "")
    summary = summary if evidence else []  # means of what was said of single cases, where nothing is scored, say nothing
    headline = without_twins([row for row in summary if row["estimate"] is not None and is_asked(row, task.headline)])
    order = [metric.partition("/")[0] for metric in task.headline]
    headline.sort(key=lambda row: order.index(row["metric"]))  # of one metric as summary.csv has them
    headline, summary = ([row | {"patients": is_known(source, row["patients"])} for row in table]
                         for table in (headline, summary))
    draw_learning(folder, source)
    columns, cases, worst_by = case_rows(rows, sheet, task, book.index)
    warnings = [without_places(line) for line in warnings_of(source, subset, evidence, task, summary)]
    study = trained_study(source)
    page = Page(
        title=f"Results of {source.loaded or source.name}", study_title=study.title or study.name, run=source.name,
        subset_label=subset_label(source, subset), headline=headline, summary=summary,
        fold_columns=fold_columns(summary[0] if summary else ()),
        direction=directions(dict.fromkeys(row["metric"] for row in summary), task), folds=fold_rows(source),
        flow=patient_flow(source, subset, folder, sheet, evidence),
        charts=charts_of(drawings), columns=columns, cases=cases, worst_by=worst_by,
        provenance=provenance_rows(source, task, manifest),
        methods=methods_text(source, subset, task, manifest["computed_on"], evidence, sheet),
        card=model_card(source, subset, judged, task, headline, warnings, evidence),
        generator=versions_text(versions(GENERATOR)),
        warnings=[*warnings, *missing_parts(source, evidence, book.count)],
        picture_legend=picture_legend(task, bool(evidence)) if book.count else [])
    return render(page, book, folder / REPORT)


def without_twins(rows: Sequence[dict]) -> list[dict]:
    """The rows without lengths in pixels that stand there in mm too, of as many patients."""
    found = {(row["class"], row["metric"]): row["patients"] for row in rows}
    pixels = re.compile(r"_px(?=_|$)")
    return [row for row in rows if not (pixels.search(row["metric"]) and row["patients"] == found.get(
        (row["class"], pixels.sub("_mm", row["metric"])), "none"))]


def draw_learning(folder: Path, source: Source) -> None:
    """figures/learning_curves.png, where training is known; of folds that were chosen by one score."""
    histories = source.histories
    metrics = [source.models[fold]["metric"] for fold in histories if source.models[fold]["metric"] != NO_VALIDATION]
    kept = {fold: source.models[fold]["epoch"] for fold in histories}
    draw_run_curves(folder / "figures" / f"{LEARNING_CURVES}.png", histories, metrics[0] if metrics else "train_loss", kept)


def charts_of(drawings: Sequence[Drawing]) -> list[Chart]:
    """Learning curves first, then scores, decisions and measurements, as each was drawn; no words but the figure's own."""
    # a length in pixels and the same in mm have one label
    charts = [Chart(drawing.section or FURTHER, drawing.name, with_unit(drawing.title, unit_of(drawing.name)), drawing.svg,
                    drawing.caption) for drawing in drawings]
    places = {section: place for place, section in enumerate(SECTIONS)}
    return sorted(charts, key=lambda chart: places.get(chart.section, len(places) + (chart.section == FURTHER)))
