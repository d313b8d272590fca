"""Phantom images for `fetal_anatomy`: mid-sagittal heads of 11 to 13 weeks, nine structures and the box of each.

The fetus is that of lib.phantoms.nuchal with a larger head, in the same frame (mm): x from crown (-) to rump (+), y
from front (-) to back (+). Where the structures lie about the thalami, and how large they are, are medians of the
public boxes (Dataset for Fetus Framework, Mendeley Data n2rbrb9t4f); the lines of skin and nasal tip are thicker, so
that they keep some pixels on small pictures. A box is the extent of the pixels in which its structure is drawn.
"""
from __future__ import annotations

import datetime
import io
import os
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.phantoms.nuchal import FLUID_DB, SKIN_MM, Fetus, Pose, draw_cavity, draw_outside, draw_trunk
from lib.phantoms.stroke import soft
from lib.phantoms.ultrasound import (MARK, Probe, Tissue, View, ellipse, refuse_other_images, scan, texture,
                                     write_png)

SHAPES = {"small": ((96, 128), (100, 120)), "demo": ((200, 260), (208, 252)), "full": ((450, 640), (480, 620))}
STRUCTURES = ("thalami", "midbrain", "palate", "IT", "CM", "NT", "nasal bone", "nasal tip", "nasal skin")
DATASET, WORKBOOK = "Dataset for Fetus Framework", "ObjectDetection.xlsx"
COLUMNS = ("fname", "structure", "h_min", "w_min", "h_max", "w_max")
TEST_SHARE = 0.15
LEAST_VISIBLE = 0.5  # share of a structure in the picture, below which it has no box
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip archive can name

# centre from the middle of the thalami (mm), radii (mm), turn (degrees), bend (1/mm): how its ends curve to the back
BLOBS = {
    "thalami": ((0.0, 0.0), (3.3, 2.6), 0, 0),
    "midbrain": ((-2.2, 5.5), (2.4, 3.0), 8, 0),
    "IT": ((2.9, 6.6), (2.3, 0.85), 0, -0.02),
    "CM": ((2.4, 9.6), (3.3, 0.75), 0, -0.03),
    "palate": ((9.4, -2.2), (3.7, 0.85), -32, 0.03),
}
# parallel to the skin of the face: place along x from the middle of the thalami, depth below the skin, radii (mm)
LINES = {"nasal bone": (8.0, 2.4, (1.6, 0.6)), "nasal tip": (11.8, 0.6, (1.3, 0.6)),
         "nasal skin": (8.4, 0.6, (1.4, 0.6))}
# level (dB), loss (dB/mm), width of the edge (mm), level (dB) of the lines that close it off; painted in this order
LOOKS = {
    "thalami": (-39, 0.0, 0.8, -22), "midbrain": (-44, 0.0, 0.8, -22), "CM": (FLUID_DB, 0.0, 0.3, -12),
    "IT": (FLUID_DB, 0.0, 0.3, -15), "palate": (-7, 1.0, 0.3, None), "nasal bone": (-5, 1.0, 0.3, None),
    "nasal tip": (-4, 0.0, 0.3, None), "nasal skin": (-4, 0.0, 0.3, None),
}


@dataclass(frozen=True)
class Blob:
    """An ellipse with blunt ends about `centre` (mm), turned (rad), both ends bent towards the back (1/mm)."""
    centre: tuple[float, float]
    radii: tuple[float, float]
    turn: float
    bend: float

    def depth(self, p: np.ndarray) -> np.ndarray:
        """mm inside (negative outside), to first order."""
        x, y = (p[i] - np.float32(self.centre[i]) for i in (0, 1))
        cos, sin = np.float32(np.cos(self.turn)), np.float32(np.sin(self.turn))
        along = cos * x + sin * y
        across = cos * y - sin * x - np.float32(self.bend) * along**2
        # a point would be lost in speckle, and its box would reach beyond what can be seen
        return ellipse((along * np.abs(along) / np.float32(self.radii[0]), across), (0, 0), self.radii)


class Head(Fetus):
    """A fetus whose head holds the structures; `present` are those to be drawn."""

    def __init__(self, rng: np.random.Generator, present: Collection[str]):
        thickness = float(rng.uniform(1.4, 2.3))
        super().__init__(rng, thickness if "NT" in present else 0.0)
        size, self.present = self.size, present
        self.middle, self.half_length = rng.uniform(-3, 2), rng.uniform(7, 9.5)
        self.head = (-12.5 * size, -5.2 * size), (11.5 * size, 11.3 * size)
        self.thalami = np.array((-11.5, -5.7)) * size
        nose, lips, chin = (self.thalami + np.multiply(at, size) for at in ((10.4, -5.1), (13.8, -2.2), (15.6, 1.0)))
        self.face = (nose, (4.0 * size, 3.2 * size), 2.5), (lips, (2.2, 1.9), 1.5), (chin, (2.6, 2.2), 1.5)
        shift = rng.normal(0, 0.3, (len(BLOBS), 2)).clip(-0.6, 0.6)
        stretch, turns = rng.uniform(0.9, 1.12, (len(BLOBS), 2)), np.deg2rad(rng.uniform(-6, 6, len(BLOBS)))
        self.blobs = {name: Blob(tuple(self.thalami + (shift[i] + centre) * size), tuple(stretch[i] * radii * size),
                                 float(np.deg2rad(turn) + turns[i]), bend / size)
                      for i, (name, (centre, radii, turn, bend)) in enumerate(BLOBS.items())}
        for name, (x, below, radii) in LINES.items():
            jitter = rng.normal(0, 0.2, 2).clip(-0.4, 0.4)
            self.blobs[name] = self.lay((x + jitter[0]) * size, (below + 0.3 * jitter[1]) * size,
                                        rng.uniform(0.95, 1.15, 2) * radii * size)

    def lay(self, x: float, below: float, radii: np.ndarray) -> Blob:
        """A blob parallel to the skin of the face, `below` it (mm), where that lies x mm from the thalami along x."""
        along = self.thalami[0] + x + np.array((-1.0, 0.0, 1.0))
        down = self.thalami[1] - np.arange(16, 0, -0.02)
        inside = self.surface(np.stack(np.meshgrid(along, down)).astype(np.float32)) > -SKIN_MM
        skin = down[inside.argmax(axis=0)]
        turn = np.arctan2(skin[2] - skin[0], 2.0)
        centre = along[1] - below * np.sin(turn), skin[1] + below * np.cos(turn)
        return Blob(centre, tuple(radii), float(turn), 0.04)

    def masks(self, p: np.ndarray) -> dict[str, np.ndarray]:
        """bool: the points inside each structure that is drawn."""
        return {name: self.translucency(p) if name == "NT" else self.blobs[name].depth(p) > 0
                for name in STRUCTURES if name in self.present}


def draw_skull(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, head: Head) -> None:
    """Brain, its bright and dark spots, the vault and the back of the skull, jaw and throat."""
    ((x, y), radii), size = head.head, head.size
    shell = ellipse(p, (x, y), np.array(radii) - 1.3)
    brain = soft(head.thalami[0] + 5.5 * size - p[0] + 0.25 * (p[1] - y), 2)
    tissue.paint(soft(shell, 0.4) * brain, -30 + 3 * texture(rng, p, 3))
    vault = brain * soft(y - p[1] + 2, 3) + soft(p[1] - y - 0.7 * radii[1], 1.5)
    tissue.paint(soft(shell + 0.2, 0.3) * soft(0.6 - shell, 0.3) * vault, -12, 0.25)
    tissue.line(shell - 0.2, -5, 0.25, vault)
    within = soft(shell - 0.8, 0.5) * brain
    spots = (((-5.5, -4), (2.6, 1.5), -19), ((-1, -6), (3.2, 0.7), -22), ((-7, 3.5), (2.0, 1.6), -23),
             ((-4, -8), (2.5, 0.9), -46), ((-8.5, 0), (0.9, 2.2), -46))
    for place, blob, level in spots:
        at = head.thalami + np.multiply(place, size) + rng.normal(0, 0.6, 2)
        tissue.blob(p, at, np.multiply(blob, rng.uniform(0.7, 1.2, 2)), level + rng.normal(0, 2), 0, 0.6, within)
    for place, blob, level, loss in (((13.2, 0.2), (1.5, 0.45), -11, 0.6), ((5.2, -3.8), (0.8, 0.6), -13, 0.3),
                                     ((10.8, 3.2), (2.8, 0.8), -44, 0), ((6.0, 3.0), (1.6, 0.5), -17, 0.3)):
        at = head.thalami + np.multiply(place, size) + rng.normal(0, 0.4, 2)
        tissue.blob(p, at, np.multiply(blob, rng.uniform(0.8, 1.2, 2)), level + rng.normal(0, 2), loss)


def draw_structures(rng: np.random.Generator, tissue: Tissue, p: np.ndarray, head: Head) -> None:
    """All that are present, but NT, which is painted with the skin. What is absent stays what lies around it."""
    patchy = texture(rng, p, 1.5)
    for (name, (level, loss, edge, rim)), change in zip(LOOKS.items(), rng.normal(0, 1.5, len(LOOKS))):
        if name not in head.present:
            continue
        depth = head.blobs[name].depth(p)
        tissue.paint(soft(depth, edge), level + change + 1.5 * patchy, loss)
        if rim is not None:
            tissue.line(depth + 0.3, rim + change, 0.22, 0.6 + 0.25 * patchy.clip(-2, 2))


def aim(head: Head, angle: float, sign: int, x: float, y: float) -> Pose:
    """The pose that puts the thalami at (x, y) mm of the scene."""
    to_x, to_y = Pose(-angle, (1, 1), 0, 0).own(head.thalami * (sign, 1))
    return Pose(angle, (sign, 1), float(x - to_x), float(y - to_y))


def visible_masks(head: Head, pose: Pose, view: View, probe: Probe) -> dict[str, np.ndarray]:
    """bool (rows, columns) of each structure, cut off at the picture's and the field's edges, if enough is left."""
    (rows, columns), pad = view.shape, max(view.shape) // 4
    wide = View((rows + 2 * pad, columns + 2 * pad), view.mm, view.x, view.y - pad * view.mm)
    whole, field = head.masks(pose.own(wide.points())), probe.sees(view.points())
    cut = {name: mask[pad:-pad, pad:-pad] & field for name, mask in whole.items()}
    return {name: mask for name, mask in cut.items() if mask.sum() >= max(LEAST_VISIBLE * whole[name].sum(), 1)}


def make_image(rng: np.random.Generator, shape: tuple[int, int], present: Collection[str] = STRUCTURES,
               ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One image uint8 (rows, columns) and, bool, the mask of each structure of `present` that is half visible at least.

    The other structures are not drawn; all else is the same for the same state of `rng`.
    """
    anatomy, echoes = rng.spawn(2)
    head = Head(anatomy, present)
    width = anatomy.uniform(42, 52)
    mm, sign = width / shape[1], int(anatomy.choice((-1, 1)))
    view = View(shape, mm, 0.0, anatomy.uniform(6, 16))
    reach = view.y + shape[0] * mm
    pose = aim(head, np.deg2rad(anatomy.uniform(-10, 10)), sign, -sign * anatomy.uniform(0.02, 0.12) * width,
               view.y + shape[0] * mm * anatomy.uniform(0.43, 0.51))
    radius = anatomy.uniform(25, 60)
    half = np.arctan2(0.5 * width * anatomy.uniform(0.85, 1.2), radius + 0.4 * reach)  # some show the sector's edges
    probe = Probe(anatomy.uniform(-3, 3), -radius, radius, float(half), reach * anatomy.uniform(0.98, 1.2))

    def scene(points: np.ndarray, step_mm: float) -> Tissue:
        tissue, own = Tissue(points, step_mm, FLUID_DB), pose.own(points)
        for draw in (draw_cavity, draw_outside, draw_trunk, draw_skull, draw_structures):
            draw(echoes, tissue, own, head)
        return tissue

    image = scan(echoes, view, probe, scene, pulse_mm=(echoes.uniform(0.12, 0.17), echoes.uniform(0.22, 0.34)),
                 haze_db=-46, range_db=52)
    return image, visible_masks(head, pose, view, probe)


def deal_structures(rng: np.random.Generator, patients: int, absent: float) -> list[list[str]]:
    """Which structures each patient has: each is absent in the share `absent`, independently of the others."""
    without = max(round(absent * patients), int(absent > 0 and patients >= 5))
    dealt = np.stack([rng.permutation(np.arange(patients) >= without) for _ in STRUCTURES], axis=1)
    dealt[~dealt.any(axis=1), 0] = True  # the thalami, which no picture cuts off
    return [[name for name, has in zip(STRUCTURES, row) if has] for row in dealt]


def make_heads(patients: int, seed: int = 0, size: str = "demo", absent: float = 0.1,
               ) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Image and masks (see make_image) of one patient after the other."""
    cohort, *streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(patients + 1)]
    for i, (rng, present) in enumerate(zip(streams, deal_structures(cohort, patients, absent))):
        yield make_image(rng, SHAPES[size][i % len(SHAPES[size])], present)


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """h_min, w_min, h_max, w_max of a mask's pixels, half-open."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def write_workbook(path: Path, rows: list[tuple]) -> None:
    """Write a sheet of boxes as .xlsx with the phantoms' mark; same rows, same bytes: no time is kept."""
    from openpyxl import Workbook
    book, saved, timeless = Workbook(), io.BytesIO(), io.BytesIO()
    book.active.title = path.stem
    for row in (COLUMNS, *rows):
        book.active.append(row)
    book.properties.creator, book.properties.created = MARK, datetime.datetime(*EPOCH)
    book.save(saved)
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(timeless, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = re.sub(rb"<dcterms:modified.*?</dcterms:modified>", b"", old.read(name))
            new.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(timeless.getvalue())
    os.replace(partial, path)


def refuse_other_workbook(path: Path) -> None:
    """Raise FileExistsError if there is another workbook than one of phantoms."""
    if not path.exists():
        return
    try:
        with zipfile.ZipFile(path) as book:
            ours = MARK.encode() in book.read("docProps/core.xml")
    except (zipfile.BadZipFile, zlib.error, KeyError, OSError, RuntimeError):
        ours = False
    if not ours:
        raise FileExistsError(f"{path} is not a phantoms' workbook and won't be overwritten: use another folder")


def make_anatomy_images(folder: Path | str, patients: int = 24, seed: int = 0, *, size: str = "demo",
                        absent: float = 0.1) -> list[Path]:
    """Write ObjectDetection.xlsx and Dataset for Fetus Framework/{TrainVal,Test}/fetusNNN.png; returns the images.

    One image per patient, grey uint8, of the sizes of `SHAPES[size]` in turn; the last patients (TEST_SHARE, one at
    least of two or more) are in Test. The workbook has a row per box, in whole pixels, half-open; each structure is
    absent in about the share `absent` of the images (in at least one of five or more, unless it is 0), but an image has
    one structure at least. The same arguments give the same bytes. Raises ValueError for impossible arguments,
    FileExistsError if there are other files.
    """
    if size not in SHAPES:
        raise ValueError(f"no size '{size}'; known: {', '.join(SHAPES)}")
    if patients < 1 or not 0 <= absent <= 1:
        raise ValueError("need patients >= 1, absent in 0..1")
    folder, digits = Path(folder), max(3, len(str(patients)))
    test = max(round(TEST_SHARE * patients), int(patients >= 2))
    splits = [folder / DATASET / name for name in ("TrainVal", "Test")]
    images = [splits[i >= patients - test] / f"fetus{i + 1:0{digits}d}.png" for i in range(patients)]
    refuse_other_images(images, splits)
    refuse_other_workbook(folder / WORKBOOK)

    rows = []
    for path, (picture, masks) in zip(images, make_heads(patients, seed, size, absent)):
        write_png(path, picture)
        rows += [(path.name, name, *box(mask)) for name, mask in masks.items()]
    write_workbook(folder / WORKBOOK, rows)
    return images
