"""Plug point 2: what does the network say, how is it trained, scored and drawn? A dict from `task.kind` to a class.

A task is a frozen dataclass on lib.tasks.base.Task, whose own fields are its keys in the YAML. This is the face that the
stages use:

    whole_series                     whether a case is one sample, seen through windows of its series, or a sample per frame
    case_metrics                     metrics that a single case has, the main one first
    selectable                       metrics that a best epoch can be chosen by, the main one first -> whether larger is better
    outputs                          units or channels that the network must give; `reads` by which names, and what they mean
    check_channels(channels)         InputError for keys that need a channel that is not there; `check_window(window)`;
                                     `check_selection(metric, targets)` for validation cases that no epoch could be chosen by
    targets_shape(samples, size)     shape of targets.npy; `targets_dtype`
    native_truth(case)               truth on the native grid, as it is stored and scored
    encode(truth, fit)               rows of targets.npy
    contradiction(fact, other)       what is wrong if both are facts of the very same images
    facts(case, truth)               columns of cases.csv; `notes(headers, facts)` what they tell the user,
                                     `present_in(facts)` which classes each case has
    strata(patients, facts)          labels by which patients are dealt into folds; `check_splits(rows, facts)` InputError for
                                     a fold that nobody could learn from, and notes
    truth_records(truth, case)       rows of training_set.csv, where the truth can be told in rows; case: with its files
    dataset_plots(truths, cases)     what script 1 draws of the truth beside class sizes; truths are read as they are asked for
    truth_bytes(shape)               room that the packed truth of a case takes, about
    transform(targets, warp)         targets under the batch's geometric augmentation
    present(targets)                 which classes the targets hold; `groups(present)` a value per sample: the balanced sampler
                                     draws as many of each
    low_quality(targets)             which samples may be degraded, and the targets of their twins
    loss(outputs, targets)           one scalar and its named parts; the same in training and validation
    gathered(outputs)                outputs of a case's samples from those of its windows
    decode(outputs, case)            network outputs of a whole case (of each of its windows) -> prediction on the native grid
    fuse(predictions)                several predictions of one case -> one
    volume(prediction)               what is saved per pixel, if anything; `agreement(predictions)` how far the folds agree
    records(prediction, truth, case)  rows of predictions.csv, where a prediction can be told in rows; `documents(images,
                                     predictions, truths)` the same in JSON: file name -> content; `mistakes(records)` those
                                     that are wrong, the surest first
    score(prediction, truth, case)   {(class, metric): value} of one case
    measure(prediction, case)        the read-outs of a case without truth
    evidence(prediction, truth, case)  the little that calibrate and score_set need of one case
    set_metrics(evidence)            numbers that need the whole set: a function of weights, how often each piece of evidence
                                     counts, that gives {(class, metric): values}; `set_facts(evidence)` thresholds and counts,
                                     which have no interval. `score_set` and `intervals` are made of both
    rankings(evidence)               scores of cases and which of them are positive, of each metric that is a plain ROC AUC
    plots(evidence)                  figures of the whole set, the ROC of `rankings` among them; `tables(evidence)` further
                                     tables
    calibrate(...)                   thresholds from validation; `with_calibration` gives the task that uses them
    pooled_calibration(tasks)        that of several models together
    worksheet(scores)                scores of a case or an epoch by the titles of a worksheet's columns
    headline, figures                metrics (or METRIC/CLASS) that are printed, and drawn, first
    draw(frames, prediction, truth, case)     the picture of every frame; `marks` are its calipers and ellipses
    side_by_side(frames, prediction, truth, case)     image, truth and prediction of one frame, `shown_frame(prediction, truth)`;
                                     `words` what a picture has to say beside its drawing, `drawn` and `drawn_truth` what
                                     is what in it
    truth_picture(frames, truth, case)        the truth alone
    wording                          what a methods section says of the task, in sentences
    frame_scores(prediction, truth)  which frames went best and worst; `sheet_frames` others for the contact sheet, whose file
                                     is called `sheet_name(prediction, case)`; `animated` the frames of a moving picture

Tasks touch no files and no networks, and import torch only inside `loss` and `transform`.
"""

from __future__ import annotations

from lib.study import Study, build, one_of
from lib.tasks.classification import Classification
from lib.tasks.detection import Detection
from lib.tasks.landmarks import Landmarks
from lib.tasks.segmentation import Segmentation

TASKS = {
    "classification": Classification,
    "detection": Detection,
    "landmarks": Landmarks,
    "segmentation": Segmentation,
}


def make_task(study: Study):
    """The task that `task.kind` names, with its keys checked. Raises InputError."""
    options = dict(study.task)
    kind = options.pop("kind", None)
    one_of(kind, tuple(TASKS), "task.kind")
    task = build(TASKS[kind], options, "task", data=study.data, measurements=study.measurements, calibration={},
                 window=study.window, tolerance_mm=study.report.tolerance_mm)
    task.check_window(study.window)
    return task
