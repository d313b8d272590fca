"""The methods paragraphs of report.html, to be pasted into a paper: written from the study, the tables and the models."""

from __future__ import annotations

from typing import Sequence

from lib import __version__
from lib.data.folds import EXTERNAL
from lib.evaluation.statistics import FEW_PATIENTS, RESAMPLES
from lib.packages import FOLDSCAN, installed
from lib.reporting.glossary import counted, score_in_words
from lib.reporting.report.facts import (SUBSETS, all_folds, by_hand_text, class_counts, folds_text, held, lost_cases, ranged,
                                        voters)
from lib.reporting.report.provenance import (RUNNING, largest_differences, size_unit, threshold_value,
                                             thresholds_of, trained_with, versions_text)
from lib.reporting.report.recipe import preprocessing_text, training_text
from lib.reporting.report.source import Source
from lib.study import Study, study_from_dict
from lib.tasks.wording import Wording, listed


def trained_study(source: Source) -> Study:
    """That of the first model: how it was trained, which the study of today may not say any more."""
    return study_from_dict(next(iter(source.models.values()))["study"])


def methods_text(source: Source, subset: str, task, computed_on: str, evidence: Sequence[dict], sheet: Sequence[dict]) -> str:
    """Paragraphs, apart by empty lines. subset: test, validation, external, or "" for new cases; task: as results were judged
    by; evidence: of the scored cases; sheet: a row per predicted case."""
    study = trained_study(source)
    words = task.wording(study.network)
    parts = [data_text(source, study, words), preprocessing_text(source, study), training_text(source, study, words),
             selection_text(source, task, words), testing_text(source, subset, words, computed_on, sheet)]
    if evidence:
        parts.append(" ".join([*([words.scores] if words else []), statistics_text(source, subset, words, evidence)]))
    return "\n\n".join([*parts, software_text(source)])


# --- data --------------------------------------------------------------------------------------------------------


def data_text(source: Source, study: Study, words: Wording | None) -> str:
    prepared = source.prepared
    cases, lost, known = len(prepared.cases), len(lost_cases(prepared)), source.patients_known
    of = f" of {counted(len({case.patient for case in prepared.cases}), 'patient')}" if known else ""
    lines = [f"The data comprised {counted(cases, 'case')}{of}"
             + (f"; {counted(lost, 'further case')} could not be used." if lost else ".")]
    by_class, names = class_counts(source), study.task.get("names", {})
    if by_class:
        lines.append(f"By class: {'; '.join(f'{names.get(name, name)}, {count}' for name, count in by_class.items())}.")
    if not known:
        which = f"some of the {source.who}s" if source.some_named else f"the {source.who}s"
        lines.append(f"Nothing says whose {which} are: each of these counted as a patient of its own, so that {source.who}s of "
                     "one person may have lain in several folds.")
    lines.append(predefined_text(source, study, words) if source.predefined else folds_dealt(source, study, words))
    if prepared.external:
        external = held(prepared, min(prepared.splits), EXTERNAL)
        of = f" of {counted(external[0], 'patient')}" if known else ""
        lines.append(f"Extra test folders held {counted(external[1], 'case')}{of}, {'who' if known else 'which'} never trained.")
    together = "All cases of a patient, and cases with identical images," if known else "Cases with identical images"
    lines.append(f"{together} were kept together.")
    return " ".join(lines)


def balanced_by(words: Wording | None) -> str:
    return f", stratified by {words.strata}" if words else ", stratified"


def folds_dealt(source: Source, study: Study, words: Wording | None) -> str:
    prepared, settings, who = source.prepared, study.data.folds, source.who
    folds = sorted(source.models)
    which = "each fold" if len(folds) == len(prepared.splits) else folds_text(folds)
    sizes = {subset: [held(prepared, fold, subset)[0] for fold in folds] for subset in SUBSETS}
    chosen = (f"{ranged(sizes['validation'], who)} (a stratified share of {settings.valid_proportion:g} of those that it did not "
              "test) for choosing between epochs") if any(sizes["validation"]) else f"no validation {who}s"
    return (f"{who.capitalize()}s were dealt into {len(prepared.splits)} folds (seed {settings.seed}){balanced_by(words)}. For "
            f"{which} a model was trained on {ranged(sizes['train'], who)}, with {chosen} and {ranged(sizes['test'], who)} for "
            "testing.")


def predefined_text(source: Source, study: Study, words: Wording | None) -> str:
    prepared, fold, share = source.prepared, min(source.prepared.splits), study.data.folds.valid_proportion
    counts = {subset: held(prepared, fold, subset) for subset in SUBSETS}
    shown = {subset: f"{counted(patients, 'patient')} ({counted(cases, 'case')})" if source.patients_known else
             counted(cases, "case") for subset, (patients, cases) in counts.items()}
    parts = [f"{shown[subset]} for {purpose}" for subset, purpose in zip(SUBSETS, ("training", "validation", "testing"))
             if counts[subset][1]]
    given = {about.get("subset") for about in prepared.manifest["key"]["cases"].values()}
    drawn = (f" The validation {source.who}s were drawn from the training subset (a share of {share:g}, seed "
             f"{study.data.folds.seed}{balanced_by(words)}).") if counts["validation"][0] and "validation" not in given else ""
    return f"They were used in the subsets that they came in: {listed(parts)}.{drawn}"


# --- what was kept and chosen ------------------------------------------------------------------------------------


def selection_text(source: Source, task, words: Wording | None) -> str:
    """Which epoch was kept, and what validation chose besides."""
    chosen, last = ([fold for fold in folds if fold not in source.by_hand] for folds in (source.scored, source.unscored))
    lines = [by_hand_text(source)] if source.by_hand else []
    if chosen:
        models = [source.models[fold] for fold in chosen]
        metrics = listed(list(dict.fromkeys(score_in_words(model["metric"]) for model in models)))
        where = "" if len(chosen) == len(source.models) else f" of {folds_text(chosen)}"
        lines.append(f"The epoch{where} with the best {metrics} was kept ({epochs([m['epoch'] + 1 for m in models])}).")
    if last:
        lines.append(f"Without validation {source.who}s, {'it' if len(source.models) == 1 else folds_text(last)} kept the last "
                     "epoch.")
    return " ".join([*lines, *threshold_sentences(source, task, words)])


def threshold_sentences(source: Source, task, words: Wording | None) -> list[str]:
    """How thresholds were chosen, where any was, and what they are in each fold."""
    network, unit = trained_study(source).network, size_unit(source)
    of_folds = {fold: thresholds_of(task, network, model) for fold, model in source.models.items()}
    chosen = any(not one.default for found in of_folds.values() for one in found)
    lines = [words.chosen] if words and words.chosen and chosen else []
    for alike in zip(*of_folds.values()):  # the same threshold of each fold
        values: dict[str, list[int]] = {}
        for fold, one in zip(of_folds, alike):
            values.setdefault(threshold_value(one, unit), []).append(fold)
        shown = [value if len(values) == 1 else f"{value} in {folds_text(folds)}" for value, folds in values.items()]
        lines.append(f"The {alike[0].name} was {listed(shown)}.")
    return lines


def epochs(values: Sequence[int]) -> str:
    """epoch 7; epochs 22, 34 and 40."""
    return f"epoch {values[0]}" if min(values) == max(values) else f"epochs {listed([str(value) for value in values])}"


# --- testing -----------------------------------------------------------------------------------------------------


def testing_text(source: Source, subset: str, words: Wording | None, computed_on: str, sheet: Sequence[dict]) -> str:
    """Whose numbers these are, in words that claim no more than is so."""
    who, fused = source.who, f" ({words.fusion})" if words else ""
    count, whose = len(source.models), "who" if source.patients_known else "which"
    absent = [] if source.loaded else [fold for fold in sorted(source.prepared.splits) if fold not in source.models]
    lines = []
    if subset == "test" and source.loaded:
        lines.append(f"One model ({source.loaded}) predicted the test {who}s of its fold, {whose} had neither trained nor "
                     "validated it.")
    elif subset == "test" and source.predefined:
        lines.append("The test cases were predicted by a model whose training and validation had not seen them.")
    elif subset == "test":
        lines.append("Each test case was predicted by the model of its fold, whose training and validation had not seen the "
                     f"{who}.")
        lines += [f"The test cases of {folds_text(absent)} were not tested."] if absent else []
    elif subset == "validation":
        lines.append("These are numbers of validation cases, each predicted by a model whose epoch, and any thresholds, they "
                     "had chosen: they are too good, and no test result.")
    elif subset == EXTERNAL:
        by = "one model" if count == 1 else f"the models of {all_folds(source)} together{fused}"
        lines.append(f"All cases were predicted by {by}; their {who}s had trained no model.")
        lines += ["Numbers of single folds are of each model alone, pooled ones of all together."] if count > 1 else []
    else:
        lines += new_cases(source, fused, sheet)
    return " ".join([*lines, *([words.decision] if words else []), export_text(source, computed_on)])


def new_cases(source: Source, fused: str, sheet: Sequence[dict]) -> list[str]:
    """Who predicted cases that are not of the prepared arrays; see `ensemble.choose_voters`."""
    together, alone = voters(source, sheet)
    lines = []
    if len(source.models) == 1:
        name = source.loaded or f"that of {folds_text(list(source.models))}"
        lines.append(f"{counted(len(sheet), 'case')} {was(len(sheet))} predicted by one model ({name}). Of cases known from the "
                     "prepared data, by their images or their patient, it predicted only those that its training and validation "
                     "had not seen; whether the others are of new patients is not known.")
    if together:
        lines.append(f"{counted(together, 'case')} {was(together)} predicted by the models of {all_folds(source)} "
                     f"together{fused}; that their patients are new to the models is known by names and images alone.")
    if alone:
        lines.append(f"{counted(alone, 'case')}, known from the prepared data, {was(alone)} predicted{each(alone)} by the one "
                     f"model whose training and validation had not seen the {source.who}.")
    return lines


def was(count: int) -> str:
    return "was" if count == 1 else "were"


def each(count: int) -> str:
    return "" if count == 1 else ", each"


def export_text(source: Source, computed_on: str) -> str:
    parity = largest_differences(source)
    proof = (f", whose outputs differed from the network's by at most {max(parity.values()):.1e} of their largest value"
             if parity else "")
    return f"Predictions were computed in ONNX Runtime on {computed_on}, from the exported networks{proof}."


# --- statistics and software -------------------------------------------------------------------------------------


def statistics_text(source: Source, subset: str, words: Wording | None, evidence: Sequence[dict]) -> str:
    who, patients, lines = source.who, len({one["patient"] for one in evidence}), []
    if words and words.measured:
        lines.append(f"Of prediction and truth were measured {listed(words.measured)}; they are compared by bias, mean absolute "
                     "error and 95 % limits of agreement (bias \u00b1 1.96 standard deviations of the differences; Bland and "
                     "Altman), and cases in which only one of both could be measured are counted as missed or spurious.")
    if len(set(judging(evidence)) - {""}) > 1 or subset == EXTERNAL and len(source.models) > 1:
        lines.append("Scores over the folds are given as mean and standard deviation (n - 1) of the folds' values.")
    if patients > 1:
        lines.append(f"Pooled estimates have 95 % intervals from a percentile bootstrap of {RESAMPLES:,} resamples, in which "
                     + ("patients, not cases," if source.patients_known else f"{who}s") + " were drawn with replacement.")
    return " ".join([*lines, *few_patients(source, evidence), *ranks_together(words, evidence)])


def judging(evidence: Sequence[dict]) -> list:
    """Folds whose models judged the cases, "" for all together."""
    return list(dict.fromkeys(one["fold"] for one in evidence))


def few_patients(source: Source, evidence: Sequence[dict]) -> list[str]:
    """A sentence where percentile intervals have fewer patients than they need; [] elsewhere."""
    patients = len({one["patient"] for one in evidence})
    if not 0 < patients < FEW_PATIENTS:
        return []
    told = "there are no intervals" if patients == 1 else "percentile intervals of so few are too narrow"
    return [f"The scores are of {counted(patients, source.who)} only: {told}."]


def ranks_together(words: Wording | None, evidence: Sequence[dict]) -> list[str]:
    """A sentence where numbers over the set rank scores of several models; [] elsewhere."""
    return [f"Pooled over the folds, {words.ranked} rank the scores of several models as if on one scale."
            ] if words and words.ranked and len(judging(evidence)) > 1 else []


def software_text(source: Source) -> str:
    prepared, trained = source.prepared.manifest.get("packages", {}).get(FOLDSCAN), trained_with(source)
    own = {model.get("packages", {}).get(FOLDSCAN) for model in source.models.values()}
    alike = {prepared, *own} == {__version__}
    lines = [f"Data were prepared, networks trained and results computed with FoldScan{f' {__version__}' if alike else ''}."]
    if not alike:
        lines.append(f"Its version was {prepared or 'unknown'} in preparation and {__version__} in testing.")
    lines += [f"Networks were trained and exported with {trained}."] if trained else []
    return " ".join([*lines, f"Results were computed with {versions_text(installed(RUNNING))}."])
