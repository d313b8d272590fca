"""Fetal heads in the axial planes of biometry, and the four ends of their diameters.

A head is drawn in its own frame (mm): x from brow (-) to occiput (+), y from the near (-) to the far side of the
midline, 0 in the middle; its outer table is an ellipse of half axes `radii`. What marks the planes is what guidelines
ask for (ISUOG, Ultrasound Obstet Gynecol 56:476, 2020): the cavum septi pellucidi in front in all of them, thalami in
the transthalamic plane, lateral ventricles with choroid plexus in the transventricular and the cerebellum with the
cisterna magna in the transcerebellar one.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lib.phantoms.stroke import soft
from lib.phantoms.ultrasound import Tissue, ellipse, texture, wander
from lib.phantoms.views import FLUID_DB, Subject, draw_womb, oval, spots, stroke

ENDS = ("ofd_1", "ofd_2", "bpd_1", "bpd_2")  # brow, occiput; near side, far side: all on the outer edge of the skull


@dataclass(frozen=True)
class Skull:
    """Outer half axes (mm) of the skull, its thickness (mm) and where (rad) it is too thin to be seen, how widely."""
    radii: tuple[float, float]
    thick: float
    gaps: tuple[tuple[float, float], ...]

    @classmethod
    def draw(cls, rng: np.random.Generator, drop_out: float) -> Skull:
        """16 to 28 weeks or so; `drop_out` is the mean number of gaps."""
        length = rng.uniform(24, 37)
        gaps = tuple((rng.uniform(-np.pi, np.pi), rng.uniform(0.1, 0.3)) for _ in range(min(rng.poisson(drop_out), 4)))
        return cls((length, length * rng.uniform(0.72, 0.86)), rng.uniform(1.5, 2.3), gaps)

    def ends(self) -> np.ndarray:
        """The ENDS in the head's own frame, (4, 2) mm."""
        a, b = self.radii
        return np.array([(-a, 0), (a, 0), (0, -b), (0, b)])


def draw_skull(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, skull: Skull, back_open: bool) -> np.ndarray:
    """Scalp, bone and plain brain; returns the share (0..1) of each sample that lies inside the skull."""
    depth, (a, b), thick = ellipse(p, (0, 0), skull.radii), skull.radii, max(skull.thick, 1.1 * tissue.step_mm)
    turn = np.arctan2(p[1] / np.float32(b), p[0] / np.float32(a))
    shown = soft(texture(rng, p, 16) + 1.6, 1.2)
    for at, half in skull.gaps:
        off = np.abs(np.angle(np.exp(1j * (turn - at))).astype(np.float32))
        shown = shown * soft(off - np.float32(half), 0.1)
    if back_open:  # the plane leaves the vault towards the neck
        shown = shown * (1 - 0.85 * soft(0.35 - np.abs(turn), 0.2))
    scalp = rng.uniform(1.5, 3.5)
    tissue.paint(soft(depth + scalp, 0.5), -24 + 2 * texture(rng, p, 4))
    stroke(tissue, depth + scalp - 0.2, -20, 0.3, soft(texture(rng, p, 9) + 0.5, 1))
    inside = soft(depth - thick, 0.4)
    tissue.paint(soft(depth, 0.3), rng.uniform(-50, -41) + 3 * texture(rng, p, 4) + 2 * texture(rng, p, 2))
    near = soft(-p[1] - 0.2 * b, 0.8 * b) * rng.uniform(0.1, 0.8)  # reverberation hides the near hemisphere
    tissue.paint(inside * near, -34 + 3 * texture(rng, p, 5))
    sides = 1 - np.clip(np.abs(np.gradient(depth, axis=0)) / tissue.step_mm, 0, 1)  # run along the beam: hardly shine
    bone = soft(depth, 0.3) * (1 - inside) * shown
    tissue.paint(bone, rng.uniform(-14, -9) - rng.uniform(6, 20) * sides + 2 * texture(rng, p, 6), 0.3)
    stroke(tissue, depth - 0.5 * thick, rng.uniform(-3, 2), 0.4, shown)
    return inside


def draw_midline(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, skull: Skull, inside: np.ndarray,
                 start: float, stop: float) -> None:
    """The falx from brow to occiput, broken by the cavum septi pellucidi and between `start` and `stop` (shares of a)."""
    (a, b), x = skull.radii, p[0] / np.float32(skull.radii[0])
    off = p[1] - 0.25 * wander(rng, p[0], 25)
    falx = soft(np.float32(0.93) - np.abs(x), 0.05) * (1 - soft(x + 0.66, 0.04) * soft(-0.36 - x, 0.04))
    falx = falx * (1 - soft(x - np.float32(start), 0.04) * soft(np.float32(stop) - x, 0.04))
    stroke(tissue, off, rng.uniform(-13, -8), 0.4, falx * inside * soft(texture(rng, p, 9) + 1.2, 1))
    half = b * rng.uniform(0.07, 0.1)
    cavum = ellipse(np.stack([p[0] + np.float32(0.51 * a), off]), (0, 0), (0.16 * a, half))
    tissue.paint(soft(cavum, 0.5), FLUID_DB)
    box = soft(np.float32(0.16 * a) - np.abs(p[0] + np.float32(0.51 * a)), 0.6)
    stroke(tissue, np.abs(off) - half, rng.uniform(-15, -9), 0.35, box)


def draw_thalamic(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, skull: Skull, inside: np.ndarray) -> None:
    """Two dark thalami with the slit of the third ventricle between them, the insula, the cisterns behind."""
    (a, b), shape = skull.radii, rng.uniform(0.9, 1.1, 3)
    draw_midline(rng, tissue, p, skull, inside, -0.14, 0.26)
    for side in (-1, 1):
        own = np.stack([p[0], p[1] + np.float32(0.35 * side) * (p[0] - np.float32(0.05 * a))])
        depth = ellipse(own, (0.05 * a, side * 0.18 * b), (0.21 * a * shape[0], 0.16 * b * shape[1]))
        tissue.paint(soft(depth, 0.8), -54 + 2 * texture(rng, p, 3))
        stroke(tissue, depth + 0.3, -20, 0.4, 0.7)
        reach = soft(p[0] - 0.2 * a, 1) * soft(0.55 * a - p[0], 1)
        stroke(tissue, p[1] - side * (0.06 * b + 0.55 * (p[0] - 0.2 * a)), -17, 0.4, reach * soft(texture(rng, p, 6) + 1, 1))
        insula = soft(0.22 * a * shape[2] - np.abs(p[0] + 0.05 * a), 1) * inside
        stroke(tissue, p[1] - side * (0.6 * b - np.square(p[0] + 0.05 * a) / a * 0.4), -13 - 5 * (side < 0), 0.5, insula)
    spots(rng, tissue, p, inside, 14, (2.2, 0.6), -22)


def draw_ventricular(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, skull: Skull, inside: np.ndarray) -> None:
    """Two dark lateral ventricles beside an almost whole midline, the bright choroid plexus in each."""
    (a, b), width = skull.radii, rng.uniform(0.9, 1.15)
    draw_midline(rng, tissue, p, skull, inside, 0.0, 0.0)
    for side in (-1, 1):
        bend = side * (0.36 * b + 0.16 * b * np.square(p[0] / np.float32(a) - 0.15) * 2)
        own = np.stack([p[0], p[1] - bend])
        ventricle = ellipse(own, (0.2 * a, 0), (0.5 * a, 0.19 * b * width))
        tissue.paint(soft(ventricle, 0.6) * inside, FLUID_DB + 3)
        stroke(tissue, ventricle + 0.2, -11 - 4 * (side < 0), 0.4, inside)
        plexus = ellipse(own, (0.24 * a, side * 0.02 * b), (0.34 * a, 0.135 * b))
        tissue.paint(soft(plexus, 0.8) * inside, -17 - 3 * (side < 0) + 2 * texture(rng, p, 2))
        horn = soft(-p[0] - 0.3 * a, 1) * soft(p[0] + 0.62 * a, 1) * inside
        stroke(tissue, p[1] - side * (0.2 * b - 0.35 * (p[0] + 0.3 * a)), -18, 0.4, horn)
    spots(rng, tissue, p, inside, 10, (2.0, 0.6), -24)


def draw_cerebellar(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, skull: Skull, inside: np.ndarray) -> None:
    """Small thalami, and behind them the two round lobes of the cerebellum, the cisterna magna and the nuchal fold."""
    (a, b), width = skull.radii, rng.uniform(0.92, 1.08)
    draw_midline(rng, tissue, p, skull, inside, -0.1, 1.0)
    for side in (-1, 1):
        thalamus = ellipse(p, (-0.04 * a, side * 0.14 * b), (0.15 * a, 0.12 * b))
        tissue.paint(soft(thalamus, 0.8), -46)
        stroke(tissue, thalamus + 0.3, -20, 0.4, 0.6)
    cistern = ellipse(p, (0.66 * a, 0), (0.25 * a, 0.52 * b))
    tissue.paint(soft(cistern, 0.8) * inside, FLUID_DB)
    for side in (-1, 1):
        lobe = ellipse(p, (0.47 * a, side * 0.29 * b * width), (0.2 * a, 0.28 * b * width))
        tissue.paint(soft(lobe, 0.6), -33 + 2 * texture(rng, p, 2))
        stroke(tissue, lobe, -8, 0.45, inside)
        stroke(tissue, np.abs(np.mod(lobe, 1.8) - 0.9), -24, 0.3, soft(lobe, 0.5))  # its folds
    tissue.blob(p, (0.47 * a, 0), (0.15 * a, 0.09 * b), -12, 0, 0.6)
    spots(rng, tissue, p, inside * soft(0.1 * a - p[0], 1), 10, (2.0, 0.6), -22)


PLANES: dict[str, Callable[..., None]] = {"trans_thalamic": draw_thalamic, "trans_ventricular": draw_ventricular,
                                          "trans_cerebellar": draw_cerebellar}


def head(plane: str, skull: Skull, turn_deg: float, fills: tuple[float, float], aside: float) -> Subject:
    """A head in one of PLANES, its brow on the left."""
    def draw(echoes: np.random.Generator, tissue: Tissue, own: np.ndarray) -> None:
        draw_womb(echoes, tissue, own, skull.radii)
        inside = draw_skull(echoes, tissue, own, skull, plane == "trans_cerebellar")
        PLANES[plane](echoes, tissue, own, skull, inside)

    return Subject(oval(skull.radii), draw, turn_deg, fills, aside)
