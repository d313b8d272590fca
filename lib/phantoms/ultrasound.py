"""The ultrasound physics that phantoms share: speckle, gain, shadow and scan conversion; and their PNG files.

A scene is drawn in millimetres (x to the right, y away from the probe) by a function of points, so that the same
anatomy is sampled on any grid: along the beams for the echoes, on the pixels for the mask. Speckle is the magnitude
of blurred complex noise, Rayleigh where scatterers are diffuse and Rician where a surface mirrors (Wagner et al.,
IEEE Trans Sonics Ultrason 30:156, 1983), then log-compressed; points (2, ...) are x and y, arrays float32.
"""
from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from lib.phantoms.stroke import soft

MARK = "FoldScan phantom"  # a text chunk in every PNG: nothing else is ever overwritten


@dataclass(frozen=True)
class View:
    """What the picture shows: `shape` (rows, columns), pixels of `mm`, the middle of its top edge at (x, y) mm."""
    shape: tuple[int, int]
    mm: float
    x: float = 0.0
    y: float = 0.0

    def points(self) -> np.ndarray:
        """Centres of the pixels, (2, rows, columns) mm."""
        rows, columns = self.shape
        x = self.x + (np.arange(columns, dtype=np.float32) - (columns - 1) / 2) * self.mm
        y = self.y + (np.arange(rows, dtype=np.float32) + 0.5) * self.mm
        return np.stack(np.meshgrid(x, y)).astype(np.float32)


@dataclass(frozen=True)
class Probe:
    """A curved array: beams leave its face, `radius` mm from the apex (x, y), within `half_angle` (rad) of straight
    down, and reach `depth` mm."""
    x: float
    y: float
    radius: float
    half_angle: float
    depth: float

    def sees(self, points: np.ndarray) -> np.ndarray:
        """bool: where points lie in the field."""
        along, angle = self.locate(points)
        return (along >= 0) & (along <= self.depth) & (np.abs(angle) <= self.half_angle)

    def beams(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        """Depths (n,) mm and angles (m,) rad of the samples that `view` needs, at most about a pixel apart."""
        points = view.points()
        (along, angle), seen = self.locate(points), self.sees(points)
        if not seen.any():
            raise ValueError("the view lies outside the field of the probe")
        far, width = float(along[seen].max()), float(np.abs(angle[seen]).max())
        count = int(np.ceil(2 * width * (self.radius + 0.7 * far) / view.mm)) + 1
        return np.arange(0, far + 2 * view.mm, view.mm), np.linspace(-width, width, count)

    def locate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Depth (mm) below the face and angle (rad) of points."""
        x, y = points[0] - np.float32(self.x), points[1] - np.float32(self.y)
        return length(x, y) - np.float32(self.radius), np.arctan2(x, y)


class Tissue:
    """What lies at points (2, n, m), axis 1 along the beams: echoes are painted over each other in order.

    `diffuse`: amplitude of small scatterers, `mirror`: that of smooth surfaces, `loss`: dB per mm beyond what the
    gain makes up for. Amplitude 1 is 0 dB.
    """

    def __init__(self, points: np.ndarray, step_mm: float, level_db: float):
        self.points, self.step_mm = points, step_mm
        self.diffuse = np.full(points.shape[1:], amplitude(level_db), np.float32)
        self.mirror, self.loss = np.zeros_like(self.diffuse), np.zeros_like(self.diffuse)

    def paint(self, share: np.ndarray, level_db: float | np.ndarray, loss: float = 0.0,
              part: tuple[slice, ...] = ()) -> None:
        """Replace what was there (in a `part` of the samples) by a tissue, by its `share` (0..1) of each sample."""
        self.diffuse[part] += (amplitude(level_db) - self.diffuse[part]) * share
        self.mirror[part] *= 1 - share
        self.loss[part] += (loss - self.loss[part]) * share

    def blob(self, own: np.ndarray, centre: Sequence[float], radii: Sequence[float], level_db: float,
             loss: float = 0.0, edge_mm: float = 0.4, within: np.ndarray | None = None) -> None:
        """Paint a small ellipse, given in the frame of the points `own`; only `within` (0..1) if given."""
        reach = np.float32(max(radii) + edge_mm)
        near = (np.abs(own[0] - np.float32(centre[0])) < reach) & (np.abs(own[1] - np.float32(centre[1])) < reach)
        rows, columns = (np.flatnonzero(near.any(axis)) for axis in (1, 0))
        if len(rows):
            part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            share = soft(ellipse(own[:, *part], centre, radii), edge_mm)
            self.paint(share if within is None else share * within[part], level_db, loss, part)

    def line(self, distance: np.ndarray, level_db: float | np.ndarray, width_mm: float, where: np.ndarray | float = 1.0,
             ) -> None:
        """Add the reflection of a surface at `distance` 0 (mm): the brighter, the more it faces the beam."""
        facing = np.abs(np.gradient(distance, axis=0)) / self.step_mm
        profile = np.exp(-0.5 * np.square(distance / width_mm))
        self.mirror += amplitude(level_db) * profile * where * np.clip(facing, 0, 1) ** 3


def amplitude(level_db: float | np.ndarray) -> float | np.ndarray:
    return np.power(np.float32(10), np.asarray(level_db, np.float32) / np.float32(20))


def length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y)  # np.hypot guards against overflow and takes several times as long


def ellipse(points: np.ndarray, centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
    """Depth in mm (negative outside) below the edge of an ellipse, to first order."""
    x, y = ((p - np.float32(c)) / np.float32(r) for p, c, r in zip(points, centre, radii))
    norm = length(x, y) + np.float32(1e-3)
    return norm * (1 - norm) / (length(x / np.float32(radii[0]), y / np.float32(radii[1])) + np.float32(1e-6))


def wander(rng: np.random.Generator, at: np.ndarray, length: float) -> np.ndarray:
    """A smooth random function of numbers `at`, of mean 0 and variance 1, that turns about every `length`."""
    rates = (rng.uniform(0.4, 1.6, 5) * np.pi / length).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, 5).astype(np.float32)
    at = at.astype(np.float32, copy=False)
    return sum(np.cos(rate * at + phase) for rate, phase in zip(rates, phases)) * np.float32(np.sqrt(2 / 5))


def texture(rng: np.random.Generator, points: np.ndarray, length_mm: float, flat: float = 1.0) -> np.ndarray:
    """A smooth random field at points, of mean 0 and variance 1; `flat` > 1 stretches it along x."""
    angles, phases = rng.uniform(0, 2 * np.pi, (2, 8)).astype(np.float32)
    rates = (rng.uniform(0.5, 1.5, 8) * np.pi / length_mm).astype(np.float32)
    coarse = points[:, ::2, ::2]
    waves = sum(np.cos(across * coarse[0] + down * coarse[1] + phase) for across, down, phase in
                zip(rates * np.cos(angles) / np.float32(flat), rates * np.sin(angles), phases))
    return cv2.resize(waves, points.shape[:0:-1]) * np.float32(0.5)


def speckle(rng: np.random.Generator, tissue: Tissue, spread: Sequence[float], focus: np.ndarray) -> np.ndarray:
    """Envelope of the echoes. spread: of the pulse along the beam and across it in focus and out of it, in samples;
    focus: 0..1 for each depth. Mean power of a diffuse amplitude a is a^2."""
    noise = rng.standard_normal((*tissue.diffuse.shape, 2), dtype=np.float32) * np.sqrt(np.float32(0.5))
    field = noise * tissue.diffuse[..., None]
    echoes = []
    for across in spread[1:]:
        # a Gaussian of width s leaves 1 / (2 sqrt(pi) s) of white noise's power; narrow ones are sums of few samples
        power = [np.square(cv2.getGaussianKernel(int(6 * s) | 1, s)).sum() for s in (spread[0], across)]
        size = (int(6 * across) | 1, int(6 * spread[0]) | 1)
        echo = cv2.GaussianBlur(field, size, across, sigmaY=spread[0], borderType=cv2.BORDER_REFLECT)
        echo /= np.float32(np.sqrt(power[0] * power[1]))
        echo[..., 0] += cv2.GaussianBlur(tissue.mirror, size, across, sigmaY=spread[0])
        echoes.append(echo)
    mixed = echoes[1] + (echoes[0] - echoes[1]) * focus[:, None, None]
    return length(mixed[..., 0], mixed[..., 1])


def gain_db(rng: np.random.Generator, depths: np.ndarray, angles: np.ndarray, spread_db: float) -> np.ndarray:
    """How far gain is off, (depths, angles): overall, by depth (the sliders), across, and where contact is poor."""
    reach, width = depths[-1], angles[-1]
    curve = rng.normal(0, spread_db) + 0.6 * spread_db * wander(rng, depths, reach / 2)
    curve += rng.normal(0, 0.5 * spread_db) * (depths / reach - 0.5) * 2
    across = 0.4 * spread_db * wander(rng, angles, width)
    for _ in range(rng.choice(4, p=(0.35, 0.35, 0.2, 0.1))):
        place, narrow = rng.uniform(-1.1, 1.1) * width, rng.uniform(0.03, 0.12) * width
        across = across - rng.uniform(5, 15) * np.exp(-0.5 * np.square((angles - place) / narrow))
    return (curve[:, None] + across[None]).astype(np.float32)


def scan(rng: np.random.Generator, view: View, probe: Probe, scene: Callable[[np.ndarray, float], Tissue], *,
         pulse_mm: tuple[float, float] = (0.16, 0.32), range_db: float = 58.0, noise_db: float = -50.0,
         haze_db: float = -44.0, gain_spread_db: float = 3.0) -> np.ndarray:
    """The picture of `scene(points, step_mm)`: uint8 (rows, columns), 0 outside the field.

    pulse_mm: spread (standard deviation) along the beam and, in focus, across it; both grow with depth.
    range_db: from black to white. noise_db: of electronics, at full depth. haze_db: of clutter that fills fluids.
    """
    depths, angles = probe.beams(view)
    r = (depths + probe.radius).astype(np.float32)[:, None]
    points = np.stack([probe.x + r * np.sin(angles, dtype=np.float32), probe.y + r * np.cos(angles, dtype=np.float32)])
    tissue = scene(points, view.mm)
    share = depths / depths[-1]
    beam_mm = (angles[1] - angles[0]) * (probe.radius + 0.6 * depths[-1])
    spread = [max(pulse_mm[0] / view.mm, 0.6), *(max(pulse_mm[1] * wide / beam_mm, 0.6) for wide in (1.0, 2.2))]
    focus = np.exp(-0.5 * np.square((share - rng.uniform(0.35, 0.65)) / 0.3)).astype(np.float32)

    haze = amplitude(haze_db + 5 * texture(rng, points, 9)) * np.exp(-0.6 * share)[:, None]
    tissue.diffuse = length(tissue.diffuse, haze.astype(np.float32))
    envelope = speckle(rng, tissue, spread, focus)
    lost = cv2.GaussianBlur(np.cumsum(tissue.loss, axis=0) * view.mm, (0, 0), max(spread[2], 0.6), sigmaY=0.6)
    level = 20 * np.log10(envelope + 1e-6) - lost + gain_db(rng, depths, angles, gain_spread_db)
    noise = length(*rng.standard_normal((2, *envelope.shape), dtype=np.float32)) * np.sqrt(np.float32(0.5))
    noise = cv2.GaussianBlur(noise, (3, 3), 0.7) * amplitude(noise_db + 14 * (share - 1))[:, None]
    level = 10 * np.log10(np.float32(10) ** (level / np.float32(10)) + np.square(noise))
    grey = np.clip(1 + level / range_db, 0, 1) * 255

    pixels = view.points()
    along, angle = probe.locate(pixels)
    columns = (angle - angles[0]) / (angles[1] - angles[0])
    picture = cv2.remap(grey.astype(np.float32), columns.astype(np.float32), (along / view.mm).astype(np.float32),
                        cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.where(probe.sees(pixels), np.rint(picture), 0).astype(np.uint8)


def write_png(path: Path, image: np.ndarray) -> None:
    """Write a grey image (rows, columns) uint8 with the phantoms' mark; same input, same bytes."""
    mark = PngImagePlugin.PngInfo()
    mark.add_text("Comment", MARK)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", pnginfo=mark, compress_level=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(buffer.getvalue())
    os.replace(partial, path)


def refuse_other_images(files: Sequence[Path], folders: Sequence[Path] = ()) -> None:
    """Raise FileExistsError if the folders of `files`, or further ones, hold any other file, or if one of `files` is
    no phantom."""
    known = set(files)
    for folder in sorted({*folders, *(file.parent for file in files)}):
        for path in sorted(folder.glob("[!.]*")) if folder.is_dir() else []:
            if path not in known:
                raise FileExistsError(f"{path} is not one of these {len(known)} files: use another folder")
            try:
                with Image.open(path) as image:
                    mark = image.info.get("Comment")
            except (UnidentifiedImageError, OSError):
                mark = None
            if mark != MARK:
                raise FileExistsError(f"{path} is not a phantom and won't be overwritten: use another folder")
