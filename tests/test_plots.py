"""Every kind of plot becomes a picture: what its axes say, few and many classes, nothing at all, and the same bytes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.evaluation.plots import Bars, Counts, Curves, Dots, Maps, Matrix
from lib.reporting import plots as drawing
from lib.reporting.plots import DRAW, draw_plots
from lib.reporting.style import COLOURS, figure_path, line_style, pyplot

pytestmark = pytest.mark.filterwarnings("error")

NAN = float("nan")
NINE = ("thalami", "midbrain", "palate", "IT", "CM", "NT", "nasal bone", "nasal tip", "nasal skin")


def every_kind(names) -> list:
    """A plot of each kind, with a class per name."""
    places = np.arange(1, 6)
    return [Curves("curves", "Precision and recall", "recall", "precision",
                   {name: (np.arange(11) / 10, np.linspace(1, i / 20, 11)) for i, name in enumerate(names)}, step=True),
            Bars("bars", "Structures", "images", {name: i for i, name in enumerate(names)}, 20),
            Counts("counts", "Boxes per image", "boxes", "images", np.arange(len(names))),
            Matrix("matrix", "Confusion", "predicted", "true", tuple(names), tuple(names), np.eye(len(names)) * 7),
            Dots("dots", "Sizes", "width (px)", "height (px)", {name: (places, places + 1) for name in names}),
            Dots("log_dots", "Sizes", "width (px)", "height (px)", {n: (places, places * 9) for n in names}, True),
            Maps("maps", "Where boxes lie", {name: np.eye(6, 8) * i for i, name in enumerate(names)})]


@pytest.fixture
def figures(monkeypatch):
    """A function: plots -> their figures, unsaved."""
    def draw(*plots):
        drawn = []
        monkeypatch.setattr(drawing, "save", lambda figure, path, *words: drawn.append(figure) or path)
        draw_plots(Path("unused"), plots)
        return drawn
    yield draw
    pyplot().close("all")


def texts(figure) -> list[str]:
    from matplotlib.text import Text
    return [found.get_text() for found in figure.findobj(Text) if found.get_text()]


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [(), ("good",), NINE, [f"structure number {n}" for n in range(12)],
                                   ["$a$ {b", "_c", "a_very_long_name_without_any_space_in_it", "100 %", "Ä µm²"]],
                         ids=["none", "one", "nine", "twelve", "odd"])
def test_every_kind_is_a_file(tmp_path, names):
    plots, before = every_kind(names), pyplot().get_fignums()
    paths = draw_plots(tmp_path / "figures", plots)
    assert [path.name for path in paths] == [f"{plot.name}.png" for plot in plots]
    assert sorted((tmp_path / "figures").iterdir()) == sorted(paths)
    for path in paths:
        height, width, _ = cv2.imread(str(path)).shape
        assert 150 < height < 2000 and 200 < width < 2000
    assert {type(plot) for plot in plots} == set(DRAW) and pyplot().get_fignums() == before


def test_same_plots_same_bytes(tmp_path):
    first, second = (draw_plots(tmp_path / name, every_kind(NINE[:2])) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_no_plots_no_folder(tmp_path):
    assert draw_plots(tmp_path / "figures", []) == [] and not (tmp_path / "figures").exists()


def test_two_plots_of_one_name_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="two plots are called a_b.png"):
        draw_plots(tmp_path, [Bars("a:b", "", "", {}), Bars("a/b", "", "", {})])


@pytest.mark.parametrize("name, file", [
    ("dice", "dice"), ("nt_thickness_mm", "nt_thickness_mm"), ("odd/name", "odd_name"), ("hd95_mm", "hd95_mm"),
    ("map@0.5", "map_0.5"), ("map@[.5:.95]", "map_.5_.95"), ("a<b>c:d\"e\\f|g?h*i", "a_b_c_d_e_f_g_h_i"),
    ("nasal bone", "nasal bone"), ("a\nb", "a_b"), ("/a/", "a"), ("[]", "figure"), ("", "figure")])
def test_file_names_that_every_system_can_hold(tmp_path, name, file):
    assert figure_path(tmp_path, name) == tmp_path / f"{file}.png"


# --- what is shown -----------------------------------------------------------------------------------------------


EMPTY = [Curves("a", "Title", "x", "y", {}), Curves("a", "Title", "x", "y", {"n": (np.array([]), np.array([]))}),
         Curves("a", "Title", "x", "y", {"n": (np.array([NAN, 1]), np.array([1, NAN]))}, limits=None, diagonal=True),
         Bars("a", "Title", "y", {}), Bars("a", "Title", "y", {"n": NAN}, 3),
         Counts("a", "Title", "x", "y", np.array([])),
         Counts("a", "Title", "x", "y", np.array([NAN])), Matrix("a", "Title", "x", "y", (), (), np.zeros((0, 0))),
         Matrix("a", "Title", "x", "y", ("n",), ("n",), np.array([[NAN]])), Dots("a", "Title", "x", "y", {}),
         Dots("a", "Title", "x", "y", {"n": (np.array([0.0, 1]), np.array([1.0, -1]))}, True), Maps("a", "Title", {}),
         Maps("a", "Title", {"n": np.zeros((3, 4))}), Maps("a", "Title", {"n": np.full((3, 4), NAN)})]


@pytest.mark.parametrize("plot", EMPTY, ids=lambda plot: type(plot).__name__)
def test_a_plot_of_nothing_says_so(figures, tmp_path, plot):
    figure, = figures(plot)
    assert "nothing to show" in texts(figure) and "Title" in texts(figure)
    figure.savefig(tmp_path / "a.png")


def test_curves(figures):
    lines = {"a": (np.array([0, NAN, 0.5, 1]), np.array([1, 1, 0.5, 0.2])),
             "b": (np.array([1, 0.4, 0]), np.array([0.1, 0.6, 1])), "empty": (np.array([]), np.array([]))}
    figure, = figures(Curves("c", "T", "recall", "precision", lines, step=True, diagonal=True))
    axis, = figure.axes
    first, second, diagonal = axis.lines
    assert list(first.get_xdata()) == [0, 0.5, 1] and list(first.get_ydata()) == [1, 0.5, 0.2]
    assert list(second.get_xdata()) == [0, 0.4, 1]  # from the left, or steps would go to the wrong side
    assert first.get_drawstyle() == "steps-pre" and list(diagonal.get_ydata()) == [0, 1]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["a", "b"]
    assert axis.get_xlabel() == "recall" and axis.get_xlim() == pytest.approx((-0.02, 1.02)) and axis.get_aspect() == 1


def test_curves_fit_their_values_where_no_limits_are_given(figures):
    figure, = figures(Curves("c", "T", "epoch", "loss", {"": (np.arange(50), np.arange(50) * 2.0)}, limits=None))
    axis, = figure.axes
    assert axis.get_xlim()[1] > 49 and axis.get_ylim()[1] > 98 and axis.get_legend() is None
    assert axis.lines[0].get_drawstyle() == "default" and axis.lines[0].get_marker() == ""


def test_a_class_keeps_its_colour_when_another_has_nothing(figures):
    points = (np.array([1.0, 2]), np.array([1.0, 2]))
    for kind in (Curves, Dots):
        figure, = figures(kind("c", "T", "x", "y", {"a": ([], []), "b": points}))
        assert figure.axes[0].lines[0].get_color() == COLOURS[1]


def test_a_curve_of_one_point_can_be_seen(figures):
    for step in (False, True):
        figure, = figures(Curves("c", "T", "x", "y", {"a": (np.array([0.5]), np.array([0.5]))}, step=step))
        assert figure.axes[0].lines[0].get_marker() == "o"


def test_no_two_of_twelve_lines_look_alike():
    styles = [tuple(line_style(index).values()) for index in range(12)]
    assert len(set(styles)) == 12 and {dashes for _, dashes in styles[:7]} == {"-"}


def test_bars(figures):
    figure, = figures(Bars("b", "T", "images", {"a": 3, "b": NAN, "c": 12}, 12))
    axis, = figure.axes
    assert [bar.get_height() for bar in axis.patches] == [3, 12] and axis.lines[0].get_ydata()[0] == 12
    assert [text.get_text() for text in axis.texts] == ["3", "12", "undefined", "of 12"]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["a", "b", "c"]  # the class without a value too
    assert axis.get_ylim()[0] == 0 and axis.get_ylim()[1] > 12
    figure, = figures(Bars("b", "T", "AP", {"a": 0.5, "b": 1.0}))
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.50", "1.00"] and not figure.axes[0].lines


def test_bars_of_nothing_but_zeros_and_below_zero(figures):
    zeros, below = figures(Bars("a", "T", "y", {"a": 0, "b": 0}, 0), Bars("b", "T", "y", {"a": -2, "b": 1}))
    assert zeros.axes[0].get_ylim() == (0, 1) and below.axes[0].get_ylim()[0] < -2


def test_long_names_take_lines_and_endless_ones_are_slanted(figures):
    lines, slanted = figures(Bars("a", "T", "y", {"nuchal translucency": 1, "nasal bone": 2}),
                             Bars("b", "T", "y", {"nuchal translucency": 1, "trans-ventricular plane": 2}))
    assert [tick.get_text() for tick in lines.axes[0].get_xticklabels()] == ["nuchal\ntranslucency", "nasal bone"]
    assert lines.axes[0].get_xticklabels()[0].get_rotation() == 0
    assert slanted.axes[0].get_xticklabels()[0].get_rotation() == 40


def test_counts(figures):
    figure, = figures(Counts("c", "T", "boxes", "images", np.array([9, 7, 9, 9, 7])))
    axis, = figure.axes
    assert [bar.get_x() + bar.get_width() / 2 for bar in axis.patches] == pytest.approx([7, 8, 9])
    assert [bar.get_height() for bar in axis.patches] == [2, 0, 3]
    assert [text.get_text() for text in axis.texts] == ["2", "", "3", "n = 5"]


def test_counts_of_a_wide_range_share_bars(figures):
    values = np.arange(-100, 300)
    figure, = figures(Counts("c", "T", "frames", "clips", values))
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert len(heights) == 40 and heights == [10] * 40


def test_matrix(figures):
    values = np.array([[40, 2, NAN], [0, 3, 1]])
    figure, = figures(Matrix("m", "T", "predicted", "true", ("a", "b"), ("a", "b", "other"), values))
    axis, = figure.axes
    written = {text.get_position(): (text.get_text(), text.get_color()) for text in axis.texts}
    assert written == {(0, 0): ("40", "white"), (1, 0): ("2", "black"), (0, 1): ("0", "black"), (1, 1): ("3", "black"),
                       (2, 1): ("1", "black")}
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["a", "b", "other"]
    assert axis.get_xlabel() == "predicted" and axis.get_ylabel() == "true"
    figure, = figures(Matrix("m", "T", "x", "y", ("a",), ("a",), np.array([[0.256]]), False))
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.26"]


def test_a_matrix_of_the_wrong_shape_is_an_error(figures):
    with pytest.raises(ValueError, match="reshape"):
        figures(Matrix("m", "T", "x", "y", ("a",), ("a", "b"), np.zeros((2, 2))))


def test_dots_say_how_many_there_are(figures):
    groups = {"a": (np.array([1, 2, NAN]), np.array([1, 0, 3])), "b": (np.array([4.0]), np.array([5.0])),
              "none": ([], [])}
    plain, logarithmic = figures(Dots("d", "T", "x", "y", groups), Dots("e", "T", "x", "y", groups, True))
    for figure, counts in ((plain, ["a (n = 2)", "b (n = 1)"]), (logarithmic, ["a (n = 1)", "b (n = 1)"])):
        assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == counts
    assert (plain.axes[0].get_xscale(), logarithmic.axes[0].get_yscale()) == ("linear", "log")


def test_ticks_of_logarithmic_axes_are_plain_numbers(figures):
    figure, = figures(Dots("d", "T", "x", "y", {"a": (np.array([0.5, 30]), np.array([1e-3, 1e5]))}, True))
    figure.canvas.draw()
    across, up = ({text.get_text() for text in labels} for labels in
                  (figure.axes[0].get_xticklabels(), figure.axes[0].get_yticklabels()))
    assert {"0.5", "1", "2", "5", "10", "20"} <= across and "10" in up and "20" not in up


def test_maps_have_their_own_scales(figures):
    maps = {"a": np.array([[0, 0.5], [NAN, 0.25]]), "b": np.array([[0.0, 0.0], [0.0, 0.01]]), "none": np.zeros((2, 2))}
    figure, = figures(Maps("m", "T", maps))
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "none"]
    assert [axis.get_xlabel() for axis in figure.axes] == ["up to 0.5", "up to 0.01", ""]
    assert [axis.images[0].get_clim()[1] for axis in figure.axes] == [0.5, 0.01, 1]


@pytest.mark.parametrize("count, columns", [(1, 1), (2, 2), (5, 5), (6, 3), (9, 5), (12, 4)])
def test_maps_fill_their_rows(figures, count, columns):
    figure, = figures(Maps("m", "T", {f"c{n}": np.ones((4, 6)) for n in range(count)}))
    assert figure.axes[0].get_gridspec().ncols == columns


def test_long_titles_take_lines(figures):
    figure, = figures(Curves("c", "word " * 40, "x", "y", {"a": (np.array([0, 1]), np.array([0, 1]))}))
    assert max(len(line) for line in figure.axes[0].get_title().split("\n")) <= 68
