"""The other planes of fetal biometry: abdomen, thorax, femur, humerus and the whole fetus from crown to rump.

Frames as in lib.phantoms.views, in mm. Trunks are drawn with the spine at x > 0, long bones along x.
"""
from __future__ import annotations

import numpy as np

from lib.phantoms import nuchal
from lib.phantoms.stroke import soft
from lib.phantoms.ultrasound import Tissue, ellipse, texture, wander
from lib.phantoms.views import FLUID_DB, Subject, draw_womb, oval, spots, stroke


def turned(p: np.ndarray, centre: tuple[float, float], angle: float) -> np.ndarray:
    """Points in a frame with its 0 at `centre` and its x axis turned by `angle` (rad)."""
    x, y = p[0] - np.float32(centre[0]), p[1] - np.float32(centre[1])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return np.stack([cos * x + sin * y, cos * y - sin * x])


def draw_wall(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, radii: tuple[float, float], level_db: float,
              ) -> np.ndarray:
    """Skin, fat and muscle of the trunk about an inside of `level_db`; returns mm below the skin."""
    depth = ellipse(p, (0, 0), radii) + 0.25 * wander(rng, p[0] - 0.4 * p[1], 12)
    tissue.paint(soft(depth, 0.4), -26 + 2 * texture(rng, p, 5))
    stroke(tissue, depth - 0.3, -11, 0.4, soft(texture(rng, p, 12) + 1.2, 1))
    tissue.paint(soft(depth - 2.6, 0.6), level_db + 2 * texture(rng, p, 3.5) + 1.5 * texture(rng, p, 9))
    stroke(tissue, depth - 2.6, -19, 0.4, soft(texture(rng, p, 9) + 0.5, 1))
    return depth


def draw_spine(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, at: float) -> None:
    """The three ossification centres of a vertebra in a triangle, each with its shadow."""
    for x, y, size in ((at - 2.2, 0.0, 1.9), (at + 2.4, -2.6, 1.2), (at + 2.4, 2.6, 1.2)):
        tissue.blob(p, (x, y), (size, 0.8 * size), -5 + rng.normal(), 1.2)


def draw_ribs(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, depth: np.ndarray, radii: tuple[float, float],
              length: float, loss: float) -> None:
    """A rib on either side: a bright arc of `length` (rad) in the wall, that shadows what lies behind it."""
    turn = np.arctan2(p[1] / np.float32(radii[1]), p[0] / np.float32(radii[0]))
    for side in (-1, 1):
        middle, half = side * rng.uniform(1.2, 1.7), np.float32(0.5 * length * rng.uniform(0.7, 1.2))
        arc = soft(half - np.abs(turn - np.float32(middle)), 0.06) * soft(0.8 - np.abs(depth - 2.4), 0.5)
        tissue.paint(arc, -8 + 2 * texture(rng, p, 4), loss)


def abdomen(rng: np.random.Generator) -> Subject:
    """Liver, the dark stomach, the portal part of the umbilical vein as a hockey stick, spine and short ribs."""
    radius = rng.uniform(19, 30)
    radii = radius * rng.uniform(0.98, 1.12), radius

    def draw(rng: np.random.Generator, tissue: Tissue, p: np.ndarray) -> None:
        draw_womb(rng, tissue, p, radii)
        a, b = radii
        depth = draw_wall(rng, tissue, p, radii, rng.uniform(-29, -25))
        inside = soft(depth - 3, 0.6)
        draw_ribs(rng, tissue, p, depth, radii, 0.5, 0.4)
        draw_spine(rng, tissue, p, 0.7 * a)
        stomach = turned(p, (0.12 * a + rng.normal(0, 1), 0.48 * b), rng.uniform(-0.5, 0.5))
        lumen = ellipse(stomach, (0, 0), (0.27 * a * rng.uniform(0.8, 1.25), 0.18 * b * rng.uniform(0.8, 1.2)))
        tissue.paint(soft(lumen, 0.5) * inside, FLUID_DB)
        stroke(tissue, lumen, -20, 0.4, inside)
        bend, width = rng.uniform(0.1, 0.2) * b, np.float32(rng.uniform(1.2, 1.9))
        along = soft(p[0] + 0.6 * a, 1) * soft(-p[0], 2)
        vein = np.abs(p[1] - bend * np.square(p[0] / np.float32(0.6 * a) + 1) + bend) - width
        hook = np.abs(p[0] - 0.35 * (p[1] + bend)) - width
        hooked = soft(p[1] + 0.4 * b, 1) * soft(-p[1], 1)
        for tube, where in ((vein, along), (hook, hooked)):
            tissue.paint(soft(-tube, 0.5) * where, FLUID_DB + 4)
            stroke(tissue, tube - 0.2, -18, 0.35, where * soft(tube + 0.6, 0.5))
        for x, y, size in ((0.42 * a, 0.1 * b, 1.7), (0.32 * a, -0.14 * b, 1.5), (-0.3 * a, -0.5 * b, 1.0)):
            tissue.blob(p, (x, y), (size, size), FLUID_DB)
        spots(rng, tissue, p, inside * soft(-p[1], 2), 8, (1.6, 0.5), -20)

    return Subject(oval(radii), draw, 15, (0.72, 0.95), 0.4, mirrored=True)


def thorax(rng: np.random.Generator) -> Subject:
    """The four chambers of the heart between the lungs, long ribs, the aorta in front of the spine."""
    radius = rng.uniform(16, 26)
    radii = radius * rng.uniform(0.95, 1.12), radius

    def draw(rng: np.random.Generator, tissue: Tissue, p: np.ndarray) -> None:
        draw_womb(rng, tissue, p, radii)
        a, b = radii
        depth = draw_wall(rng, tissue, p, radii, rng.uniform(-34, -28))
        draw_ribs(rng, tissue, p, depth, radii, 1.3, 1.0)
        draw_spine(rng, tissue, p, 0.72 * a)
        tissue.blob(p, (0.46 * a, 0.16 * b), (1.9, 1.9), FLUID_DB)
        own = turned(p, (-0.16 * a + rng.normal(0, 0.7), 0.12 * b + rng.normal(0, 0.7)), rng.uniform(-0.9, -0.5))
        h, w = 0.6 * a * rng.uniform(0.92, 1.08), 0.45 * b * rng.uniform(0.92, 1.08)
        wall = ellipse(own, (0, 0), (h, w))
        tissue.paint(soft(wall, 0.6), -27 + 2 * texture(rng, p, 3))
        stroke(tissue, wall, -15, 0.4, soft(texture(rng, p, 8) + 1, 1))
        beat = rng.uniform(0.85, 1.1)
        for x, y, long, wide in ((-0.42, -0.43, 0.4 * beat, 0.32), (-0.4, 0.44, 0.4 * beat, 0.34),
                                 (0.44, -0.4, 0.3, 0.31), (0.44, 0.4, 0.32, 0.32)):
            tissue.paint(soft(ellipse(own, (x * h, y * w), (long * h, wide * w)), 0.6), FLUID_DB)
        septum = soft(0.75 * h - np.abs(own[0]), 1)
        stroke(tissue, own[1] - 0.05 * w, -12, 0.5, septum * (1 - soft(own[0] - 0.25 * h, 1) * soft(0.5 * h - own[0], 1)))
        stroke(tissue, own[0] - 0.06 * h - 0.1 * np.abs(own[1]), -13, 0.45, soft(0.7 * w - np.abs(own[1]), 1))

    return Subject(oval(radii), draw, 15, (0.72, 0.95), 0.4, mirrored=True)


def draw_shaft(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, half: float, thick: float, bow: float) -> None:
    """A long bone about y = 0 from -half to half, its ends flared, and the shadow behind it."""
    share = np.clip(p[0] / np.float32(half), -1.2, 1.2)
    off = p[1] - np.float32(bow) * (1 - np.square(share)) + 0.15 * wander(rng, p[0], 9)
    width = np.float32(0.5 * thick) * (1 + 0.5 * share**6)
    depth = np.minimum(width - np.abs(off), np.float32(half) - np.abs(p[0]))
    level = rng.uniform(-10, -6)
    tissue.paint(soft(depth, 0.5), level + 1.5 * texture(rng, p, 5), rng.uniform(2, 4))
    stroke(tissue, off + 0.3 * thick, level + 9, 0.4, soft(depth + 0.4, 0.5))


def draw_limb(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, half: float, width: tuple[float, float],
              ) -> None:
    """The soft tissue of thigh or arm: `width` (mm) at its two ends, striated along x, with its skin."""
    edge = width[0] + (width[1] - width[0]) * np.clip(0.5 + p[0] / np.float32(2.4 * half), 0, 1)
    depth = np.minimum(edge - np.abs(p[1]) + 0.4 * wander(rng, p[0], 12), 1.25 * half - np.abs(p[0]))
    tissue.paint(soft(depth, 0.5), rng.uniform(-34, -28) + 2 * texture(rng, p, 3, 4))
    for level in rng.uniform(-0.85, 0.85, 5):
        where = soft(depth - 1, 1) * soft(texture(rng, p, 7), 1)
        stroke(tissue, p[1] - level * edge + 0.4 * wander(rng, p[0], 10), -25, 0.3, where)
    stroke(tissue, depth - 0.3, -13, 0.4, soft(texture(rng, p, 12) + 0.8, 1))


def femur(rng: np.random.Generator) -> Subject:
    """The thigh with its bone, lying across; the dark cartilage of the knee at one end, of the hip at the other."""
    half = rng.uniform(13, 24)
    thick, bow, wide = rng.uniform(2.4, 3.4), rng.uniform(-0.8, 0.2), rng.uniform(0.5, 0.7) * half

    def draw(rng: np.random.Generator, tissue: Tissue, p: np.ndarray) -> None:
        draw_womb(rng, tissue, p, (1.4 * half, 1.3 * wide))
        draw_limb(rng, tissue, p, half, (0.75 * wide, wide))
        for side in (-1, 1):
            tissue.blob(p, (side * (half + 2.2), 0), (2.6, 2.6), -46, 0, 0.6)
        draw_shaft(rng, tissue, p, half, thick, bow)

    return Subject(np.array([(-1.15 * half, 1.15 * half, 0, 0), (0, 0, -0.6 * wide, 0.6 * wide)]), draw, 14, (0.74, 0.95),
                   0.4, mirrored=True)


def humerus(rng: np.random.Generator) -> Subject:
    """The upper arm beside the chest, whose ribs are a row of bright spots with shadows between dark lung."""
    half = rng.uniform(11, 20)
    thick, bow, wide = rng.uniform(2.2, 3.0), rng.uniform(-0.3, 0.3), rng.uniform(0.28, 0.38) * half

    def draw(rng: np.random.Generator, tissue: Tissue, p: np.ndarray) -> None:
        draw_womb(rng, tissue, p, (1.5 * half, 1.6 * half))
        own = p - np.array((0, -0.45 * half), np.float32)[:, None, None]
        chest = np.array((1.6, 1.25)) * half
        depth = ellipse(own, (0, 0.55 * half + wide + chest[1] * 0.72), chest)
        tissue.paint(soft(depth, 0.5), -27 + 2 * texture(rng, p, 5))
        stroke(tissue, depth - 0.3, -13, 0.4, soft(texture(rng, p, 12) + 0.8, 1))
        tissue.paint(soft(depth - 4, 0.8), -35 + 3 * texture(rng, p, 5))
        pitch, start = rng.uniform(0.27, 0.34) * half, rng.uniform(-0.5, 0.5)
        for i in range(-4, 5):
            x = (i + start) * pitch
            y = 0.55 * half + wide + chest[1] * (0.72 - np.sqrt(max(1 - (x / chest[0]) ** 2, 0.05))) + 2.4
            tissue.blob(own, (x, y), (0.28 * pitch, 0.8), -7 + rng.normal(0, 1.5), 1.6)
        draw_limb(rng, tissue, own, half, (wide, 0.8 * wide))
        tissue.blob(own, (-half - 1.8, 0), (2.4, 2.4), -44, 0, 0.6)
        draw_shaft(rng, tissue, own, half, thick, bow)

    return Subject(np.array([(-1.15 * half, 1.15 * half, 0, 0), (-0.45 * half, -0.45 * half, -0.7 * half, half)]), draw, 14,
                   (0.74, 0.95), 0.4, mirrored=True)


def crown_rump(rng: np.random.Generator) -> Subject:
    """The whole fetus of 11 to 13 weeks in mid-sagittal section, as in lib.phantoms.nuchal, smaller."""
    fetus = nuchal.Fetus(rng, float(rng.uniform(1.2, 2.2)))
    middle = (fetus.head[0][0] - fetus.head[1][0] + fetus.trunk[0][0] + fetus.trunk[1][0]) / 2
    half = fetus.trunk[0][0] + fetus.trunk[1][0] - middle

    def draw(rng: np.random.Generator, tissue: Tissue, p: np.ndarray) -> None:
        own = p + np.array((middle, 0), np.float32)[:, None, None]
        for paint in (nuchal.draw_cavity, nuchal.draw_outside, nuchal.draw_trunk, nuchal.draw_head):
            paint(rng, tissue, own, fetus)

    return Subject(oval((half, 10.0)), draw, 12, (0.75, 0.95), 0.4, mirrored=True)
