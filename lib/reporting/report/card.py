"""The model card and the warnings of report.html: what the model is for, what it was made of, and what speaks against it."""

from __future__ import annotations

from typing import Sequence

from lib.data.folds import EXTERNAL
from lib.evaluation.summary import fold_columns, is_asked
from lib.reporting.glossary import counted, in_sentence, label_of, number, unit_of
from lib.reporting.report.cases import larger_is_better
from lib.reporting.report.facts import by_hand_text, folds_text, held, ranged, voters
from lib.reporting.report.methods import each, few_patients, ranks_together, trained_study, was
from lib.reporting.report.source import Source
from lib.study import Study, training_differences
from lib.tasks.base import ALL
from lib.tasks.wording import Wording, listed

SUBSETS = {"test": "held-out test {}s", "validation": "VALIDATION {}s, {} have chosen epochs, and any thresholds",
           EXTERNAL: "{}s of extra test folders", "": "new cases"}
RESEARCH = ("Research. Nobody has stated another use: say in the study who may use the model for what (key report.intended_use), "
            "and run script 4 again.")


def subset_label(source: Source, subset: str) -> str:
    """Whose the numbers are."""
    return SUBSETS[subset].format(source.who, "who" if source.patients_known else "which")


def warnings_of(source: Source, subset: str, evidence: Sequence[dict], task, summary: Sequence[dict] = ()) -> list[str]:
    """Full sentences; what a reader must know before the numbers. task: for the direction of its metrics; summary: rows of
    summary.csv."""
    models, who, lines = source.models, source.who, []
    if not source.patients_known:
        each = (f"Some {who}s count as patients of their own, because nothing says whose they are" if source.some_named else
                f"Each {who} counts as a patient of its own, because nothing says whose it is")
        lines.append(f"{each} (key data.reader.patient_pattern): {who}s of one person may lie in several folds, and scores "
                     "may then be too good and intervals too narrow.")
    if subset == "validation":
        lines.append("These are validation cases: they have chosen epochs, and any thresholds, so the scores are too good. The "
                     "numbers for a paper are those of test cases.")
    unfinished = [fold for fold, model in models.items() if not model["finished"] and fold not in source.by_hand]
    if unfinished:
        lines.append(f"Training of {folds_text(unfinished)} is UNFINISHED: the model is the best so far.")
    absent = [fold for fold in sorted(source.prepared.splits) if fold not in models]
    if absent and not source.loaded:
        one = len(absent) == 1
        what = (f"{'its' if one else 'their'} {subset} cases are missing here" if subset in ("test", "validation") else
                f"{'it' if one else 'they'} did not vote")
        lines.append(f"Only {len(models)} of {len(source.prepared.splits)} folds {'has' if len(models) == 1 else 'have'} a "
                     f"model; {folds_text(absent)} {'has' if one else 'have'} none, and {what}.")
    last = [fold for fold in source.unscored if fold not in source.by_hand]
    if last:
        lines.append(f"There were no validation {who}s for {folds_text(last)}: the last epoch was kept, and thresholds (where "
                     "there are any) are defaults.")
    nothing = [fold for fold, model in models.items() if fold not in source.by_hand and learnt_nothing(model, task)]
    if nothing:
        one = len(nothing) == 1
        lines.append(f"The model{'' if one else 's'} of {folds_text(nothing)} {was(len(nothing))} never better than 0 on "
                     f"{'its' if one else 'their'} validation {who}s: {'it has' if one else 'they have'} learned nothing.")
    lines += [by_hand_text(source)] if source.by_hand else []
    first, *others = models.values()
    changed = {line.partition(":")[0] for model in others for line in training_differences(first["study"], model["study"])}
    if changed:
        lines.append(f"The folds were trained with different settings ({', '.join(sorted(changed))}); methods are those of the "
                     "first.")
    return lines + never_found(summary, task) + without_width(summary, task) + few_patients(source, evidence)


def never_found(summary: Sequence[dict], task) -> list[str]:
    """Classes whose first headline score is 0, the worst that there is, in all cases or in those of a fold: a mean over classes
    hides them."""
    of_class = {row["metric"] for row in summary if row["class"] != ALL}
    main = next((metric for metric in task.headline if metric in of_class and larger_is_better(metric, task)), "")
    lines, score = [], in_sentence(label_of(main)) if main else ""
    for row in [row for row in summary if row["metric"] == main and row["class"] != ALL]:
        folds = [int(column.removeprefix("fold")) for column in fold_columns(row) if row[column] == 0]
        if row["estimate"] == 0:
            lines.append(f"{row['class']} was never found: its {score} is 0.")
        elif folds:
            by = f"model{'s' * (len(folds) > 1)} of {folds_text(folds)}"
            lines.append(f"{row['class']} was never found by the {by}: its {score} is 0 there.")
    return lines


def without_width(summary: Sequence[dict], task) -> list[str]:
    """A sentence where intervals of headline numbers are of no width, which look certain and are not."""
    rows = [row for row in summary if is_asked(row, task.headline) and row["ci_low"] is not None
            and row["ci_low"] == row["ci_high"]]
    names = [in_sentence(name_of(row)) for row in rows]
    what = f"An interval of no width ({listed(names)}) is" if len(rows) == 1 else f"Intervals of no width ({listed(names)}) are"
    return [f"{what} not certain: all cases here went alike, and draws of these cannot show what did not happen among them."
            ] if rows else []


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
        lines.append(f"Learning curves of {folds_text(source.foreign)} are not shown: {run} holds those of another training than "
                     "the model's.")
    if not pictures:
        lines.append("There are no pictures, because script 4 was asked for none (--no-heatmaps, or report.heatmaps: false).")
    return lines


def model_card(source: Source, subset: str, judged: Study, task, headline: Sequence[dict], warnings: Sequence[str],
               evidence: Sequence[dict]) -> list[tuple[str, str]]:
    """(heading, text). judged: the study of today, whose report keys say what nobody can compute."""
    study = trained_study(source)
    words = task.wording(study.network)
    aim = f"{study.title or study.name}: a model {words.aim}." if words else study.title or study.name
    limits = judged.report.limitations
    against = [*([limits] if limits else []), *caveats(source, study, subset, words, evidence), *warnings]
    return [("Intended use", f"{aim} {judged.report.intended_use or RESEARCH}"),
            ("Out-of-scope use", out_of_scope(source, study)),
            ("Training data", training_data(source)),
            ("Evaluation data", evaluation_data(source, subset, evidence)),
            ("Metrics", metrics_text(headline) if evidence else "None here; those of test cases are in the report of the run "
             f"{source.name}."),
            ("Caveats", " ".join(against))]


def out_of_scope(source: Source, study: Study) -> str:
    channels, names = source.prepared.manifest["channels"], study.task.get("names", {})
    classes = [names.get(name, name) for name in study.data.classes]
    return (f"Images of another kind than those it was trained on (channels {listed(channels)}; classes {listed(classes)}), "
            "other scanners, sites or patients than those of the training data, until it has been tested on them, and any "
            "decision about a patient without a person who is trained to make it: it is no medical device.")


def training_data(source: Source) -> str:
    prepared, folds, who = source.prepared, sorted(source.models), source.who
    train = [held(prepared, fold, "train") for fold in folds]
    cases = f" ({ranged([c for _, c in train], 'case')})" if source.patients_known else ""
    each = "The model was" if len(folds) == 1 else f"Each of the {len(folds)} models was"
    return (f"{each} trained on {ranged([p for p, _ in train], who)}{cases}, {kept_text(source)}, all from one prepared data set "
            f"(fingerprint {prepared.fingerprint[:8]}).{f' {by_hand_text(source)}' if source.by_hand else ''}")


def kept_text(source: Source) -> str:
    """By whom the epochs were chosen."""
    chosen = [held(source.prepared, fold, "validation")[0] for fold in source.scored if fold not in source.by_hand]
    last = [fold for fold in source.unscored if fold not in source.by_hand]
    parts = [f"its epoch chosen on {ranged(chosen, source.who)}"] if chosen else []
    parts += ["its last epoch kept" + (f" in {folds_text(last)}" if chosen or source.by_hand else "")] if last else []
    return listed([*parts, *([f"its checkpoint named by hand{f' in {folds_text(source.by_hand)}' if parts else ''}"]
                             if source.by_hand else [])])


def evaluation_data(source: Source, subset: str, evidence: Sequence[dict]) -> str:
    if not evidence:
        return "None: the predicted cases have no truth."
    who, which, (_, alone) = source.who, "who" if source.patients_known else "which", voters(source, evidence)
    kinds = "cases known from the prepared data" if alone == len(evidence) else (
        "new cases" + (" and cases known from the prepared data" if alone else ""))
    whose = {"test": f"held-out test {who}s of the same data set",
             "validation": f"validation {who}s, {which} have chosen epochs, and any thresholds: no test",
             EXTERNAL: f"{who}s of extra test folders, {which} never trained",
             "": f"{kinds}, judged where their truth was present"}[subset]
    of = f" of {counted(len({one['patient'] for one in evidence}), 'patient')}" if source.patients_known else ""
    return f"{counted(len(evidence), 'case')}{of}: {whose}."


def metrics_text(headline: Sequence[dict]) -> str:
    """The overall headline numbers, or all where none is overall."""
    overall = [row for row in headline if row["class"] == "all"] or list(headline)
    return "; ".join(number_text(row) for row in overall) + "." if overall else "None."


def name_of(row: dict) -> str:
    """Recall of femur; Recall, of all."""
    return label_of(row["metric"]) + ("" if row["class"] == ALL else f" of {row['class']}")


def number_text(row: dict) -> str:
    metric, unit = row["metric"], unit_of(row["metric"])
    ends = [row.get("ci_low"), row.get("ci_high")]
    interval = "" if None in ends else f" (95 % interval {number(ends[0], metric)} to {number(ends[1], metric)})"
    return f"{name_of(row)} {number(row['estimate'], metric)}{f' {unit}' if unit else ''}{interval}"


def caveats(source: Source, study: Study, subset: str, words: Wording | None, evidence: Sequence[dict]) -> list[str]:
    lines = []
    if subset == "test":
        lines.append(f"Test and training {source.who}s come from one data set: on data of another source, scores may be lower.")
    given = [str(value) for key, value in study.network.items() if key.endswith("weights") and value]
    if given:
        lines.append(f"Training began with weights of other data ({listed(given)}); if patients of this evaluation were among "
                     "them, scores are too good.")
    twins = len(source.prepared.cases) - len({case.content for case in source.prepared.cases})
    if twins:
        lines.append(f"{counted(twins, 'case')} of the data {'holds' if twins == 1 else 'hold'} the very images of another one.")
    together, alone = voters(source, evidence)
    if subset == "" and together:
        lines.append(f"{counted(together, 'scored case')} {was(together)} judged by all models together, not by each alone.")
    if subset == "" and alone:
        lines.append(f"{counted(alone, 'scored case')}, known from the prepared data, {was(alone)} judged{each(alone)} by the "
                     f"one model that had not seen the {source.who}.")
    if subset == "" and len(source.models) == 1 and evidence:
        lines.append("Whether the patients are new to the model is not known.")
    return lines + ranks_together(words, evidence)
