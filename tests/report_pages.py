"""Made-up facts and pictures for tests of the report page: two lesions, so many patients, three folds."""
from __future__ import annotations

import functools
import io
from typing import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from lib.reporting.report.page import TRAINING, CaseRow, Chart, Column, Page, Step

FOLDS = 3
FAILURES = ("lesion missed", "found where there is none")


class Book:
    """The reading side of a PictureBook: frames with an ellipse, its truth and its prediction."""

    def __init__(self, count: int, size: tuple[int, int] = (320, 260), note: str = "", truths: bool = True):
        self.count, self.size, self.note, self.truths = count, size, note, truths

    def pictures(self) -> Iterator[tuple[int, dict[str, bytes | None], tuple[int, int]]]:
        noise = np.random.default_rng(0)
        width, height = self.size
        for index in range(self.count):
            base = Image.fromarray(noise.integers(0, 60, (height // 4, width // 4), dtype=np.uint8)).resize(self.size)
            draw = ImageDraw.Draw(base)
            draw.ellipse((width * .15, height * .08, width * .85, height * .92), fill=95, outline=190, width=6)
            x, y, r = width * noise.uniform(.4, .6), height * noise.uniform(.35, .65), height * noise.uniform(.08, .2)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=175)
            base = base.filter(ImageFilter.GaussianBlur(1.6)).convert("RGB")
            off = noise.uniform(-.3, .3) * r
            yield index, {"base": webp(base), "truth": webp(self.ring(x, y, r, (0, 158, 115, 255), 3)) if self.truths else None,
                          "prediction": webp(self.ring(x + off, y - off, r * noise.uniform(.8, 1.2), (230, 159, 0, 255), 2)),
                         }, self.size

    def ring(self, x, y, r, colour, width):
        layer = Image.new("RGBA", self.size, (0, 0, 0, 0))
        ImageDraw.Draw(layer).ellipse((x - r, y - r, x + r, y + r), outline=colour, width=width)
        return layer


def webp(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=70, method=0)
    return stream.getvalue()


@functools.cache
def svg(kind: str = "scatter", size: tuple[float, float] = (5.4, 3.4), seed: int = 0) -> str:
    """A figure of matplotlib in the house style."""
    import matplotlib
    from lib.reporting.style import COLOURS, pyplot
    plt, draws = pyplot(), np.random.default_rng(seed)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": str(seed)}):
        figure, axis = plt.subplots(figsize=size)
        if kind == "curves":
            for fold in range(FOLDS):
                epochs = np.arange(20)
                axis.plot(epochs, .9 - .7 * np.exp(-epochs / (4 + fold)) + draws.normal(0, .012, 20), color=COLOURS[fold],
                          label=f"fold {fold}")
            axis.set(xlabel="epoch", ylabel="Dice, validation", title="scores")
            axis.legend(frameon=False)
        elif kind == "box":
            for index in range(3):
                axis.boxplot(draws.beta(8, 2, 40), positions=[index], widths=.5, medianprops={"color": "black"})
                axis.plot(index + draws.uniform(-.1, .1, 40), draws.beta(8, 2, 40), "o", ms=3, alpha=.7, color=COLOURS[index])
            axis.set_xticks(range(3), ["lesion\nn = 40", "core\nn = 38", "all\nn = 40"])
            axis.set(ylabel="Dice", title="Dice of 40 held-out patients")
        elif kind == "matrix":
            axis.imshow(draws.integers(0, 20, (4, 4)), cmap="Blues")
            for row, column in np.ndindex(4, 4):
                axis.text(column, row, "7", ha="center", va="center")
            axis.set(title="confusion, n = 160", xlabel="predicted", ylabel="true")
        else:
            axis.axhline(0, color="grey", lw=.8)
            axis.plot(draws.uniform(0, 60, 60), draws.normal(0, 4, 60), "o", ms=4, alpha=.75)
            axis.set(xlabel="mean (mL)", ylabel="predicted − true (mL)", title="lesion (n = 60)")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        plt.close(figure)
    return text.getvalue()


def row(metric: str, name: str, estimate: float, spread: float, draws, patients: int) -> dict:
    folds = [estimate + float(draws.normal(0, spread)) for _ in range(FOLDS)]
    return {"class": name, "metric": metric, "folds": FOLDS, "mean": float(np.mean(folds)), "sd": float(np.std(folds, ddof=1)),
            "patients": patients, "estimate": estimate, "ci_low": estimate - 2 * spread, "ci_high": estimate + 1.5 * spread,
            **{f"fold{number}": value for number, value in enumerate(folds)}}


def fact(metric: str, name: str, value: float, fold: float) -> dict:
    """A row of summary.csv that is no estimate: it has folds, but nobody whose it is, and no interval."""
    return {"class": name, "metric": metric, "folds": FOLDS, "mean": fold, "sd": 0.0, "patients": None, "estimate": value,
            "ci_low": None, "ci_high": None, **{f"fold{number}": fold for number in range(FOLDS)}}


COLUMNS = [Column("kind", "Scanner"),
           Column("volume_ml_true/lesion", "Volume, truth", "lesion", "volume_ml_true", None, "mL"),
           *(Column(f"{metric}/{name}", label, name, metric, larger, unit)
             for metric, label, larger, unit in (("dice", "Dice", True, ""), ("hd95_mm", "HD95", False, "mm"),
                                                 ("volume_ml", "Volume", None, "mL"), ("recall", "Recall", True, ""))
             for name in ("all", "lesion", "core"))]


def cases(count: int) -> list[CaseRow]:
    """Case i has Dice `all` (i % 10) / 10 + i / 10000, but none every seventh; the fold is i % 3."""
    draws, rows = np.random.default_rng(1), []
    for i in range(count):
        dice = None if i % 7 == 3 else round(i % 10 / 10 + i / 10000, 6)
        values = {"kind": ("1.5 T", "3 T")[i % 2], "dice/all": dice,
                  "hd95_mm/all": None if dice is None else float(30 * (1 - dice) + i % 3),
                  "volume_ml/all": float(draws.gamma(2, 12)), "recall/all": dice}
        values |= {f"{metric}/{name}": float(draws.uniform(0, 1)) for metric in ("dice", "recall") for name in ("lesion", "core")}
        values |= {f"hd95_mm/{name}": float(draws.uniform(1, 30)) for name in ("lesion", "core")}
        values |= {f"volume_ml/{name}": float(draws.uniform(1, 30)) for name in ("lesion", "core")}
        values["volume_ml_true/lesion"] = float(i % 4)
        failures = [FAILURES[0]] if i % 10 == 0 else [FAILURES[1]] if i % 25 == 6 else []
        name = f"case_{i:04d}"
        rows.append(CaseRow(f"fold{i % FOLDS}/{name}", name, f"Patient_{i // 2:03d}", i % FOLDS, values, failures, i))
    return rows


def facts(count: int = 60, charts: bool | list[Chart] = True, **changes) -> Page:
    """charts: whether there are any, or which."""
    draws = np.random.default_rng(2)
    headline = [row(metric, name, estimate, spread, draws, count // 2)
                for metric, spread, estimates in (("dice", .015, (.861, .902, .82)), ("nsd", .02, (.914, .93, .898)),
                                                  ("hd95_mm", .8, (6.4, 5.2, 7.61)))
                for name, estimate in zip(("all", "lesion", "core"), estimates)]
    headline.append(row("presence_roc_auc", "core", .943, .016, draws, count // 2))
    summary = [*headline, *(row(metric, name, estimate, spread, draws, count // 2) for metric, estimate, spread in
                            (("iou", .77, .02), ("recall", .88, .02), ("volume_ml_abs_error", 3.2, .3), ("kappa", .71, .05))
                            for name in ("all", "lesion", "core"))]
    known = [fact("presence_threshold_ml", "core", 1.25, 1.25), *(fact("empty_truth_cases", name, 3 * n, n) for n, name in
                                                                  enumerate(("lesion", "core")))]
    headline, summary = [*headline, *known], [*summary, *known]
    drawn = [Chart(TRAINING, "loss", "Loss by epoch", svg("curves"), "One line per fold; the dot is the epoch that was kept."),
             Chart(TRAINING, "scores", "Validation Dice by epoch", svg("curves", seed=1),
                   "Mean of the validation patients, 3 folds."),
             Chart("Scores of the cases", "dice", "Dice by class", svg("box"), "A box per class, a dot per case, 40 patients."),
             Chart("Scores of the cases", "confusion", "Confusion", svg("matrix", (3.6, 3.2)),
                   "Rows are the truth; n = 160 images."),
             Chart("Agreement of volumes", "volume_ml", "Volume, predicted against true", svg("scatter", (9, 3.4)),
                   "Bland-Altman: difference against mean; the dashed lines are the 95 % limits of agreement.")]
    folds = [{"fold": number, "train_patients": 20, "train_cases": 40, "validation_patients": 4, "validation_cases": 8,
              "test_patients": 10, "test_cases": 20, "epochs": 60, "best_epoch": 41 + number, "validation_metric": "dice/all",
              "validation_score": .86 + number / 100, "status": "finished"} for number in range(FOLDS)]
    page = {"title": "Results of FVV", "study_title": "FLAIR-visible volume of acute stroke on diffusion MRI", "run": "FVV",
            "subset_label": "held-out test patients", "headline": headline, "summary": summary,
            "fold_columns": [f"fold{number}" for number in range(FOLDS)],
            "direction": {"dice": True, "nsd": True, "iou": True, "recall": True, "hd95_mm": False, "presence_roc_auc": True},
            "folds": folds, "flow": [
                Step("Found in the input folder", 34, 66, ["2 patients left out: an image could not be read",
                                                      "1 image of no patient"]),
                Step("Prepared", 32, 62), Step("Dealt into 3 folds", 32, 62, ["stratified by lesion and core"]),
                Step("Scored, each by the model that has not seen it", 30, count, ["2 patients have no truth"])],
            "charts": drawn if charts is True else charts or [], "columns": COLUMNS,
            "cases": cases(count), "worst_by": "dice/all",
            "provenance": [("Fingerprint of the data", "5f2b1c9a7d03e4468a0f"), ("Model, fold 0", "9d4c0be27f51aa3380c6"),
                           ("PyTorch", "2.15.0"), ("ONNX Runtime", "1.31.1")],
            "methods": "A U-Net was trained in three-fold cross-validation, stratified by lesion and core (FoldScan 1.0)."
                       "\n\nIntervals are patient-clustered percentile bootstrap intervals (2,000 resamples).",
            "card": [("Intended use", "Research on volumes of acute stroke."), ("Not for", "Decisions about a patient."),
                     ("Training data", "32 patients of one hospital.\n\nTwo scanners."),
                     ("Limits", "Small lesions below 1 mL are missed more often.")],
            "generator": "FoldScan 1.0", "warnings": ["Only 32 patients: the intervals are wide."],
            "picture_legend": [("truth", "#009e73"), ("prediction", "#e69f00")]}
    return Page(**page | changes)
