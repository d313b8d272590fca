"""A results folder while it is being filled: rows, worksheet, predictions and pictures, case by case."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lib.evaluation.summary import is_asked, summarise
from lib.evidence import EVIDENCE, write_evidence
from lib.imaging.writing import write_prediction, write_shares
from lib.reporting.report import write_report
from lib.reporting.report.cases import picture_key
from lib.reporting.report.source import Source
from lib.reporting.heatmaps import draw_worst, write_heatmap, write_picture
from lib.reporting.report.layers import PictureBook, draw_layers
from lib.reporting.misclassified import write_misclassified
from lib.reporting.plots import draw_plots
from lib.reporting.results import draw_results
from lib.reporting.style import collecting, with_pdf
from lib.reporting.worksheets import write_worksheet
from lib.study import InputError, Study, plain, without_secrets
from lib.workspace import file_hash, write_json, write_table

SEALED = ("results.csv", EVIDENCE)  # what a comparison rests on: the manifest holds their hashes
COLUMNS = ("study", "run", "fold", "patient", "case", "class", "metric", "value")


class Told(NamedTuple):
    """What script 4 tells: text is for the screen, may be empty; done is one line; see names the reports."""
    text: str
    done: str
    see: str


class Results:
    """What script 4 writes. folder: being built; study: by which results are judged; source: where they come from."""

    def __init__(self, folder: Path, study: Study, source: Source):
        self.folder, self.study, self.source = folder, study, source
        self.header = {"study": study.name, "run": source.name}
        self.book = PictureBook(folder / ".pictures")
        self.rows: list[dict] = []
        self.sheet: list[dict] = []
        self.images: list[dict] = []
        self.predictions: list[dict] = []
        self.truths: list[dict] = []
        self.sheets: dict[str, Path] = {}  # key of a case -> its contact sheet
        self.intervals: dict[tuple[str, str], tuple[float, float]] = {}
        self.patients = 0
        self.figures: list[str] = []  # stems of those without patients' pictures and names

    def add_case(self, fold, case, scores: dict, task, seconds: float) -> None:
        """Scores {(class, metric): value} of one case; seconds: its networks and their decoding."""
        self.rows += tidy({**self.header, "fold": fold, "patient": case.patient, "case": case.case}, scores)
        self.sheet.append({"case": case.case, "patient": case.patient, "fold": fold, **task.worksheet(scores),
                           "seconds": round(seconds, 4)})

    def add_set(self, fold, task, evidence: list[dict]) -> None:
        """Scores that need the whole set, of a fold or (fold "") of all: these have intervals, where the task gives any."""
        self.rows += tidy({**self.header, "fold": fold}, task.score_set(evidence))
        if fold == "":
            self.intervals = task.intervals(evidence)
            self.patients = len({one["patient"] for one in evidence})

    def write(self, task, frames, prediction, truth, case, fold="", beneath: str = "") -> None:
        """The prediction and its pictures; `beneath` is a folder below predictions/ and the others."""
        volume = task.volume(prediction)
        if volume is not None:
            write_prediction(self.folder / "predictions" / beneath, case.case, volume, case.geometry.source)
        self.record(task, prediction, truth, case, fold, beneath)
        if self.study.report.heatmaps:
            self.sheets[case_key(case, beneath)] = write_heatmap(self.folder / "heatmaps" / beneath, task, frames, prediction,
                                                                 truth, case)
            write_picture(self.folder / "pictures" / beneath / f"{case.case}.png",
                          task.side_by_side(frames, prediction, truth, case))
            self.book.add(picture_key(fold, case.case), *draw_layers(task, frames, prediction, truth, case))

    def record(self, task, prediction, truth, case, fold, beneath: str) -> None:
        """The prediction and its truth in rows, of tasks that have such."""
        key = case_key(case, beneath)
        about = {"key": key, "case": case.case, "patient": case.patient, "fold": fold}
        rows = task.records(prediction, truth, case)
        if rows:
            _, height, width = case.geometry.shape
            self.images.append({"key": key, "file_name": case.files.get("image", case.case), "width": width, "height": height})
        if len(rows) == 1 and self.sheet and self.sheet[-1]["case"] == case.case:  # what was said stands before how good it is
            head = {key: self.sheet[-1].pop(key) for key in ("case", "patient", "fold")}
            self.sheet[-1] = {**head, **rows[0], **self.sheet[-1]}
        self.predictions += [{**about, **row} for row in rows]
        if truth is not None:
            self.truths += [{**about, **row} for row in task.truth_records(truth, case)]

    def add_agreement(self, task, predictions: list, case) -> None:
        """How far several models agree on a case."""
        shares = task.agreement(predictions)
        if shares is not None:
            write_shares(self.folder / "agreement", case.case, shares, case.geometry.source)

    def finish(self, task, evidence: list[dict], manifest: dict, cases: str) -> list[dict]:
        """Write the tables and figures; returns the rows of summary.csv. evidence: of the scored cases, for the figures
        of the whole set; cases: what they are, for the figures' titles."""
        with with_pdf(self.study.report.pdf), collecting() as drawings, self.book:
            summary = self.write_tables(task, evidence, manifest)
            self.draw(task, evidence, cases)
            write_report(self.folder, self.source, self.study, task, manifest, self.rows, self.sheet, summary, evidence,
                         self.book, drawings)
        self.figures = [drawing.name for drawing in drawings]
        return summary

    def write_tables(self, task, evidence: list[dict], manifest: dict) -> list[dict]:
        """Everything that is rows; returns those of summary.csv."""
        write_table(self.folder / "results.csv", COLUMNS, self.rows)
        write_worksheet(self.folder / "results.xlsx", self.sheet, "results by case")
        summary = write_summary(self.folder / "summary.csv", self.rows, self.intervals, self.patients)
        write_evidence(self.folder / EVIDENCE, evidence)
        sealed = {name: file_hash(self.folder / name) for name in SEALED}
        write_json(self.folder / "manifest.json", plain({**manifest, "study": without_secrets(self.study.to_dict()),
                                                         "files": sealed}))
        if self.predictions:
            write_table(self.folder / "predictions.csv", [c for c in self.predictions[0] if c != "key"], self.predictions)
            for name, content in task.documents(self.images, self.predictions, self.truths).items():
                write_json(self.folder / name, content)
            wrong = task.mistakes(self.predictions)
            if wrong is not None:
                write_misclassified(self.folder, wrong, self.sheets)
        for name, rows in (task.tables(evidence) if evidence else {}).items():
            write_table(self.folder / name, list(rows[0]), rows)
        return summary

    def draw(self, task, evidence: list[dict], cases: str) -> None:
        draw_results(self.folder / "figures", self.rows, task.figures, cases)
        plots = task.plots(evidence) if evidence else []
        draw_plots(self.folder / "figures", [replace(p, title=f"{p.title}: {len(evidence)} {cases}") for p in plots])
        metric = task.case_metrics[0]
        draw_worst(self.folder, self.rows, metric, task.selectable.get(metric, True))


def check_tolerance(study: Study, cases: list) -> None:
    """Raise InputError for a tolerance in mm where a case has no pixel size."""
    for case in cases:
        if study.report.tolerance_mm and case.geometry.spacing_mm is None:
            raise InputError(f"--tolerance is in mm, but {case.case} has no pixel size: give data.reader.pixels_per_mm or "
                             "data.reader.spacing_table, and run script 1 again")


def tidy(cells: dict, scores: dict) -> list[dict]:
    """Rows of results.csv from {(class, metric): value}."""
    return [{**cells, "class": name, "metric": metric, "value": float(value)} for (name, metric), value in scores.items()]


def evidence_of(task, fold: int | str, prediction, truth, case) -> dict:
    """The task's evidence of a case, with the fold ("" if all were fused) and the case that it is of."""
    return {"fold": fold, "case": case.case, **task.evidence(prediction, truth, case)}


def case_key(case, beneath: str) -> str:
    return f"{beneath}/{case.case}"


def write_summary(path: Path, rows: list[dict], intervals: dict | None = None, patients: int = 0) -> list[dict]:
    """Write summary.csv of tidy rows, with the agreement of every measured pair; returns its rows, None where a cell is empty.

    intervals: (class, metric) -> (low, high) of numbers over the whole set, which is of so many patients.
    """
    from lib.evaluation.agreement import agreement, agreement_intervals
    rows = [{column: row.get(column, "") for column in COLUMNS} for row in rows
            if row["metric"] != "tolerance_truth"]  # which truth was used has no mean
    patients = patients or len({row["patient"] for row in rows if row["patient"] != ""})
    summary = summarise(rows + agreement(rows), intervals={**(intervals or {}), **agreement_intervals(rows)},
                        set_patients=patients)
    records = json.loads(summary.to_json(orient="records", double_precision=15))
    write_table(path, list(summary.columns), records)
    return records


def headline(summary: list[dict], metrics: tuple[str, ...]) -> str:
    """The numbers that a person looks for first, as a table. metrics: METRIC of all classes, or METRIC/CLASS."""
    lines = [f"{'class':<20} {'metric':<34} {'mean over folds':>18} {'pooled [95 % interval]':>28} {'patients':>9}"]
    for row in summary:
        if not is_asked(row, metrics) or row["estimate"] is None:
            continue
        spread = "" if row["mean"] is None else f"{row['mean']:.3f}" + ("" if row["sd"] is None else f" (SD {row['sd']:.3f})")
        interval = "" if row["ci_low"] is None else f" [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
        patients = "" if row["patients"] is None else f"{row['patients']:.0f}"
        lines.append(f"{row['class']:<20} {row['metric']:<34} {spread:>18} {row['estimate']:>10.3f}{interval:<18} {patients:>9}")
    return "\n".join(lines)
