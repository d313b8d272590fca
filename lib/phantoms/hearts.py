"""Beating hearts in the apical four-chamber view, with what spoils such a view.

The heart's own frame (mm): x to the right, y from the apex (0) to the base, where the valves are; left ventricle and
atrium at x > 0. The apex hardly moves, the base comes towards it and the walls thicken in systole, the mitral valve
opens twice in diastole (early filling and atrial kick). Levels are in dB as in lib.phantoms.ultrasound; frames come
first: per frame (n, 1, 1), pictures (n, depths, beams).
"""
from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from lib.phantoms.stroke import smooth_max, soft
from lib.phantoms.ultrasound import Probe, View, amplitude, ellipse, length, texture, wander

FAULTS = ("contrast", "noise", "shadow", "off_axis")
CHUNK = 8  # frames that are drawn at once
# of a beat (0..1 from the R wave): shortening of the ventricles, opening of their valves
CONTRACTION = (0, 0.1, 0.35, 0.42, 0.6, 0.82, 0.95, 1), (0, 0.25, 1, 0.97, 0.25, 0.18, 0, 0)
OPENING = (0, 0.02, 0.42, 0.48, 0.56, 0.66, 0.8, 0.88, 0.97, 1), (0.1, 0, 0, 0.9, 1, 0.45, 0.4, 0.85, 0.2, 0.1)


@dataclass(frozen=True)
class Heart:
    """Sizes in mm at the end of diastole; `place` is that of the apex below the middle of the probe, `turn` in rad."""
    long: float  # from apex to mitral valve
    wide: float  # half width of the left ventricle
    right: float  # half width of the right ventricle
    wall: float
    atrium: float  # radius
    squeeze: float  # share by which the ventricles narrow in systole
    descent: float  # of the valves, in systole
    place: tuple[float, float]
    turn: float
    rate: float  # beats per minute
    start: float  # of the loop, in beats after an R wave
    seed: int  # of textures that frames share
    drop_out: float = field(default=0.0)  # dB that walls along the beam lose

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Heart:
        size = rng.uniform(0.9, 1.1)
        return cls(rng.uniform(70, 82) * size, rng.uniform(19, 23) * size, rng.uniform(13, 18) * size, rng.uniform(8, 11),
                   rng.uniform(18, 22) * size, rng.uniform(0.2, 0.38), rng.uniform(10, 16), (0.0, 0.0), 0.0,
                   float(rng.integers(52, 100)), 0.0, int(rng.integers(2**32)))

    def seen(self, rng: np.random.Generator, off_axis: float) -> Heart:
        """The same heart in another loop; off axis it is foreshortened, turned, off the middle and has faint walls."""
        side = rng.choice((-1, 1))
        x = rng.uniform(-9, 9) + 13 + side * off_axis * rng.uniform(18, 28)
        turn = np.deg2rad(rng.uniform(-8, 9)) + side * off_axis * np.deg2rad(rng.uniform(12, 25))
        return replace(self, long=self.long * (1 - 0.36 * off_axis), wide=self.wide * (1 + 0.15 * off_axis),
                       right=self.right * (1 - 0.5 * off_axis), atrium=self.atrium * (1 - 0.45 * off_axis),
                       place=(float(x), float(rng.uniform(12, 20) + 10 * off_axis)), turn=float(turn),
                       start=float(rng.random()), drop_out=float(rng.uniform(0, 5) + 12 * off_axis))

    def beat(self, frames: int, frame_rate: float) -> np.ndarray:
        """Where in the beat (0..1) each frame lies."""
        return np.mod(self.start + np.arange(frames) * self.rate / 60 / frame_rate, 1)

    def own(self, points: np.ndarray) -> np.ndarray:
        x, y = points[0] - np.float32(self.place[0]), points[1] - np.float32(self.place[1])
        cos, sin = np.float32(np.cos(self.turn)), np.float32(np.sin(self.turn))
        return np.stack([cos * x + sin * y, cos * y - sin * x])

    def levels(self, p: np.ndarray, beat: np.ndarray) -> np.ndarray:
        """dB of the echoes at points p (2, depths, beams) of its own frame, for each frame: (n, depths, beams)."""
        rng = np.random.default_rng(self.seed)
        squeezed, opened = (np.interp(beat, *curve).astype(np.float32)[:, None, None] for curve in (CONTRACTION, OPENING))
        x, y = p[0][None], p[1][None]
        wide, right = (w * (1 - self.squeeze * squeezed) for w in (self.wide, self.right))
        base = self.long - self.descent * squeezed
        atrium = self.atrium * (0.85 + 0.2 * squeezed)
        left_x, right_x, valve = 0.0, -(self.wide + self.right + self.wall), 0.62 * self.wide
        patchy, fine = texture(rng, p, 14), texture(rng, p, 5)

        # the outside of the heart keeps its size: walls thicken as the cavities shrink
        outside = smooth_max(ellipse(p, (left_x, 0.52 * self.long), (self.wide + self.wall, 0.6 * self.long)),
                             ellipse(p, (right_x, 0.62 * self.long), (self.right + 0.6 * self.wall, 0.5 * self.long)), 10)
        level = np.repeat((-37 + 5 * patchy + 2 * fine + 6 * soft(-p[1], 30))[None], len(beat), axis=0).astype(np.float32)
        level = blend(level, soft(outside, 2)[None], -23 + 2.5 * fine + 1.5 * patchy)
        left = np.minimum(ellipse((x, y), (left_x, 0.55 * base + 4), (wide, 0.58 * base)), base - y)
        lean = x - np.float32(0.16) * (y - 0.6 * self.long)
        right_side = np.minimum(ellipse((lean, y), (right_x, 0.66 * base), (right, 0.46 * base)), base - 4 - y)
        left_atrium = ellipse((x, y), (left_x, base + 0.98 * atrium), (0.95 * atrium, 1.05 * atrium))
        right_atrium = ellipse((x, y), (right_x + 3, base - 4 + 0.95 * atrium), (0.9 * atrium, atrium))
        for atrial in (left_atrium, right_atrium):
            level = blend(level, soft(atrial + 3.5, 1.5), -25 + 2 * fine)
        rings = [soft(valve * factor - np.abs(x - at), 2) * soft(3 - np.abs(y - base - shift), 2)
                 for at, factor, shift in ((left_x, 0.95, 0), (right_x, 0.7, -4))]
        for cavity in (left, right_side, left_atrium, right_atrium, *(ring * 4 - 2 for ring in rings)):
            level = blend(level, soft(cavity, 2), -56)

        faint = -5 * soft(patchy, 2) - self.drop_out * soft(wander(rng, p[1] + p[0], 40) + 0.5, 1.5)[None]
        level = line(level, outside[None] - 1.0, -13 + faint + 2 * fine - 60 * soft(y - base + 6, 4), 0.9)  # pericardium
        doors = 40 * np.maximum(*rings)  # walls have none where leaflets close them off
        for cavity, shine in ((left, -19), (right_side, -21), (left_atrium, -20), (right_atrium, -21)):
            level = line(level, cavity + 0.6, shine + faint + 3 * fine - doors, 0.7)
        for at, half, shift in ((left_x, valve, 0.0), (right_x, 0.75 * valve, -4.0)):
            for side in (-1, 1):
                root = at + side * half, base + shift
                tip = at + side * half * (0.06 + 0.6 * opened), base + shift - half * (0.15 + 0.85 * opened)
                level = line(level, segment(x, y, root, tip), -12 + 2 * fine + 0.5 * faint, 0.9)
        return level

    def material(self, p: np.ndarray, beat: float) -> np.ndarray:
        """Where (mm, at rest) the tissue comes from that lies at p in a frame: speckle moves with it."""
        squeezed = np.float32(np.interp(beat, *CONTRACTION))
        share = np.clip(p[1] / np.float32(self.long), 0, 1)
        return np.stack([p[0] * (1 + np.float32(0.5 * self.squeeze) * squeezed * share), p[1] + self.descent * squeezed * share])


def blend(level: np.ndarray, share: np.ndarray, other: np.ndarray | float) -> np.ndarray:
    return level + (np.asarray(other, np.float32) - level) * share.astype(np.float32)


def line(level: np.ndarray, distance: np.ndarray, shine: np.ndarray | float, width_mm: float) -> np.ndarray:
    """A bright line at `distance` 0, of Gaussian profile: a parabola in dB."""
    return np.maximum(level, shine - np.float32(4.34) * np.square(distance / np.float32(width_mm)))


def segment(x: np.ndarray, y: np.ndarray, start: tuple, stop: tuple) -> np.ndarray:
    """Distance (mm) of points from the line between two places, each (x, y) per frame."""
    along = np.subtract(stop[0], start[0]), np.subtract(stop[1], start[1])
    off = x - start[0], y - start[1]
    share = np.clip((off[0] * along[0] + off[1] * along[1]) / (along[0] ** 2 + along[1] ** 2), 0, 1)
    return length(off[0] - share * along[0], off[1] - share * along[1])


def make_loop(rng: np.random.Generator, view: View, probe: Probe, heart: Heart, frames: int, frame_rate: float,
              faults: dict[str, float]) -> np.ndarray:
    """A cine loop uint8 (frames, rows, columns) of `heart` (as seen), 0 outside the sector.

    faults: how bad (0..1) `contrast`, `noise` and `shadow` are; `off_axis` is a matter of Heart.seen.
    """
    depths, angles = probe.beams(view)
    count = max(48, int(0.6 * len(angles)))  # a phased array has fewer beams than the picture columns
    angles = np.linspace(angles[0], angles[-1], count)
    r = (depths + probe.radius).astype(np.float32)[:, None]
    points = np.stack([probe.x + r * np.sin(angles, dtype=np.float32), probe.y + r * np.cos(angles, dtype=np.float32)])
    own, beat, share = heart.own(points), heart.beat(frames, frame_rate), (depths / depths[-1]).astype(np.float32)[:, None]
    haze = amplitude(-50 + 21 * faults["contrast"] + 4 * texture(rng, points, 25)) * np.exp(-0.8 * share)
    gain = rng.normal(0, 3) + 1.5 * wander(rng, share, 0.6) + 1.5 * wander(rng, angles[None], 0.5)
    gain = gain - shadows(rng, angles, share, faults["shadow"])
    noise = amplitude(-59 + 29 * faults["noise"] + 10 * (share - 1))
    lift, stretch = 0.24 * faults["contrast"], 1 - 0.5 * faults["contrast"]
    grain = rng.standard_normal((512, 512, 2), dtype=np.float32) * np.float32(np.sqrt(0.5))
    spread = max(0.9 / view.mm, 0.6), max(1.1 * count / len(angles) * (1 + 0.8 * faults["contrast"]), 0.6)

    pixels = view.points()
    along, angle = probe.locate(pixels)
    at = ((angle - angles[0]) / (angles[1] - angles[0])).astype(np.float32), (along / view.mm).astype(np.float32)
    seen, loop = probe.sees(pixels), np.zeros((frames, *view.shape), np.uint8)
    for first in range(0, frames, CHUNK):
        levels = heart.levels(own, beat[first:first + CHUNK])
        for i, level in enumerate(levels, first):
            sources = heart.material(own, beat[i]) / np.float32(view.mm)
            # the nearest grain: means of neighbours would be weaker
            speckle = cv2.remap(grain, np.mod(sources[0], 511), np.mod(sources[1], 511), cv2.INTER_NEAREST)
            fresh = rng.standard_normal(speckle.shape, dtype=np.float32)
            field = (0.9 * speckle + 0.3 * fresh) * length(amplitude(level), haze)[..., None]
            field = cv2.GaussianBlur(field, (0, 0), spread[1], sigmaY=spread[0])
            field *= np.float32(2 * np.sqrt(np.pi * spread[0] * spread[1]))
            electric = noise * length(fresh[::-1, ::-1, 0], fresh[::-1, :, 1])
            echo = length(length(field[..., 0], field[..., 1]) * amplitude(gain), electric)
            grey = np.clip(1 + 20 * np.log10(echo + np.float32(1e-5)) / np.float32(56), 0, 1)
            picture = cv2.remap((255 * (lift + stretch * grey)).astype(np.float32), *at, cv2.INTER_LINEAR,
                                borderMode=cv2.BORDER_REPLICATE)
            loop[i] = np.where(seen, np.clip(np.rint(picture), 1, 255), 0)
    return loop


def shadows(rng: np.random.Generator, angles: np.ndarray, share: np.ndarray, fault: float) -> np.ndarray:
    """dB lost behind ribs and lung, (depths, beams): narrow and weak, or wide and dark when `fault` is 1."""
    lost, width = np.zeros((len(share), len(angles)), np.float32), angles[-1]
    for i in range(2 + (fault > 0.5)):
        place = (rng.uniform(0.35, 1.0) if i else rng.uniform(0.1, 0.65)) * width * rng.choice((-1, 1))
        half = width * (0.06 + 0.34 * fault * rng.uniform(0.8, 1.2))
        depth = (4 + 30 * fault) * rng.uniform(0.8, 1.1)
        lost = np.maximum(lost, depth * soft(half - np.abs(angles - place), 0.6 * half)[None] * soft(share - 0.08, 0.1))
    return lost
