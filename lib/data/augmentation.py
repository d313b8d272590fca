"""Random changes of a training batch, on its device: one geometry for frames and targets, intensity for frames only."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from lib.study import Augmentation


class Warp:
    """One affine map per sample. matrix: float (B, 2, 3), output -> input coordinates in -1..1 (affine_grid's).

    flips: bool (B, 2), whether rows and columns were mirrored (for tasks whose labels have a left and a right).
    """

    def __init__(self, matrix: torch.Tensor, flips: torch.Tensor, size: tuple[int, int]):
        self.matrix, self.flips = matrix, flips
        self.grid = F.affine_grid(matrix, [len(matrix), 1, *size], align_corners=False)

    def frames(self, frames: torch.Tensor) -> torch.Tensor:
        """(B, T, C, H, W) float: bilinear; what comes from outside repeats the border."""
        flat = F.grid_sample(frames.flatten(1, 2), self.grid, "bilinear", "border", align_corners=False)
        return flat.view_as(frames)

    def labels(self, labels: torch.Tensor) -> torch.Tensor:
        """(B, R, H, W) uint8: nearest neighbour, 0 outside."""
        return F.grid_sample(labels.float(), self.grid, "nearest", "zeros", align_corners=False).to(labels.dtype)


def random_warp(settings: Augmentation, count: int, size: tuple[int, int], generator: torch.Generator,
                device: torch.device) -> Warp:
    """Rotation, zoom, translation and flips, each applied to a sample with `settings.probability`."""
    def draw(low_high: tuple[float, float], neutral: float) -> torch.Tensor:
        low, high = low_high
        value = torch.rand(count, generator=generator) * (high - low) + low
        return torch.where(torch.rand(count, generator=generator) < settings.probability, value, neutral)

    angle = draw(settings.rotation_deg, 0.0) * math.pi / 180
    zoom = draw(settings.zoom, 1.0)
    shift = torch.stack([draw(settings.translation, 0.0), draw(settings.translation, 0.0)], dim=1) * 2
    flips = torch.rand(count, 2, generator=generator) < settings.probability
    flips &= torch.tensor([settings.flip_rows, settings.flip_columns])
    sign = 1.0 - 2.0 * flips.float()
    aspect = size[0] / size[1]  # so that a rotation stays one on frames that are not square
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    x_row = torch.stack([cos * sign[:, 1], -sin * aspect * sign[:, 1], shift[:, 0]], dim=1)
    y_row = torch.stack([sin / aspect * sign[:, 0], cos * sign[:, 0], shift[:, 1]], dim=1)
    return Warp(torch.stack([x_row, y_row], dim=1).to(device), flips, size)


def random_intensity(settings: Augmentation, frames: torch.Tensor, spread: float, generator: torch.Generator) -> torch.Tensor:
    """Brightness and contrast per sample and channel, Gaussian noise per voxel. frames: (B, T, C, H, W) float."""
    count, channels, device = len(frames), frames.shape[2], frames.device

    def draw(low_high: tuple[float, float], neutral: float) -> torch.Tensor:
        low, high = low_high
        value = torch.rand(count, channels, generator=generator) * (high - low) + low
        chosen = torch.rand(count, 1, generator=generator) < settings.probability
        return torch.where(chosen, value, neutral).view(count, 1, channels, 1, 1).to(device)

    contrast, brightness = draw(settings.contrast, 1.0), draw(settings.brightness, 0.0) * spread
    level = draw(settings.noise_level, 0.0) * spread
    # parameters come from the CPU generator, so that they are the same on every device; the noise is drawn in place
    noise_generator = torch.Generator(device).manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
    noise = torch.empty_like(frames).normal_(generator=noise_generator)
    return frames * contrast + brightness + noise * level


def augment(settings: Augmentation, task, frames: torch.Tensor, targets: torch.Tensor, spread: float,
            generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames (B, T, C, H, W) float and targets (as stored) of one training batch, changed together."""
    warp = random_warp(settings, len(frames), tuple(frames.shape[-2:]), generator, frames.device)
    return random_intensity(settings, warp.frames(frames), spread, generator), task.transform(targets, warp)
