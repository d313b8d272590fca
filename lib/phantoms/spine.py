"""Phantom frames for `lumbar_spine`: longitudinal ultrasound of laminae or spinous processes, and of the ligament.

Distances in mm, x along the spine, y away from the probe. Bone is a row of bright arcs like the teeth of a saw, each
with a shadow; through the windows between them the posterior complex (ligamentum flavum and dura, two bright lines)
is seen, then dark fluid and the anterior complex: the views of Karmakar et al., Br J Anaesth 102:845 (2009), and
Chin et al., Anesthesiology 114:1459 (2011).
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.phantoms.stroke import soft
from lib.phantoms.ultrasound import (Probe, Tissue, View, refuse_other_images, scan, texture, wander, write_png)

SHAPES = {"small": ((64, 80), (68, 76)), "demo": ((256, 320), (272, 304)), "full": ((540, 800), (600, 760))}
BONE, LIGAMENT = 255, 128
COARSEST_MM = 0.45  # of a pixel: small images show a part, so that bands stay some pixels thick
FRAMES = 3, 4, 5  # of a patient
KINDS = ("both", "bone", "none")  # what a frame shows; the last: the probe has slipped off the spine


@dataclass(frozen=True)
class Spine:
    """The anatomy that the frames of a patient share (mm)."""
    seed: int
    start: float  # where the first arc has its middle
    pitch: float  # from arc to arc
    half_width: float  # of an arc
    depth: float  # of the arcs' tops
    slope: float  # of an arc, along x: the teeth of the saw
    sag: float  # how much deeper an arc's ends are than its top
    tilt: float  # of the whole row
    bone: float  # thickness of the band that shines
    ligament: float  # thickness of the doublet
    below: float  # how much deeper than the ends of the arcs the ligament lies
    fat: float  # depth of the fascia between fat and muscle

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Spine:
        midline = rng.random() < 0.3  # spinous processes: narrower, rounder arcs than laminae
        pitch = rng.uniform(24, 30)
        return cls(int(rng.integers(2**32)), rng.uniform(-0.5, 0.5) * pitch, pitch,
                   pitch * (rng.uniform(0.2, 0.26) if midline else rng.uniform(0.25, 0.33)), rng.uniform(19, 26),
                   rng.choice((-1, 1)) * (rng.uniform(0, 0.15) if midline else rng.uniform(0.15, 0.38)),
                   rng.uniform(2.5, 4.5) if midline else rng.uniform(0.8, 2.2), rng.uniform(-0.06, 0.06),
                   rng.uniform(2.3, 3.3), rng.uniform(2.3, 3.3), rng.uniform(1.5, 5.0), rng.uniform(6, 13))

    def arcs(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """At points: the arc's number, the place along it (-1..1 from end to end) and mm below its surface."""
        number = np.rint((p[0] - np.float32(self.start)) / np.float32(self.pitch))
        offset = p[0] - np.float32(self.start) - number * np.float32(self.pitch)
        place = offset / np.float32(self.half_width)
        own = np.random.default_rng(self.seed).normal(0, 0.7, 64).astype(np.float32)  # each arc lies a little off
        top = self.row(p[0]) + own[number.astype(int) % 64] + np.float32(self.slope) * offset
        top = top + np.float32(self.sag) * place**2 + 0.2 * wander(np.random.default_rng(self.seed + 1), p[0], 6)
        return number, place, (p[1] - top).astype(np.float32)

    def row(self, x: np.ndarray) -> np.ndarray:
        return np.float32(self.depth) + np.float32(self.tilt) * x

    def bones(self, p: np.ndarray) -> np.ndarray:
        """mm inside the bright band of bone (negative outside), 0 at its edges."""
        _, place, below = self.arcs(p)
        thick = np.float32(self.bone) * np.sqrt(np.clip(1.05 - place**4, 0.01, None))
        ends = (1 - np.abs(place)) * np.float32(self.half_width)
        return np.minimum(np.minimum(below, thick - below), ends)

    def windows(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place across the window between two arcs (0..1, negative outside), and mm below the ligament's surface."""
        gap = np.float32(self.pitch - 2 * self.half_width)
        number = np.floor((p[0] - np.float32(self.start)) / np.float32(self.pitch))
        offset = p[0] - np.float32(self.start) - number * np.float32(self.pitch) - np.float32(self.half_width)
        across = offset / gap
        own = np.random.default_rng(self.seed + 2).normal(0, 0.5, 64).astype(np.float32)
        lean = -np.float32(0.4 * self.slope) * (offset - gap / 2)
        top = self.row(p[0]) + np.float32(self.sag + self.below) + own[number.astype(int) % 64] + lean
        top = top + 3.2 * across * (1 - across) + 0.2 * wander(np.random.default_rng(self.seed + 3), p[0], 7)
        return np.minimum(across, 1 - across), (p[1] - top).astype(np.float32)

    def ligaments(self, p: np.ndarray) -> np.ndarray:
        """mm inside the ligament (negative outside): from arc to arc, a little thinner at the ends."""
        across, below = self.windows(p)
        thick = np.float32(self.ligament) * np.clip(across * 5 + 0.45, 0.01, 1)
        return np.minimum(np.minimum(below, thick - below), across * np.float32(self.pitch - 2 * self.half_width))

    def mask(self, p: np.ndarray, kind: str) -> np.ndarray:
        """uint8 grey values of the mask at points."""
        mask = np.zeros(p.shape[1:], np.uint8)
        if kind == "both":
            mask[self.ligaments(p) > 0] = LIGAMENT
        if kind != "none":
            mask[self.bones(p) > 0] = BONE
        return mask


@dataclass(frozen=True)
class Motion:
    """How the probe moved from frame to frame: along the spine (mm), turned (rad), pressed (share of the depth)."""
    along: float
    turn: float
    press: float

    def own(self, points: np.ndarray) -> np.ndarray:
        x, y = points[0] - np.float32(self.along), points[1] * np.float32(1 + self.press)
        return np.stack([x, y - np.float32(self.turn) * points[0]])


def draw_muscle(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, spine: Spine) -> None:
    """Skin, fat with septa, the fascia and striated muscle, as deep as the picture goes."""
    x, y = p
    patchy = texture(rng, p, 5, 3)
    tissue.paint(np.ones_like(x), -31 + 2.5 * patchy + 1.5 * texture(rng, p, 2, 6))
    lean = rng.uniform(-0.12, 0.12)
    for i in range(10):  # the muscle's septa lean against the fascia
        level = spine.fat + 1.5 + 1.9 * i + 0.5 * wander(rng, x, 14) + lean * x
        where = soft(texture(rng, p, 6, 2) - rng.uniform(-0.3, 0.6), 1) * soft(y - spine.fat - 1, 0.5)
        tissue.line(y - level, -20 + rng.normal(0, 2), 0.2, where)
    fascia = spine.fat + 0.4 * wander(rng, x, 16)
    tissue.paint(soft(fascia - y, 0.4), -27 + 2 * patchy)
    for i in range(3):
        level = 2.5 + (spine.fat - 3) * (i + rng.uniform(0.2, 0.8)) / 3 + 0.5 * wander(rng, x, 12)
        tissue.line(y - level, -15 + rng.normal(0, 2), 0.2, soft(texture(rng, p, 8, 2) + 0.4, 1) * soft(fascia - y, 1))
    tissue.line(y - fascia, -8, 0.3)
    tissue.line(y - fascia - 1.1, -13, 0.25, soft(texture(rng, p, 10, 2) + 0.5, 1))
    tissue.paint(soft(2.0 - y, 0.4), -14)


def draw_canal(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, spine: Spine, ligament: bool) -> None:
    """What the windows show: the posterior complex, the canal with its nerves, and the anterior complex."""
    across, below = spine.windows(p)
    open_here = soft(across * np.float32(spine.pitch), 1.0)
    tissue.paint(open_here * soft(below + 1.5, 1.5), -33 + 2 * texture(rng, p, 3))
    if not ligament:  # the beam misses the window: grey all the way down
        tissue.paint(soft(below, 4), -37 + 3 * texture(rng, p, 6))
        tissue.line(below - 3 - 0.8 * wander(rng, p[0], 9), -17, 0.3, open_here * soft(texture(rng, p, 7), 1))
        return
    canal = rng.uniform(9, 12)
    fluid = below - np.float32(spine.ligament)
    tissue.paint(soft(fluid, 0.5), -52 + 3 * texture(rng, p, 5))
    for i in range(4):
        tissue.line(fluid - canal * (0.25 + 0.17 * i) - 0.5 * wander(rng, p[0], 12), -36, 0.2)
    behind = fluid - canal
    tissue.paint(soft(behind, 0.5), -30)
    tissue.paint(soft(behind, 0.6) * soft(rng.uniform(2, 3.5) - behind, 0.6), -15 + 2 * texture(rng, p, 3), 0.8)
    tissue.line(behind - 0.3, -8, 0.35, soft(texture(rng, p, 8) + 0.8, 1))
    inside, thick = spine.ligaments(p), np.float32(spine.ligament)
    strength = rng.uniform(-22, -14) + 3 * wander(rng, p[0], spine.pitch)  # some windows are clearer
    tissue.paint(soft(inside, 0.4), strength + 1.5 * texture(rng, p, 4))
    tissue.paint(soft(inside - 0.8, 0.4), strength - 8)  # between the two lines
    for line in (0.45, thick - 0.45):
        tissue.line(below - line, strength + 6, 0.28, soft(inside + 0.5, 0.5))


def draw_bone(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, spine: Spine) -> None:
    """Bright arcs with all their shadow behind them."""
    _, place, below = spine.arcs(p)
    inside = spine.bones(p)
    patchy = texture(rng, p, 4)
    body = soft((1 - np.abs(place)) * np.float32(spine.half_width), 0.5) * soft(below - 0.6 * spine.bone, 0.5)
    tissue.paint(body, -30, 9.0)
    tissue.paint(soft(inside, 0.5), -10 + 3 * patchy - 1.5 * np.clip(below, 0, 3), 0)
    tissue.line(below - 0.5, -4 + 3 * patchy, 0.35, soft(inside + 0.4, 0.4))


def make_frame(rng: np.random.Generator, view: View, probe: Probe, spine: Spine, motion: Motion, kind: str,
               ) -> tuple[np.ndarray, np.ndarray]:
    """One frame uint8 (rows, columns), and its mask of 0, LIGAMENT and BONE."""
    def scene(points: np.ndarray, step_mm: float) -> Tissue:
        tissue, own = Tissue(points, step_mm, -30), motion.own(points)
        draw_muscle(rng, tissue, own, spine)
        if kind != "none":
            draw_canal(rng, tissue, own, spine, kind == "both")
            draw_bone(rng, tissue, own, spine)
        else:
            tissue.paint(soft(own[1] - spine.depth - 4 * texture(rng, own, 12), 6), -37 + 3 * texture(rng, own, 6), 0.5)
        return tissue

    image = scan(rng, view, probe, scene, pulse_mm=(0.3, 0.6), haze_db=-37, noise_db=-46, gain_spread_db=4)
    points = view.points()
    return image, spine.mask(motion.own(points), kind) * probe.sees(points)


def make_patient(rng: np.random.Generator, shape: tuple[int, int], kinds: list[str],
                 ) -> list[tuple[np.ndarray, np.ndarray]]:
    """A sweep of frames, each an image and its mask; `kinds` (of `KINDS`) says what each of them shows."""
    anatomy, *streams = rng.spawn(len(kinds) + 1)
    spine = Spine.draw(anatomy)
    width = min(anatomy.uniform(60, 72), COARSEST_MM * shape[1])
    mm = width / shape[1]
    view = View(shape, mm, 0.0, max(0.0, spine.depth + 3 - 0.5 * mm * shape[0]) if mm == COARSEST_MM else 0.0)
    reach = view.y + shape[0] * mm
    flat = anatomy.random() < 0.4
    radius = 400.0 if flat else anatomy.uniform(45, 65)
    half = np.arctan2(0.5 * width * (1.1 if flat else anatomy.uniform(0.8, 1.1)), radius + 0.3 * reach)
    probe = Probe(0.0, -radius, radius, float(half), reach * 1.15)
    frames, along = [], 0.0
    for stream, kind in zip(streams, kinds):
        motion = Motion(along, stream.normal(0, 0.015), stream.normal(0, 0.015))
        frames.append(make_frame(stream, view, probe, spine, motion, kind))
        along += stream.normal(0, 1.5)
    return frames


def deal_kinds(rng: np.random.Generator, counts: list[int], absent: float, no_ligament: float) -> list[list[str]]:
    """What each frame of each patient shows. Only the last frame of a sweep loses the spine."""
    frames, enough = sum(counts), len(counts) >= 5
    none = min(max(round(absent * frames), int(absent > 0 and enough)), len(counts))
    slipped = set((1 + rng.permutation(len(counts) - 1))[:none].tolist())  # the first patient shows all there is
    rest = [(i, j) for i, count in enumerate(counts) for j in range(count) if i not in slipped or j < count - 1]
    bone = min(max(round(no_ligament * frames), int(no_ligament > 0 and enough)), len(rest))
    closed = {rest[k] for k in rng.permutation(len(rest))[:bone]}
    return [["none" if i in slipped and j == count - 1 else "bone" if (i, j) in closed else "both"
             for j in range(count)] for i, count in enumerate(counts)]


def make_spine_frames(folder: Path | str, patients: int = 24, seed: int = 0, *, size: str = "demo",
                      absent: float = 0.06, no_ligament: float = 0.12) -> list[Path]:
    """Write images/D<patient>frame_<number>.png and masks/ with the same names under `folder`; returns the images.

    Three to five frames per patient, grey uint8, one size per patient (those of `SHAPES[size]` in turn); masks are
    BONE, LIGAMENT or 0. About the share `absent` of the frames shows neither, `no_ligament` bone alone (each at least
    one with five or more patients, unless it is 0). The same arguments give the same bytes. Raises ValueError for
    impossible arguments, FileExistsError if the folders hold other files.
    """
    if size not in SHAPES:
        raise ValueError(f"no size '{size}'; known: {', '.join(SHAPES)}")
    if patients < 1 or not 0 <= absent <= 1 or not 0 <= no_ligament <= 1:
        raise ValueError("need patients >= 1, absent and no_ligament in 0..1")
    cohort, *streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(patients + 1)]
    counts = [FRAMES[i % len(FRAMES)] for i in cohort.permutation(patients)]
    kinds = deal_kinds(cohort, counts, absent, no_ligament)
    names = [[f"D{i + 1}frame_{n}.png" for n in cohort.integers(10, 120) + np.cumsum(cohort.integers(3, 15, count))]
             for i, count in enumerate(counts)]
    images, masks = ([Path(folder) / kind / name for row in names for name in row] for kind in ("images", "masks"))
    refuse_other_images([*images, *masks])

    frames = (frame for i, rng in enumerate(streams)
              for frame in make_patient(rng, SHAPES[size][i % len(SHAPES[size])], kinds[i]))
    for image, mask, (picture, truth) in zip(images, masks, frames):
        write_png(image, picture)
        write_png(mask, truth)
    return images
