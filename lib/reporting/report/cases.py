"""The case table of report.html: its columns, its rows, and in plain words what went wrong with each case."""

from __future__ import annotations

import math
from typing import Iterable, Sequence

from lib.evaluation.agreement import DECISIONS, SIZES, TRUE
from lib.reporting.glossary import direction_of, label_of, unit_of
from lib.reporting.report.page import CaseRow, Column
from lib.tasks.base import ALL

MOSTLY = 0.5  # recall of a region below which most of it is missed
WORST_SHARE, WORST_LEAST = 10, 10  # a case in so many is called worst, from so many cases on
HIDDEN = ("tolerance_truth",)  # which truth was scored, not how well
NO_TEXT = ("case", "patient", "fold", "unit", "seconds")  # of a worksheet's row: what stands elsewhere, or differs by machine

Key = tuple[int | str, str]  # fold ("" without one) and case
Scores = dict[tuple[str, str], float]  # (class, metric) -> value


def larger_is_better(metric: str, task) -> bool | None:
    """None where neither is: a volume, a bias, a count."""
    return task.selectable.get(metric, direction_of(metric))


def directions(metrics: Iterable[str], task) -> dict[str, bool]:
    """metric -> whether larger is better, of those where either is."""
    found = {metric: larger_is_better(metric, task) for metric in metrics}
    return {metric: larger for metric, larger in found.items() if larger is not None}


def scores_by_case(rows: Iterable[dict]) -> dict[Key, Scores]:
    """Rows of results.csv -> the scores of each case; rows of whole sets are passed over."""
    found: dict[Key, Scores] = {}
    for row in rows:
        if row.get("case"):
            found.setdefault((row["fold"], row["case"]), {})[row["class"], row["metric"]] = row["value"]
    return found


def texts_by_case(sheet: Iterable[dict]) -> dict[Key, dict[str, str]]:
    """Rows of the worksheet -> what they say in words: the true class, the predicted one, ..."""
    return {(row["fold"], row["case"]): {title: value for title, value in row.items() if isinstance(value, str)
                                         and title not in NO_TEXT and value.rpartition(".")[0] != row["case"]} for row in sheet}


def case_columns(scores: Iterable[Scores], texts: Iterable[dict[str, str]], task) -> list[Column]:
    """Words first, then the overall scores, then those of each class; in each the task's own case metrics first."""
    found = dict.fromkeys(key for one in scores for key in one if key[1] not in HIDDEN)
    classes = dict.fromkeys([ALL, *task.classes, *(name for name, _ in found)])
    metrics = dict.fromkeys([*task.case_metrics, *(metric for _, metric in found)])
    titles = dict.fromkeys(title for one in texts for title, value in one.items() if value)
    of_words = [Column(title, title[:1].upper() + title[1:]) for title in titles]
    return of_words + [Column(column_key(name, metric), label_of(metric), name, metric, larger_is_better(metric, task),
                              unit_of(metric)) for name in classes for metric in metrics if (name, metric) in found]


def column_key(name: str, metric: str) -> str:
    """As a study names it: dice/all."""
    return f"{metric}/{name}"


def case_rows(rows: Sequence[dict], sheet: Sequence[dict], task,
              pictures: dict[str, int]) -> tuple[list[Column], list[CaseRow], str]:
    """(columns, a row per case, the key of the column by which cases are worst first, "" where none has a score).

    pictures: what `picture_key` gives -> index of the picture.
    """
    scores, texts = scores_by_case(rows), texts_by_case(sheet)
    patients = {(row["fold"], row["case"]): row["patient"] for row in sheet}
    main = task.case_metrics[0]
    judged = {key: one[ALL, main] for key, one in scores.items() if not math.isnan(one.get((ALL, main), math.nan))}
    worst = worst_cases(judged, task.selectable.get(main, True))
    columns = case_columns(scores.values(), texts.values(), task)
    made = []
    for key, one in scores.items():
        fold, case = key
        values = {column_key(*name): None if math.isnan(value) else value for name, value in one.items() if name[1] not in HIDDEN}
        values |= {title: text for title, text in texts.get(key, {}).items() if text}
        failures = failures_of(one, texts.get(key, {}), main)
        failures += ["worst tenth"] if key in worst else []
        made.append(CaseRow(picture_key(fold, case), case, patients.get(key, ""), fold, values, failures,
                            pictures.get(picture_key(fold, case))))
    return columns, made, column_key(ALL, main) if judged else ""


def picture_key(fold: int | str, case: str) -> str:
    """What a case's picture is called in the PictureBook."""
    return f"{fold}/{case}"


def worst_cases(scores: dict[Key, float], larger: bool) -> set[Key]:
    """A tenth of the cases, of which no other is as bad; fewer where many are equally bad, none of few cases."""
    count = len(scores) // WORST_SHARE if len(scores) >= WORST_LEAST else 0
    if not count:
        return set()
    worst_first = sorted(scores.values(), reverse=not larger)
    limit = worst_first[count]  # the first that is not among them
    return {key for key, value in scores.items() if (value < limit if larger else value > limit)}


def failures_of(scores: Scores, texts: dict[str, str], main: str) -> list[str]:
    """What went wrong with a case, in a few words each, the same for the same failure. main: the task's main case metric."""
    found: list[str] = []
    if texts.get("truth") and texts.get("predicted") and texts["truth"] != texts["predicted"]:
        found.append("wrong class")
    for (name, metric), true in scores.items():
        if metric.endswith(TRUE):
            said = scores.get((name, metric.removesuffix(TRUE)), math.nan)
            found += failure_of(name, metric.removesuffix(TRUE), said, true)
    found += [f"wrong place: {name}" for (name, metric), value in scores.items()
              if metric == "iou" and name != ALL and value == 0 and f"missed: {name}" not in found]
    found += [f"mostly missed: {name}" for (name, metric), value in scores.items()
              if metric == "recall" and name != ALL and 0 < value < MOSTLY]
    if math.isnan(scores.get((ALL, main), 0.0)):
        found.append(f"undefined: {label_of(main)}")
    return list(dict.fromkeys(found))


def failure_of(name: str, metric: str, said: float, true: float) -> list[str]:
    """Of a metric that prediction and truth have."""
    if metric in DECISIONS or metric.startswith(SIZES):
        if true > 0 and said == 0:
            return [f"missed: {name}"]
        return [f"falsely found: {name}"] if true == 0 and said > 0 else []
    what = label_of(metric) if name == ALL else f"{label_of(metric)} of {name}"
    if math.isnan(said) and not math.isnan(true):
        return [f"not measured: {what}"]
    return [f"falsely measured: {what}"] if math.isnan(true) and not math.isnan(said) else []
