"""Which figures are written and what their axes say; the contact sheet of a photograph and of a volume."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from types import SimpleNamespace

import cv2
import nibabel
import numpy as np
import pytest

from lib.imaging.captions import MARK
from lib.imaging.geometry import Geometry
from lib.imaging.painting import overlay
from lib.reporting import dataset, results
from lib.reporting.heatmaps import MARGIN_PX, WORST_PX, caption, draw_worst, worst_and_best, write_heatmap, write_picture
from lib.reporting.glossary import unit_of
from lib.reporting.results import draw_results, pairs_of
from lib.reporting.style import pyplot
from lib.tasks.base import Task
from lib.workspace import write_table


@pytest.fixture
def drawn(monkeypatch):
    """{file name: figure} of what would be saved."""
    figures = {}
    for module in (dataset, results):
        monkeypatch.setattr(module, "save", lambda figure, path, *words: figures.__setitem__(path.name, figure))
    yield figures
    pyplot().close("all")


def row(case, name, metric, value, fold=0):
    return {"fold": fold, "patient": case, "case": case, "class": name, "metric": metric, "value": value}


# --- results -----------------------------------------------------------------------------------------------------


def test_a_figure_per_metric_and_one_for_every_truth_beside_it(tmp_path):
    rows = [row("a", "all", "dice", 0.9), row("b", "all", "dice", 0.8, 1),
            row("a", "x", "iou", 0.5),  # nobody asked for it
            row("a", "x", "hd95_mm", math.nan),  # asked for, but there is nothing to draw
            row("a", "x", "volume_ml", 3.0), row("a", "x", "volume_ml_true", 4.0),
            row("a", "x", "nt_thickness_mm", 3.0), row("a", "x", "nt_thickness_mm_true", math.nan),
            row("a", "x", "only_predicted_mm", 3.0),
            row("a", "x", "present", 1.0), row("a", "x", "present_true", 1.0),
            row("a", "x", "odd/name", 1.0), row("a", "x", "odd/name_true", 1.0),
            {"class": "x", "metric": "roc_auc", "value": 0.9, "fold": 0, "case": ""}]
    draw_results(tmp_path / "figures", rows, ("dice", "hd95_mm", "roc_auc", "volume_ml"))
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["dice.png", "odd_name.png", "volume_ml.png"]
    draw_results(tmp_path / "none", [], ("dice",))
    assert not (tmp_path / "none").exists()


def test_the_page_of_the_worst_cases_begins_with_the_worst(tmp_path):
    """Pictures of one grey level each; where a case was judged twice, its lower score counts."""
    rows = [row("good", "all", "iou", 0.9), row("bad", "all", "iou", 0.1), row("undefined", "all", "iou", math.nan),
            row("twice", "all", "iou", 0.8, 0), row("twice", "all", "iou", 0.3, 1), row("bad", "x", "iou", 0.0)]
    for name, grey in {"good": 60, "bad": 120, "undefined": 200, "fold0/twice": 220, "fold1/twice": 180}.items():
        write_picture(tmp_path / "pictures" / f"{name}.png", np.full((50, 100, 3), grey, np.uint8))
    draw_worst(tmp_path, rows, "iou")
    page = cv2.imread(str(tmp_path / "figures" / "worst_cases.png"))
    strip = WORST_PX // 2 + MARGIN_PX
    assert page.shape == (3 * strip, WORST_PX, 3)
    assert [int(page[strip * i + MARGIN_PX + 200, 500, 0]) for i in range(3)] == [120, 180, 60]
    draw_worst(tmp_path, rows, "iou", larger_is_better=False)  # as of an error
    page = cv2.imread(str(tmp_path / "figures" / "worst_cases.png"))
    assert [int(page[strip * i + MARGIN_PX + 200, 500, 0]) for i in range(3)] == [60, 220, 120]
    draw_worst(tmp_path / "none", rows, "iou")
    assert not (tmp_path / "none").exists()


def test_samples_show_every_stratum(tmp_path):
    """Of 100 cases one in ten is rare, and each stratum has as many of the twelve as it has turns."""
    strata = ["rare" if i % 50 == 7 else "few" if i % 10 == 3 else "many" for i in range(100)]
    write_table(tmp_path / "folds.csv", ["patient", "fold", "stratum"],
                [{"patient": f"p{i}", "fold": 0, "stratum": stratum} for i, stratum in enumerate(strata)])
    prepared = SimpleNamespace(folder=tmp_path, cases=[SimpleNamespace(index=i, patient=f"p{i}") for i in range(100)])
    shown = [case.index for case in dataset.spread_cases(prepared)]
    assert shown == sorted(set(shown)) and len(shown) == dataset.SAMPLES
    assert {name: [strata[i] for i in shown].count(name) for name in ("rare", "few", "many")} == {"rare": 2, "few": 5, "many": 5}
    prepared.cases = prepared.cases[:5]
    assert [case.index for case in dataset.spread_cases(prepared)] == [0, 1, 2, 3, 4]


def test_units_come_from_the_name():
    known = {"volume_ml": "mL", "area_mm2": "mm²", "hd95_mm": "mm", "nt_thickness_px": "px", "dice": "", "share": ""}
    assert {name: unit_of(name) for name in known} == known


def test_pairs_need_both_values_and_never_mix_folds():
    rows = [row("a", "x", "d_mm", 1.0), row("a", "x", "d_mm_true", 2.0), row("b", "x", "d_mm", 3.0),
            row("a", "x", "d_mm", 5.0, 1), row("a", "x", "d_mm_true", 6.0, 1), row("b", "y", "d_mm_true", 3.0)]
    pairs = pairs_of(rows, "d_mm")
    assert list(pairs) == ["x"] and [values.tolist() for values in pairs["x"]] == [[1, 5], [2, 6]]


def test_what_the_agreement_figure_shows(drawn, tmp_path):
    rows = []
    for case, predicted, true in (("a", 101.0, 100.0), ("b", 112.0, 110.0), ("c", 120.0, 120.0), ("d", 7.0, math.nan)):
        rows += [row(case, "head", "circumference_mm", predicted), row(case, "head", "circumference_mm_true", true)]
    draw_results(tmp_path, rows, ())
    above, below = drawn["circumference_mm.png"].axes
    assert above.get_title() == "head (n = 3)" and above.get_xlabel() == "true (mm)" and above.get_xlim()[0] > 90
    identity, dots = above.lines
    assert list(identity.get_xdata()) == list(identity.get_ydata()) and list(dots.get_xdata()) == [100, 110, 120]
    assert list(below.lines[0].get_ydata()) == [1, 2, 0] and list(below.lines[0].get_xdata()) == [100.5, 111, 120]
    assert [line.get_ydata()[0] for line in below.lines[1:]] == pytest.approx([1, 1 - 1.96, 1 + 1.96])
    assert below.get_title() == "bias 1.00 mm, limits -0.96 to 2.96"


def test_one_case_of_size_nothing_has_no_limits(drawn, tmp_path):
    draw_results(tmp_path, [row("a", "x", "volume_ml", 0.0), row("a", "x", "volume_ml_true", 0.0)], ())
    assert drawn["volume_ml.png"].axes[1].get_title() == "bias 0.00 mL"


def test_cases_predicted_by_all_folds_have_no_fold(drawn, tmp_path):
    draw_results(tmp_path, [row("a", "x", "dice", 0.5, ""), row("b", "x", "dice", 0.7, 2)], ("dice",))
    ticks = drawn["dice.png"].axes[0].get_xticklabels()
    assert [text.get_text() for text in ticks] == ["2\nn=1", "fused\nn=1", "all\nn=2"]


def test_figures_as_vectors_and_as_pdf(tmp_path):
    """Text stays text, a line of very many points does not become a path, and the same figure is the same file."""
    from lib.reporting.style import MANY, collecting, save, with_pdf
    for name in ("a", "b"):
        figure, axes = pyplot().subplots(1, 2)
        axes[0].plot(range(MANY), "o")
        axes[0].set_title(r"cost \$ of lines")
        axes[1].plot(range(MANY + 1), "o")
        with collecting() as drawn, with_pdf(True):
            save(figure, tmp_path / f"{name}.png")
        assert [(one.name, one.title) for one in drawn] == [(name, "cost $ of lines")]
        assert "cost $ of lines</text>" in drawn[0].svg and drawn[0].svg.count("<image") == 1
        (tmp_path / f"{name}.svg").write_text(drawn[0].svg)
    assert (tmp_path / "a.svg").read_text() == (tmp_path / "b.svg").read_text()
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    with with_pdf(False):
        save(pyplot().subplots()[0], tmp_path / "c.png")
    assert len(drawn) == 1 and not (tmp_path / "c.pdf").exists()


def test_same_figure_same_bytes(tmp_path):
    rows = [row(str(n), "x", "dice", n / 20, n % 3) for n in range(20)]
    for name in ("a", "b"):
        draw_results(tmp_path / name, rows, ("dice",))
    assert (tmp_path / "a" / "dice.png").read_bytes() == (tmp_path / "b" / "dice.png").read_bytes()


# --- the data set ------------------------------------------------------------------------------------------------


def prepared(folder, geometries, sizes, folds=("0", "1"), dtype=np.uint8, intensity="none"):
    """What the figures need of a prepared folder; sizes: per case, of the classes bone and gap."""
    tables = {"cases.csv": [["case", "size_bone", "size_gap"], *([f"c{i}", *s] for i, s in enumerate(sizes))],
              "folds.csv": [["patient", "fold", "stratum"], *([f"p{i}", f, "bone small"] for i, f in enumerate(folds))]}
    for name, rows in tables.items():
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return SimpleNamespace(
        folder=folder, cases=[SimpleNamespace(case=f"c{i}", geometry=g) for i, g in enumerate(geometries)],
        frames=(np.arange(len(geometries) * 64).reshape(-1, 1, 8, 8) % 256).astype(dtype),
        manifest={"channels": ["ultrasound"], "study": {"data": {"classes": ["bone", "gap"], "intensity": intensity}}})


@pytest.mark.parametrize("geometry, label", [
    (Geometry((9, 8, 8), (5, 1, 1)), "volume (mL), where present"),
    (Geometry((9, 8, 8), None), "volume (px), where present"),
    (Geometry((1, 8, 8), (1, 1, 1), True), "area (mm²), where present"),
    (Geometry((1, 8, 8), None, True), "area (px), where present")])
def test_sizes_are_named_by_the_geometry(drawn, tmp_path, geometry, label):
    dataset.draw_classes(prepared(tmp_path, [geometry] * 3, [(1.5, 0), (2, 0), (0, 0)]), tmp_path / "classes.png")
    left, right = drawn["classes.png"].axes
    assert [bar.get_height() for bar in left.patches] == [2, 0]
    assert right.get_ylabel() == label and right.get_yscale() == "log"


def test_empty_masks_and_mixed_units(drawn, tmp_path):
    flat = Geometry((1, 8, 8), None, True)
    dataset.draw_classes(prepared(tmp_path, [flat], [(0, 0)]), tmp_path / "classes.png")
    assert drawn["classes.png"].axes[1].get_yscale() == "linear"  # a log axis without a value has no ticks
    mixed = [Geometry((1, 8, 8), (1, 1, 1), True), flat, flat]
    dataset.draw_classes(prepared(tmp_path, mixed, [(1, 1), (20, 0), (30, 0)]), tmp_path / "classes.png")
    left, right = drawn["classes.png"].axes
    assert [bar.get_height() for bar in left.patches] == [3, 1]
    assert [sorted(line.get_ydata()) for line in right.lines] == [[20, 30], []]
    assert right.get_ylabel().startswith("area (px)") and "1 cases in another unit" in right.get_title()


def test_photographs_without_a_pixel_size(drawn, tmp_path):
    shapes = [Geometry((1, 60, 80), None, True), Geometry((1, 60, 80), None, True), Geometry((1, 50, 70), None, True)]
    dataset.draw_scans(prepared(tmp_path, shapes, []), tmp_path / "scans.png")
    left, middle, right = drawn["scans.png"].axes
    assert left.get_xlabel() == "stored value" and left.get_ylabel() == "pixels"
    assert middle.get_title() == "columns x rows"
    assert [text.get_text() for text in middle.get_yticklabels()] == ["70 x 50", "80 x 60"]
    assert [text.get_text() for text in right.texts] == ["no pixel size known"]


def test_histograms_of_colours_have_their_colours(drawn, tmp_path):
    photographs = prepared(tmp_path, [Geometry((1, 8, 8), None, True)] * 2, [])
    photographs.frames = np.repeat(photographs.frames, 3, axis=1)
    photographs.manifest["channels"] = ["blue", "red", "green"]
    dataset.draw_scans(photographs, tmp_path / "scans.png")
    names, lines = drawn["scans.png"].axes[0].get_legend_handles_labels()[::-1]
    colours = {name: line.get_edgecolor()[:3] for name, line in zip(names, lines)}
    assert list(colours) == ["blue", "red", "green"]
    for index, name in enumerate(("red", "green", "blue")):
        assert int(np.argmax(colours[name])) == index


def test_photographs_with_pixel_sizes_and_many_shapes(drawn, tmp_path):
    many = [Geometry((1, 60 + n, 80), (1, 0.1 + n / 100, 0.1 + n / 100), True) for n in range(13)]
    dataset.draw_scans(prepared(tmp_path, [*many, Geometry((1, 9, 9), None, True)], []), tmp_path / "scans.png")
    _, middle, right = drawn["scans.png"].axes
    assert middle.get_xlabel() == "columns" and len(middle.lines[0].get_xdata()) == 14
    assert sum(bar.get_height() for bar in right.patches) == 13 and "1 cases unknown" in right.get_title()


def test_volumes(drawn, tmp_path):
    scans = [Geometry((20, 60, 80), (5, 0.9, 0.8)), Geometry((22, 60, 80), (4, 0.9, 0.8))]
    dataset.draw_scans(prepared(tmp_path, scans, [], dtype=np.float16, intensity="zscore"), tmp_path / "scans.png")
    left, middle, right = drawn["scans.png"].axes
    assert left.get_xlabel() == "stored value (z-score)" and left.get_ylabel() == "voxels"
    assert [text.get_text() for text in middle.get_yticklabels()] == ["80 x 60 x 20", "80 x 60 x 22"]
    assert right.get_ylabel() == "frame distance (mm)" and list(right.lines[0].get_ydata()) == [5, 4]


def test_patients_whom_no_fold_tests(drawn, tmp_path):
    folds = ["", "0", "", "1", "10", "2"]
    dataset.draw_folds(prepared(tmp_path, [], [], folds), tmp_path / "folds.png")
    axis, = drawn["folds.png"].axes
    assert [text.get_text() for text in axis.get_xticklabels()] == ["0", "1", "2", "10", "no fold"]
    assert [bar.get_height() for bar in axis.patches] == [1, 1, 1, 1, 2]


# --- pictures of cases -------------------------------------------------------------------------------------------


@dataclass
class Mark:
    frame: int
    points: np.ndarray
    closed: bool = False
    text: str = "1.2 mm"


class Drawer(Task):
    """A stand-in that draws what it is given; scores: per frame."""

    def __init__(self, scores, marks=()):
        super().__init__(None, {}, {})
        for name, value in {"scores": np.array(scores, float), "found": list(marks), "plain": [0]}.items():
            object.__setattr__(self, name, value)  # tasks are frozen

    def draw(self, frames, prediction, truth, case, chosen=None, scale=1):
        chosen = list(range(len(frames)) if chosen is None else chosen)
        self.plain[0] += prediction is None
        return overlay(frames[chosen], {} if prediction is None else {"x": prediction[chosen]}, {}, scale=scale)

    def marks(self, prediction, case):
        return self.found

    def frame_scores(self, prediction, truth):
        return self.scores


def picture_of(path) -> np.ndarray:
    return cv2.imread(str(path))[..., ::-1]


def yellow(picture) -> np.ndarray:
    return np.abs(picture.astype(int) - MARK).sum(axis=2) < 60


def test_a_photograph_is_one_column_without_a_nifti(tmp_path):
    frames = np.full((1, 540, 800), 100, np.uint8)
    mask = np.zeros(frames.shape, bool)
    mask[0, 200:300, 300:500] = True
    case = SimpleNamespace(case="d10", geometry=Geometry((1, 540, 800), None, True, {"format": "image"}))
    task = Drawer([0.9], [Mark(0, np.array([[199.5, 400], [299.5, 400]]))])
    write_heatmap(tmp_path / "heatmaps", task, frames, mask, mask, case)
    assert [p.name for p in (tmp_path / "heatmaps").iterdir()] == ["d10.png"] and task.plain == [1]
    picture = picture_of(tmp_path / "heatmaps" / "d10.png")
    assert 700 <= picture.shape[1] <= 730 and 2 * 486 <= picture.shape[0] <= 2 * 486 + 40  # 0.9 of its size, two panels
    rows = np.flatnonzero(yellow(picture).any(axis=1))
    assert rows[0] > 500 and rows[-1] - rows[0] == pytest.approx(90, abs=3)  # on the lower panel, 100 pixels long
    assert caption("score", 0, task.scores) == "score 0.90"
    assert caption("no region", 0, np.array([np.nan])) == "no region"


def test_a_volume_keeps_its_nifti_and_its_worst_and_best_frames(tmp_path):
    frames = np.full((9, 40, 50), 100, np.uint8)
    source = {"shape": [50, 40, 9], "affine": np.diag([1.0, 1, 5, 1]).tolist(), "orientation": [[0, 1], [1, 1], [2, 1]]}
    case = SimpleNamespace(case="p1", geometry=Geometry((9, 40, 50), (5, 1, 1), False, source, 2))
    task = Drawer([np.nan, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], [Mark(3, np.array([[10.0, 10], [10, 30]])),
                                                                     Mark(4, np.array([[10.0, 10], [10, 30]]))])
    write_heatmap(tmp_path, task, frames, frames > 200, None, case)
    assert nibabel.load(tmp_path / "p1.nii.gz").shape == (50, 40, 9)
    picture = picture_of(tmp_path / "p1.png")
    panel = 50 * 7 + 2
    assert picture.shape[1] == 6 * panel
    columns = {x // panel for x in np.flatnonzero(yellow(picture).any(axis=0))}
    assert columns == {2}  # frame 4 is the third worst; frame 5 is neither among the worst nor the best


def test_worst_and_best_frames():
    assert worst_and_best(np.array([0.5]), ("score", "score")) == [("score", 0)]
    assert worst_and_best(np.array([np.nan] * 5)) == [("no region", 2)]
    assert worst_and_best(np.array([0.3, np.nan, 0.1])) == [("worst", 2), ("best", 0)]


def test_pictures_are_written_whole(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    path = write_picture(tmp_path / "new" / "a.png", picture)
    assert (picture_of(path) == picture).all() and [p.name for p in path.parent.iterdir()] == ["a.png"]
