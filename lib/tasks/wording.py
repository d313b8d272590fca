"""What a methods section says of each task, in sentences: its aim, its loss, how outputs become predictions, its scores."""

from __future__ import annotations

from typing import Mapping, NamedTuple, Sequence


class Threshold(NamedTuple):
    """A threshold of one model. name: what it is, after "the"; value; sized: it is of a size, in the unit of the study's sizes;
    default: validation did not choose it."""
    name: str
    value: float
    sized: bool
    default: bool


class Wording(NamedTuple):
    """aim: "to ...". strata: what patients were balanced by when they were dealt into folds. loss: "the sum of ...". balance:
    a sentence on what the balanced sampler draws. decision: sentences; chosen: sentences on how validation chose thresholds,
    empty for nothing; thresholds: those of this task's calibration. fusion: how the answers of several models (or windows)
    became one. scores: sentences on how predictions are judged. measured: what is measured on prediction and truth alike.
    ranked: numbers that rank the models' scores, "" if none does."""
    aim: str
    strata: str
    loss: str
    balance: str
    decision: str
    chosen: str
    thresholds: tuple[Threshold, ...]
    fusion: str
    scores: str
    measured: tuple[str, ...] = ()
    ranked: str = ""


SIDED_BALANCE = "Training drew as many samples that lack one of the {} as samples with all of them, as far as there are both."
# kind of a measurement -> what it is, from its keys
MEASURED = {"share": "share of {part} in {whole}",
            "thickness": "greatest extent of {region} at right angles to its long axis",
            "ellipse_circumference": "circumference of the ellipse around {region}",
            "distance": "distance from {start} to {stop}",
            "ellipse_circumference_of_diameters": "circumference of the ellipse with the diameters {diameters}"}


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def weighted(weights: dict[str, float], classes: Sequence[str]) -> str:
    """", weighted 1 (brain) and 3 (stroke)", or nothing where all count alike."""
    values = {name: weights.get(name, 1.0) for name in classes}
    if len(set(values.values())) == 1:
        return ""
    return ", weighted " + listed([f"{value:g} ({name})" for name, value in values.items()])


def smoothed(share: float) -> str:
    return f", with label smoothing of {share:g}" if share else ""


def measured_words(measurements: Mapping[str, dict]) -> tuple[str, ...]:
    """Of each entry of `measurements:` its name, and in words what it is."""
    words = []
    for name, keys in measurements.items():
        said = {key: listed(value) if isinstance(value, (list, tuple)) else value for key, value in keys.items()}
        words.append(f"{name} ({MEASURED[keys['kind']].format(**said)})")
    return tuple(words)


def tolerance_words(tolerance_mm: float) -> str:
    """How a margin was forgiven (see lib/evaluation/tolerance.py); nothing without one."""
    if not tolerance_mm:
        return ""
    return (f" Normalised Surface Dice is the share of both borders that lies within {tolerance_mm:g} mm of the other one. "
            f"Overlap with a tolerance of {tolerance_mm:g} mm was taken, for each class of a case, with the truth, the truth "
            f"eroded or the truth dilated by {tolerance_mm:g} mm in each frame, whichever gave the best Dice, and so is never "
            "below the plain one.")


def segmentation_thresholds(task) -> tuple[Threshold, ...]:
    """Those of probability, then those of size."""
    chosen = task.calibration.get("threshold", {})
    found = [] if task.exclusive else [Threshold(f"probability threshold of {name}", value, False, name not in chosen)
                                       for name, value in zip(task.classes, task.thresholds)]
    sizes = {name: task.presence_threshold(name) for name in task.presence}
    return (*found, *(Threshold(f"size above which {name} counts as present", size, True, size == task.presence_default)
                      for name, size in sizes.items()))


def segmentation_wording(task) -> Wording:
    regions = listed([task.shown(name) for name in task.classes])
    inside = [f"{name} was cut to what lies inside {task.data.inside[name]}" for name in task.classes if name in task.data.inside]
    kept = [f"of {listed(task.largest)} only the largest connected component was kept"] if task.largest else []
    kept += [f"{listed(task.ellipses)} was replaced by the ellipse fitted to it"] if task.ellipses else []
    cut = [*inside, *kept]
    each = ", each region's inside its parent region" if task.data.inside else ""
    terms = ("cross-entropy and the mean soft Dice loss of the classes" if task.exclusive else
             f"binary cross-entropy and soft Dice loss{each}")
    kind = ("one class per pixel, background among them (softmax)" if task.exclusive else
            "regions that may overlap (sigmoid)" if len(task.classes) > 1 else "by a probability per pixel (sigmoid)")
    chosen = "" if task.exclusive else (
        "The probability thresholds of the regions were chosen on the validation cases: of 0.1, 0.2, ..., 0.9 the nearest to 0.5 "
        "whose mean Dice lay within one standard error of the best, and 0.5 for a region that no validation case had.")
    if task.presence:
        chosen = " ".join([chosen, f"Whether a patient has {listed(task.presence)} was decided by its size; the size above which "
                           "it counts as present had the greatest Youden's index on the validation patients."]).strip()
    decision = ("A pixel was given the most probable class" if task.exclusive else
                "A pixel belonged to a region where its probability was above the model's threshold of that region")
    inner = [name for name in task.classes if name in task.data.inside]
    balance = (f"as many samples with {' or '.join(inner)} as without" if inner else
               "as many samples with a region as without any (where every sample has one: as many with a region that most "
               "samples lack as without)") + ", as far as there are both"
    return Wording(
        aim=f"to segment {regions}, {kind}",
        strata=f"the size of {listed(task.data.folds.stratify or task.classes)}",
        loss=f"the sum of {terms}{weighted(task.weights, task.classes)}{smoothed(task.label_smoothing)}",
        balance=f"Training drew {balance}.",
        decision=f"{decision}{'; ' + '; '.join(cut) if cut else ''}.", chosen=chosen, thresholds=segmentation_thresholds(task),
        fusion="the mean of the models' probabilities" + ("" if task.exclusive else ", cut at the mean of their thresholds"),
        scores="Masks were compared with the truth on the native pixels of each case. Dice, IoU and recall are undefined where "
               "the truth is empty, precision where nothing is predicted, the 95th-percentile Hausdorff distance where either is "
               "empty; undefined values are left out of means, and what is predicted where the truth is empty is counted as "
               "false-positive size. A case's overall score is the mean over its classes." + tolerance_words(task.tolerance_mm),
        measured=(f"the size of {regions}", *measured_words(task.measurements)))


def one_threshold(task, name: str, key: str) -> tuple[Threshold]:
    """Of a task with a single one, its attribute `key`; known as the default by its value, which validation that cannot choose
    gives."""
    value = getattr(task, key)
    return (Threshold(name, value, False, value == getattr(task.with_calibration({}), key)),)


def detection_wording(task, network: Mapping) -> Wording:
    heat = network.get("head", "heatmap") == "heatmap"  # a network without maps has no loss of them
    parts = {"binary cross-entropy of presence": task.presence_weight, "complete IoU loss": task.overlap_weight,
             "absolute differences of the sides": task.side_weight,
             "cross-entropy of the map of centres": task.heat_weight if heat else 0}
    uneven = weighted(task.weights, task.classes)
    return Wording(
        aim=f"to say of {listed([task.shown(name) for name in task.classes])} whether each is in the image, and to draw one box "
            "around it",
        strata="how many of the structures are there" + (f" and the presence of {listed(task.data.folds.stratify)}"
                                                         if task.data.folds.stratify else ""),
        loss="the weighted sum of " + listed([f"{name} ({value:g})" for name, value in parts.items() if value])
             + (f", that of presence{uneven.removeprefix(',')}" if uneven else ""),
        balance=SIDED_BALANCE.format("structures"),
        decision="A box counted where its score was at least the model's threshold.",
        chosen="The score from which a box counts had the greatest F1 over all structures of the validation cases.",
        thresholds=one_threshold(task, "score from which a box counts", "confidence"),
        fusion="weighted boxes fusion: of every structure the boxes that lie together, weighted by their scores; the mean score "
               "of all models",
        scores="Average precision and recall follow COCO's rules (101 recall levels; IoU 0.5, and 0.5 to 0.95 in steps of 0.05). "
               "IoU of a case is 0 for a structure that is there and was missed, and undefined where it is absent; undefined "
               "values are left out of means. Precision, recall and F1 count a box with an IoU of at least 0.5 as right.",
        ranked="average precision and the ROC AUC of presence")


def classification_wording(task) -> Wording:
    kinds = {"focal": f"focal loss (gamma {task.gamma:g}" + (f", alpha {task.alpha:g})" if task.binary else ")")}
    loss = kinds.get(task.criterion, "binary cross-entropy" if task.binary else "cross-entropy")
    positive, names = task.shown(task.classes[1]), [task.shown(name) for name in task.classes]
    return Wording(
        aim=f"to class each {'clip' if task.window.frames > 1 else 'image'} as "
            + (" or ".join(names) if task.binary else f"one of {listed(names)}"),
        strata="the class of most of their cases",
        loss=f"{loss}{weighted(task.weights, task.classes)}{smoothed(task.label_smoothing)}",
        balance="Training drew equally many samples of each class that it had.",
        decision=(f"A case was called {positive} where its probability was above the model's threshold." if task.binary
                  else "A case was given the most probable class."),
        chosen=f"The probability above which a case is called {positive} had the greatest sum of sensitivity and specificity "
               "(Youden's index) on the validation cases." if task.binary else "",
        thresholds=one_threshold(task, f"probability above which a case is called {positive}", "threshold")
                   if task.binary else (),
        fusion="the mean of the models' probabilities" + (", judged at the mean of their thresholds" if task.binary else ""),
        scores=(f"Precision, recall, specificity, ROC and PR curves take {positive} as the positive class." if task.binary else
                "Precision, recall, specificity, F1, ROC and PR curves are of each class against the others; overall ones are "
                "their means over the classes where they are defined.")
               + " A class that no case has leaves its scores undefined, and undefined values are left out of means.",
        ranked="areas under the ROC and the precision-recall curve")


def landmarks_wording(task) -> Wording:
    parts = {f"cross-entropy of the maps against a Gaussian of {task.sigma_px:g} px": task.heat_weight,
             "distance of their mean place": task.place_weight, "binary cross-entropy of presence": task.presence_weight}
    return Wording(
        aim=f"to place {listed([task.shown(name) for name in task.classes])} by a heat map for each point",
        strata="how many of the points are there" + (f" and the presence of {listed(task.data.folds.stratify)}"
                                                     if task.data.folds.stratify else ""),
        loss="the weighted sum of " + listed([f"{name} ({value:g})" for name, value in parts.items() if value]),
        balance=SIDED_BALANCE.format("points"),
        decision="A point lies at the peak of its map, read between the pixels; "
                 + ("it counted as there where its presence was above the model's threshold." if task.judged else
                    "every point was given in every image."),
        chosen="The presence above which a point counts as there had the greatest Youden's index over all points of the "
               "validation cases." if task.judged else "",
        thresholds=one_threshold(task, "presence above which a point counts as there", "confidence") if task.judged else (),
        fusion="of every point the mean of the places that lie together, weighted by how sure each is",
        scores="The radial error is the distance of a predicted point from the true one, on the native image; a point that is "
               "there has an error whether or not it counted as found. A success rate is the share of the points that are there, "
               "were found and lie within a radius. What is undefined is left out of means.",
        measured=measured_words(task.measurements), ranked="the ROC AUC of presence" if task.judged else "")
