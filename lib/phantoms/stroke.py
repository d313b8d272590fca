"""Phantom stroke patients for `flair_visibility`: heads on axial diffusion MRI with drawn lesions.

Everything is defined in millimetres (x to the right, y to the front, z up, 0 in mid-brain), so that the
same patient can be sampled on any matrix. Inside the functions a volume is (z, y, x), points are (3, n) and
`axes` the 1-D z, y and x coordinates of a grid. Signal follows S = S0 exp(-b ADC) of each compartment,
mixed by its share of the voxel (Le Bihan et al., Radiology 161:401, 1986); ADC values after Lansberg et al.,
AJNR 22:637 (2001); magnitude noise is Rician (Gudbjartsson and Patz, Magn Reson Med 34:910, 1995).
"""
from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr, ndtri

SHAPES = {  # size name -> (columns, rows, slices) of the scans, dealt out in turn
    "small": ((64, 64, 8), (72, 64, 10)),
    "demo": ((128, 128, 20), (160, 144, 24)),
    "full": ((192, 192, 30), (256, 224, 26)),
}
ORIENTATIONS = ((1, 1), (-1, 1), (-1, -1))  # signs of the first two disk axes: RAS, LAS, LPS
VISIBLE_KINDS = ("partial", "none", "most")
MARK = b"FoldScan phantom"  # in the NIfTI headers: nothing else is ever overwritten
VOLUME_MEDIAN_ML, VOLUME_LOG_SD = 18.0, 1.25  # lognormal, before it is cut to the range
VOLUME_RANGE_ML = (1.1, 98.0)  # 1 to 100 mL with room for rounding to whole voxels
B_VALUE = 1000.0  # s/mm2
CSF_S0, CSF_ADC = 1500.0, 3.0e-3  # scanner units; ADC in mm2/s
# Lesion centres on the right: middle (two), posterior and anterior cerebral artery, deep, cerebellar.
TERRITORIES_MM = np.array([[42, 8, 12], [45, -18, 22], [22, -58, 8], [12, 42, 30], [24, 5, 8],
                           [26, -46, -38]])


@dataclass
class Head:
    """The brain voxels of one phantom: `inside` is (z, y, x) bool, the others run over its n True voxels."""
    inside: np.ndarray
    points: np.ndarray  # (3, n) mm: x, y, z in the head's own frame
    depth: np.ndarray  # mm below the brain surface
    csf: np.ndarray  # share of CSF in the voxel, 0..1
    deep_csf: np.ndarray  # mm outside the ventricles and large fissures
    s0: np.ndarray  # tissue signal at b = 0
    adc: np.ndarray  # tissue ADC, mm2/s


def smooth_field(rng: np.random.Generator, axes: Sequence[np.ndarray], scale_mm: float) -> np.ndarray:
    """A smooth random field of mean 0 and variance 1 on the grid of the 1-D `axes` (mm), float32.

    Cubic B-splines on knots `scale_mm` apart, fixed in space: the field is the same on any grid.
    """
    knots = np.arange(-150, 150 + scale_mm, scale_mm)
    field = rng.standard_normal((len(knots),) * len(axes)).astype(np.float32)
    for axis in axes:
        t = np.abs(axis[:, None] - knots) / scale_mm
        basis = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)
        basis /= np.sqrt((basis**2).sum(1, keepdims=True))
        field = np.tensordot(field, basis.astype(np.float32), (0, 1))  # the axes come round in order
    return field


def random_waves(rng: np.random.Generator, points: np.ndarray, length_mm: float) -> np.ndarray:
    """Plane waves of one length summed at (3, n) points, variance 1: their zeros wind like cortical folds."""
    count = 14
    directions = rng.standard_normal((count, 3)) * (1, 1, 0.6)
    directions *= 2 * np.pi / length_mm / np.linalg.norm(directions, axis=1, keepdims=True)
    phase = directions.astype(np.float32) @ points + rng.uniform(0, 2 * np.pi, (count, 1)).astype(np.float32)
    return np.cos(phase, out=phase).sum(0) * np.float32(np.sqrt(2 / count))


def ellipsoid(points: np.ndarray, centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
    """Depth in mm (negative outside) below an ellipsoid's surface, to first order."""
    offsets = [(p - c) / r for p, c, r in zip(points, centre, radii)]
    norm = np.sqrt(sum(o * o for o in offsets)) + 1e-3
    slope = np.sqrt(sum((o / r) ** 2 for o, r in zip(offsets, radii))) + 1e-6
    return (norm * (1 - norm) / slope).astype(np.float32)


def tube(points: np.ndarray, path: Sequence[Sequence[float]]) -> np.ndarray:
    """Distance in mm from a chain of (x, y, z, radius) knots, less the radius there: negative inside."""
    nearest = np.full(points.shape[1], np.inf, np.float32)
    for a, b in zip(np.array(path[:-1], np.float32), np.array(path[1:], np.float32)):
        along = b[:3] - a[:3]
        t = np.clip((along @ points - along @ a[:3]) / (along @ along), 0, 1)
        gap = np.sqrt(sum((points[i] - a[i] - t * along[i]) ** 2 for i in range(3)))
        np.minimum(nearest, gap - a[3] - t * (b[3] - a[3]), out=nearest)
    return nearest


def soft(depth: np.ndarray, width_mm: float) -> np.ndarray:
    """Share of a voxel of `width_mm` that lies inside a surface `depth` mm away."""
    return np.clip(0.5 + depth / width_mm, 0, 1)


def smooth_max(a: np.ndarray, b: np.ndarray, width_mm: float) -> np.ndarray:
    """Maximum with a rounded crease (quadratic polynomial blend), for unions of depths."""
    h = np.clip(width_mm - np.abs(a - b), 0, None)
    return np.maximum(a, b) + h * h / (4 * width_mm)


def head_points(rng: np.random.Generator, axes: Sequence[np.ndarray]) -> np.ndarray:
    """Where each voxel lies in the head's own frame, (3, z, y, x) mm: posed, scaled and smoothly deformed."""
    z, y, x = np.meshgrid(*axes, indexing="ij", copy=False)
    turn, tilt = np.deg2rad(rng.uniform(-6, 6, 2))
    shift, scale = rng.uniform(-3, 3, 3), rng.uniform(0.94, 1.04, 3)
    x, y, z = x - shift[0], y - shift[1], z - shift[2]
    x, y = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    y, z = y * np.cos(tilt) + z * np.sin(tilt), z * np.cos(tilt) - y * np.sin(tilt)
    bend = [(2.2 * smooth_field(rng, axes, 45) + 0.6 * smooth_field(rng, axes, 18)) for _ in range(3)]
    return np.stack([p * s + b for p, s, b in zip((x, y, z), scale, bend)]).astype(np.float32)


def brain_depth(points: np.ndarray, floor_mm: float = -20.0) -> np.ndarray:
    """Depth in mm below the surface of cerebrum, temporal lobes, cerebellum and brain stem together.

    `floor_mm` is the level of the skull base under the cerebrum.
    """
    x, y, z = np.abs(points[0]), points[1], points[2]
    mirrored = np.stack([x, y, z])
    floor = z - floor_mm - 0.12 * np.clip(y, 0, None)  # the frontal base lies higher than the rest
    cerebrum = -smooth_max(-ellipsoid(points, (0, 0, 0), (66, 83, 64)), -floor, 12)
    depth = smooth_max(cerebrum, ellipsoid(mirrored, (41, 8, -24), (23, 38, 22)), 5)
    depth = smooth_max(depth, ellipsoid(mirrored, (18, -47, -38), (34, 31, 23)), 4)
    stem = 13 - np.hypot(x, y + 14 - 0.25 * (z + 30)) - np.clip(z + 12, 0, None)
    return smooth_max(depth, stem, 4)


def fluid_spaces(points: np.ndarray, age: float, wander: np.ndarray) -> tuple[np.ndarray, ...]:
    """Distance (n,) in mm, negative inside, to lateral ventricles, deep CSF, midline and Sylvian fissures.

    `age` 0..1 widens them all; `wander` is a field of variance 1 that varies the widths from place to place.
    """
    x, y, z = points
    m = np.stack([np.abs(x), y, z])
    wide = 0.7 + 0.6 * age
    lateral = tube(m, [(13, 33, 5, 2.6 * wide), (8, 20, 12, 4.4 * wide), (8, 4, 18, 3.8 * wide),
                       (12, -16, 20, 4.0 * wide), (21, -36, 10, 6.0 * wide), (24, -58, 4, 2.0 * wide)])
    temporal = tube(m, [(21, -36, 8, 4), (32, -22, -12, 2.0 * wide), (29, 0, -24, 1.6)])
    third = np.maximum(m[0] - 1.6 * wide, -ellipsoid(points, (0, 0, -4), (30, 14, 12)))
    fourth = -ellipsoid(points, (0, -30, -36), (7, 6, 10))
    cistern = -ellipsoid(points, (0, 8, -22), (15, 13, 7))
    quadrigeminal = -ellipsoid(points, (0, -34, -6), (11, 4, 7))
    deep = np.minimum.reduce([lateral, temporal, third, fourth, cistern, quadrigeminal])
    callosum = (1 - np.hypot(y / 46, (z - 4) / 27)) * 27  # the fissure ends at the corpus callosum
    midline = np.abs(x + 0.8 * wander) - np.clip(0.3 + 0.6 * age + 0.5 * wander, -1, None)
    sylvian = tube(np.stack([m[0], y + 0.3 * z, (z - 2) * 0.3]),
                   [(66, 24, 0, 2.0), (50, 20, 0, 2.0), (42, 14, 0, 2.0), (41, -16, 0, 0.3)])
    sylvian += 1.3 - age - 0.4 * wander
    return lateral, deep, np.where(z < -16, 99, np.maximum(midline, callosum)), sylvian


def sulci(rng: np.random.Generator, points: np.ndarray, age: float, wander: np.ndarray) -> np.ndarray:
    """Distance in mm, negative inside, to the sulci of the cerebrum and the folia of the cerebellum (n,)."""
    depth = np.clip(brain_depth(points, floor_mm=-48.0), 0, 25)  # the flat base has few folds
    outward = points / (np.linalg.norm(points, axis=0) + 1)
    # seen from near the surface all along a radius, so that the sulci run straight inwards
    folds = random_waves(rng, points + 0.7 * depth * outward + 1.8 * wander, 21)
    reach = np.clip(15 + 4 * random_waves(rng, points, 60), 7, 21)
    width = (0.4 + 0.9 * age) * np.clip(1.15 - depth / reach, 0, 1) * np.clip(0.75 + 0.6 * wander, 0, 1.5)
    cerebrum = np.maximum(np.abs(folds) * 21 / (2 * np.pi) - width, depth - reach)
    folia = random_waves(rng, points * np.array([[0.5], [1], [1]], np.float32), 9)
    folia = np.abs(folia) * 9 / (2 * np.pi) - 0.5 * np.clip(0.3 + 0.5 * wander, 0, 1)
    x, y, z = np.abs(points[0]), points[1], points[2]
    cerebellar = (z < -20 - 0.2 * (y + 18)) & (y < -18) & (x < 52)
    return np.where(cerebellar, np.maximum(folia, depth - 14), cerebrum)


def make_head(rng: np.random.Generator, points: np.ndarray, axes: Sequence[np.ndarray], depth: np.ndarray,
              width_mm: float) -> Head:
    """Fluid, folded cortex, white and deep grey matter where the brain's `depth` (z, y, x), mm, is > 0."""
    inside = depth > 0
    p, d = points[:, inside], depth[inside]
    fine, middle, coarse = (smooth_field(rng, axes, scale)[inside] for scale in (7, 14, 22))
    age = rng.uniform(0.1, 1.0)  # wider ventricles and sulci, more white-matter disease
    lateral, deep, midline, sylvian = fluid_spaces(p, age, middle)
    sulcus = sulci(rng, p, age, middle)
    m = np.stack([np.abs(p[0]), p[1], p[2]])
    thalamus, caudate = ellipsoid(m, (11, -14, 7), (8, 13, 9)), ellipsoid(m, (15, 19, 8), (4.5, 9, 9))
    lentiform = ellipsoid(m, (25, 4, 3), (6, 15, 11))
    ganglia = soft(np.maximum.reduce([thalamus, caudate, lentiform]), width_mm)
    to_csf = np.minimum.reduce([d, sulcus, midline, sylvian])
    white = soft(to_csf - 3.0 - 0.5 * fine, 1.3 * width_mm) * (1 - 0.6 * ganglia)
    csf = soft(-np.minimum.reduce([deep, sulcus, midline, sylvian]), width_mm)
    csf = np.maximum(csf, np.clip(0.45 + 0.35 * middle, 0, 0.9) * soft(0.8 - d, width_mm))
    s0 = 720 - 200 * white - 90 * ganglia - 130 * soft(lentiform - 1, 4) + 16 * fine + 16 * coarse
    adc = 0.84e-3 - 0.10e-3 * white - 0.05e-3 * ganglia + 0.02e-3 * coarse
    halo = age**2 * np.exp(-np.clip(lateral, 0, None) / 5) * white * np.clip(0.8 + 0.5 * middle, 0, 1)
    return Head(inside, p, d, csf.astype(np.float32), np.minimum.reduce([deep, midline, sylvian]),
                (s0 * (1 + 0.45 * halo)).astype(np.float32), (adc * (1 + 0.3 * halo)).astype(np.float32))


def add_look_alikes(rng: np.random.Generator, head: Head) -> None:
    """Draw T2 shine-through spots (bright at both b, normal ADC) and old, fluid-like infarcts into `head`."""
    def patch(radius: float) -> np.ndarray:
        centre = head.points[:, rng.integers(head.points.shape[1])]
        gap = np.sqrt(((head.points - centre[:, None]) ** 2).sum(0))
        return np.clip(1.4 - gap / radius, 0, 1) * (head.depth > 3)
    for _ in range(rng.poisson(3)):
        spot = patch(rng.uniform(2.5, 7))
        head.s0 *= 1 + rng.uniform(0.3, 0.6) * spot
        head.adc *= 1 + rng.uniform(0.05, 0.2) * spot
    if rng.random() < 0.3:
        scar = patch(rng.uniform(5, 11))
        head.s0 *= 1 + 0.9 * scar
        head.adc += 1.5e-3 * scar


def add_lesion(rng: np.random.Generator, head: Head, axes: Sequence[np.ndarray], volume_ml: float,
               visible: str, voxel_ml: float) -> tuple[np.ndarray, np.ndarray]:
    """An acute infarct of `volume_ml` in one hemisphere, drawn into `head`; returns its two ROIs, (n,) bool.

    The lesion holds the voxels with the highest score: a blob about one or two foci plus smooth noise, so its
    volume is met on any grid. The FLAIR-visible part is where S0 (T2) is raised: no voxel, a part of the
    lesion or nearly all of it, as `visible` is none, partial or most.
    """
    side = rng.choice([-1.0, 1.0])
    centre = TERRITORIES_MM[rng.integers(len(TERRITORIES_MM))] + rng.normal(0, 5, 3)
    allowed = (side * head.points[0] > 2) & (head.depth > 1.5) & (head.deep_csf > 0.5)
    places = head.points[:, allowed]
    rough = (smooth_field(rng, axes, 14) + 0.5 * smooth_field(rng, axes, 6))[head.inside][allowed]
    foci = [(centre * (side, 1, 1), 1.0)]
    if rng.random() < 0.3:
        foci.append((foci[0][0] + rng.normal(0, 1, 3) * (8, 22, 12), rng.uniform(0.45, 0.8)))
    radius = (volume_ml * 1000 * 3 / (4 * np.pi * sum(size**3 for _, size in foci))) ** (1 / 3)
    stretch = rng.uniform(0.75, 1.3, 3)
    score = np.full(places.shape[1], -np.inf)
    for where, size in foci:
        nearest = places[:, ((places - where[:, None]) ** 2).sum(0).argmin()]  # never in a ventricle
        gap = np.sqrt((((places - nearest[:, None]) / stretch[:, None]) ** 2).sum(0))
        score = np.maximum(score, radius * size - gap)
    score = score + min(0.22 * radius, 4.5) * rough  # mm, like the gap
    count = min(max(round(volume_ml / voxel_ml), 2), len(score) // 2)
    edge = np.partition(score, -count)[-count]
    stroke, weight = np.zeros(head.depth.shape, bool), np.zeros(head.depth.shape, np.float32)
    stroke[allowed] = score >= edge
    weight[allowed] = np.clip(0.65 + (score - edge) / 2.5, 0, 1)

    head.csf *= 1 - 0.6 * weight  # swelling closes the sulci
    adc = rng.uniform(0.35e-3, 0.55e-3) * (1 + 0.06 * smooth_field(rng, axes, 10)[head.inside])
    head.adc += weight * (adc - head.adc)
    head.s0 *= 1 + rng.uniform(0, 0.06) * weight
    flair = np.zeros_like(stroke)
    share = {"none": 0.0, "partial": rng.uniform(0.15, 0.7), "most": rng.uniform(0.85, 1.0)}[visible]
    if share:
        ripe = smooth_field(rng, axes, 16)[head.inside] + 0.8 * weight  # the core ripens before the rim
        edge = np.quantile(ripe[stroke], 1 - share)
        flair = stroke & (ripe >= edge)
        head.s0 *= 1 + rng.uniform(0.3, 0.6) * weight * np.clip(0.6 + (ripe - edge) / 0.4, 0, 1)
    return stroke, flair


def signals(rng: np.random.Generator, points: np.ndarray, axes: Sequence[np.ndarray], depth: np.ndarray,
            head: Head) -> list[np.ndarray]:
    """Noise-free b = 0 and b = 1000 images (z, y, x): brain, CSF, eyes, faint skull, scalp and face."""
    x, y, z = points
    low = np.minimum(z + 8, 0)  # below the brow the head tapers slowly towards the neck
    shell = ellipsoid(np.stack([x, y, z - 0.6 * low]), (0, 1, -2), (78, 95, 78))
    patchy = np.clip(1 + 0.5 * smooth_field(rng, axes, 12), 0, 2.5)
    scalp = (100 * soft(shell, 2) * soft(5.5 - shell, 2) + 12 * soft(shell, 2)) * (0.6 + 0.4 * patchy)
    face = 90 * soft(shell - 4, 4) * soft(-z - 26, 10) * patchy * patchy
    eyes = soft(ellipsoid(np.stack([np.abs(x), y, z]), (31, 74, -33), (12, 12, 12)), 2)
    rim = np.where(depth < 0, soft(depth + 1.8, 2) * soft(shell - 7, 3), 0)  # CSF between brain and skull
    rim *= np.clip(0.3 + 0.25 * patchy, 0, 0.9)
    images = []
    for b in (0.0, B_VALUE):
        csf = CSF_S0 * np.exp(-b * CSF_ADC)
        image = (scalp + face) * np.exp(-b * 1.6e-3)
        image += (0.8 * csf - image) * eyes
        image += (csf - image) * rim
        image[head.inside] = (1 - head.csf) * head.s0 * np.exp(-b * head.adc) + head.csf * csf
        images.append(image.astype(np.float32))
    return images


def add_artefacts(rng: np.random.Generator, images: list[np.ndarray], points: np.ndarray) -> None:
    """Add bright pile-up beside a void at frontal base and petrous bones, stronger at b = 1000, in place."""
    for where in ((13, 60, -16), (-13, 60, -16), (46, -14, -30), (-46, -14, -30)):
        if rng.random() < 0.3:
            continue
        centre = np.array(where) + rng.normal(0, 3, 3)
        gap = [(points[i] - centre[i]) / s for i, s in enumerate((8, 5, 6))]
        blob = np.exp(-0.5 * sum(g * g for g in gap))
        void = 1 - 0.6 * np.exp(-0.5 * (gap[0] ** 2 + (gap[1] - 2.2) ** 2 + gap[2] ** 2))
        strength = rng.uniform(0.4, 1.1)
        images[0] *= (1 + 0.5 * strength * blob) * void
        images[1] *= (1 + strength * blob) * void


def scan(rng: np.random.Generator, images: list[np.ndarray], axes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What the scanner makes of the images: blur, coil bias, Nyquist ghost, gain and Rician noise; int16."""
    bias = np.exp(0.13 * smooth_field(rng, axes, 75))
    gain, ghost = rng.uniform(0.8, 1.2), rng.uniform(0.0, 0.02)
    scans = []
    for image, sigma in zip(images, (rng.uniform(10, 22), rng.uniform(7, 14))):
        image = gaussian_filter(image, (0, 0.6, 0.6), truncate=3) * bias
        image += ghost * np.roll(image, image.shape[1] // 2, axis=1)
        real, imaginary = sigma * rng.standard_normal((2, *image.shape), dtype=np.float32)
        scans.append(np.rint(gain * np.hypot(image + real, imaginary)).clip(0, 32767).astype(np.int16))
    return scans


def grid(rng: np.random.Generator, shape: tuple[int, int, int]) -> tuple[list[np.ndarray], tuple[float, ...]]:
    """The z, y and x axes (mm) of a scan of (columns, rows, slices), and its voxel size (x, y, z) in mm."""
    pixel = max(rng.uniform(225, 235) / max(shape[:2]), 212 / min(shape[:2]))
    spacing = (pixel, pixel, float(np.clip(128 / shape[2], 4, 6)))
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing)]
    return axes[::-1], spacing


def write_nifti(path: Path, volume: np.ndarray, affine: np.ndarray, signs: tuple[int, int]) -> None:
    """Write a RAS (z, y, x) volume with its first two disk axes signed as told; same input, same bytes."""
    data, disk = volume.T, affine.copy()
    for axis, sign in enumerate(signs):
        if sign < 0:
            data = np.flip(data, axis)
            disk[:3, 3] += disk[:3, axis] * (data.shape[axis] - 1)
            disk[:3, axis] *= -1
    image = nib.Nifti1Image(data, disk)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = MARK
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))
    os.replace(partial, path)


def make_patient(rng: np.random.Generator, shape: tuple[int, int, int], volume_ml: float, visible: str,
                 ) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """One patient: volumes (z, y, x) by file stem (`mask` is the true brain) and the RAS affine (4, 4).

    `volume_ml` 0 makes a patient without a lesion; `visible` is one of `VISIBLE_KINDS`.
    """
    axes, spacing = grid(rng, shape)
    points = head_points(rng, axes)
    depth = brain_depth(points)
    head = make_head(rng, points, axes, depth, max(1.2 * spacing[0], 1.6))
    add_look_alikes(rng, head)
    rois = [np.zeros(shape[::-1], np.uint8) for _ in range(2)]
    if volume_ml > 0:
        for roi, found in zip(rois, add_lesion(rng, head, axes, volume_ml, visible, np.prod(spacing) / 1000)):
            roi[head.inside] = found
    images = signals(rng, points, axes, depth, head)
    add_artefacts(rng, images, points)
    b0, b1000 = scan(rng, images, axes)

    tilt, turn = np.deg2rad(rng.uniform(-12, 12)), np.deg2rad(rng.uniform(-3, 3))
    pitch = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    yaw = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = pitch @ yaw * spacing
    affine[:3, 3] = affine[:3, :3] @ (-(np.array(shape) - 1) / 2) + rng.uniform(-15, 15, 3)
    volumes = {"b0": b0, "b1000": b1000, "stroke_roi": rois[0], "flairviz_roi": rois[1]}
    return volumes | {"mask": head.inside.astype(np.uint8)}, affine


def refuse_other_data(folder: Path, folders: Sequence[Path]) -> None:
    """Raise FileExistsError if it holds patients other than `folders`, or scans that are no phantoms."""
    for path in sorted(folder.glob("[!.]*/")) if folder.is_dir() else []:
        if path not in folders:
            raise FileExistsError(f"{path} is not one of these {len(folders)} patients: use another folder")
        for file in sorted([*path.glob("*.nii"), *path.glob("*.nii.gz")]):
            try:
                mark = nib.load(file).header["descrip"].item()
            except (nib.filebasedimages.ImageFileError, OSError, EOFError, zlib.error):
                mark = None
            if mark != MARK:
                raise FileExistsError(f"{file} is not a phantom and won't be overwritten: use another folder")


def make_stroke_patients(folder: Path | str, patients: int = 24, seed: int = 0, *, size: str = "demo",
                         shapes: Sequence[tuple[int, int, int]] | None = None, lesion_free: float = 0.125,
                         masks: bool = False) -> list[Path]:
    """Write Patient_NN/{b0,b1000,stroke_roi,flairviz_roi}.nii.gz under `folder`; returns those folders.

    Scans are int16, ROIs uint8 0/1. Matrix sizes (columns, rows, slices) come from `shapes` or, by name, from
    `SHAPES[size]`, in turn; so do the orientations RAS, LAS and LPS, each slightly oblique. Lesions are 1 to
    100 mL, their quantiles spread over the cohort; about the share `lesion_free` of the patients has none (at
    least one of three or more, unless it is 0). `masks` also writes the true brain as mask.nii.gz. The same
    arguments give the same bytes. Raises ValueError for impossible arguments, FileExistsError if `folder`
    holds other patients, or files that are no phantoms.
    """
    if size not in SHAPES:
        raise ValueError(f"no size '{size}'; known: {', '.join(SHAPES)}")
    shapes = [tuple(shape) for shape in shapes or SHAPES[size]]
    if patients < 1 or not 0 <= lesion_free <= 1 or any(len(s) != 3 or min(s) < 4 for s in shapes):
        raise ValueError("need patients >= 1, lesion_free in 0..1, shapes of (columns, rows, slices) >= 4")
    folder, digits = Path(folder), max(2, len(str(patients)))
    folders = [folder / f"Patient_{i + 1:0{digits}d}" for i in range(patients)]
    refuse_other_data(folder, folders)

    cohort, *streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(patients + 1)]
    free = round(lesion_free * patients)
    free = max(free, 1) if lesion_free > 0 and patients >= 3 else free
    count = patients - free
    quantiles = (np.arange(count) + cohort.random(count)) / max(count, 1)
    if count >= 8:
        quantiles[[0, -1]] = 0, 1  # a cohort shows the whole range
    low, high = ndtr(np.log(np.array(VOLUME_RANGE_ML) / VOLUME_MEDIAN_ML) / VOLUME_LOG_SD)
    volumes = VOLUME_MEDIAN_ML * np.exp(VOLUME_LOG_SD * ndtri(low + (high - low) * quantiles))
    lesions = list(zip(cohort.permutation(volumes), (VISIBLE_KINDS[i % 3] for i in range(count))))
    order = cohort.permutation(patients)
    lesions = [(lesions + [(0.0, "none")] * free)[i] for i in order]
    for i, (path, rng, (volume_ml, visible)) in enumerate(zip(folders, streams, lesions)):
        volumes, affine = make_patient(rng, shapes[i % len(shapes)], float(volume_ml), visible)
        path.mkdir(parents=True, exist_ok=True)
        for name, volume in volumes.items():
            if name != "mask" or masks:
                write_nifti(path / f"{name}.nii.gz", volume, affine, ORIENTATIONS[i % 3])
            else:
                (path / "mask.nii.gz").unlink(missing_ok=True)
    return folders
