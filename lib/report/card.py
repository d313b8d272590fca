"""The model card and the warnings of report.html: what the model is for, what it was made of, and what speaks against it."""

from __future__ import annotations

from typing import Sequence

from lib.data.folds import EXTERNAL
from lib.report.cases import larger_is_better
from lib.report.facts import Source, counted, folds_text, held, ranged
from lib.report.methods import trained_study
from lib.reporting.glossary import label_of, number, unit_of
from lib.selection import NO_VALIDATION
from lib.study import Study, training_differences
from lib.tasks.wording import listed

FEW = 30  # patients below which intervals are wide, and rest on few
SUBSET_LABELS = {"test": "held-out test patients", "validation": "VALIDATION patients, who have chosen epochs and thresholds",
                 EXTERNAL: "patients of extra test folders", "": "new cases"}
RESEARCH = ("Research. Nobody has stated another use: say in the study who may use the model for what (key report.intended_use), "
            "and run script 4 again.")


def warnings_of(source: Source, subset: str, evidence: Sequence[dict], task) -> list[str]:
    """Full sentences; what a reader must know before the numbers. task: for the direction of its metrics."""
    models, lines = source.models, []
    if subset == "validation":
        lines.append("These are validation cases: they have chosen epochs and thresholds, so the scores are too good. The "
                     "numbers for a paper are those of test cases.")
    unfinished = [fold for fold, model in models.items() if not model["finished"]]
    if unfinished:
        lines.append(f"Training of {folds_text(unfinished)} is UNFINISHED: the model is the best so far.")
    absent = [fold for fold in sorted(source.prepared.splits) if fold not in models]
    if absent and not source.loaded:
        one = len(absent) == 1
        what = (f"{'its' if one else 'their'} {subset} cases are missing here" if subset in ("test", "validation") else
                f"{'it' if one else 'they'} did not vote")
        lines.append(f"Only {len(models)} of {len(source.prepared.splits)} folds {'has' if len(models) == 1 else 'have'} a "
                     f"model; {folds_text(absent)} "
                     f"{'has' if one else 'have'} none, and {what}.")
    last = [fold for fold, model in models.items() if model["metric"] == NO_VALIDATION]
    if last:
        lines.append(f"There were no validation patients for {folds_text(last)}: the last epoch was kept, and thresholds are "
                     "defaults.")
    nothing = [fold for fold, model in models.items() if learnt_nothing(model, task)]
    if nothing:
        lines.append(f"The model of {folds_text(nothing)} was never better than 0 on its validation patients: it has learned "
                     "nothing.")
    by_hand = [] if source.loaded else [fold for fold, model in models.items() if model.get("chosen")]
    if by_hand:
        lines.append(f"The checkpoint of {folds_text(by_hand)} was named by hand (--checkpoint), not chosen by validation alone.")
    first, *others = models.values()
    changed = {line.partition(":")[0] for model in others for line in training_differences(first["study"], model["study"])}
    if changed:
        lines.append(f"The folds were trained with different settings ({', '.join(sorted(changed))}); methods are those of the "
                     "first.")
    patients = len({one["patient"] for one in evidence})
    if evidence and patients < FEW:
        lines.append(f"The scores are of {counted(patients, 'patient')} only: intervals are wide, and rest on few.")
    return lines


def learnt_nothing(model: dict, task) -> bool:
    """Whether a score that grows from 0 is still there."""
    larger = larger_is_better(model["metric"].partition("/")[0], task)
    return bool(larger) and model["score"] is not None and model["score"] <= 0


def missing_parts(source: Source, evidence: Sequence[dict], pictures: int) -> list[str]:
    """What this page does not show, and why."""
    lines = [] if evidence else ["No case has a truth, so nothing is scored."]
    run = f"runs/{source.name}"
    if source.loaded:
        lines.append("Learning curves are not shown, because the model was loaded by name.")
    elif not source.histories and not source.foreign:
        lines.append(f"Learning curves are not shown: {run} of this workspace holds no metrics.csv.")
    if source.foreign:
        lines.append(f"Learning curves of {folds_text(source.foreign)} are not shown: {run} was trained anew since the models "
                     "were "
                     "converted.")
    if not pictures:
        lines.append("There are no pictures, because script 4 was asked for none (--no-heatmaps, or report.heatmaps: false).")
    return lines


def model_card(source: Source, subset: str, judged: Study, task, headline: Sequence[dict], warnings: Sequence[str],
               evidence: Sequence[dict]) -> list[tuple[str, str]]:
    """(heading, text). judged: the study of today, whose report keys say what nobody can compute."""
    study, words = trained_study(source), task.wording
    aim = f"{study.title or study.name}: a model {words.aim}." if words else study.title or study.name
    limits = judged.report.limitations
    return [("Intended use", f"{aim} {judged.report.intended_use or RESEARCH}"),
            ("Out-of-scope use", out_of_scope(source, study)),
            ("Training data", training_data(source)),
            ("Evaluation data", evaluation_data(source, subset, evidence)),
            ("Metrics", metrics_text(headline)),
            ("Caveats", " ".join([*([limits] if limits else []), *caveats(source, study, subset), *warnings]))]


def out_of_scope(source: Source, study: Study) -> str:
    channels = source.prepared.manifest["channels"]
    return (f"Images of another kind than those it was trained on (channels {listed(channels)}; classes "
            f"{listed(task_names(study))}), "
            "other scanners, sites or patients than those of the training data, until it has been tested on them, and any "
            "decision about a patient without a person who is trained to make it: it is no medical device.")


def task_names(study: Study) -> list[str]:
    names = study.task.get("names", {})
    return [names.get(name, name) for name in study.data.classes]


def training_data(source: Source) -> str:
    prepared, folds = source.prepared, sorted(source.models)
    counts = {subset: [held(prepared, fold, subset) for fold in folds] for subset in ("train", "validation")}
    train = f"{ranged([p for p, _ in counts['train']], 'patient')} ({ranged([c for _, c in counts['train']], 'case')})"
    chosen = ranged([p for p, _ in counts["validation"]], "patient")
    each = "The model was" if len(folds) == 1 else f"Each of the {len(folds)} models was"
    return (f"{each} trained on {train}, its epoch chosen on {chosen}, all from one prepared data set (fingerprint "
            f"{prepared.fingerprint[:8]}).")


def evaluation_data(source: Source, subset: str, evidence: Sequence[dict]) -> str:
    if not evidence:
        return "None: the predicted cases have no truth."
    patients = len({one["patient"] for one in evidence})
    whose = {"test": "held-out test patients of the same data set", "validation": "validation patients, who have chosen epochs "
                                                                                  "and "
             "thresholds: no test", EXTERNAL: "patients of extra test folders, who never trained",
             "": "new cases, judged where their truth was present"}[subset]
    return f"{counted(len(evidence), 'case')} of {counted(patients, 'patient')}: {whose}."


def metrics_text(headline: Sequence[dict]) -> str:
    """The overall headline numbers, or all where none is overall."""
    overall = [row for row in headline if row["class"] == "all"] or list(headline)
    return "; ".join(number_text(row) for row in overall) + "." if overall else "None."


def number_text(row: dict) -> str:
    metric, unit = row["metric"], unit_of(row["metric"])
    name = label_of(metric) + ("" if row["class"] == "all" else f" of {row['class']}")
    ends = [row.get("ci_low"), row.get("ci_high")]
    interval = "" if None in ends else f" (95 % interval {number(ends[0], metric)} to {number(ends[1], metric)})"
    return f"{name} {number(row['estimate'], metric)}{f' {unit}' if unit else ''}{interval}"


def caveats(source: Source, study: Study, subset: str) -> list[str]:
    lines = []
    if subset == "test":
        lines.append("Test and training patients come from one data set: on data of another source, scores may be lower.")
    given = [str(value) for key, value in study.network.items() if key.endswith("weights") and value]
    if given:
        lines.append(f"Training began with weights of other data ({listed(given)}); if patients of this evaluation were among "
                     "them, "
                     "scores are too good.")
    twins = len(source.prepared.cases) - len({case.content for case in source.prepared.cases})
    if twins:
        lines.append(f"{counted(twins, 'case')} of the data holds the very images of another one." if twins == 1 else
                     f"{counted(twins, 'case')} of the data hold the very images of another one.")
    if subset == "" and len(source.models) > 1:
        lines.append("Cases that are new to all models were judged by all of them together, not by each alone.")
    return lines
