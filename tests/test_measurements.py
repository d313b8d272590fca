"""Shares, calipers and ellipses against shapes whose lengths are known."""

import numpy as np
import pytest
from scipy.special import ellipe

from lib.evaluation.calipers import Ellipse, surrounding_ellipse, thickest
from lib.evaluation.measurements import make_measurements
from lib.imaging.geometry import Geometry
from lib.study import InputError

CLASSES = ("a", "b")
UNIT = (1, 1)


def block(top, left, height, width, shape=(60, 80)):
    mask = np.zeros(shape, bool)
    mask[top:top + height, left:left + width] = True
    return mask


def oval(a, b, degrees=0.0, centre=(60.0, 80.0), shape=(120, 160), spacing=UNIT):
    """Pixels whose centre lies in an ellipse of semi-axes a (at `degrees` to the rows) and b, in the spacing's unit."""
    rows, columns = ((np.indices(shape).T - centre) * spacing).T
    turn = np.deg2rad(degrees)
    along, across = columns * np.cos(turn) + rows * np.sin(turn), rows * np.cos(turn) - columns * np.sin(turn)
    return (along / a) ** 2 + (across / b) ** 2 <= 1


def perimeter(a, b):
    """Of an ellipse with a >= b, by the complete elliptic integral."""
    return 4 * a * ellipe(1 - (b / a) ** 2)


def geometry(frames=1, spacing_mm=None, shape=(60, 80)):
    return Geometry((frames, *shape), spacing_mm, flat=frames == 1)


def measure(options, masks, geometry):
    (measurement,) = make_measurements({"x": options}, CLASSES)
    reading = measurement(masks, geometry)
    assert {metric for _, metric in reading.values} <= set(measurement.metrics)
    assert {name for name, _ in reading.values} == {measurement.region}
    return reading


def thickness(mask, spacing=UNIT):
    return thickest(mask, spacing).length(UNIT)


# share

def test_share():
    masks = {"a": block(0, 0, 2, 3)[None], "b": block(0, 0, 4, 3)[None]}
    values, marks = measure({"kind": "share", "part": "a", "whole": "b"}, masks, geometry())
    assert values == {("a", "x"): 0.5} and marks == []
    masks["b"][:] = False
    assert np.isnan(measure({"kind": "share", "part": "a", "whole": "b"}, masks, geometry()).values["a", "x"])


# thickness

def test_thickness_of_a_rectangle():
    # 7 rows of 40 pixels: rows 10 to 16 reach from 9.5 to 16.5; all lines are alike, the middle one is shown.
    values, (mark,) = measure({"kind": "thickness", "region": "a"}, {"a": block(10, 20, 7, 40)[None]},
                              geometry(spacing_mm=(1, 0.3, 0.3)))
    assert values == pytest.approx({("a", "x_px"): 7.0, ("a", "x_mm"): 2.1})
    assert sorted(mark.points.tolist()) == [pytest.approx([9.5, 39.5]), pytest.approx([16.5, 39.5])]
    assert (mark.frame, mark.closed, mark.text) == (0, False, "7.0 px, 2.1 mm")
    values, (mark,) = measure({"kind": "thickness", "region": "a"}, {"a": block(10, 20, 7, 40)[None]}, geometry())
    assert values == pytest.approx({("a", "x_px"): 7.0}) and mark.text == "7.0 px"
    assert thickness(block(10, 20, 40, 7)) == pytest.approx(7)


def test_thickness_goes_by_the_long_axis_in_mm():
    # 7 rows of 40 columns: 4 mm wide at 0.1 mm, but 7 mm high at 1 mm: the long axis is upright.
    values, (mark,) = measure({"kind": "thickness", "region": "a"}, {"a": block(10, 20, 7, 40)[None]},
                              geometry(spacing_mm=(5, 1.0, 0.1)))
    assert values == pytest.approx({("a", "x_px"): 40.0, ("a", "x_mm"): 4.0})
    assert sorted(mark.points.tolist()) == [pytest.approx([13, 19.5]), pytest.approx([13, 59.5])]


def test_thickness_in_px_is_of_the_line_in_mm():
    # An oval of 9 x 2 mm at 30 degrees, in pixels of 0.1 x 0.2 mm: across it, 4 mm run cos 30 along the rows' axis and
    # sin 30 along the columns': hypot(4 cos 30 / 0.1, 4 sin 30 / 0.2) = hypot(34.64, 10) px.
    spacing = np.array([0.1, 0.2])
    mask = oval(9, 2, 30, spacing=spacing)
    line = thickest(mask, spacing)
    assert line.length(spacing) == pytest.approx(4, abs=0.1)
    assert line.length(UNIT) == pytest.approx(np.hypot(34.64, 10), abs=1)
    assert (line.points.mean(axis=0) - (60, 80)) * spacing == pytest.approx([0, 0], abs=0.6)


@pytest.mark.parametrize("degrees", [0, 10, 33, 45, 60, 90, 135])
def test_thickness_at_any_angle(degrees):
    # At most half a pixel per side too long: the staircase of the border.
    for half in (4.0, 10.0):
        assert -0.1 <= thickness(oval(50, half, degrees)) - 2 * half <= 1.0


def test_a_gap_ends_the_line():
    # Two bars of 3 rows, 3 apart, joined by a column of 5 pixels at their right ends: the longest line is that column,
    # and what interpolation adds in the two corners where it meets the bars. From bar to bar it would be 9.
    mask = block(20, 10, 3, 30) | block(26, 10, 3, 30) | block(22, 40, 5, 1)
    line = thickest(mask, UNIT)
    assert 5 <= line.length(UNIT) < 6 and line.points[0, 1] == pytest.approx(40, abs=0.5)
    # closed by a column of all 9, it is 9
    assert thickness(mask | block(20, 40, 9, 1)) == pytest.approx(9, abs=0.01)


def test_the_largest_component_of_a_frame_counts():
    speck = block(40, 5, 12, 12)
    assert thickness(block(10, 20, 7, 40) | speck) == pytest.approx(7)
    touching = block(10, 20, 7, 40) | block(17, 60, 1, 1)  # at a corner: it belongs to it
    assert thickest(touching, UNIT).length(UNIT) == pytest.approx(7, abs=0.1)


def test_thickness_is_the_greatest_over_frames():
    masks = {"a": np.stack([block(10, 20, 4, 40), block(10, 20, 9, 30), block(10, 20, 6, 60), block(0, 0, 0, 0)])}
    values, (mark,) = measure({"kind": "thickness", "region": "a"}, masks, geometry(4, (5, 1, 1)))
    assert values["a", "x_px"] == pytest.approx(9) and mark.frame == 1


def test_thickness_of_little_and_of_round_things():
    assert thickness(block(5, 5, 1, 1)) == pytest.approx(1)
    assert thickness(block(5, 5, 1, 9)) == pytest.approx(1)
    assert thickness(block(0, 0, 60, 80)) == pytest.approx(60)  # the whole frame
    # A square has no long axis: it is taken along the rows, so the line is upright.
    line = thickest(block(10, 10, 8, 8), UNIT)
    assert line.length(UNIT) == pytest.approx(8) and line.points[0, 1] == line.points[1, 1]
    assert thickness(oval(20, 20)) == pytest.approx(41, abs=0.1)  # 20 pixels up and down, and the one in the middle


@pytest.mark.parametrize("kind", ["thickness", "ellipse_circumference"])
def test_an_empty_region_has_no_length(kind):
    empty = {"a": np.zeros((2, 60, 80), bool)}
    values, marks = measure({"kind": kind, "region": "a"}, empty, geometry(2, (1, 1, 1)))
    assert list(values) == [("a", "x_px"), ("a", "x_mm")] and np.isnan(list(values.values())).all() and marks == []
    assert list(measure({"kind": kind, "region": "a"}, empty, geometry(2)).values) == [("a", "x_px")]
    assert thickest(empty["a"][0], UNIT) is None and surrounding_ellipse(empty["a"][0], UNIT) is None


# ellipse_circumference

@pytest.mark.parametrize("a, b", [(1, 1), (2, 1), (5, 1), (1, 1.3)])
def test_ramanujan_against_the_elliptic_integral(a, b):
    exact = perimeter(max(a, b), min(a, b))
    assert Ellipse(np.zeros(2), np.diag([a, b])).length(UNIT) == pytest.approx(exact, rel=1e-6)


def test_the_points_of_an_ellipse_lie_on_it():
    points = Ellipse(np.array([5.0, 7.0]), np.diag([3.0, 2.0])).points
    assert points.shape == (64, 2)
    assert (((points - (5, 7)) / (3, 2)) ** 2).sum(axis=1) == pytest.approx(np.ones(64))


@pytest.mark.parametrize("a, b, degrees", [
    (40, 40, 0), (60, 45, 0), (60, 45, 20), (50, 25, 90), (55, 40, 135), (9, 6, 30),
])
def test_circumference_of_drawn_ellipses(a, b, degrees):
    ellipse = surrounding_ellipse(oval(a, b, degrees, centre=(60.3, 79.6)), UNIT)
    assert ellipse.length(UNIT) == pytest.approx(perimeter(a, b), rel=0.005)
    assert ellipse.centre == pytest.approx([60.3, 79.6], abs=0.15)


def test_circumference_in_oblong_pixels():
    # 12 x 9 mm at 25 degrees in pixels of 0.2 x 0.3 mm
    mask = oval(12, 9, 25, shape=(130, 100), centre=(64, 50), spacing=(0.2, 0.3))
    values, (mark,) = measure({"kind": "ellipse_circumference", "region": "b"}, {"b": mask[None]},
                              geometry(1, (1, 0.2, 0.3), mask.shape))
    assert values["b", "x_mm"] == pytest.approx(perimeter(12, 9), rel=0.003)
    assert mark.closed and mark.text == f"{values['b', 'x_px']:.1f} px, {values['b', 'x_mm']:.1f} mm"
    # the same ellipse in px: of its own polygon
    steps = np.diff(mark.points, axis=0, append=mark.points[:1])
    assert values["b", "x_px"] == pytest.approx(np.hypot(*steps.T).sum(), rel=0.002)
    assert np.hypot(*(steps * (0.2, 0.3)).T).sum() == pytest.approx(values["b", "x_mm"], rel=0.002)


def test_circumference_is_taken_where_the_region_is_largest():
    masks = {"a": np.stack([oval(20, 20), oval(40, 30), oval(35, 30)])}
    values, (mark,) = measure({"kind": "ellipse_circumference", "region": "a"}, masks, geometry(3, shape=(120, 160)))
    assert values["a", "x_px"] == pytest.approx(perimeter(40, 30), rel=0.004) and mark.frame == 1


def damaged(kind):
    head = oval(60, 45, 20)
    rows, columns = np.indices(head.shape)
    row, column, radius = {"bite": (20, 60, 12), "bump": (19, 60, 9), "hole": (65, 90, 15), "speck": (5, 5, 5)}.get(
        kind, (0, 0, 0))
    disk = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    if kind == "shadow":
        return head & (columns < 128)
    if kind == "out of the frame":
        return head[:, 30:]
    return head & ~disk if kind in ("bite", "hole") else head | disk


@pytest.mark.parametrize("kind", ["bite", "bump", "hole", "speck", "shadow", "out of the frame"])
def test_circumference_hardly_feels_damage(kind):
    mask = damaged(kind)
    assert mask.shape != (120, 160) or (mask != oval(60, 45, 20)).sum() > 30
    assert surrounding_ellipse(mask, UNIT).length(UNIT) == pytest.approx(perimeter(60, 45), rel=0.003)


@pytest.mark.parametrize("mask, a, b", [
    # Too few points, or nothing like an ellipse: second moments. A rectangle of m x n unit squares has the variances
    # m^2 / 12 and n^2 / 12, and an ellipse of semi-axes 2 SD, m / sqrt 3 and n / sqrt 3.
    (block(5, 5, 1, 1), 3 ** -0.5, 3 ** -0.5), (block(0, 0, 60, 80), 80 / 3 ** 0.5, 60 / 3 ** 0.5),
])
def test_circumference_without_a_border_to_fit(mask, a, b):
    assert surrounding_ellipse(mask, UNIT).length(UNIT) == pytest.approx(perimeter(a, b), rel=1e-6)


@pytest.mark.parametrize("height, width", [(1, 2), (1, 30), (2, 2), (3, 3), (2, 40), (50, 70)])
def test_circumference_of_any_rectangle_is_finite(height, width):
    length = surrounding_ellipse(block(5, 5, height, width), UNIT).length(UNIT)
    assert 1.4 * max(height, width) < length < 2.6 * (height + width)


def test_noise_is_measured_without_complaint():
    rng = np.random.default_rng(0)
    for share in (0.02, 0.3, 0.6, 0.98):
        mask = rng.random((40, 50)) < share
        assert 0 < thickness(mask) < 70 and 0 < surrounding_ellipse(mask, UNIT).length(UNIT) < 500


# make_measurements

def test_mistakes_in_the_study_are_named():
    for options, message in [
        ({"kind": "thickness", "region": "c"}, "measurements.x.region: unknown 'c'"),
        ({"kind": "ellipse_circumference", "region": "c"}, "measurements.x.region: unknown 'c'"),
        ({"kind": "share", "part": "a", "whole": "c"}, "measurements.x.whole: unknown 'c'"),
        ({"kind": "thickness"}, "missing key measurements.x.region"),
        ({"kind": "thickness", "region": "a", "axis": 1}, "unknown key measurements.x.axis"),
        ({"kind": "thicknes", "region": "a"}, "did you mean 'thickness'"),
        ({"region": "a"}, "measurements.x: missing key kind"),
    ]:
        with pytest.raises(InputError, match=message):
            make_measurements({"x": options}, CLASSES)


def test_a_measurement_tells_what_it_gives():
    share, caliper, head = make_measurements({
        "share": {"kind": "share", "part": "a", "whole": "b"}, "nt": {"kind": "thickness", "region": "a"},
        "hc": {"kind": "ellipse_circumference", "region": "b"}}, CLASSES)
    assert (share.name, share.region, share.metrics) == ("share", "a", ("share",))
    assert (caliper.region, caliper.metrics) == ("a", ("nt_mm", "nt_px"))
    assert (head.region, head.metrics) == ("b", ("hc_mm", "hc_px"))
