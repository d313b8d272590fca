"""The facts of report.html in plain dataclasses; `rendering` draws them as one page that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Iterator, Protocol

TRAINING = "Training"  # the section of charts that stands beside the table of folds: learning curves


@dataclass(frozen=True)
class Chart:
    """A matplotlib figure as SVG text. section: the heading that it stands under, in order of first appearance (TRAINING:
    beside the folds); name: unique, of letters that a file could have; caption: what is shown, of how many (n)."""
    section: str
    name: str
    title: str
    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Column:
    """A column of the case table. key: unique; label: without its class, which the page adds; class_: "" where it is of no
    class (text), else "all" or a class; metric: its name in results.csv, "" for text; larger_is_better: None where neither is
    (a volume, a text)."""
    key: str
    label: str
    class_: str = ""
    metric: str = ""
    larger_is_better: bool | None = None
    unit: str = ""


@dataclass(frozen=True)
class CaseRow:
    """A row of the case table. key: unique; values: column key -> number, None (no value) or text; failures: what went wrong,
    in a few words each, as "kind" or "kind: of what" (the same words for the same failure: they are what one filters by; those
    of a kind are shown together); picture: its index in the PictureBook, None without one; fold: "" where no fold's model alone
    judged it."""
    key: str
    case: str
    patient: str
    fold: int | str
    values: dict[str, float | str | None]
    failures: list[str] = field(default_factory=list)
    picture: int | None = None


@dataclass(frozen=True)
class Step:
    """A box of the patient flow, found to scored. detail: lines beneath it, such as what was left out at this step and why.
    cases or patients: None where it is not known."""
    label: str
    patients: int | None
    cases: int | None
    detail: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """All facts of one report: no times, no absolute paths, so that the same results give the same bytes.

    title: "Results of FVV"; study_title: the study in words; run: the run's name; subset_label: whose numbers they are, as
    "held-out test patients"; warnings: full sentences. headline, summary: rows of summary.csv as dicts (class, metric, folds,
    mean, sd, patients, estimate, ci_low, ci_high and fold_columns), numbers or None. direction: metric -> larger is better;
    metrics that are not in it have no better end. folds: dicts of fold, train_patients, train_cases, validation_patients,
    validation_cases, test_patients, test_cases, epochs, best_epoch, validation_metric, validation_score, status, any of them
    None. worst_by: key of the column by which pictures are put worst first, "" where cases have no scores. methods: plain
    text, paragraphs apart by an empty line. card: (heading, plain text). picture_legend: (what is drawn so, "#rrggbb"),
    or (words, "") without a colour.
    """
    title: str
    study_title: str
    run: str
    subset_label: str
    headline: list[dict]
    summary: list[dict]
    fold_columns: list[str]
    direction: dict[str, bool]
    folds: list[dict]
    flow: list[Step]
    charts: list[Chart]
    columns: list[Column]
    cases: list[CaseRow]
    worst_by: str
    provenance: list[tuple[str, str]]
    methods: str
    card: list[tuple[str, str]]
    generator: str
    warnings: list[str] = field(default_factory=list)
    picture_legend: list[tuple[str, str]] = field(default_factory=list)


class Pictures(Protocol):
    """The reading side of lib.reporting.report.layers.PictureBook."""
    count: int  # of pictures
    note: str  # a sentence for the page where pictures were made smaller to keep it small, else ""

    def pictures(self) -> Iterator[tuple[int, dict[str, bytes | None], tuple[int, int]]]:
        """(index from 0 upwards, {"base": WebP, "truth": WebP or None, "prediction": WebP or None}, (width, height) px)."""
