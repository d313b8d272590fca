"""The landmark task: places to and from heat maps, augmentation, losses, scores and read-outs by hand, absent points."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import ellipe

from lib.data.augmentation import Warp, random_warp
from lib.data.case import Case, Header
from lib.data.store import CaseRecord
from lib.evaluation.agreement import agreement
from lib.evaluation.measurements import make_measurements
from lib.evaluation.points import ellipse_of_diameters, fuse_points, radial_error
from lib.evaluation.calipers import Segment
from lib.imaging.geometry import Fit, Geometry
from lib.imaging.points import draw_points
from lib.networks import check_outputs
from lib.study import Augmentation, Data, Folds, InputError, Window, load_study
from lib.tasks import make_task
from lib.tasks.landmarks import Landmarks, Prediction
from lib.tasks.point_losses import landmark_loss, mean_place, presence_logits, warp_points
from lib.tasks.point_places import presence, read_map
from lib.tasks.point_scores import SUCCESS_MM

CLASSES = ("tip", "root")
NATIVE = (60, 100)  # rows, columns
DIAMETERS = {"ofd": {"kind": "distance", "start": "ofd_1", "stop": "ofd_2"},
             "bpd": {"kind": "distance", "start": "bpd_1", "stop": "bpd_2"},
             "hc": {"kind": "ellipse_circumference_of_diameters", "diameters": ["ofd", "bpd"]}}
HEAD = ("ofd_1", "ofd_2", "bpd_1", "bpd_2")


def landmarks(classes=CLASSES, measurements=None, **keys) -> Landmarks:
    return Landmarks(Data(reader={}, classes=classes, size=keys.pop("size", (64, 64))), measurements or {},
                     keys.pop("calibration", {}), **keys)


def record(spacing=None, grid=(64, 64), native=NATIVE) -> CaseRecord:
    geometry = Geometry((1, *native), spacing, True)
    fit = Fit.of(native, grid, geometry.spacing[1:])
    return CaseRecord(0, "a", "p", geometry, fit, slice(0, 1), slice(0, 1), "", {"image": "images/a.png"})


def truth_of(*points) -> np.ndarray:
    """float32 (1, points, 3) of a place, or None, for each point."""
    return np.array([[[0, 0, 0] if point is None else [*point, 1] for point in points]], np.float32)


def prediction_of(points, mass=None, presence=None, confidence=0.0, reach=(6.0, 6.0)) -> Prediction:
    ones = np.ones((1, len(points)), np.float32)
    given = [ones if values is None else np.array([values], np.float32) for values in (mass, presence)]
    return Prediction(np.array([points], np.float32), *given, confidence, reach, ones)


def gaussian_logits(shares, grid, sigma) -> np.ndarray:
    """Logits (1, points, *grid) whose softmax is a Gaussian about places that are shares of the grid, (1, points, 2)."""
    rows, columns = (np.arange(size) + 0.5 for size in grid)
    x, y = shares[..., 0, None, None] * grid[1], shares[..., 1, None, None] * grid[0]
    return (-((columns - x) ** 2 + (rows[:, None] - y) ** 2) / (2 * sigma ** 2)).astype(np.float32)


# --- targets -------------------------------------------------------------------------------------------------------


def test_native_truth_marks_points_that_are_not_there():
    header = Header("a", "p", {}, Geometry((1, *NATIVE), None, True), 1)
    case = Case(header, np.zeros((1, 1, *NATIVE), np.uint8), {"root": np.array([[np.nan, np.nan]], np.float32),
                                                              "tip": np.array([[3.5, 7]], np.float32)})
    truth = landmarks().native_truth(case)
    assert truth.tolist() == [[[3.5, 7, 1], [0, 0, 0]]] and truth.dtype == np.float32
    assert landmarks().facts(case, truth) == {"x_tip": 3.5, "y_tip": 7.0, "x_root": None, "y_root": None}
    assert landmarks().truth_records(truth, record()) == [
        {"image": "a.png", "tip_x": 3.5, "tip_y": 7.0, "root_x": None, "root_y": None}]


def test_a_point_is_encoded_as_shares_of_the_padded_grid():
    # 60 x 100 into 64 x 64: 38 x 64 pixels, 13 rows of padding above; the first pixel's centre is half a pixel in
    target = landmarks().encode(truth_of((-0.5, -0.5), (49.5, 29.5)), Fit.of(NATIVE, (64, 64)))
    assert target[0, 0] == pytest.approx([0, 13 / 64, 1])
    assert target[0, 1] == pytest.approx([0.5, 0.5, 1])
    assert landmarks().encode(truth_of(None, (1, 1)), Fit.of(NATIVE, (64, 64)))[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("native, grid, spacing", [
    ((60, 100), (64, 64), None), ((100, 60), (64, 96), None), ((128, 128), (128, 128), None),
    ((50, 80), (96, 96), (1, 0.6, 0.2))])
@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.5])
def test_a_heat_map_is_read_to_a_tenth_of_a_pixel(native, grid, spacing, sigma):
    """With padding, oblong pixels and enlargement; `restore_points` and half pixels undo what `encode` did."""
    case, task = record(spacing, grid, native), landmarks(size=grid, sigma_px=sigma)
    rng = np.random.default_rng(0)
    zoom = np.array(case.fit.scaled[::-1]) / native[::-1]
    for _ in range(10):
        low = 3.5 * sigma / zoom  # away from the border, where a Gaussian is whole
        truth = truth_of(*rng.uniform(low, np.array(native[::-1]) - 1 - low, (2, 2)))
        logits = gaussian_logits(task.encode(truth, case.fit)[..., :2], grid, sigma)
        prediction = task.decode({"logits": logits}, case)
        assert np.abs((prediction.places - truth[..., :2]) * zoom).max() < 0.1
        assert (prediction.mass > 0.98).all() and prediction.found.all()
        assert prediction.reach == pytest.approx(tuple(3 * sigma / zoom))


def test_near_a_border_the_place_is_not_drawn_inwards():
    case, task = record(grid=(60, 100)), landmarks(size=(60, 100), sigma_px=3.0)  # as large as the image
    for corner in ((0, 0), (99, 59), (0, 30.4), (50.3, 58)):
        truth = truth_of(corner, corner)
        places = task.decode({"logits": gaussian_logits(task.encode(truth, case.fit)[..., :2], (60, 100), 3.0)}, case).places
        assert np.abs(places - truth[..., :2]).max() <= 0.5


def test_decoded_points_stay_inside_the_image():
    logits = np.zeros((1, 2, 64, 64), np.float32)
    logits[0, 0, 2, 63], logits[0, 1, 63, 0] = 30, 30  # both in the padding
    places = landmarks().decode({"logits": logits}, record()).places[0]
    assert places[0] == pytest.approx([98.65, -0.5], abs=0.2) and places[1] == pytest.approx([0.3, 59.5], abs=0.2)


def test_the_broad_hill_wins_and_the_other_one_does_not_move_it():
    rows, columns = np.mgrid[:64, :64]
    hill = np.exp(-((columns - 20.3) ** 2 + (rows - 40.6) ** 2) / 8)
    other = np.exp(-((columns - 50) ** 2 + (rows - 10) ** 2) / 8)
    share = 0.7 * hill / hill.sum() + 0.2 * other / other.sum()
    share[5, 5] += 0.1  # higher than any pixel of the hills, but alone
    assert share.argmax() == 5 * 64 + 5
    place, mass = read_map(share.astype(np.float32), 2.0)
    assert place == pytest.approx((20.8, 41.1), abs=0.02) and mass == pytest.approx(0.7, abs=0.01)


# --- augmentation --------------------------------------------------------------------------------------------------


def warp_of(matrix, flips=(False, False)) -> Warp:
    return Warp(torch.tensor([matrix], dtype=torch.float32), torch.tensor([flips]), (40, 80))


TARGET = torch.tensor([[[0.25, 0.5, 1], [0, 0, 0]]])
MIRROR = [[-1, 0, 0], [0, 1, 0]]


def test_no_warp_changes_nothing():
    assert warp_points(TARGET, warp_of([[1, 0, 0], [0, 1, 0]]), [0, 1]) == pytest.approx(TARGET.numpy())


def test_a_mirrored_point_is_on_the_other_side_and_may_change_its_name():
    assert landmarks().transform(TARGET, warp_of(MIRROR, (False, True)))[0].tolist() == [[0.75, 0.5, 1], [0, 0, 0]]
    swapping = landmarks(swap={"tip": "root"})
    assert swapping.transform(TARGET, warp_of(MIRROR, (False, True)))[0].tolist() == [[0, 0, 0], [0.75, 0.5, 1]]
    turned = swapping.transform(TARGET, warp_of([[-1, 0, 0], [0, -1, 0]], (True, True)))
    assert turned[0].tolist() == [[0.75, 0.5, 1], [0, 0, 0]]  # two mirrors are a turn: names stay


def test_a_point_that_leaves_the_frame_is_gone():
    closer = [[0.5, 0, 0.2], [0, 0.5, 0]]  # twice as large: what was 0.35..0.85 of the columns is in the frame
    assert warp_points(TARGET, warp_of(closer), [0, 1])[0].tolist() == [[0, 0, 0], [0, 0, 0]]
    inside = warp_points(torch.tensor([[[0.4, 0.5, 1], [0, 0, 0]]]), warp_of(closer), [0, 1])
    assert inside[0, 0].tolist() == pytest.approx([(0.4 - 0.35) / 0.5, 0.5, 1])


@pytest.mark.parametrize("size", [(96, 128), (128, 96)])
def test_a_point_follows_its_dot_in_the_warped_picture(size):
    settings = Augmentation(transform_prob=0.6, rotation_range=(-40, 40), zoom_range=(0.8, 1.2), translation_range=(-0.1, 0.1),
                            flip_columns=True, flip_rows=True)
    rows, columns = np.mgrid[:size[0], :size[1]] + 0.5
    dot = np.exp(-((columns - 50.3) ** 2 + (rows - 40.8) ** 2) / 18).astype(np.float32)
    frames = torch.from_numpy(np.repeat(dot[None, None, None], 20, axis=0))
    targets = torch.tensor([[[50.3 / size[1], 40.8 / size[0], 1]]]).repeat(20, 1, 1)
    warp = random_warp(settings, 20, size, torch.Generator().manual_seed(3), torch.device("cpu"))
    moved, seen = warp_points(targets, warp, [0]).numpy(), warp.frames(frames).numpy()[:, 0, 0]
    assert len(set(map(tuple, warp.flips.tolist()))) == 4 and moved[..., 2].all()
    for (x, y, _), picture in zip(moved[:, 0], seen):
        centre = [(picture * places).sum() / picture.sum() for places in (columns, rows)]
        assert [x * size[1], y * size[0]] == pytest.approx(centre, abs=0.15)


# --- the loss ------------------------------------------------------------------------------------------------------

PARTS = {"heat": 1.0, "place": 10.0, "presence": 2.0}


def test_the_loss_by_hand():
    # All places alike: the cross-entropy of any target is log(64 * 32), the mean place is the middle, the mean of the
    # exponentials is e^2 = e^(logit of presence).
    logits = torch.full((1, 2, 32, 64), 2.0)
    targets = torch.tensor([[[0.5, 0.75, 1], [0, 0, 0]]])
    total, parts = landmark_loss(logits, targets, 2.0, PARTS)
    assert float(parts["heat"]) == pytest.approx(math.log(64 * 32), rel=1e-5)
    assert float(parts["place"]) == pytest.approx(8 / 64, rel=1e-5)  # 8 rows, as a share of 64 columns
    assert float(parts["presence"]) == pytest.approx((math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 2, rel=1e-5)
    assert float(total) == pytest.approx(float(parts["heat"] + 10 * parts["place"] + 2 * parts["presence"]))
    _, without = landmark_loss(logits, targets, 2.0, {"heat": 1.0, "place": 0.0, "presence": 0.0})
    assert list(without) == ["heat"]


def test_heat_is_least_for_the_gaussian_itself_and_then_its_entropy():
    shares, sigma = np.array([[[0.4, 0.6]]]), 3.0
    targets = torch.tensor([[[0.4, 0.6, 1]]], dtype=torch.float32)
    least = {}
    for x in (0.4, 0.38, 0.45):
        logits = torch.from_numpy(gaussian_logits(shares + [x - 0.4, 0], (64, 64), sigma))
        least[x] = float(landmark_loss(logits, targets, sigma, {"heat": 1.0})[0])
    assert least[0.4] == min(least.values()) == pytest.approx(math.log(2 * math.pi * math.e * sigma ** 2), rel=1e-4)
    # of two equal Gaussians d apart, d^2 / (2 sigma^2) more
    assert least[0.45] - least[0.4] == pytest.approx((0.05 * 64) ** 2 / (2 * sigma ** 2), rel=1e-3)


def test_the_mean_place_of_a_gaussian_is_its_middle():
    logits = torch.from_numpy(gaussian_logits(np.array([[[0.4, 0.6]]]), (64, 96), 2.0))
    assert mean_place(logits[0])[0].tolist() == pytest.approx([0.4, 0.6], abs=1e-4)


def test_presence_is_the_same_in_torch_and_numpy():
    logits = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 4 + 100 * torch.eye(2, 3)[..., None, None]
    assert presence(logits.numpy()) == pytest.approx(torch.sigmoid(presence_logits(logits)).numpy(), abs=1e-6)


def test_absent_points_give_no_gradient_to_places_and_no_nan():
    logits = torch.randn(2, 2, 16, 16, requires_grad=True)
    total, _ = landmark_loss(logits, torch.zeros(2, 2, 3), 2.0, {"heat": 1.0, "place": 1.0})
    total.backward()
    assert float(total.detach()) == 0 and float(logits.grad.abs().sum()) == 0
    on_the_spot = torch.zeros(1, 1, 2, 2, requires_grad=True)
    landmark_loss(on_the_spot, torch.tensor([[[0.5, 0.5, 1]]]), 1.0, {"place": 1.0})[0].backward()
    assert torch.isfinite(on_the_spot.grad).all()


def test_learning_finds_a_point_and_its_absence():
    """Maps that are free to be anything, by gradient descent: the point is placed, the other map says that it is absent."""
    logits = torch.zeros(1, 2, 24, 24, requires_grad=True)
    task, targets = landmarks(presence_weight=1.0, size=(24, 24), sigma_px=1.0), torch.tensor([[[0.3, 0.8, 1], [0, 0, 0]]])
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        task.loss({"logits": logits}, targets)[0].backward()
        optimizer.step()
    case = record(grid=(24, 24), native=(24, 24))
    prediction = task.decode({"logits": logits.detach().numpy()}, case)
    assert prediction.places[0, 0] == pytest.approx([0.3 * 24 - 0.5, 0.8 * 24 - 0.5], abs=0.1)
    assert prediction.presence[0, 0] > 0.95 > 0.05 > prediction.presence[0, 1]
    assert prediction.found.tolist() == [[True, False]]


# --- fusing --------------------------------------------------------------------------------------------------------


def test_folds_that_agree_outvote_one_that_does_not():
    voters = [prediction_of([(10, 10), (50, 20)], mass=[0.9, 0.5]), prediction_of([(13, 10), (52, 20)], mass=[0.6, 0.5]),
              prediction_of([(60, 10), (51, 20)], mass=[0.95, 0.5])]
    fused = landmarks().fuse(voters)
    assert fused.places[0, 0] == pytest.approx([(0.9 * 10 + 0.6 * 13) / 1.5, 10])
    assert fused.places[0, 1] == pytest.approx([51, 20])
    assert fused.mass[0] == pytest.approx([1.5 / 3, 0.5]) and fused.agreement[0] == pytest.approx([2 / 3, 1])


def test_fused_presence_is_the_mean_at_the_mean_confidence():
    voters = [prediction_of([(10, 10)], presence=[p], confidence=c) for p, c in ((0.9, 0.3), (0.2, 0.5))]
    fused = landmarks(classes=("tip",), presence_weight=1.0).fuse(voters)
    assert fused.presence[0, 0] == pytest.approx(0.55) and fused.confidence == pytest.approx(0.4) and fused.found.all()


def test_fused_points_of_two_that_differ_are_the_surer_one():
    place, group = fuse_points(np.array([[0, 0], [9, 0]]), np.array([0.4, 0.6]), (5, 5))
    assert place.tolist() == [9, 0] and group.tolist() == [False, True]
    place, group = fuse_points(np.array([[0, 0], [9, 0]]), np.array([0.0, 0.0]), (10, 1))  # nobody is sure: the mean
    assert place.tolist() == [4.5, 0] and group.all()
    assert fuse_points(np.array([[3, 4]]), np.array([0.2]), (1, 1))[0].tolist() == pytest.approx([3, 4])
    with pytest.raises(ValueError, match="finite"):
        fuse_points(np.array([[np.nan, 0]]), np.array([1.0]), (5, 5))


# --- scores --------------------------------------------------------------------------------------------------------


def test_radial_errors_in_oblong_pixels():
    assert radial_error([3, 4], [0, 0]) == 5
    assert radial_error([[3, 4]], [[0, 0]], (0.5, 2)).tolist() == [math.hypot(6, 2)]  # rows of 0.5, columns of 2


def test_scores_of_a_case_by_hand():
    truth = truth_of((10, 10), (40, 20))
    rows = landmarks().score(prediction_of([(13, 14), (40, 21)]), truth, record((1.0, 0.5, 0.75)))
    assert rows["tip", "radial_error_px"] == 5 and rows["root", "radial_error_px"] == 1
    assert rows["all", "radial_error_px"] == 3
    assert rows["tip", "radial_error_mm"] == pytest.approx(math.hypot(3 * 0.75, 4 * 0.5))  # 3.01
    assert rows["all", "radial_error_mm"] == pytest.approx((math.hypot(2.25, 2) + 0.5) / 2)
    assert [rows["tip", f"sdr@{r:g}mm"] for r in SUCCESS_MM] == [0, 0, 0, 1]
    assert [rows["all", f"sdr@{r:g}mm"] for r in SUCCESS_MM] == [0.5, 0.5, 0.5, 1]
    assert ("all", "sdr@1%") not in rows and ("tip", "present") not in rows


def test_without_a_spacing_success_is_of_the_longer_side():
    # 100 px: within 1, 2 and 4 px
    rows = landmarks().score(prediction_of([(10, 11), (40, 23)]), truth_of((10, 10), (40, 20)), record())
    assert [rows["tip", f"sdr@{share}"] for share in ("1%", "2%", "4%")] == [1, 1, 1]
    assert [rows["all", f"sdr@{share}"] for share in ("1%", "2%", "4%")] == [0.5, 0.5, 1]
    assert ("all", "radial_error_mm") not in rows and ("all", "sdr@2mm") not in rows


def test_absent_points_have_no_error_and_missed_ones_no_success():
    task = landmarks(presence_weight=1.0)
    prediction = prediction_of([(10, 10), (40, 20)], presence=[0.1, 0.9], confidence=0.5)
    rows = task.score(prediction, truth_of((10, 11), None), record())
    assert rows["tip", "radial_error_px"] == rows["all", "radial_error_px"] == 1  # it had a place to give
    assert rows["tip", "sdr@2%"] == rows["all", "sdr@2%"] == 0  # but did not give it
    assert math.isnan(rows["root", "radial_error_px"]) and math.isnan(rows["root", "sdr@2%"])
    assert [rows[name, metric] for name in CLASSES for metric in ("present", "present_true")] == [0, 1, 1, 0]


def test_scores_of_a_set_by_hand():
    task, case = landmarks(presence_weight=1.0), record()
    found = [([(10, 13), (0, 0)], [0.9, 0.2], ((10, 10), None)), ([(10, 11), (9, 5)], [0.8, 0.7], ((10, 10), (9, 9)))]
    evidence = [task.evidence(prediction_of(points, presence=scores, confidence=0.5), truth_of(*true), case)
                for points, scores, true in found]
    rows = task.score_set(evidence)
    assert rows["tip", "radial_error_median_px"] == 2 and rows["all", "radial_error_median_px"] == 3  # of 3, 1 and 4
    assert rows["root", "radial_error_p95_px"] == 4 and rows["all", "points"] == 3 and rows["root", "points"] == 1
    assert rows["root", "presence_roc_auc"] == rows["all", "presence_roc_auc"] == 1
    assert math.isnan(rows["tip", "presence_roc_auc"]) and rows["root", "images_with_it"] == 1
    assert ("all", "presence_roc_auc") not in landmarks().score_set(evidence)


def test_the_curve_of_errors():
    task, case = landmarks(), record((1, 0.5, 0.5))
    evidence = [task.evidence(prediction_of([(10, 10 + d), (4, 4)]), truth_of((10, 10), None), case) for d in (4, 2)]
    (curve,) = task.plots(evidence)
    assert list(curve.lines) == ["all points, mean 1.5 mm", "tip, mean 1.5 mm"]
    assert [values.tolist() for values in curve.lines["all points, mean 1.5 mm"]] == [[0, 1, 2], [0, 0.5, 1]]


def test_calibration_is_of_presence_alone():
    task, case = landmarks(presence_weight=1.0), record()
    cases = [(prediction_of([(0, 0), (0, 0)], presence=scores), truth_of((0, 0), None), case)
             for scores in ((0.4, 0.1), (0.35, 0.2))]
    chosen = task.calibrate(lambda: iter(cases))
    assert chosen == {"confidence": pytest.approx(0.275), "cases": 2}
    assert task.with_calibration(chosen).confidence == chosen["confidence"]
    assert task.calibrate(lambda: iter(())) == landmarks().calibrate(lambda: iter(cases)) == {}
    assert landmarks().pooled_calibration([landmarks()]) == {}


def test_frames_are_ranked_by_how_near_their_points_lie():
    task, truth = landmarks(), np.concatenate([truth_of((10, 10), (20, 20)), truth_of((10, 10), None), truth_of(None, None)])
    places = np.array([[(16, 10), (20, 20)], [(10, 10), (0, 0)], [(0, 0), (0, 0)]], np.float32)
    ones = np.ones((3, 2), np.float32)
    prediction = Prediction(places, ones * 0.7, ones, 0.0, (6.0, 6.0), ones)
    assert task.frame_scores(prediction, truth) == pytest.approx([(math.exp(-0.5) + 1) / 2, 1, np.nan], nan_ok=True)
    assert task.frame_scores(prediction, None) == pytest.approx([0.7] * 3)
    assert task.sheet_frames(prediction, truth) is None
    alone = prediction_of([(16, 10), (20, 20)])
    assert task.sheet_frames(alone, truth[:1]) == [("mean error 3.0 px", 0)] and task.sheet_frames(alone, None) is None


def test_rows_are_in_the_layout_of_the_table():
    task = landmarks(presence_weight=1.0)
    prediction = prediction_of([(10.5, 11), (40, 23)], mass=[0.75, 0.5], presence=[0.875, 0.25], confidence=0.5)
    (row,) = task.records(prediction, None, record())
    assert row == {"image": "a.png", "tip_x": 10.5, "tip_y": 11, "root_x": None, "root_y": None, "tip_confidence": 0.75,
                   "root_confidence": 0.5, "tip_presence": 0.875, "root_presence": 0.25, "tip_agreement": 1, "root_agreement": 1}


# --- measurements --------------------------------------------------------------------------------------------------


def head_places(**points):
    return {name: np.array([points.get(name, (np.nan, np.nan))], np.float64) for name in HEAD}


def read(places, spacing=None) -> dict:
    geometry = Geometry((1, 200, 200), spacing, True)
    readings = [measurement(places, geometry) for measurement in make_measurements(DIAMETERS, HEAD, "points")]
    return {metric: value for reading in readings for (_, metric), value in reading.values.items()}


def test_diameters_and_circumference():
    places = head_places(ofd_1=(10, 50), ofd_2=(110, 50), bpd_1=(60, 10), bpd_2=(60, 90))
    found = read(places, (1, 0.3, 0.3))
    assert {"ofd_px": 100, "bpd_px": 80}.items() <= found.items()
    assert found["ofd_mm"] == pytest.approx(30) and found["bpd_mm"] == pytest.approx(24)
    exact = 4 * 50 * ellipe(1 - (40 / 50) ** 2)
    assert found["hc_px"] == pytest.approx(exact, rel=1e-8) and found["hc_mm"] == pytest.approx(0.3 * exact, rel=1e-8)
    # Ramanujan's second approximation, written out: h = (10 / 90)^2
    assert found["hc_px"] == pytest.approx(math.pi * 90 * (1 + 3 / 81 / (10 + math.sqrt(4 - 3 / 81))), rel=1e-12)
    assert "ofd_mm" not in read(places)


def test_a_slanting_distance_in_oblong_pixels():
    places = head_places(ofd_1=(0, 0), ofd_2=(30, 40), bpd_1=(5, 0), bpd_2=(5, 10))
    found = read(places, (1, 0.5, 2.0))  # rows of 0.5 mm, columns of 2
    assert found["ofd_px"] == 50 and found["ofd_mm"] == pytest.approx(math.hypot(60, 20)) and found["bpd_mm"] == 5


def test_only_the_lengths_of_diameters_count():
    level = [Segment(np.array(ends, float)) for ends in (((50, 10), (50, 110)), ((10, 60), (90, 60)))]
    askew = [level[0], Segment(np.array([(10, 75), (90, 75)], float))]
    leaning = [level[0], Segment(50 + 40 * np.array([(-math.cos(0.2), -math.sin(0.2)), (math.cos(0.2), math.sin(0.2))]))]
    lengths = [ellipse_of_diameters(*pair, (0.3, 0.3)).length((0.3, 0.3)) for pair in (level, askew, leaning)]
    assert lengths[1:] == pytest.approx(lengths[:1] * 2, rel=1e-12)
    ellipse = ellipse_of_diameters(*level, (0.5, 2.0))  # 200 mm along the columns, 40 mm along the rows
    assert ellipse.centre.tolist() == [50, 60]
    assert np.abs(ellipse.points - ellipse.centre).max(axis=0) == pytest.approx([40, 50])


def test_a_read_out_without_its_points_is_not_a_number():
    found = read(head_places(ofd_1=(10, 50), ofd_2=(110, 50), bpd_1=(60, 10)), (1, 1, 1))
    assert found["ofd_mm"] == 100 and math.isnan(found["bpd_mm"]) and math.isnan(found["hc_mm"])


def test_of_several_frames_the_longest_counts():
    places = {"a": np.array([(0, 0), (0, 0), (0, 0), (np.nan, 0)]), "b": np.array([(3, 4), (6, 8), (np.nan, np.nan), (90, 0)])}
    (measurement,) = make_measurements({"length": {"kind": "distance", "start": "a", "stop": "b"}}, ("a", "b"), "points")
    values, (mark,) = measurement(places, Geometry((4, 20, 20), (1, 0.5, 0.5)))
    assert values == {("all", "length_px"): 10, ("all", "length_mm"): 5}
    assert mark.frame == 1 and mark.points.tolist() == [[0, 0], [8, 6]] and mark.text == "length 5.0 mm"


def test_measurements_of_prediction_and_truth_are_compared():
    task = landmarks(HEAD, DIAMETERS)
    truth = truth_of((10, 30), (90, 30), (50, 5), (50, 55))
    rows = []
    for number, shift in enumerate((2, 4, -3)):
        places = truth[0, :, :2] + np.array([[0, 0], [shift, 0], [0, 0], [0, 0]])
        scores = task.score(prediction_of(places), truth, record((1, 0.5, 0.5)))
        assert scores["all", "ofd_mm"] == pytest.approx(40 + shift / 2) and scores["all", "ofd_mm_true"] == 40
        rows += [{"study": "s", "run": "r", "fold": 0, "patient": f"p{number}", "case": "c", "class": name, "metric": metric,
                  "value": value} for (name, metric), value in scores.items()]
    found = [(row["metric"], row["value"]) for row in agreement(rows) if row["metric"].startswith("ofd_mm")]
    errors = [value for metric, value in found if metric == "ofd_mm_error"]
    assert errors == pytest.approx([1, 2, -1.5]) and "hc_mm_abs_error" in {row["metric"] for row in agreement(rows)}
    assert dict(found)["ofd_mm_loa_low"] == pytest.approx(0.5 - 1.96 * np.std([1, 2, -1.5], ddof=1))
    assert task.marks(prediction_of(places), record()) and "ofd_mm_abs_error" in task.headline


@pytest.mark.parametrize("options, message", [
    ({"x": {"kind": "thickness", "region": "ofd_1"}}, "measurements.x.kind: found thickness, which reads masks, expected one "
     "that reads points.*: distance, ellipse_circumference_of_diameters"),
    ({"x": {"kind": "distance", "start": "ofd_1", "stop": "nose"}}, "measurements.x.stop: unknown 'nose'"),
    ({"x": {"kind": "distance", "start": "ofd_1", "stop": "ofd_1"}}, "two points"),
    ({"radial_error": DIAMETERS["ofd"]}, "the name of a score"),
    ({"hc": DIAMETERS["hc"], "ofd": DIAMETERS["ofd"]}, "measurements.hc.diameters.*unknown 'bpd'.*known: ofd"),
    ({"ofd": DIAMETERS["ofd"], "hc": {**DIAMETERS["hc"], "diameters": ["ofd", "ofd"]}}, "two different distances")])
def test_mistakes_in_measurements_are_named(options, message):
    with pytest.raises(InputError, match=message):
        landmarks(HEAD, options)


def test_masks_are_not_measured_between_points():
    with pytest.raises(InputError, match="found distance, which reads points, expected one that reads masks.*thickness"):
        make_measurements({"x": DIAMETERS["ofd"]}, HEAD)


# --- keys and notes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys, named", [
    ({"names": {"ear": "Ear"}}, "task.names"), ({"swap": {"tip": "ear"}}, "task.swap.tip"), ({"sigma_px": 0.5}, "task.sigma_px"),
    ({"sigma_px": 9}, "task.sigma_px"), ({"heat_weight": -1}, "task.heat_weight"),
    ({"colours": {"tip": "red"}}, "task.colours.tip"),
    ({"heat_weight": 0, "place_weight": 0}, "learnt from"), ({"tolerance_mm": 1.0}, "tolerance"),
    ({"names": {"tip": "root"}}, "different names")])
def test_keys_that_cannot_be_meant(keys, named):
    with pytest.raises(InputError, match=named):
        landmarks(**keys)


def test_names_that_change_sides_are_pairs():
    assert landmarks(swap={"tip": "root"}).swapped == {"tip": "root", "root": "tip"}
    with pytest.raises(InputError, match="task.swap: .* expected pairs"):
        landmarks(("left", "right", "other"), swap={"left": "right", "right": "other"})
    with pytest.raises(InputError, match="window.mirror.*task.swap"):
        landmarks(swap={"tip": "root"}).check_window(Window(mirror=True))


def facts_of(*rows) -> list[dict]:
    """Per case x of every point of HEAD (y 0), or None."""
    return [{f"{axis}_{name}": x if axis == "x" or x is None else 0.0 for name, x in zip(HEAD, row) for axis in "xy"}
            for row in rows]


def test_names_that_go_by_side_deserve_a_line():
    facts = facts_of(*[(10, 90, 50, 48), (12, 80, 50, 52)] * 5)
    (note,) = landmarks(HEAD).notes([], facts)
    assert note.startswith("ofd_1 lies left of ofd_2 in 10 of 10 images: ") and "task.swap ({ofd_1: ofd_2})" in note
    swapping, either = landmarks(HEAD, swap={"ofd_1": "ofd_2"}), facts_of(*[(10, 90, 50, 48), (80, 12, 50, 52)] * 5)
    assert swapping.notes([], facts) == [] and landmarks(HEAD).notes([], either) == []
    (note,) = swapping.notes([], either)
    assert note.startswith("ofd_1 lies left of ofd_2 in 5 of 10 images only: ")
    assert landmarks(HEAD).notes([], facts[:4]) == []  # too few to say
    (note,) = landmarks(HEAD).notes([], facts_of(*[(90, 10, 50, 48), (90, 10, 48, 50)] * 5))
    assert note.startswith("ofd_2 lies left of ofd_1 in 10 of 10 images: ")
    assert "change places in a mirror" in landmarks(("left hip", "right hip")).notes([], [{"x_left hip": 1, "x_right hip": 1}])[0]


def test_absent_points_deserve_a_line_and_a_stratum():
    facts = facts_of((1, 2, 3, None), (2, 1, 4, 5), (2, 3, 4, None))
    (note,) = landmarks(HEAD).notes([], facts)
    assert note.startswith("of 3 images, no bpd_2 in 2;") and "task.presence_weight" in note
    assert landmarks(HEAD, presence_weight=1.0).notes([], facts) == ["of 3 images, no bpd_2 in 2"]
    task = Landmarks(Data(reader={}, classes=HEAD, folds=Folds(stratify=("bpd_2",))), {}, {})
    assert task.strata(["p", "q", "p"], facts) == {"p": ["bpd_2 absent", "most points"], "q": ["bpd_2 present", "all points"]}


def test_samples_that_lack_a_point_are_a_group_of_their_own():
    targets = np.array([[[0.1, 0.2, 1], [0, 0, 0]], [[0.1, 0.2, 1], [0.3, 0.3, 1]]], np.float32)
    present = landmarks().present(targets)
    assert present.tolist() == [[True, False], [True, True]] and landmarks().groups(present).tolist() == [True, False]


def test_the_shipped_study_is_of_points_that_a_segmentation_network_maps():
    study = load_study("fetal_biometry_landmarks")
    task = make_task(study)
    assert task.classes == HEAD and task.outputs == 4
    check_outputs(study, task)
    assert [m.name for m in task.measuring] == ["ofd", "bpd", "head_circumference"]
    assert study.training.select == "radial_error_px" and task.selectable["radial_error_px"] is False


# --- pictures ------------------------------------------------------------------------------------------------------


def test_pictures_show_points_and_lines():
    task = landmarks(HEAD, DIAMETERS, colours={"ofd_1": "#ff0000"})
    case, truth = record((1, 0.5, 0.5)), truth_of((10, 30), (90, 30), (50, 5), None)
    frames = np.full((1, 1, 64, 64), 100, np.uint8)
    prediction = prediction_of([(20, 40), (90, 30), (50, 5), (50, 55)])
    plain = task.draw(frames, None, None, case, scale=4)[0]
    painted = task.draw(frames, prediction, truth, case, scale=4)[0]
    assert painted.shape == plain.shape == (240, 400, 3)
    assert painted[162, 82].tolist() == pytest.approx([255, 0, 0], abs=40)  # the middle of its cross, at (20.5 * 4, 40.5 * 4)
    assert (np.ptp(plain, axis=2) == 0).all()
    red, green, _ = painted[118:127, 38:47].transpose(2, 0, 1).astype(int)  # the truth's ring around (42, 122)
    assert (red - green).max() > 200 and np.abs(red - green)[3:6, 3:6].max() < 60
    assert len(task.marks(prediction, case)) == 3
    beside = task.side_by_side(frames, prediction, truth, case)
    assert beside.shape[1] > 2.9 * beside.shape[0] * 100 / 60 * 0.5 and np.ptp(beside, axis=2).max() > 100
    assert np.ptp(task.truth_picture(frames, truth, case), axis=2).max() > 100


def test_points_that_are_not_there_are_not_drawn():
    picture = np.full((50, 50, 3), 90, np.uint8)
    drawn = draw_points(picture, np.array([[np.nan, 3]]), ["x"], [(255, 0, 0)])
    assert (drawn == picture).all() and drawn is not picture
    with pytest.raises(ValueError, match="1 points, 2 labels"):
        draw_points(picture, np.array([[1, 3]]), ["x", "y"], [(255, 0, 0)])


def test_plots_of_a_data_set():
    task = landmarks(HEAD, DIAMETERS)
    truths = [truth_of((10, 30), (90, 30), (50, 5), None), truth_of((10, 30), (90, 30), (50, 5), (50, 55))]
    frequency, maps, distances, dots = task.dataset_plots(iter(truths), [record((1, 0.5, 0.5))] * 2)
    assert frequency.values == {"ofd_1": 2, "ofd_2": 2, "bpd_1": 2, "bpd_2": 1} and frequency.whole == 2
    assert np.unravel_index(maps.maps["ofd_1"].argmax(), (64, 64)) == (int(30.5 / 60 * 64), int(10.5 / 100 * 64))
    assert distances.values[0, 1] == pytest.approx(80) and distances.values[2, 3] == pytest.approx(50)
    ofd, bpd = dots.groups["bpd"]
    assert dots.x_label == "ofd (mm)" and ofd.tolist() == [40, 40] and bpd[1] == 25 and math.isnan(bpd[0])
