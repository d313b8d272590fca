"""Boxes as tables, as COCO's JSON, and as plots of a data set."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from lib.evaluation.plots import Bars, Counts, Dots, Maps, Matrix

SIDES = ("x_min", "y_min", "x_max", "y_max")
MAP_PX = 64  # rows and columns of a map of where boxes lie


def box_rows(classes: Sequence[str], image: str, boxes: np.ndarray, chosen: np.ndarray, scores: np.ndarray | None = None,
             more: dict[str, np.ndarray] | None = None) -> list[dict]:
    """A row per chosen box: image, (frame of several,) structure, (score,) and its sides in native pixels.

    boxes: (frames, classes, 4); chosen, scores and what `more` names: (frames, classes).
    """
    rows = []
    for frame, index in np.argwhere(chosen):
        row = {"image": image, "structure": classes[index]}
        if len(boxes) > 1:
            row["frame"] = int(frame)
        if scores is not None:
            row["score"] = float(scores[frame, index])
        row |= {side: float(value) for side, value in zip(SIDES, boxes[frame, index])}
        rows.append(row | {key: value[frame, index].item() for key, value in (more or {}).items()})
    return rows


def image_name(case) -> str:
    """The name of a case's image file, as tables of boxes have it."""
    return case.files.get("image", case.case).rpartition("/")[2]


def coco_documents(classes: Sequence[str], images: Sequence[dict], predictions: Sequence[dict],
                   truths: Sequence[dict]) -> dict[str, Any]:
    """`predictions.coco.json`, a list of results, and `truth.coco.json`, the data set that they are judged against (with
    no annotations where there is no truth), as pycocotools reads them.

    images: key (what tells rows of one image from those of another), file_name, width, height; predictions, truths: rows
    of `box_rows` with the same key.
    """
    number = {image["key"]: index for index, image in enumerate(images, start=1)}
    category = {name: index for index, name in enumerate(classes, start=1)}

    def entry(row: dict) -> dict:
        x, y, right, bottom = (row[side] for side in SIDES)
        return {"image_id": number[row["key"]], "category_id": category[row["structure"]],
                "bbox": [x, y, right - x, bottom - y]}

    annotations = [{"id": index, **entry(row), "iscrowd": 0,
                    "area": (row["x_max"] - row["x_min"]) * (row["y_max"] - row["y_min"])}
                   for index, row in enumerate(truths, start=1)]
    listed = [{"id": number[image["key"]], **{k: v for k, v in image.items() if k != "key"}} for image in images]
    return {"predictions.coco.json": [{**entry(row), "score": row["score"]} for row in predictions],
            "truth.coco.json": {"images": listed, "annotations": annotations,
                                "categories": [{"id": index, "name": name} for name, index in category.items()]}}


def dataset_plots(task, truths: Sequence[np.ndarray], cases: Sequence) -> list:
    """What the boxes of a data set look like. truths: of every case, (frames, classes, 5); cases: with their geometry."""
    shown = tuple(task.shown(name) for name in task.classes)
    frames = np.concatenate(truths)
    sizes = np.concatenate([np.tile(case.geometry.shape[:0:-1], (len(truth), 1)) for truth, case in zip(truths, cases)])
    there = frames[..., 0] > 0
    boxes = frames[..., 1:] / np.tile(sizes, 2)[:, None]  # shares of columns and rows
    sides = {name: tuple((boxes[there[:, i], i, 2:] - boxes[there[:, i], i, :2]).T * 100) for i, name in enumerate(shown)}
    together = there.T.astype(int) @ there.astype(int)
    return [Bars("structure_frequency", f"Structures in {len(frames)} images", "images", dict(zip(shown, there.sum(axis=0))),
                 len(frames)),
            Counts("boxes_per_image", f"Boxes per image, {len(frames)} images", "boxes", "images", there.sum(axis=1)),
            Dots("box_sizes", "Box sizes", "width (% of the image)", "height (% of the image)", sides, logarithmic=True),
            Maps("box_positions", "Where boxes lie (share of the images that have the structure)",
                 {name: position_map(boxes[there[:, i], i]) for i, name in enumerate(shown)}),
            Matrix("co_occurrence", "Images with both structures", "", "", shown, shown, together)]


def position_map(boxes: np.ndarray) -> np.ndarray:
    """float (MAP_PX, MAP_PX): share of the boxes (n, 4; shares of the frame) that cover each place."""
    places = (np.arange(MAP_PX) + 0.5) / MAP_PX
    across = (places >= boxes[:, [0]]) & (places < boxes[:, [2]])
    down = (places >= boxes[:, [1]]) & (places < boxes[:, [3]])
    return np.einsum("nr,nc->rc", down.astype(float), across.astype(float)) / max(1, len(boxes))
