"""The detection study end to end: the real scripts on phantom heads, checked with code of the test's own."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import openpyxl
import pandas as pd
import pytest
from conftest import ImageWork, table
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import roc_auc_score

from lib.phantoms.anatomy import make_anatomy_images

IMAGES, WORKBOOK = "Dataset for Fetus Framework", "ObjectDetection.xlsx"
STRUCTURES = ("thalami", "midbrain", "palate", "IT", "CM", "NT", "nasal bone", "nasal tip", "nasal skin")
SIDES = ["x_min", "y_min", "x_max", "y_max"]
ROWS, COLUMNS = SIZE = 64, 96  # no image fills it: each is padded along x
PREPARE = ("-k", 2, "--set", "data.size=[64,96]", "--set", "data.reader.test_folders=[Test]", "-j", 1)
NO_FIGURES = ("--set", "report.figures=false")
# enough for some boxes to be right, and for others to be wrong
KEYS = ("network={name: mobilenet_v2_boxes, width: 16}", "training.select=loss", "training.patience=0",
        "training.average=0", "training.schedule=constant", "augmentation.transform_prob=0",
        "report.validation_pictures=2")
TRAIN = ("-e", 24, "-b", 2, "-lr", 0.01, "--no-amp", "--tracker", "none",
         *(part for key in KEYS for part in ("--set", key)))


class Work(ImageWork):
    run_name = "mobilenet"

    @property
    def external(self) -> set[str]:
        """The images of Test."""
        return {path.stem for path in (self.root / IMAGES / "Test").iterdir()}

    def run(self, script: str, *args, **keys):
        return super().run(script, *args, timeout_s=900, **keys)


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> Work:
    """16 heads, two of them in Test, through all scripts; and an image without a row, and a row without an image."""
    work = Work("fetal_anatomy", tmp_path_factory.mktemp("heads"))
    make_anatomy_images(work.root, 16, size="small")
    cv2.imwrite(str(work.root / IMAGES / "TrainVal" / "plain.png"),
                np.random.default_rng(0).integers(0, 256, (90, 110), np.uint8))
    change_workbook(work.root, lambda sheet: sheet.append(("gone.png", "NT", 5, 6, 20, 30)))
    (work.folder / "prepared.txt").write_text(work.run("1", *PREPARE).stdout)
    work.run("2b", *TRAIN)
    work.run("3")
    work.run("4")
    return work


# --- the test's own reading and arithmetic ---------------------------------------------------------------------------

def change_workbook(root: Path, change) -> None:
    """change(sheet), saved."""
    book = openpyxl.load_workbook(root / WORKBOOK)
    change(book.active)
    book.save(root / WORKBOOK)


def boxes_of(root: Path) -> dict[tuple[str, str], np.ndarray]:
    """(image without suffix, structure) -> x_min, y_min, x_max, y_max of the workbook's rows whose images are there."""
    there = {path.name for path in (root / IMAGES).rglob("*.png")}
    sheet = pd.read_excel(root / WORKBOOK)
    return {(row.fname[:-4], row.structure): np.array([row.w_min, row.h_min, row.w_max, row.h_max], float)
            for row in sheet.itertuples() if row.fname in there}


def pictures_of(root: Path) -> dict[str, np.ndarray]:
    """Image without suffix -> its grey levels."""
    return {path.stem: cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in (root / IMAGES).rglob("*.png")}


def placed(shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """((rows, columns) of the scaled image, (top, left) of its corner in the grid)."""
    zoom = min(ROWS / shape[0], COLUMNS / shape[1])
    scaled = round(shape[0] * zoom), round(shape[1] * zoom)
    return scaled, ((ROWS - scaled[0]) // 2, (COLUMNS - scaled[1]) // 2)


def native(shares: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Centre x, centre y, width, height as shares of the grid (..., 4) -> sides in pixels of an image of `shape`."""
    (rows, columns), (top, left) = placed(shape)
    x, y, width, height = np.moveaxis(np.asarray(shares, float), -1, 0)
    across = [((x + sign * width / 2) * COLUMNS - left) * shape[1] / columns for sign in (-1, 1)]
    down = [((y + sign * height / 2) * ROWS - top) * shape[0] / rows for sign in (-1, 1)]
    return np.stack([across[0], down[0], across[1], down[1]], axis=-1)


def overlap(one, other) -> float:
    """Intersection over union."""
    one, other = (np.asarray(box, float) for box in (one, other))
    width, height = (np.minimum(one, other)[2:] - np.maximum(one, other)[:2]).clip(0)
    shared = width * height
    whole = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - shared
    return shared / whole if shared else 0.0


def predictions_of(folder: Path) -> pd.DataFrame:
    """predictions.csv by image (without suffix) and structure."""
    predicted = pd.read_csv(folder / "predictions.csv")
    return predicted.assign(image=predicted.image.str.removesuffix(".png")).set_index(["image", "structure"])


def by_case(folder: Path, metric: str) -> dict[tuple[str, str], float]:
    """(case, class) -> value."""
    return {(row["case"], row["class"]): float(row["value"] or "nan") for row in table(folder / "results.csv")
            if row["case"] and row["metric"] == metric}


def of_set(folder: Path, fold: str) -> dict[tuple[str, str], float]:
    """(class, metric) -> value of the rows that speak of a whole set, of a fold or ("") of all."""
    return {(row["class"], row["metric"]): float(row["value"] or "nan") for row in table(folder / "results.csv")
            if not row["case"] and row["fold"] == fold}


def splits_of(work: Work) -> dict[int, dict[str, str]]:
    splits = {}
    for row in table(work.prepared / "splits.csv"):
        splits.setdefault(int(row["fold"]), {})[row["patient"]] = row["subset"]
    return splits


def open_model(path: Path) -> tuple[onnxruntime.InferenceSession, dict]:
    """A session and its metadata."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session, {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}


def found_by(path: Path, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a model alone finds in an image: (boxes (9, 4) in its pixels, scores (9,))."""
    (rows, columns), (top, left) = placed(picture.shape)
    frame = np.zeros((1, 1, 1, *SIZE), np.float32)
    frame[..., top:top + rows, left:left + columns] = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)
    logits, shares = open_model(path)[0].run(["presence", "boxes"], {"frames": frame})
    height, width = picture.shape
    boxes = np.clip(native(shares[0], picture.shape), 0, [width, height, width, height])
    return boxes, 1 / (1 + np.exp(-logits[0].astype(float)))


def stem(image: dict) -> str:
    """Of an entry in COCO's `images`: the image without suffix."""
    return Path(image["file_name"]).stem


def coco_scores(folder: Path, images: set[str]) -> dict[tuple[str, str], float]:
    """(class, metric) -> value by pycocotools, of the named images in the written JSON."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(folder / "truth.coco.json")
        judged = COCOeval(truth, truth.loadRes(str(folder / "predictions.coco.json")), "bbox")
        judged.params.imgIds = [i for i, image in truth.imgs.items() if stem(image) in images]
        judged.evaluate()
        judged.accumulate()
    precision, recall = judged.eval["precision"][..., 0, -1], judged.eval["recall"][..., 0, -1]  # all areas, 100 boxes
    rows = {}
    for index, category in enumerate(judged.params.catIds):
        name = truth.cats[category]["name"]
        if (precision[..., index] > -1).all():  # otherwise no image has it
            rows[name, "ap@0.5"] = precision[0, :, index].mean()
            rows[name, "ap@[.5:.95]"] = precision[..., index].mean()
            rows[name, "ar@[.5:.95]"] = recall[:, index].mean()
    for metric in ("ap@0.5", "ap@[.5:.95]", "ar@[.5:.95]"):
        rows["all", f"m{metric}"] = np.mean([value for (_, m), value in rows.items() if m == metric])
    return rows


# --- what script 1 leaves --------------------------------------------------------------------------------------------

def test_targets_are_the_workbooks_boxes(heads):
    truth, pictures = boxes_of(heads.root), pictures_of(heads.root)
    targets = np.load(heads.prepared / "targets.npy")
    cases = [row["case"] for row in table(heads.prepared / "samples.csv")]
    assert targets.dtype == np.float32 and targets.shape == (16, 9, 5) and len(set(cases)) == 16
    for case, rows in zip(cases, targets):
        for name, (present, *shares) in zip(STRUCTURES, rows):
            assert present == ((case, name) in truth)
            if present:
                assert native(shares, pictures[case].shape) == pytest.approx(truth[case, name], abs=1e-3)
            else:
                assert shares == [0, 0, 0, 0]
    assert targets[..., 0].sum() == len(truth) < 16 * 9  # some are absent


def test_frames_are_the_images_scaled_and_padded(heads):
    frames, pictures = np.load(heads.prepared / "frames.npy"), pictures_of(heads.root)
    assert frames.dtype == np.uint8 and frames.shape == (16, 1, *SIZE)
    for row, frame in zip(table(heads.prepared / "samples.csv"), frames[:, 0]):
        picture = pictures[row["case"]]
        (rows, columns), (top, left) = placed(picture.shape)
        scaled = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)
        inside = frame[top:top + rows, left:left + columns]
        assert np.abs(inside.astype(int) - scaled).max() <= 1 and frame.sum() == inside.sum()


def test_the_training_set_lists_the_rows_of_the_images_kept(heads):
    listed = pd.read_csv(heads.prepared / "training_set.csv", keep_default_na=False)
    found = {(row.image.removesuffix(".png"), row.structure): (row.x_min, row.y_min, row.x_max, row.y_max)
             for row in listed.itertuples()}
    assert found == {key: tuple(box) for key, box in boxes_of(heads.root).items()} and len(found) == len(listed)
    assert {row.patient: row.subset for row in listed.itertuples()} == \
        {case: "external" if case in heads.external else "" for case, _ in found}
    said = (heads.folder / "prepared.txt").read_text()
    unused = (heads.prepared / "not_used.csv").read_text()
    assert all(name in text for name in ("plain.png", "gone.png") for text in (said, unused))


def test_images_of_test_folders_never_train(heads):
    cases, tested, splits = set(pictures_of(heads.root)) - {"plain"}, heads.external, splits_of(heads)
    assert set(splits) == {0, 1} and len(tested) == 2
    for subsets in splits.values():
        assert set(subsets) == cases and {case for case, subset in subsets.items() if subset == "external"} == tested
    held = [{case for case, subset in subsets.items() if subset == "test"} for subsets in splits.values()]
    assert held[0] | held[1] == cases - tested and not held[0] & held[1]
    assert not tested & {row["patient"] for row in table(heads.prepared / "folds.csv") if row["fold"]}


def test_figures_show_what_the_boxes_are_like(heads):
    drawn = {path.stem for path in (heads.prepared / "figures").glob("*.png")}
    assert {"structure_frequency", "boxes_per_image", "box_sizes", "box_positions", "co_occurrence", "samples"} <= drawn


# --- what scripts 2 to 4 leave ---------------------------------------------------------------------------------------

def test_every_image_has_a_box_and_a_score_for_each_structure(heads):
    predicted, pictures, splits = predictions_of(heads.results), pictures_of(heads.root), splits_of(heads)
    held = {case: fold for fold, subsets in splits.items() for case, subset in subsets.items() if subset == "test"}
    written = table(heads.results / "predictions.csv")
    assert list(written[0])[3:10] == ["image", "structure", "score", *SIDES]
    assert {row["image"] for row in written} <= {path.name for path in (heads.root / IMAGES / "TrainVal").iterdir()}
    assert set(predicted.index) == {(case, name) for case in held for name in STRUCTURES} and len(predicted) == 14 * 9
    confidence = {fold: open_model(heads.onnx(fold))[1]["calibration"]["confidence"] for fold in (0, 1)}
    for (case, _), row in predicted.iterrows():
        rows, columns = pictures[case].shape
        assert 0 <= row.x_min <= row.x_max <= columns and 0 <= row.y_min <= row.y_max <= rows and 0 <= row.score <= 1
        assert row.fold == held[case] and row.patient == case and row.agreement == 1
        assert row.present == (row.score >= confidence[held[case]])
    assert 0 < predicted.present.sum() < len(predicted)


def test_average_precision_is_that_of_pycocotools(heads):
    predicted = predictions_of(heads.results)
    for fold in ("0", "1", ""):
        judged = predicted[predicted.fold == int(fold)] if fold else predicted
        expected = coco_scores(heads.results, set(judged.index.get_level_values("image")))
        found = of_set(heads.results, fold)
        assert len(expected) == 3 * 9 + 3 and {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    assert 0 < found["all", "map@[.5:.95]"] < found["all", "map@0.5"] < 1


def test_the_coco_files_hold_the_workbook_and_the_table(heads):
    read = {name: json.loads((heads.results / f"{name}.coco.json").read_text()) for name in ("truth", "predictions")}
    images = {image["id"]: image for image in read["truth"]["images"]}
    names = {category["id"]: category["name"] for category in read["truth"]["categories"]}
    assert tuple(names.values()) == STRUCTURES
    assert all((heads.root / image["file_name"]).is_file() for image in images.values())
    for image in images.values():
        assert (image["height"], image["width"]) == pictures_of(heads.root)[stem(image)].shape

    def sides(entry):
        key = stem(images[entry["image_id"]]), names[entry["category_id"]]
        x, y, width, height = entry["bbox"]
        return key, [x, y, x + width, y + height]

    cases = {stem(image) for image in images.values()}
    expected = {key: list(box) for key, box in boxes_of(heads.root).items() if key[0] in cases}
    assert dict(map(sides, read["truth"]["annotations"])) == expected
    predicted = predictions_of(heads.results)
    for entry in read["predictions"]:
        key, box = sides(entry)
        assert box == pytest.approx(predicted.loc[key, SIDES].to_list())
        assert entry["score"] == pytest.approx(predicted.score[key])
    assert len(read["predictions"]) == len(predicted)


def test_scores_of_a_case_are_those_of_its_boxes(heads):
    predicted, truth = predictions_of(heads.results), boxes_of(heads.root)
    found, errors = by_case(heads.results, "iou"), by_case(heads.results, "centre_error_px")
    for case in predicted.index.unique("image"):
        ious, apart = {}, {}
        for name in STRUCTURES:
            row, box = predicted.loc[case, name], truth.get((case, name))
            ious[name] = np.nan if box is None else overlap(row[SIDES], box) if row.present else 0.0
            apart[name] = np.nan if box is None or not row.present else np.hypot(
                (row.x_min + row.x_max - box[0] - box[2]) / 2, (row.y_min + row.y_max - box[1] - box[3]) / 2)
        ious["all"] = np.nanmean(list(ious.values()))
        apart["all"] = np.nanmean([*apart.values()]) if not np.isnan([*apart.values()]).all() else np.nan
        for name in ious:
            assert found[case, name] == pytest.approx(ious[name], abs=1e-6, nan_ok=True)
            assert errors[case, name] == pytest.approx(apart[name], abs=1e-4, nan_ok=True)


def test_f1_and_presence_are_those_of_the_boxes_that_count(heads):
    predicted, truth, found = predictions_of(heads.results), boxes_of(heads.root), of_set(heads.results, "")
    every = []
    for name in STRUCTURES:
        rows = predicted.xs(name, level="structure")
        there = np.array([(case, name) in truth for case in rows.index])
        hits = [iou for case, row in rows[there & (rows.present == 1)].iterrows()
                if (iou := overlap(row[SIDES], truth[case, name])) >= 0.5]
        every.append((len(hits), rows.present.sum(), there.sum(), hits))
        assert found[name, "presence_roc_auc"] == pytest.approx(roc_auc_score(there, rows.score))
        assert found[name, "presence_sensitivity"] == pytest.approx(rows.present[there].mean())
        assert found[name, "presence_specificity"] == pytest.approx(1 - rows.present[~there].mean())
        assert found[name, "images_with_it"] == there.sum()
    every.append((*np.sum([counts[:3] for counts in every], axis=0), sum((counts[3] for counts in every), [])))
    for name, (hits, said, wanted, ious) in zip((*STRUCTURES, "all"), every):
        assert found[name, "f1"] == pytest.approx(2 * hits / (said + wanted))
        assert found[name, "recall"] == pytest.approx(hits / wanted)
        assert found[name, "precision"] == pytest.approx(hits / said if said else np.nan, nan_ok=True)
        assert found[name, "iou_of_true_positives"] == pytest.approx(np.mean(ious) if ious else np.nan, nan_ok=True)
    assert every[-1][0] > 0


def test_pictures_of_every_image_and_curves_of_the_set(heads):
    for part in (heads.results, heads.results / "external"):
        cases = set(predictions_of(part).index.unique("image"))
        pictures, overlays, figures = ({path.stem for path in (part / folder).iterdir()}
                                       for folder in ("pictures", "heatmaps", "figures"))
        assert pictures == overlays == cases
        assert {"precision_recall", "f1_confidence", "worst_cases", "iou"} <= figures
        sheet = pd.read_excel(part / "results.xlsx")
        assert dict(zip(sheet["case"], sheet["iou"])) == pytest.approx(
            {case: value for (case, name), value in by_case(part, "iou").items() if name == "all"})
    summary = {(row["class"], row["metric"]): row for row in table(heads.results / "summary.csv")}
    assert float(summary["all", "map@0.5"]["estimate"]) == pytest.approx(of_set(heads.results, "")["all", "map@0.5"])
    assert float(summary["all", "map@0.5"]["mean"]) == pytest.approx(
        np.mean([of_set(heads.results, fold)["all", "map@0.5"] for fold in "01"]))


def test_an_onnx_file_is_enough_to_find_the_boxes(heads):
    """Plain ONNX Runtime on the raw images, with what the file says of itself."""
    assert {row["passed"] for row in table(heads.workspace / "onnx" / "mobilenet" / "parity.csv")} == {"yes"}
    pictures, predicted = pictures_of(heads.root), predictions_of(heads.results)
    for fold, subsets in splits_of(heads).items():
        session, meta = open_model(heads.onnx(fold))
        assert tuple(meta["classes"]) == STRUCTURES and meta["fold"] == fold and meta["finished"]
        assert meta["input"]["size"] == list(SIZE)
        assert meta["input"]["layout"] == "batch, frames, channels, rows, columns"
        assert 0 <= meta["calibration"]["confidence"] <= 1
        assert str(heads.folder) not in json.dumps(meta)
        assert {"presence", "boxes"} <= {output.name for output in session.get_outputs()}
        for case in (case for case, subset in subsets.items() if subset == "test"):
            boxes, scores = found_by(heads.onnx(fold), pictures[case])
            expected = predicted.loc[case].loc[list(STRUCTURES)]
            assert np.allclose(boxes, expected[SIDES], atol=1e-3) and np.allclose(scores, expected.score, atol=1e-5)


# --- all folds together ----------------------------------------------------------------------------------------------

def check_fused(work: Work, folder: Path, models: list[Path]) -> set[bool]:
    """Of the boxes of two models: their mean, weighted by scores, if they overlap enough, else that with the higher
    score. Returns which of both occurred."""
    fused, pictures = predictions_of(folder), pictures_of(work.root)
    threshold = np.mean([open_model(path)[1]["calibration"]["confidence"] for path in models])
    assert set(fused.index) == {(case, name) for case in work.external for name in STRUCTURES}
    assert fused.fold.isna().all()
    seen = set()
    for case in work.external:
        found = [part for path in models for part in found_by(path, pictures[case])]
        for name, a, a_score, b, b_score in zip(STRUCTURES, *found):
            row, together = fused.loc[(case, name)], overlap(a, b) > 0.55
            better, mean = a if a_score > b_score else b, (a_score * a + b_score * b) / (a_score + b_score)
            assert row[SIDES].to_numpy(float) == pytest.approx(mean if together else better, abs=1e-3)
            assert row.score == pytest.approx((a_score + b_score) / 2, abs=1e-5)
            assert row.agreement == (1 if together else 0.5) and row.present == (row.score >= threshold)
            seen.add(together)
    return seen


def test_external_boxes_are_those_of_both_folds_fused(heads):
    check_fused(heads, heads.results / "external", [heads.onnx(0), heads.onnx(1)])


def test_boxes_that_lie_together_are_weighted_by_their_scores(heads, tmp_path):
    """As fold 1 the weights of fold 0, but less certain and with wider boxes; those of three structures much wider."""
    work = heads.copy(tmp_path, "prepared")
    changed, other = onnx.load(heads.onnx(0)), onnx.load(heads.onnx(1))
    [bias] = [part for part in changed.graph.initializer if part.name == "core.head.bias"]  # presence, width, height
    shift = np.array([[-2.0, 0.3, 0.1]] * 6 + [[1.0, 3.0, 0.0]] * 3, np.float32)
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + shift, bias.name))
    del changed.metadata_props[:]
    changed.metadata_props.extend(other.metadata_props)
    models = [tmp_path / "models" / f"fold{fold}.onnx" for fold in (0, 1)]
    models[0].parent.mkdir()
    shutil.copy(heads.onnx(0), models[0])
    onnx.save(changed, models[1])
    work.run("4", "--onnx-dir", models[0].parent, "--split", "external", "--no-heatmaps")
    assert check_fused(work, work.results / "external", models) == {True, False}


def test_external_images_are_scored_by_each_model_and_by_all_together(heads):
    heads.run("4", "--load", heads.onnx(1), "--split", "external", "--no-heatmaps")
    alone = heads.results / "load-mobilenet-fold1-external"
    rows = table(heads.results / "external" / "results.csv")
    tested = heads.external
    assert {row["fold"] for row in rows if not row["case"]} == {"", "0", "1"}
    assert {(row["fold"], row["case"]) for row in rows if row["case"]} == {("", case) for case in tested}
    assert not tested & {row["case"] for row in table(heads.results / "results.csv")}
    for fold, folder in {"": heads.results / "external", "1": alone}.items():
        found, expected = of_set(heads.results / "external", fold), coco_scores(folder, tested)
        assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    together = of_set(heads.results / "external", "")
    [estimate] = [row["estimate"] for row in table(heads.results / "external" / "summary.csv")
                  if (row["class"], row["metric"]) == ("all", "map@0.5")]
    assert float(estimate) == pytest.approx(together["all", "map@0.5"])


def test_a_bare_folder_of_images_is_predicted_by_all_folds(heads, tmp_path):
    work = heads.copy(tmp_path, "prepared", "onnx")
    done = work.run("4", "--predict", work.root / IMAGES / "Test")
    assert "2 cases predicted by 2 folds together" in done.stdout and "0 of them scored" in done.stdout
    written = work.results / "predict-Test"
    pd.testing.assert_frame_equal(predictions_of(written), predictions_of(heads.results / "external"))
    assert {row["metric"] for row in table(written / "results.csv")} == {"score", "present"}
    assert json.loads((written / "truth.coco.json").read_text())["annotations"] == []
    assert len(list((written / "pictures").iterdir())) == 2


def test_images_that_trained_are_predicted_only_by_the_fold_that_tests_them(heads, tmp_path):
    """The whole input under another name: two images are those of Test, and one is new to all folds."""
    work = heads.copy(tmp_path, "prepared", "onnx")
    new = tmp_path / "again"
    work.root.rename(new)
    done = work.run("4", "--predict", new, "--no-heatmaps")
    assert "17 cases predicted by 2 folds together" in done.stdout and "14 of them by one fold alone" in done.stdout
    assert "16 of them scored" in done.stdout
    written = work.results / "predict-again"
    predicted = predictions_of(written)
    for folder in (heads.results, heads.results / "external"):
        known = predictions_of(folder)
        pd.testing.assert_frame_equal(predicted.loc[known.index], known, check_dtype=False)
        expected = by_case(folder, "iou")
        assert {key: by_case(written, "iou")[key] for key in expected} == pytest.approx(expected, nan_ok=True)
    assert len(predicted) == 17 * 9 and predicted.loc["plain"].fold.isna().all()
    assert not [key for key in by_case(written, "iou") if key[0] == "plain"]


def test_new_images_whose_boxes_cannot_be_used_are_predicted_and_the_reason_is_said(heads, tmp_path):
    work = heads.copy(tmp_path, "prepared", "onnx")
    shutil.rmtree(work.root / IMAGES / "TrainVal")
    rows = {cell.row: cell.value for cell in openpyxl.load_workbook(work.root / WORKBOOK).active["A"]}
    tested = next(number for number, name in rows.items() if name[:-4] in work.external)

    def upside_down(sheet):
        sheet.cell(tested, 3).value, sheet.cell(tested, 5).value = (sheet.cell(tested, i).value for i in (5, 3))

    change_workbook(work.root, upside_down)
    said = work.run("4", "--predict", work.root, "--no-heatmaps").stdout
    assert re.search(rf"not scored.*{rows[tested][:-4]}.*row {tested}\b.*h_min", said) and "1 of them scored" in said
    change_workbook(work.root, lambda sheet: sheet.delete_cols(2))
    said = work.run("4", "--predict", work.root, "--no-heatmaps").stdout
    assert re.search(r"no truth.*no column 'structure'", said) and "0 of them scored" in said


# --- changed data ----------------------------------------------------------------------------------------------------

def test_a_changed_workbook_is_prepared_again_and_makes_models_stale(heads, tmp_path):
    work = heads.copy(tmp_path, "prepared", "runs", "onnx")
    before = pd.read_excel(work.root / WORKBOOK)
    assert "nothing has changed" in work.run("1", *PREPARE).stdout

    def wider(sheet):
        sheet.cell(2, 6).value += 1  # w_max of the first row

    change_workbook(work.root, wider)
    done = work.run("1", *PREPARE, *NO_FIGURES)
    assert re.search(rf"prepared again.*{before.fname[0][:-4]}", done.stdout)
    refused = work.run("2b", *TRAIN, expect=2)
    assert "stale" in refused.stderr and "--no-resume" in refused.stderr and "Traceback" not in refused.text
    assert "stale" in work.run("4", expect=2).stderr

    first = before[before.fname == before.fname[0]]
    absent = next((name for name in STRUCTURES if name not in set(first.structure)), None)

    def renamed(sheet):
        if absent:
            sheet.cell(2, 2).value = absent
        else:
            sheet.cell(2, 2).value, sheet.cell(3, 2).value = sheet.cell(3, 2).value, sheet.cell(2, 2).value

    change_workbook(work.root, renamed)
    assert "prepared again" in work.run("1", *PREPARE, *NO_FIGURES).stdout
    assert len(table(work.prepared / "training_set.csv")) == len(before) - 1  # all but that of gone.png
    assert "stale" in work.run("2b", *TRAIN, expect=2).stderr


def test_a_structure_under_another_name_is_prepared_again(heads, tmp_path):
    work = heads.copy(tmp_path, "prepared")
    names = {"brain": "thalami", **{name: name for name in STRUCTURES[1:]}}
    done = work.run("1", *PREPARE, *NO_FIGURES, "--set", f"data.classes={json.dumps(names)}")
    assert "prepared again" in done.stdout
    listed = {row["structure"] for row in table(work.prepared / "training_set.csv")}
    assert listed == {"brain", *STRUCTURES[1:]}


# --- bad input -------------------------------------------------------------------------------------------------------

def test_an_image_in_a_test_folder_and_outside_of_it_is_refused(heads, tmp_path):
    work = heads.copy(tmp_path)
    shutil.copy(work.root / IMAGES / "TrainVal" / "fetus001.png", work.root / IMAGES / "Test" / "twin.png")
    change_workbook(work.root, lambda sheet: sheet.append(("twin.png", "NT", 5, 6, 20, 30)))
    refused = work.run("1", *PREPARE, *NO_FIGURES, expect=2)
    assert "fetus001" in refused.stderr and "twin" in refused.stderr and "test_folders" in refused.stderr
    assert not work.prepared.exists() and "Traceback" not in refused.text


def test_bad_rows_stop_preparation_or_leave_their_images_out(heads, tmp_path):
    work = heads.copy(tmp_path)
    bad = {}

    def swapped(sheet):
        for number in (4, 40):
            bad[number] = sheet.cell(number, 1).value[:-4]
            sheet.cell(number, 4).value, sheet.cell(number, 6).value = (sheet.cell(number, i).value for i in (6, 4))

    change_workbook(work.root, swapped)
    refused = work.run("1", *PREPARE, *NO_FIGURES, expect=2)
    for number, case in bad.items():
        assert re.search(rf"{case}.*{WORKBOOK}.*sheet ObjectDetection.*row {number}\b", refused.stderr)
    assert not work.prepared.exists() and "Traceback" not in refused.text
    work.run("1", *PREPARE, *NO_FIGURES, "--skip-bad")
    assert {row["case"] for row in table(work.prepared / "rejected.csv")} == set(bad.values()) and len(bad) == 2
    kept = {row["case"] for row in table(work.prepared / "cases.csv")}
    assert len(kept) == 16 - len(set(bad.values())) and not kept & set(bad.values())


def test_an_unknown_structure_is_refused_with_its_row(heads, tmp_path):
    work = heads.copy(tmp_path)

    def rename(sheet):
        sheet.cell(7, 2).value = "cerebellum"

    change_workbook(work.root, rename)
    refused = work.run("1", *PREPARE, *NO_FIGURES, expect=2)
    assert re.search(r"cerebellum.*row 7\b", refused.stderr, re.S) and "nasal skin" in refused.stderr
    assert not work.prepared.exists() and "Traceback" not in refused.text


def test_what_means_nothing_for_boxes_is_refused(heads, tmp_path):
    work = heads.copy(tmp_path, "prepared", "onnx")
    refused = work.run("2a", *TRAIN, "--set", "training.select=dice", expect=2).stderr
    assert "'dice'" in refused and all(name in refused for name in ("map@0.5", "map@[.5:.95]", "f1", "loss"))
    refused = work.run("2a", "-k", 0, *TRAIN, "--set", "network={name: unet, width: 4}", expect=2)
    assert "network.name: found 'unet', expected one that gives presence and boxes" in refused.stderr
    refused = work.run("4", "--load", "gone.onnx", expect=2)
    assert "gone.onnx: there is no such file" in refused.stderr
    refused = work.run("4", "--tolerance", 1, expect=2)
    assert "tolerance" in refused.stderr and "masks" in refused.stderr and "Traceback" not in refused.text
    assert not (work.workspace / "runs").exists() and not (work.workspace / "results").exists()


# --- other models ----------------------------------------------------------------------------------------------------

def test_the_other_head_trains_alike_twice_and_converts(heads, tmp_path):
    """Selected on one structure: the same command gives the same bytes, and a finished fold is left as it is."""
    work = heads.copy(tmp_path, "prepared")
    keys = ("-k", 1, *TRAIN, "-e", 1, "-b", 4, "--set", "training.select=f1/thalami",
            "--set", "network={name: mobilenet_v2_boxes, head: regression, width: 8}",
            "--set", "augmentation.transform_prob=1")
    best = {}
    for name in ("one", "two"):
        work.run("2a", "-n", name, *keys)
        best[name] = (work.workspace / "runs" / name / "fold1" / "best.pt").read_bytes()
    assert best["one"] == best["two"]
    assert "finished" in work.run("2a", "-n", "one", *keys).stdout
    assert (work.workspace / "runs" / "one" / "fold1" / "best.pt").read_bytes() == best["one"]
    work.run("4", "-n", "one", "--load", work.workspace / "runs" / "one" / "fold1" / "best.pt", "--no-heatmaps")
    found = of_set(work.workspace / "results" / "one" / "load-one-fold1-best", "1")
    assert found["all", "confidence"] >= 0 and ("thalami", "f1") in found
