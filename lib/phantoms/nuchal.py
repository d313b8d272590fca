"""Phantom images for `nuchal_translucency`: fetuses of 11 to 13 weeks in mid-sagittal section, with the dark cleft.

The fetus is drawn in its own frame (mm): x from crown (-) to rump (+), y from front (-) to back (+), 0 in the neck;
`Pose` turns, mirrors and shifts it into the picture. The nuchal translucency is fluid between the skin and the soft
tissue over the cervical spine, measured at its thickest (Nicolaides et al., BMJ 304:867, 1992); amniotic fluid
behind the skin and the fluid in the hindbrain look the same.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lib.phantoms.stroke import smooth_max, soft
from lib.phantoms.ultrasound import (Probe, Tissue, View, ellipse, refuse_other_images, scan, texture, wander,
                                     write_png)

SHAPES = {"small": ((64, 80), (68, 76)), "demo": ((256, 320), (272, 304)), "full": ((540, 800), (600, 760))}
COARSEST_MM = 0.4  # of a pixel: small images show a part, so that the cleft stays some pixels thick
SKIN_MM = 0.55
FLUID_DB = -60.0


@dataclass
class Fetus:
    """One fetus as `rng` draws it; `thickness` in mm of its nuchal translucency, 0: none to be seen."""
    rng: np.random.Generator
    thickness: float
    middle: float = field(init=False)
    half_length: float = field(init=False)

    def __post_init__(self):
        rng = self.rng
        self.middle, self.half_length = rng.uniform(-1, 4.5), rng.uniform(8, 12.5)
        self.skew, self.bluntness = rng.uniform(-0.25, 0.25), rng.uniform(0.42, 0.7)
        size = rng.uniform(0.92, 1.1)
        flexion = rng.uniform(-2.5, 2.5)  # of the head: bends the neck
        self.head = (-11.5 * size, -1 - flexion), (11.5 * size, 9.6 * size)
        nose = (self.head[0][0] - 1, self.head[0][1] - self.head[1][1] + 0.2)
        chin = (nose[0] + 6.5, nose[1] + 2.4)
        self.face = (nose, (1.5, 1.3), 1.5), (chin, (2.3, 2.0), 2)  # ellipses, each with the width of its blend
        self.neck = (2.0, 0.3), (9.0, 6.0 * size)
        self.trunk = (19.5 * size, 0.5 + rng.uniform(-1.5, 2)), (18.5 * size, 8.8 * size)
        self.blend = rng.uniform(4, 8)
        self.waves = rng.integers(2**32)  # seed of fields that mask and echoes share
        self.size = size

    def surface(self, p: np.ndarray) -> np.ndarray:
        """Depth (mm, negative outside) below the outside of the soft tissue, translucency and skin taken off."""
        depth = smooth_max(ellipse(p, *self.head), ellipse(p, *self.trunk), self.blend)
        depth = smooth_max(depth, ellipse(p, *self.neck), 5)
        for centre, radii, blend in self.face:
            depth = smooth_max(depth, ellipse(p, centre, radii), blend)
        return depth + 0.18 * wander(np.random.default_rng(self.waves), p[0] + 0.3 * p[1], 7)

    def cleft(self, p: np.ndarray) -> np.ndarray:
        """Width (mm) of the translucency where p lies along the back: a bow with tapering ends; 0 in front."""
        u = np.clip((p[0] - self.middle) / self.half_length, -1, 1)
        u = u + self.skew * (1 - u * u)
        bow = np.clip(1 - u * u, 0, None) ** self.bluntness
        bow *= 1 + 0.04 * wander(np.random.default_rng(self.waves + 1), p[0], 6)
        return (self.thickness * bow * np.clip(p[1] / 2, 0, 1)).astype(np.float32)

    def translucency(self, p: np.ndarray) -> np.ndarray:
        """bool: inside the fluid between soft tissue and skin."""
        depth = self.surface(p)
        return (depth < 0) & (depth > -self.cleft(p))


@dataclass(frozen=True)
class Pose:
    """Turned by `angle` (rad), mirrored by the signs, the neck at (x, y) mm of the scene."""
    angle: float
    signs: tuple[int, int]
    x: float
    y: float

    def own(self, points: np.ndarray) -> np.ndarray:
        """Points of the scene in the fetus's frame."""
        x, y = points[0] - np.float32(self.x), points[1] - np.float32(self.y)
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        return np.stack([self.signs[0] * (cos * x + sin * y), self.signs[1] * (cos * y - sin * x)])


def draw_cavity(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, fetus: Fetus) -> None:
    """The womb: its wall and placenta about amniotic fluid, and in most images the amnion as a thin line."""
    tissue.paint(np.ones(p.shape[1:], np.float32), -23 + 2.0 * texture(rng, p, 6) + 1.5 * texture(rng, p, 2.5, 3))
    back = 9.0 * fetus.size + rng.uniform(0.8, 4.0)  # how far the wall lies behind the neck
    centre = (rng.uniform(-2, 8), back - rng.uniform(15, 18))
    radii = (rng.uniform(36, 44), back - centre[1])
    inside = ellipse(p, centre, radii) + 0.5 * wander(rng, p[0], 9) + 0.25 * wander(rng, p[0] - 0.5 * p[1], 3)
    tissue.paint(soft(inside, 0.4), FLUID_DB)
    tissue.line(inside + 0.1, -16, 0.22, 0.5 + 0.5 * soft(texture(rng, p, 5), 2))
    if rng.random() < 0.5:
        gap = np.clip(rng.uniform(0.8, 2.6) + 0.6 * wander(rng, p[0], 12), 0.3, None)
        tissue.line(inside - gap, -20, 0.14, soft(texture(rng, p, 9) + 1.0, 1.0))
    if rng.random() < 0.5:  # an arm in front of the face
        place = (rng.uniform(-8, 14), -rng.uniform(11, 14))
        length, width = rng.uniform(3, 6), rng.uniform(1.3, 2)
        tissue.blob(p, place, (length, width), -24)
        tissue.blob(p, place, (length - 0.9, width - 0.9), -8, 0.8)


def draw_outside(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, fetus: Fetus) -> np.ndarray:
    """Skin, translucency and soft tissue, painted from outside inwards; returns depth (mm) below the soft tissue."""
    depth, cleft = fetus.surface(p), fetus.cleft(p)
    patchy = texture(rng, p, 3)
    tissue.paint(soft(depth + cleft + SKIN_MM, 0.25), -17 + 1.5 * patchy)
    tissue.line(depth + cleft + 0.6 * SKIN_MM, -9, 0.2)
    tissue.paint(soft(-depth, 0.25) * soft(depth + cleft, 0.25), FLUID_DB)
    tissue.paint(soft(depth, 0.3), -25 + 2 * patchy)
    tissue.line(depth - 0.25, -15, 0.22)
    return depth


def draw_trunk(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, fetus: Fetus) -> None:
    """Heart, liver and stomach; vertebral bodies and, behind them, arches."""
    (x, y), radii = fetus.trunk
    inside = soft(ellipse(p, *fetus.trunk) - 1.5, 0.5)
    heart, liver, stomach = ((-10, -1.5), (3.2, 3.0), -36), ((-4.5, -3), (4.5, 3.8), -27), ((1, 0.5), (2.2, 1.6), -58)
    for place, size, level in (heart, liver, stomach):
        tissue.blob(p, np.add((x, y), place) + rng.normal(0, 0.6, 2), size, level + rng.normal(), 0, 0.5, inside)
    for i in range(13):
        along = 1.5 + 2.2 * i + rng.normal(0, 0.12)
        back = y + radii[1] * np.sqrt(max(1 - ((along - x) / (radii[0] + 1)) ** 2, 0.1))
        depth = max(back, 5.4) - 3.4 + rng.normal(0, 0.1)
        length, level = rng.uniform(0.65, 0.9), rng.normal(-5, 2)
        tissue.blob(p, (along, depth), (length, 0.6), level, 1.2)
        tissue.blob(p, (along + 0.3, depth + 1.9), (0.7 * length, 0.35), level - 4, 1.2)


def draw_head(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, fetus: Fetus) -> None:
    """Skull, brain with its fluid, nasal bone and jaws."""
    (x, y), radii = fetus.head
    shell = ellipse(p, (x, y), np.array(radii) - 1.1)
    base = soft(x + 7.0 - p[0] - 0.35 * (p[1] - y), 1.5)  # the skull is open towards neck and face
    vault = base * soft(p[1] - y + radii[1] * 0.75, 2)
    tissue.paint(soft(shell, 0.4) * base, -34 + 3 * texture(rng, p, 3))
    tissue.paint(soft(shell + 0.1, 0.3) * soft(0.6 - shell, 0.3) * vault, -9, 1.0)
    tissue.line(shell - 0.2, -3, 0.25, vault)
    within = soft(shell - 1, 0.5)
    thalamus, plexus = ((0.5, 0.5), (3.4, 2.6), -42), ((-5, 1), (3.5, 1.6), -20)
    for place, size, level in (thalamus, plexus, ((3.5, 2.2), (2.2, 1.4), -24)):
        tissue.blob(p, np.add((x, y), place) + rng.normal(0, 0.5, 2), size, level + rng.normal(), 0, 0.6, within)
    # the fourth ventricle: dark and long, like the translucency
    ventricle = np.abs(shell - rng.uniform(1.8, 2.6)) - rng.uniform(0.3, 0.7) * soft(4.5 - np.abs(p[0] - x - 3.5), 3)
    tissue.paint(soft(-ventricle, 0.3) * soft(p[1] - y - 1, 1), -55)
    face = np.array([x + 3.2, y - radii[1] + 2.2])
    for place, size in (((0, 0), (2.6, 0.45)), ((-3, -1.2), (1.2, 0.35)), ((3.5, 2.0), (1.8, 0.5))):
        tissue.blob(p, face + place, size, -7 + rng.normal(), 1.3)


def make_image(rng: np.random.Generator, shape: tuple[int, int], present: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """One image uint8 (rows, columns) and its mask bool; without a translucency unless `present`."""
    anatomy, echoes = rng.spawn(2)
    fetus = Fetus(anatomy, float(anatomy.uniform(1.2, 2.2)) if present else 0.0)
    width = min(anatomy.uniform(41, 48), COARSEST_MM * shape[1])
    mm = width / shape[1]
    view = View(shape, mm, 0.0, anatomy.uniform(4, 14))
    height = shape[0] * mm
    prone = anatomy.random() < 0.1
    signs = (int(anatomy.choice((-1, 1))), -1 if prone else 1)
    middle = view.y + height * (anatomy.uniform(0.5, 0.66) if prone else anatomy.uniform(0.38, 0.54))
    pose = Pose(np.deg2rad(anatomy.uniform(-18, 18)), signs, anatomy.uniform(-0.1, 0.1) * width, middle)
    radius = anatomy.uniform(25, 60)
    reach = view.y + height
    half = np.arctan2(0.5 * width * anatomy.uniform(0.8, 1.2), radius + 0.4 * reach)  # some show the sector's edges
    probe = Probe(anatomy.uniform(-3, 3), -radius, radius, float(half), reach * anatomy.uniform(0.97, 1.2))

    def scene(points: np.ndarray, step_mm: float) -> Tissue:
        tissue, own = Tissue(points, step_mm, FLUID_DB), pose.own(points)
        draw_cavity(echoes, tissue, own, fetus)
        draw_outside(echoes, tissue, own, fetus)
        draw_trunk(echoes, tissue, own, fetus)
        draw_head(echoes, tissue, own, fetus)
        return tissue

    image = scan(echoes, view, probe, scene, pulse_mm=(echoes.uniform(0.12, 0.17), echoes.uniform(0.22, 0.34)))
    points = view.points()
    return image, fetus.translucency(pose.own(points)) & probe.sees(points)


def make_nuchal_images(folder: Path | str, patients: int = 24, seed: int = 0, *, size: str = "demo",
                       absent: float = 0.1) -> list[Path]:
    """Write preprocessed_images/fetusNNN.png and segmentations/seg_fetusNNN.png under `folder`; returns the images.

    One image per patient, grey uint8; masks are 0/255, all 0 in about the share `absent` of the images (in at least
    one of five or more, unless it is 0). Sizes are those of `SHAPES[size]` in turn. The same arguments give the same
    bytes. Raises ValueError for impossible arguments, FileExistsError if the folders hold other files.
    """
    if size not in SHAPES:
        raise ValueError(f"no size '{size}'; known: {', '.join(SHAPES)}")
    if patients < 1 or not 0 <= absent <= 1:
        raise ValueError("need patients >= 1, absent in 0..1")
    folder, digits = Path(folder), max(3, len(str(patients)))
    names = [f"fetus{i + 1:0{digits}d}.png" for i in range(patients)]
    images = [folder / "preprocessed_images" / name for name in names]
    masks = [folder / "segmentations" / f"seg_{name}" for name in names]
    refuse_other_images([*images, *masks])

    cohort, *streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(patients + 1)]
    without = max(round(absent * patients), int(absent > 0 and patients >= 5))
    present = cohort.permutation(np.arange(patients) >= without)
    for i, (image, mask, rng) in enumerate(zip(images, masks, streams)):
        picture, truth = make_image(rng, SHAPES[size][i % len(SHAPES[size])], bool(present[i]))
        write_png(image, picture)
        write_png(mask, truth.astype(np.uint8) * 255)
    return images
