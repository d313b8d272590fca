"""Scores of landmarks: of one case, and those that need the whole set."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from lib.evaluation.plots import ERRORS, Curves
from lib.evaluation.points import radial_error
from lib.evaluation.statistics import mean_of_defined, percentiles
from lib.tasks.base import ALL, Metrics
from lib.tasks.box_scores import images_of, presence_facts, presence_metrics

SUCCESS_MM = (2.0, 2.5, 3.0, 4.0)  # radii of the success detection rate (Wang et al., Med. Image Anal. 31:63-76, 2016)
SUCCESS_SHARES = (0.01, 0.02, 0.04)  # and where no mm are known, as shares of the image's longer side
SUCCESS = (*(f"sdr@{radius:g}mm" for radius in SUCCESS_MM), *(f"sdr@{share:.0%}" for share in SUCCESS_SHARES))
PRESENCE = ("presence_roc_auc", "presence_sensitivity", "presence_specificity")


def errors_of(places: np.ndarray, truth: np.ndarray, geometry) -> dict[str, np.ndarray]:
    """unit -> radial errors (frames, points), NaN where the point is absent. px always, mm where the spacing is known.

    places: (frames, points, 2), truth: (frames, points, 3), native pixels. A point that is there has an error whether or not it
    counts as found: an error is not made small by giving no answer.
    """
    true = np.where(truth[..., 2:] > 0, truth[..., :2], np.nan)
    spacings = {"px": (1.0, 1.0)} | ({"mm": geometry.spacing_mm[1:]} if geometry.spacing_mm else {})
    return {unit: radial_error(places, true, spacing) for unit, spacing in spacings.items()}


def case_scores(classes: Sequence[str], errors: dict[str, np.ndarray], found: np.ndarray, longer_px: int) -> dict:
    """{(class, metric): value}: mean radial errors, and success detection rates, the share of the points that are there, were
    found and lie within a radius. longer_px: the image's longer side."""
    radii = {f"sdr@{radius:g}mm": radius for radius in SUCCESS_MM} if "mm" in errors else \
        {f"sdr@{share:.0%}": share * longer_px for share in SUCCESS_SHARES}
    apart = errors.get("mm", errors["px"])
    tables = {f"radial_error_{unit}": values for unit, values in errors.items()}
    tables |= {name: np.where(np.isnan(apart), np.nan, found & (apart <= radius)) for name, radius in radii.items()}
    rows = {(ALL, metric): mean_of_defined(values.ravel()) for metric, values in tables.items()}
    return rows | {(name, metric): mean_of_defined(values[:, index]) for metric, values in tables.items()
                   for index, name in enumerate(classes)}


def set_metrics(classes: Sequence[str], evidence: Sequence[dict], judged: bool) -> Metrics:
    """Weights (n, R) of n cases -> {(class, metric): (R,)}: median and 95th percentile of the radial errors of all points of a
    name; where presence is judged, how well, as detection says it (see `box_scores.presence_metrics`)."""
    of_image, known = images_of(evidence), {}
    for unit in units_of(evidence):
        errors = np.concatenate([one["errors"][unit] for one in evidence])
        columns = {ALL: (errors.ravel(), np.repeat(of_image, len(classes)))}
        columns |= {name: (values, of_image) for name, values in zip(classes, errors.T)}
        known |= {(name, unit): (values[~np.isnan(values)], of_case[~np.isnan(values)])
                  for name, (values, of_case) in columns.items()}
    averaged = [metric.removeprefix("presence_") for metric in PRESENCE]
    presence = presence_metrics(classes, evidence, averaged, np.greater) if judged else lambda weights: {}

    def metrics(weights: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
        rows: dict[tuple[str, str], np.ndarray] = {}
        for (name, unit), (values, of_case) in known.items():
            median, high = percentiles(values, (0.5, 0.95), weights, of_case)
            rows |= {(name, f"radial_error_median_{unit}"): median, (name, f"radial_error_p95_{unit}"): high}
        return rows | presence(weights)

    return metrics


def set_facts(classes: Sequence[str], evidence: Sequence[dict], judged: bool) -> dict[tuple[str, str], float]:
    """How many points there are; where presence is judged, how many images have each."""
    there = sum((one["truth"][..., 0] > 0).sum(axis=0) for one in evidence)
    points = {(ALL, "points"): float(there.sum()), **{(name, "points"): float(count) for name, count in zip(classes, there)}}
    return points | (presence_facts(classes, evidence) if judged else {})


def units_of(evidence: Sequence[dict]) -> list[str]:
    """px, and mm if every case has them."""
    return ["px", "mm"] if all("mm" in one["errors"] for one in evidence) else ["px"]


def cumulative_errors(task, evidence: Sequence[dict]) -> list[Curves]:
    """Share of the points whose error is at most x, a line per point and one for all of them."""
    unit = units_of(evidence)[-1]
    errors = np.concatenate([one["errors"][unit] for one in evidence])
    lines = {}
    for name, values in (("all points", errors.ravel()), *zip(map(task.shown, task.classes), errors.T)):
        known = np.sort(values[~np.isnan(values)])
        if len(known):
            shares = np.arange(len(known) + 1) / len(known)
            lines[f"{name}, mean {known.mean():.1f} {unit}"] = (np.concatenate([[0], known]), shares)
    known = errors[~np.isnan(errors)]
    reach = float(min(known.max(), 2 * np.percentile(known, 95))) if len(known) else 1.0  # one lost point must not flatten all
    return [Curves("cumulative_error", "Cumulative radial error", f"radial error ({unit})", "share of the points", lines,
                   limits=((0, reach or 1.0), (0, 1)), section=ERRORS,
                   caption="The share of the points that lie within each distance of the truth.")]
