"""Random changes of a training batch, on its device: one geometry for frames and targets; time and intensity for frames."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from lib.study import Augmentation, SyntheticLowQuality, Window, require

# what shifts and noise are shares of: white of grey levels; z-scores are numbers of deviations already
WHITE = {"float16": 1.0, "uint8": 255.0}


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
    """Rotation, zoom, translation and flips, each applied to a sample with `settings.transform_prob`."""
    def draw(low_high: tuple[float, float], neutral: float) -> torch.Tensor:
        low, high = low_high
        value = torch.rand(count, generator=generator) * (high - low) + low
        return torch.where(torch.rand(count, generator=generator) < settings.transform_prob, value, neutral)

    angle = draw(settings.rotation_range, 0.0) * math.pi / 180
    zoom = draw(settings.zoom_range, 1.0)
    shift = torch.stack([draw(settings.translation_range, 0.0), draw(settings.translation_range, 0.0)], dim=1) * 2
    flips = torch.rand(count, 2, generator=generator) < settings.transform_prob
    flips &= torch.tensor([settings.flip_rows, settings.flip_columns])
    sign = 1.0 - 2.0 * flips.float()
    aspect = size[0] / size[1]  # so that a rotation stays one on frames that are not square
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    x_row = torch.stack([cos * sign[:, 1], -sin * aspect * sign[:, 1], shift[:, 0]], dim=1)
    y_row = torch.stack([sin / aspect * sign[:, 0], cos * sign[:, 0], shift[:, 1]], dim=1)
    return Warp(torch.stack([x_row, y_row], dim=1).to(device), flips, size)


def random_time(settings: Augmentation, frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Crops stretched back to all frames, and frames that become the mean of their neighbours. frames: (B, T, C, H, W)."""
    count, length = frames.shape[:2]
    if length > 1 and settings.temporal_crop_range != (1.0, 1.0):
        low, high = settings.temporal_crop_range
        share = torch.rand(count, generator=generator) * (high - low) + low
        share = torch.where(torch.rand(count, generator=generator) < settings.transform_prob, share, 1.0)
        first = torch.rand(count, generator=generator) * (1 - share) * (length - 1)
        place = first[:, None] + share[:, None] * torch.arange(length)  # in frames; evenly spaced over the crop
        below = place.floor().clamp(0, length - 2).long()
        weight = (place - below).to(frames)[..., None, None, None]
        frames = torch.lerp(take_frames(frames, below), take_frames(frames, below + 1), weight)
    if length > 1 and settings.temporal_mask_prob:
        masked = torch.rand(count, length, generator=generator) < settings.temporal_mask_prob
        index = torch.arange(length).expand(count, -1)
        # at the ends there is one neighbour
        before, after = torch.where(index > 0, index - 1, 1), torch.where(index < length - 1, index + 1, length - 2)
        mean = (take_frames(frames, before) + take_frames(frames, after)) / 2
        frames = torch.where(masked.to(frames.device)[..., None, None, None], mean, frames)
    return frames


def take_frames(frames: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """frames (B, T, C, H, W) at index (B, T) along T."""
    return frames[torch.arange(len(frames))[:, None].to(frames.device), index.to(frames.device)]


def random_intensity(settings: Augmentation, frames: torch.Tensor, white: float, generator: torch.Generator) -> torch.Tensor:
    """Brightness and contrast per sample and channel, the same in all its frames; Gaussian noise per voxel.

    frames: (B, T, C, H, W) float; white: the value that shifts and noise are shares of.
    """
    count, channels, device = len(frames), frames.shape[2], frames.device

    def draw(low_high: tuple[float, float], neutral: float) -> torch.Tensor:
        low, high = low_high
        value = torch.rand(count, channels, generator=generator) * (high - low) + low
        chosen = torch.rand(count, 1, generator=generator) < settings.transform_prob
        return torch.where(chosen, value, neutral).view(count, 1, channels, 1, 1).to(device)

    factor, shift = draw(settings.brightness_range, 1.0), draw(settings.brightness_shift, 0.0) * white
    level = draw(settings.noise_level, 0.0) * white
    noise = noise_like(frames, generator)
    if settings.contrast_range != (1.0, 1.0):
        frames = about_mean(frames, draw(settings.contrast_range, 1.0))
    return frames * factor + shift + noise * level


def noise_like(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Gaussian noise of deviation 1, drawn on the frames' device; the CPU's generator gives its seed, so that all
    parameters are the same on every device."""
    own = torch.Generator(frames.device).manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
    return torch.empty_like(frames).normal_(generator=own)


def about_mean(frames: torch.Tensor, factor: torch.Tensor | float) -> torch.Tensor:
    """Differences from the mean of each window and channel, times `factor`."""
    mean = frames.mean(dim=(1, 3, 4), keepdim=True)
    return (frames - mean) * factor + mean


def low_quality_twins(settings: SyntheticLowQuality, task, frames: torch.Tensor, targets: torch.Tensor, white: float,
                      generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch, and behind it degraded twins of some of its good samples: less contrast, blurred, noisy, called poor."""
    good, twins = task.low_quality(targets)
    share = torch.rand(len(frames), generator=generator) < settings.share
    chosen = torch.nonzero(good.cpu() & share).flatten().to(frames.device)
    if not len(chosen):
        return frames, targets
    poor = about_mean(frames[chosen], 1 - settings.contrast_reduction)
    poor = blurred(poor, settings.blur_kernel)
    poor = (poor + noise_like(poor, generator) * settings.noise_level * white).clamp(0, white)
    return torch.cat([frames, poor]), torch.cat([targets, twins[chosen]])


def blurred(frames: torch.Tensor, kernel: int) -> torch.Tensor:
    """(B, T, C, H, W) under a Gaussian of `kernel` x `kernel` pixels with the deviation that OpenCV takes for such a side,
    0.3 * ((kernel - 1) / 2 - 1) + 0.8."""
    if kernel == 1:
        return frames
    place = torch.arange(kernel, device=frames.device, dtype=frames.dtype) - (kernel - 1) / 2
    weight = torch.exp(-0.5 * (place / (0.3 * ((kernel - 1) / 2 - 1) + 0.8)) ** 2)
    weight, half = weight / weight.sum(), kernel // 2
    flat = F.pad(frames.flatten(0, 2)[:, None], [half] * 4, mode="replicate")
    flat = F.conv2d(F.conv2d(flat, weight.view(1, 1, 1, -1)), weight.view(1, 1, -1, 1))
    return flat[:, 0].view_as(frames)


def check_augmentation(settings: Augmentation, task, window: Window, store: str) -> None:
    """Raise InputError for changes that mean nothing to the task or to its windows."""
    if settings.synthetic_low_quality:
        task.low_quality(torch.zeros(1, dtype=torch.int64))
        require(store == "uint8", "augmentation.synthetic_low_quality", f"data.store: {store}", "uint8, whose white it uses")
    if window.frames == 1:
        for key, neutral in (("temporal_crop_range", (1.0, 1.0)), ("temporal_mask_prob", 0.0)):
            require(getattr(settings, key) == neutral, f"augmentation.{key}", getattr(settings, key),
                    f"{neutral}, because a window is one frame")


def augment(settings: Augmentation, task, frames: torch.Tensor, targets: torch.Tensor, store: str,
            generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames (B, T, C, H, W) float and targets of one training batch, both as stored, changed together; degraded twins
    make it longer."""
    white = WHITE[store]
    warp = random_warp(settings, len(frames), tuple(frames.shape[-2:]), generator, frames.device)
    frames, targets = random_time(settings, warp.frames(frames), generator), task.transform(targets, warp)
    if settings.synthetic_low_quality:
        frames, targets = low_quality_twins(settings.synthetic_low_quality, task, frames, targets, white, generator)
    return random_intensity(settings, frames, white, generator), targets
