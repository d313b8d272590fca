"""The methods paragraphs of report.html, to be pasted into a paper: written from the study, the tables and the models."""

from __future__ import annotations

from typing import Sequence

from lib.data.folds import EXTERNAL
from lib.report.facts import (RUNNING, SUBSETS, Source, counted, folds_text, held, installed, largest_differences, ranged,
                              versions_text)
from lib.reporting.run_curves import in_words
from lib.selection import NO_VALIDATION
from lib.study import Augmentation, Study, Training, study_from_dict
from lib.tasks import make_task
from lib.tasks.wording import Wording, listed

SCHEDULES = {"constant": "a constant learning rate", "plateau": "a learning rate that fell when validation stopped improving",
             "cosine_restarts": "cosine annealing with warm restarts", "one_cycle": "a one-cycle schedule",
             "poly": "a polynomial schedule"}
OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}


def trained_study(source: Source) -> Study:
    """That of the first model: how it was trained, which the study of today may not say any more."""
    return study_from_dict(next(iter(source.models.values()))["study"])


def methods_text(source: Source, subset: str, computed_on: str, scored: bool) -> str:
    """Paragraphs, apart by empty lines. subset: test, validation, external, or "" for new cases; scored: whether any case has a
    score."""
    study = trained_study(source)
    words = make_task(study).wording
    parts = [data_text(source, study, words), preprocessing_text(source, study), training_text(source, study, words),
             selection_text(source, words), testing_text(source, subset, words, computed_on)]
    parts += [f"{words.scores if words else ''} {statistics_text(source)}".strip()] if scored else []
    return "\n\n".join([*parts, software_text(source)])


# --- data --------------------------------------------------------------------------------------------------------


def data_text(source: Source, study: Study, words: Wording | None) -> str:
    prepared = source.prepared
    cases, patients = len(prepared.cases), len({case.patient for case in prepared.cases})
    lost = len({text.partition(":")[0] for text in prepared.manifest.get("rejected", [])})
    lines = [f"The data comprised {counted(cases, 'case')} of {counted(patients, 'patient')}"
             + (f"; {counted(lost, 'further case')} could not be used." if lost else ".")]
    lines.append(predefined_text(source, study, words) if source.predefined else folds_dealt(source, study, words))
    if prepared.external:
        external = held(prepared, min(prepared.splits), EXTERNAL)
        lines.append(f"Extra test folders held {counted(external[1], 'case')} of {counted(external[0], 'patient')}, who never "
                     "trained.")
    lines.append("All cases of a patient, and cases with identical images, were kept together.")
    return " ".join(lines)


def balanced_by(words: Wording | None) -> str:
    return f", stratified by {words.strata}" if words else ", stratified"


def folds_dealt(source: Source, study: Study, words: Wording | None) -> str:
    prepared, settings = source.prepared, study.data.folds
    folds = sorted(source.models)
    which = "each fold" if len(folds) == len(prepared.splits) else folds_text(folds)
    sizes = {subset: [held(prepared, fold, subset)[0] for fold in folds] for subset in SUBSETS}
    chosen = (f"{ranged(sizes['validation'], 'patient')} (a stratified share of {settings.valid_proportion:g} of those whom it "
              "did "
              "not test) for choosing between epochs" if any(sizes["validation"]) else "no validation patients")
    return (f"Patients were dealt into {len(prepared.splits)} folds (seed {settings.seed}){balanced_by(words)}. For "
            f"{which} a model was trained on {ranged(sizes['train'], 'patient')}, with {chosen} and "
            f"{ranged(sizes['test'], 'patient')} for "
            "testing.")


def predefined_text(source: Source, study: Study, words: Wording | None) -> str:
    prepared, fold, share = source.prepared, min(source.prepared.splits), study.data.folds.valid_proportion
    counts = {subset: held(prepared, fold, subset) for subset in SUBSETS}
    parts = [f"{counted(counts[subset][0], 'patient')} ({counted(counts[subset][1], 'case')}) for {purpose}"
             for subset, purpose in zip(SUBSETS, ("training", "validation", "testing")) if counts[subset][1]]
    given = {about.get("subset") for about in prepared.manifest["key"]["cases"].values()}
    drawn = (f" The validation patients were drawn from the training subset (a share of {share:g}, seed {study.data.folds.seed}"
             f"{balanced_by(words)}).") if counts["validation"][0] and "validation" not in given else ""
    return f"They were used in the subsets that they came in: {listed(parts)}.{drawn}"


def preprocessing_text(source: Source, study: Study) -> str:
    data, window, channels = study.data, study.window, source.prepared.manifest["channels"]
    rows, columns = data.size
    intensity = {"none": "Grey levels were left as they are.",
                 "zscore": "Intensities became z-scores of each case and channel (inside the brain mask where there is one, else "
                           f"over the whole image), clipped to \u00b1{data.clip:g}."}
    whole = source.prepared.manifest.get("whole_series", False)
    if window.frames == 1:
        sample = "A sample was one frame."
    elif whole:
        sample = (f"A sample was a clip of {window.frames} frames{every(window.stride)}: a random one in training, "
                  f"{window.test_windows} evenly spaced ones in testing, whose logits were averaged.")
    else:
        sample = (f"A sample was a frame with its neighbours, {window.frames} frames{every(window.stride)}, which the network "
                  "saw together.")
    more = [f"The network saw frames resized by {window.scale:g}."] if window.scale != 1 else []
    more += ["Outputs were averaged over each window and its mirror image."] if window.mirror else []
    return " ".join([f"Each frame ({listed(channels)}) was scaled to fit {rows} x {columns} pixels (rows x columns), its "
                     f"proportions kept, and padded. {intensity[data.intensity]} {sample}", *more])


def every(stride: int) -> str:
    return f" at a stride of {stride}" if stride > 1 else ""


# --- training ----------------------------------------------------------------------------------------------------


def training_text(source: Source, study: Study, words: Wording | None) -> str:
    settings, first = study.training, next(iter(source.models.values()))
    keys = {key: value for key, value in study.network.items() if key != "name"}
    weights = [str(value) for key, value in keys.items() if key.endswith("weights") and value]
    options = [f"{key} {value}" for key, value in keys.items() if not key.endswith("weights") and value is not None]
    size = f", {first['parameters']:,} parameters" if first.get("parameters") else ""
    begun = f"from pretrained weights ({listed(weights)})" if weights else "from random weights"
    lines = [f"The network, {study.network['name']}{f' ({listed(options)})' if options else ''}{size}, was trained {begun}"
             + (f" {words.aim}. The loss was {words.loss}." if words else ".")]
    momentum = f", momentum {settings.momentum:g}" if settings.optimizer in ("sgd", "rmsprop") else ""
    batch = f"batches of {settings.batch_size}" + (f", {settings.accumulate} of them per step" if settings.accumulate > 1 else "")
    chosen = [f"{key} {value}" for key, value in settings.schedule_options.items()]
    lines.append(f"It was optimised by {OPTIMIZERS[settings.optimizer]} (learning rate {settings.learning_rate:g}, weight decay "
                 f"{settings.weight_decay:g}{momentum}) with {SCHEDULES[settings.schedule]}"
                 f"{f' ({listed(chosen)})' if chosen else ''}, in {batch}, for at most {counted(settings.epochs, 'epoch')}"
                 f"{stopping(settings)}.")
    return " ".join([*lines, *training_details(settings), augmentation_text(study.augmentation, study.data.store)])


def stopping(settings: Training) -> str:
    return f", stopping after {settings.patience} without a better validation score" if settings.patience else ""


def training_details(settings: Training) -> list[str]:
    lines = [f"Gradients were clipped to a norm of {settings.clip_norm:g}."] if settings.clip_norm else []
    if settings.sampler == "balanced":
        lines.append("Samples were drawn in balance: as many of each class, or with what is rare as without.")
    if settings.average:
        lines.append(f"The exponential moving average of the weights (decay {settings.average:g}) was validated and kept.")
    if settings.unfreezing:
        steps = [f"{layers} from epoch {epoch + 1}" for epoch, layers in sorted(settings.unfreezing.items())]
        lines.append(f"Of the network's layers, counted from the output, only these learnt: {listed(steps)}.")
    if settings.amp:
        lines.append("Where the device has bfloat16 units, training used mixed precision.")
    return [*lines, f"The seed of training was {settings.seed}."]


def augmentation_text(settings: Augmentation, store: str) -> str:
    """What changes training batches, and nothing of what does not."""
    unit = "of white" if store == "uint8" else "standard deviations"
    neutral = {"rotation_range": (0, 0), "zoom_range": (1, 1), "translation_range": (0, 0), "brightness_range": (1, 1),
               "brightness_shift": (0, 0), "contrast_range": (1, 1), "noise_level": (0, 0), "temporal_crop_range": (1, 1)}
    said = {"rotation_range": "rotation by {} to {} degrees", "zoom_range": "zoom by {} to {}",
            "translation_range": "shift by {} to {} of the frame", "brightness_range": "intensities times {} to {}",
            "brightness_shift": f"plus {{}} to {{}} {unit}", "contrast_range": "contrast times {} to {}",
            "noise_level": f"Gaussian noise of {{}} to {{}} {unit}",
            "temporal_crop_range": "{} to {} of the clip stretched to all of it"}
    parts = ["top-bottom mirroring"] * settings.flip_rows + ["left-right mirroring"] * settings.flip_columns
    parts += [said[key].format(*(f"{value:g}" for value in getattr(settings, key))) for key, plain in neutral.items()
              if tuple(getattr(settings, key)) != plain]
    lines = [f"Training batches were augmented by {listed(parts)}, each with a probability of {settings.transform_prob:g}."
             ] if parts and settings.transform_prob else ["Training batches were not augmented."]
    if settings.temporal_mask_prob:
        lines.append(f"A frame was replaced by the mean of its neighbours with a probability of {settings.temporal_mask_prob:g}.")
    twin = settings.synthetic_low_quality
    if twin:
        lines.append(f"For a share of {twin.share:g} of the good samples of a batch, a degraded twin labelled poor was added "
                     f"(contrast reduced by {twin.contrast_reduction:g}, blur over {twin.blur_kernel} px, noise of "
                     f"{twin.noise_level:g} of white).")
    return " ".join(lines)


def selection_text(source: Source, words: Wording | None) -> str:
    """Which epoch was kept, and what validation chose besides."""
    chosen = {fold: model for fold, model in source.models.items() if model["metric"] != NO_VALIDATION}
    last = [fold for fold in source.models if fold not in chosen]
    lines = []
    if chosen:
        metrics = listed(list(dict.fromkeys(in_words(model["metric"]) for model in chosen.values())))
        epochs = span([model["epoch"] + 1 for model in chosen.values()])
        lines.append(f"The epoch with the best {metrics} was kept (epoch {epochs}).")
    if last:
        lines.append(f"Without validation patients, {'it' if len(source.models) == 1 else folds_text(last)} kept the last epoch.")
    if words and words.chosen:
        plain = [fold for fold, model in source.models.items() if not model.get("calibration")]
        if len(plain) < len(source.models):
            lines.append(words.chosen)
        if plain:
            lines.append(f"Nothing was chosen so for {folds_text(plain)}, where defaults hold.")
    return " ".join(lines)


def span(values: Sequence[int]) -> str:
    return str(min(values)) if min(values) == max(values) else f"{min(values)} to {max(values)}"


# --- testing -----------------------------------------------------------------------------------------------------


def testing_text(source: Source, subset: str, words: Wording | None, computed_on: str) -> str:
    """Whose numbers these are, in words that claim no more than is so."""
    count = len(source.models)
    together = ("All cases were predicted by one model" if count == 1 else
                f"All cases were predicted by the models of all {count} folds together")
    together += f" ({words.fusion})" if words and count > 1 else ""
    absent = [] if source.loaded else [fold for fold in sorted(source.prepared.splits) if fold not in source.models]
    missing = f" The test cases of {folds_text(absent)} were not tested." if absent else ""
    if subset == "test" and source.loaded:
        line = f"One model ({source.loaded}) predicted the test patients of its fold, who had neither trained nor validated it."
    elif subset == "test":
        line = ("The test cases were predicted by a model whose training and validation had not seen them."
                if source.predefined else "Each test case was predicted by the model of its fold, whose training and "
                                          "validation had "
                f"not seen the patient.{missing}")
    elif subset == "validation":
        line = ("These are numbers of validation cases, each predicted by a model whose epoch and thresholds they had chosen: "
                "they "
                "are too good, and no test result.")
    elif subset == EXTERNAL:
        line = f"{together}; their patients had trained none of them."
    else:
        line = (f"{together}; a case of the prepared data, only by the model that had not seen its patient. Whether other "
                "patients "
                "are new to the models is known by the names and images of the cases alone.")
    return " ".join([line, words.decision if words else "", export_text(source, computed_on)]).replace("  ", " ")


def export_text(source: Source, computed_on: str) -> str:
    parity = largest_differences(source)
    proof = (f", whose outputs differed from the network's by at most {max(parity.values()):.1e} of their largest value"
             if parity else "")
    return f"Predictions were computed in ONNX Runtime on {computed_on}, from the exported networks{proof}."


def statistics_text(source: Source) -> str:
    apart = len(source.models) > 1
    lines = ["Scores over the folds are given as mean and standard deviation (n - 1) of the folds' values."] if apart else []
    return " ".join([*lines, "Pooled estimates have 95 % intervals from a percentile bootstrap of 2,000 resamples, in which "
                             "patients, not cases, were drawn with replacement."])


def software_text(source: Source) -> str:
    trained = {name: number for model in source.models.values() for name, number in model.get("packages", {}).items()}
    lines = [f"Networks were trained and exported with {versions_text(trained)}."] if trained else []
    return " ".join(["Data were prepared, networks trained and results computed with FoldScan.", *lines,
                     f"Results were computed with {versions_text(installed(RUNNING))}."])
