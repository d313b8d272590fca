"""report.html: what a results folder says, as facts in plain dataclasses, drawn as one page that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lib.reporting.glossary import COUNTS, DECISIONS, label_of, meaning_of, number, unit_of
from lib.reporting.inline_svg import inline_svg
from lib.workspace import replacing

TRAINING = "Training"  # the section of charts that stands beside the table of folds: learning curves
ALL = "all"  # the class of a number over all classes
LAYERS = ("base", "truth", "prediction")
MOST_CARDS = 4
AIR = 0.3  # tenths, between what is drawn and the end of its axis
WIDE_PX = 640  # of a chart, which then takes a whole row on paper
FOLDER = Path(__file__).with_name("page")
# Nothing may be fetched or sent; the one style and the one script are known by their hashes.
POLICY = ("default-src 'none'; img-src data:; style-src '{style}'; script-src '{script}'; base-uri 'none'; "
          "form-action 'none'")


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
    in a few words each (the same words for the same failure: they are what one filters by); picture: its index in the
    PictureBook, None without one; fold: "" where no fold's model alone judged it."""
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
    """The reading side of lib.reporting.layers.PictureBook."""
    count: int  # of pictures
    note: str  # a sentence for the page where pictures were made smaller to keep it small, else ""

    def pictures(self) -> Iterator[tuple[int, dict[str, bytes | None], tuple[int, int]]]:
        """(index from 0 upwards, {"base": WebP, "truth": WebP or None, "prediction": WebP or None}, (width, height) px)."""


def render(page: Page, pictures: Pictures, path: Path) -> Path:
    """Write the page, atomically; pictures go from the book into the file one by one. The same facts give the same bytes.

    Raises ValueError where facts contradict each other: keys used twice, values of no column, a chart that is no SVG.
    """
    check(page, pictures)
    template = environment().get_template("report.html")
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    facts = {"page": page, "style": style, "script": script, "facts": json_text(facts_for_script(page)),
             "policy": POLICY.format(style=content_hash(style), script=content_hash(script)),
             "cards": cards(page.headline), "groups": by_metric(page.headline), "charts": by_section(page.charts),
             "fold_score": shared_metric(page.folds), "metrics": explained(page), "picture_count": pictures.count,
             "picture_note": pictures.note, "pictures": blocks(pictures), "TRAINING": TRAINING}
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(template.generate(facts))
    return path


def check(page: Page, pictures: Pictures) -> None:
    for name, keys in (("columns", [c.key for c in page.columns]), ("cases", [c.key for c in page.cases]),
                       ("charts", [slug(c.name) for c in page.charts])):
        if len(set(keys)) != len(keys):
            raise ValueError(f"{name}: a key is used twice")
    columns = {column.key for column in page.columns}
    strangers = {key for case in page.cases for key in case.values} - columns | {page.worst_by} - columns - {""}
    if strangers:
        raise ValueError(f"values of no column: {sorted(strangers)}")
    if any(case.picture is not None and not 0 <= case.picture < pictures.count for case in page.cases):
        raise ValueError("a case has a picture that is not in the book")


def environment() -> Environment:
    made = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True,
                       undefined=StrictUndefined)
    made.filters |= {"label": label_of, "unit": unit_of, "paragraphs": paragraphs, "number": number, "plural": plural,
                     "slug": slug, "meaning": meaning_of, "short": lambda value: f"{value:g}".replace("-", "\u2212"),
                     "fold_name": lambda column: re.sub(r"^fold(\d+)$", r"Fold \1", column),
                     "score_label": score_label,
                     "class_name": lambda name: "overall" if name == ALL else name}
    made.globals |= {"forest": forest, "span": span, "inline_svg": lambda chart: inline_svg(
        chart.svg, f"chart-{slug(chart.name)}", f"{chart.title}. {chart.caption}".strip())}
    made.tests["raster"] = lambda svg: "<image" in svg
    made.tests["wide"] = lambda svg: int(re.search(r'width="(\d+)"', svg)[1]) > WIDE_PX
    return made


def content_hash(text: str) -> str:
    """What a Content-Security-Policy calls an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def json_text(value) -> str:
    """JSON that may stand within <script>: no sign in it ends or opens an element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def facts_for_script(page: Page) -> dict:
    """What report.js works on: columns, and a list of values per case in their order."""
    columns = [{"key": c.key, "label": c.label if c.class_ in ("", ALL) or c.class_ in c.label else f"{c.label}, {c.class_}",
                "class": c.class_, "metric": c.metric, "larger": c.larger_is_better, "unit": c.unit,
                "meaning": meaning_of(c.metric) if c.metric else "",
                "count": bool(COUNTS.fullmatch(c.metric) or DECISIONS.fullmatch(c.metric))}
               for c in page.columns]
    cases = [[case.case, case.patient, case.fold, case.failures, case.picture, case.key,
              [value_of(case.values.get(c.key)) for c in page.columns]] for case in page.cases]
    return {"columns": columns, "cases": cases, "worst_by": page.worst_by}


def value_of(value):
    """Numbers in six digits, which is more than the page shows; what is not finite is no value."""
    if value is None or isinstance(value, (str, int)):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def blocks(pictures: Pictures) -> Iterator[dict]:
    """A picture at a time, its layers as lines of base64."""
    for index, layers, (width, height) in pictures.pictures():
        lines = [base64.b64encode(layers.get(name) or b"").decode() for name in LAYERS]
        yield {"index": index, "width": width, "height": height, "text": "\n".join(lines),
               "layers": " ".join(name for name in LAYERS if layers.get(name))}


# --- how facts are grouped ---------------------------------------------------------------------------------------


def by_metric(rows: list[dict]) -> list[tuple[str, list[dict]]]:
    metrics = dict.fromkeys(row["metric"] for row in rows)
    return [(metric, [row for row in rows if row["metric"] == metric]) for metric in metrics]


def cards(rows: list[dict]) -> list[dict]:
    """The few numbers in large type: of each metric the one over all classes, or its only one; else the first rows."""
    overall = [next((row for row in mine if row["class"] == ALL), mine[0] if len(mine) == 1 else None)
               for _, mine in by_metric(rows)]
    return ([row for row in overall if row is not None] or rows)[:MOST_CARDS]


def by_section(charts: list[Chart]) -> dict[str, list[Chart]]:
    return {section: [chart for chart in charts if chart.section == section]
            for section in dict.fromkeys(chart.section for chart in charts)}


def shared_metric(folds: list[dict]) -> str:
    """The validation metric that all folds name, or "" if they differ."""
    named = {fold["validation_metric"] for fold in folds if fold["validation_metric"]}
    return named.pop() if len(named) == 1 else ""


def explained(page: Page) -> list[tuple[str, str]]:
    """(label, meaning) of the metrics on the page that there are words for."""
    metrics = dict.fromkeys([*(row["metric"] for row in page.headline), *(c.metric for c in page.columns if c.metric),
                             *(row["metric"] for row in page.summary)])
    return list({label_of(metric): (label_of(metric), meaning_of(metric)) for metric in metrics if meaning_of(metric)}.values())


def span(rows: list[dict], folds: list[str]) -> tuple[float, float]:
    """The ends of the axis on which the rows of one metric are drawn: tenths of 0..1 around shares, else from 0 on."""
    drawn = [row.get(key) for row in rows for key in ("estimate", "ci_low", "ci_high", *folds)]
    drawn = [value for value in drawn if value is not None and math.isfinite(value)]
    low, high = min(drawn, default=0.0), max(drawn, default=1.0)
    if 0 <= low and high <= 1 and not unit_of(rows[0]["metric"]):
        return max(0, math.floor(10 * low - AIR)) / 10, min(10, math.ceil(10 * high + AIR)) / 10
    low, high = -nice(-low) if low < 0 else 0.0, nice(high) if high > 0 else 0.0
    return low, high if high > low else low + 1


def nice(value: float) -> float:
    """The next larger 1, 1.5, 2, 3, 4, 5, 6 or 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 20) if step * power >= value)


def forest(row: dict, ends: tuple[float, float], folds: list[str]) -> dict:
    """Where a row's estimate, interval and folds lie on its axis, in percent; None for what it does not have."""
    def place(value):
        if value is None or not math.isfinite(value):
            return None
        return round(100 * min(max((value - ends[0]) / (ends[1] - ends[0]), 0), 1), 2)
    return {"estimate": place(row["estimate"]), "low": place(row["ci_low"]), "high": place(row["ci_high"]),
            "folds": [place(row[fold]) for fold in folds if place(row.get(fold)) is not None]}


def score_label(score: str) -> str:
    """What the page calls METRIC/CLASS: dice/stroke -> Dice stroke; dice/all -> Dice."""
    metric, _, name = score.partition("/")
    return label_of(metric) if name in ("", ALL) else f"{label_of(metric)} {name}"


def slug(name: str) -> str:
    """A name as a part of an id."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)


def paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n") if part.strip()]


def plural(count: int | None, one: str, many: str = "") -> str:
    """"1 patient", "40 patients", and nothing where the number is not known."""
    return "" if count is None else f"{count:,} {one if count == 1 else many or one + 's'}".replace(",", "\u202f")
