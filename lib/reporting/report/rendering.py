"""report.html: the facts of a `Page` drawn as one file that holds all it shows."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Iterator

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lib.evaluation.agreement import DECISIONS, TRUE
from lib.evaluation.statistics import RESAMPLES
from lib.reporting.glossary import (counted, is_measurement, is_whole, label_of, meaning_of, number, score_label, term_of,
                                    unit_of)
from lib.reporting.report.inline_svg import inline_svg
from lib.reporting.report.layers import LAYERS
from lib.reporting.report.page import TRAINING, Chart, Column, Page, Pictures
from lib.tasks.base import ALL
from lib.workspace import replacing

MOST_CARDS = 4
WORDS_TRUTH = {"predicted": "truth"}  # columns of words that speak of one thing
AIR = 0.3  # tenths, between what is drawn and the end of its axis
WIDE_PX = 640  # of a chart, which then takes a whole row on paper
FOLDER = Path(__file__).parent
# Nothing may be fetched or sent; the one style and the one script are known by their hashes.
POLICY = ("default-src 'none'; img-src data:; style-src '{style}'; script-src '{script}'; base-uri 'none'; "
          "form-action 'none'")


def render(page: Page, pictures: Pictures, path: Path) -> Path:
    """Write the page, atomically; pictures go from the book into the file one by one. The same facts give the same bytes.

    Raises ValueError where facts contradict each other: keys used twice, values of no column, a chart that is no SVG.
    """
    check(page, pictures)
    template = environment().get_template("report.html")
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    facts = {"page": page, "style": style, "script": script, "facts": json_text(facts_for_script(page)),
             "policy": POLICY.format(style=content_hash(style), script=content_hash(script)),
             "cards": cards(page.headline), "by_class": by_class(page.headline), "charts": by_section(page.charts),
             "groups": by_metric([row for row in page.headline if not is_fact(row)]),
             "counts": by_metric([row for row in page.headline if is_fact(row)]),
             "fold_score": shared_metric(page.folds), "metrics": explained(page), "picture_count": pictures.count,
             "picture_note": pictures.note, "pictures": blocks(pictures), "TRAINING": TRAINING, "resamples": f"{RESAMPLES:,}",
             "pairs": bool(truth_columns(page.columns))}
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
    made.filters |= {"label": label_of, "unit": unit_of, "paragraphs": paragraphs, "number": number,
                     "counted": lambda count, thing: "" if count is None else counted(count, thing),
                     "slug": slug, "meaning": meaning_of, "term": term_of,
                     "short": lambda value: f"{value:,.10g}".replace("-", "\u2212"),
                     "fold_name": lambda column: re.sub(r"^fold(\d+)$", r"Fold \1", column),
                     "score_label": score_label, "upper_first": lambda text: text[:1].upper() + text[1:],
                     "score_metric": lambda score: (score or "").partition("/")[0],
                     "class_name": lambda name: "overall" if name == ALL else name}
    made.globals |= {"forest": forest, "span": span, "inline_svg": lambda chart: inline_svg(
        chart.svg, f"chart-{slug(chart.name)}", f"{chart.title}. {chart.caption}".strip())}
    made.tests["fact"] = is_fact
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
    truths = truth_columns(page.columns)
    columns = [{"key": c.key, "label": c.label if c.class_ in ("", ALL) or c.class_ in c.label else f"{c.label}, {c.class_}",
                "class": c.class_, "metric": c.metric, "larger": c.larger_is_better, "unit": c.unit, "truth": truths.get(c.key),
                "meaning": meaning_of(c.metric) if c.metric else "", "count": bool(c.metric) and is_whole(c.metric)}
               for c in page.columns]
    cases = [[case.case, case.patient, case.fold, case.failures, case.picture, case.key,
              [value_of(case.values.get(c.key)) for c in page.columns]] for case in page.cases]
    return {"columns": columns, "cases": cases, "worst_by": page.worst_by, "first": first_look(page.columns)}


def truth_columns(columns: list[Column]) -> dict[str, int]:
    """Key of a column that the truth has too -> the place of the truth's column."""
    at = {(c.class_, c.metric or c.key): place for place, c in enumerate(columns)}
    truth_of = {(c.class_, c.metric + TRUE) if c.metric else ("", WORDS_TRUTH[c.key]): c.key for c in columns
                if c.metric or c.key in WORDS_TRUTH}
    return {key: at[name] for name, key in truth_of.items() if name in at}


def first_look(columns: list[Column]) -> list[str]:
    """Keys of what is read of a case before its scores: the class, what the study measures, how large the classes are; without
    any truth, first of all what was found to be there."""
    judged = bool(truth_columns(columns))
    words = [c.key for c in columns if c.key in WORDS_TRUTH]
    there = [c.key for c in columns if c.metric in DECISIONS and not judged]
    names = {(c.class_, c.metric) for c in columns}
    measured = [c for c in columns if c.metric and is_measurement(c.metric)
                and not (c.metric.endswith("_px") and (c.class_, c.metric.removesuffix("_px") + "_mm") in names)]
    measured.sort(key=lambda c: bool(meaning_of(c.metric)))  # there are no words for what only the study knows, which is first
    return [*words, *there, *(c.key for c in measured)]


def value_of(value):
    """Numbers in ten digits, so that rounding them again for the page changes nothing; what is not finite is no value."""
    if value is None or isinstance(value, (str, int)):
        return value
    return float(f"{value:.10g}") if math.isfinite(value) else None


def blocks(pictures: Pictures) -> Iterator[dict]:
    """A picture at a time, its layers as lines of base64."""
    for index, layers, (width, height) in pictures.pictures():
        lines = [base64.b64encode(layers.get(name) or b"").decode() for name in LAYERS]
        yield {"index": index, "width": width, "height": height, "text": "\n".join(lines),
               "layers": " ".join(name for name in LAYERS if layers.get(name))}


# --- how facts are grouped ---------------------------------------------------------------------------------------


def by_class(rows: list[dict]) -> bool:
    """Whether there are numbers of single classes, from which one of all must be told apart."""
    return any(row["class"] != ALL for row in rows)


def by_metric(rows: list[dict]) -> list[tuple[str, list[dict]]]:
    metrics = dict.fromkeys(row["metric"] for row in rows)
    return [(metric, [row for row in rows if row["metric"] == metric]) for metric in metrics]


def is_fact(row: dict) -> bool:
    """Whether a row of summary.csv is no estimate but says of the set or of the models what they are: a count, a threshold."""
    return row["patients"] is None and row["ci_low"] is None


def cards(rows: list[dict]) -> list[dict]:
    """The few estimates in large type: of each metric the one over all classes, or its only one; else the first rows."""
    rows = [row for row in rows if not is_fact(row)]
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
    return list({term_of(metric): (term_of(metric), meaning_of(metric)) for metric in metrics if meaning_of(metric)}.values())


def span(rows: list[dict], folds: list[str]) -> tuple[float, float]:
    """The ends of the axis on which the rows of one metric are drawn: tenths of 0..1 around shares, else from 0 on."""
    drawn = [row.get(key) for row in rows for key in ("estimate", "ci_low", "ci_high", *folds)]
    drawn = [value for value in drawn if value is not None and math.isfinite(value)]
    low, high = min(drawn, default=0.0), max(drawn, default=1.0)
    if 0 <= low and high <= 1 and not unit_of(rows[0]["metric"]):
        return max(0, math.floor(10 * low - AIR)) / 10, min(10, math.ceil(10 * high + AIR)) / 10
    larger = max(-low, high)
    if larger <= 0:
        return 0.0, 1.0
    step = 10.0 ** math.floor(math.log10(larger))  # of both ends; a half of it where the axis has less than two
    step /= 2 if larger < 2 * step else 1
    return -step * round_up(-low / step) if low < 0 else 0.0, step * round_up(high / step) if high > 0 else 0.0


def round_up(value: float) -> int:
    """The next integer; what is above one by rounding alone stays."""
    return math.ceil(value - 1e-9)


def forest(row: dict, ends: tuple[float, float], folds: list[str]) -> dict:
    """Where a row's estimate, interval and folds lie on its axis, in percent; None for what it does not have."""
    def place(value):
        if value is None or not math.isfinite(value):
            return None
        return round(100 * min(max((value - ends[0]) / (ends[1] - ends[0]), 0), 1), 2)
    return {"estimate": place(row["estimate"]), "low": place(row["ci_low"]), "high": place(row["ci_high"]),
            "folds": [place(row[fold]) for fold in folds if place(row.get(fold)) is not None]}


def slug(name: str) -> str:
    """A name as a part of an id."""
    return re.sub(r"[^\w.-]+", "-", name)


def paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n") if part.strip()]
