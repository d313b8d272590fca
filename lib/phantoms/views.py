"""How a part of a fetus gets into a picture: its pose, the view and probe about it, the womb around it.

A part is drawn in its own frame (mm), 0 in its middle; the scene is that of lib.phantoms.ultrasound.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lib.phantoms.nuchal import Pose
from lib.phantoms.stroke import soft
from lib.phantoms.ultrasound import Probe, Tissue, View, ellipse, scan, texture, wander

FLUID_DB = -58.0


@dataclass(frozen=True)
class Subject:
    """What a picture is to show: `outline` (2, n) mm in the subject's own frame stays inside it.

    draw(rng, tissue, own points) paints it; it is turned by up to `turn_deg` either way, fills that share of the
    picture, lies off the middle by up to the share `aside` of the room that is left, and is seen from either side if
    `mirrored`.
    """
    outline: np.ndarray
    draw: Callable[[np.random.Generator, Tissue, np.ndarray], None]
    turn_deg: float
    fills: tuple[float, float]
    aside: float = 0.5
    mirrored: bool = False


def oval(radii: tuple[float, float], count: int = 60) -> np.ndarray:
    """Points of an ellipse about 0, (2, count)."""
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([radii[0] * np.cos(turn), radii[1] * np.sin(turn)])


def scene_points(pose: Pose, own: np.ndarray) -> np.ndarray:
    """Points (2, ...) of a frame that `pose` puts into the scene, in the scene (mm)."""
    x, y = own[0] * pose.signs[0], own[1] * pose.signs[1]
    cos, sin = np.cos(pose.angle), np.sin(pose.angle)
    return np.stack([cos * x - sin * y + pose.x, sin * x + cos * y + pose.y])


def pixel_places(view: View, points: np.ndarray) -> np.ndarray:
    """Points (2, ...) of the scene in pixels x, y of the picture, 0 at the centre of its first pixel."""
    rows, columns = view.shape
    return np.stack([(points[0] - view.x) / view.mm + (columns - 1) / 2, (points[1] - view.y) / view.mm - 0.5])


def frame(rng: np.random.Generator, shape: tuple[int, int], subject: Subject) -> tuple[View, Probe, Pose]:
    """A view of `shape` (rows, columns), a probe and a pose with the subject's outline in the picture and the field."""
    signs = (int(rng.choice((-1, 1))) if subject.mirrored else 1, 1)
    turned = Pose(float(np.deg2rad(rng.uniform(-subject.turn_deg, subject.turn_deg))), signs, 0.0, 0.0)
    x, y = scene_points(turned, subject.outline)
    mm = max(np.ptp(x) / shape[1], np.ptp(y) / shape[0]) / rng.uniform(*subject.fills)
    near = rng.uniform(4, 22)  # mm of the mother above the picture
    spare = np.subtract((shape[1] * mm, shape[0] * mm), (np.ptp(x), np.ptp(y))) * rng.uniform(-0.5, 0.5, 2) * subject.aside
    middle = spare - ((x.max() + x.min()) / 2, (y.max() + y.min()) / 2) + (0, near + shape[0] * mm / 2)
    pose = Pose(turned.angle, signs, float(middle[0]), float(middle[1]))
    radius, reach = rng.uniform(45, 65), near + shape[0] * mm
    x, y = scene_points(pose, subject.outline)
    needed = float(np.abs(np.arctan2(x, y + radius)).max()) + 0.03
    half = float(np.arctan2(0.5 * shape[1] * mm * rng.uniform(0.9, 1.3), radius + 0.5 * reach))
    probe = Probe(0.0, -radius, radius, max(half, needed), reach * rng.uniform(1.02, 1.15))
    return View(shape, mm, 0.0, near), probe, pose


def make_view(rng: np.random.Generator, shape: tuple[int, int], subject: Subject) -> tuple[np.ndarray, View, Pose]:
    """The picture uint8 (rows, columns) of a subject, and where in it the subject lies."""
    view, probe, pose = frame(rng, shape, subject)

    def scene(points: np.ndarray, step_mm: float) -> Tissue:
        tissue = Tissue(points, step_mm, FLUID_DB)
        subject.draw(rng, tissue, pose.own(points))
        return tissue

    pulse_mm = rng.uniform(0.25, 0.35), rng.uniform(0.4, 0.65)
    return scan(rng, view, probe, scene, pulse_mm=pulse_mm, haze_db=rng.uniform(-46, -40), range_db=54,
                gain_spread_db=4), view, pose


def stroke(tissue: Tissue, distance: np.ndarray, level_db: float | np.ndarray, width_mm: float,
           where: np.ndarray | float = 1.0) -> None:
    """A line as of Tissue.line that small pictures cannot lose between two samples."""
    tissue.line(distance, level_db, max(width_mm, 0.45 * tissue.step_mm), where)


def spots(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, within: np.ndarray, count: int,
          radii: tuple[float, float], level_db: float) -> None:
    """Short bright echoes of gyri and vessels, strewn over where `within` (0..1) is."""
    (left, right), (top, bottom) = ((float(axis[within > 0.5].min()), float(axis[within > 0.5].max())) for axis in p)
    for _ in range(count):
        at = rng.uniform(left, right), rng.uniform(top, bottom)
        tissue.blob(p, at, np.multiply(radii, rng.uniform(0.5, 1.2, 2)), level_db + rng.normal(0, 3), 0, 0.6, within)


def draw_womb(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, radii: tuple[float, float]) -> None:
    """Wall and placenta about what the ellipse `radii` (mm) holds, in most pictures with some fluid on one side."""
    everywhere = np.ones(p.shape[1:], np.float32)
    tissue.paint(everywhere, rng.uniform(-38, -27) + 3.5 * texture(rng, p, 16, 2) + 2 * texture(rng, p, 5, 3))
    for _ in range(rng.integers(2, 6)):  # layers of the wall and of what lies behind it
        layer = p[1] * np.float32(rng.choice((-1, 1))) - rng.uniform(0.9, 1.6) * radii[1] + 2 * wander(rng, p[0], 30)
        stroke(tissue, layer + 0.1 * rng.normal() * p[0], rng.uniform(-26, -16), 0.5, soft(texture(rng, p, 12, 3), 1.5))
    if rng.random() < 0.75:
        room = rng.uniform(0.5, 9)
        centre = rng.normal(0, 0.5 * room, 2)
        pocket = ellipse(p, centre, np.add(radii, room * rng.uniform(0.6, 1.4, 2))) + 0.8 * wander(rng, p[0] + p[1], 11)
        tissue.paint(soft(pocket, 0.8), FLUID_DB)
        stroke(tissue, pocket, -18, 0.3, 0.5 + 0.5 * soft(texture(rng, p, 8), 2))
