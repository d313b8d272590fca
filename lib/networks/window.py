"""The wrapper that every network wears: windows as they are stored in, named outputs on their grid out."""

from __future__ import annotations

from typing import Callable

import torch
from torch import nn
from torch.nn import functional

from lib.imaging.geometry import scaled_size
from lib.networks import SCALES
from lib.study import InputError


class WindowNetwork(nn.Module):
    """Normalises a window on the device, fits it to what its core can take, and puts the outputs back on the grid.

    forward: (B, T, C, H, W) float -> {"logits": (B, outputs, H, W)} (or what the core names). Frames are resized by
    `scale`, then continued at the bottom and right by their last rows and columns, up to a multiple of
    `core.multiple`. Outputs of four dimensions with the rows and columns of the core's input are cropped and resized
    back; all others are passed on as they are. With `mirror`, outside training, outputs are the mean of those of the
    frames and (mirrored back) of their mirror image. Raises InputError for a training batch that is too small to normalise.
    """

    def __init__(self, core: nn.Module, store: str, scale: float = 1.0, mirror: bool = False):
        super().__init__()
        self.core = core
        self.scale, self.mirror = scale, mirror
        self.layout: str = getattr(core, "layout", "channels")
        self.multiple: int = getattr(core, "multiple", 1)
        self.mirrored: Callable = getattr(core, "mirrored", mirrored_maps)
        self.offset, self.spread = SCALES[store]
        if self.layout == "channels":
            self.core.to(memory_format=torch.channels_last)

    def forward(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = self._seen(frames)
        if self.mirror and not self.training:
            mirrored = self._seen(frames.flip(-1))
            outputs = {name: (value + self.mirrored(name, mirrored[name])) / 2 for name, value in outputs.items()}
        return outputs

    def explain(self) -> None:
        """From now on give what the core's `gradcam_layer` saw, if the study names one."""
        if getattr(self.core, "gradcam_layer", None):
            self.core.explain(True)

    @property
    def explanation(self) -> dict[str, str]:
        """What the outputs of `explain` mean: name -> text."""
        return getattr(self.core, "explanation", {})

    def _seen(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the core says of the windows, on their grid."""
        window, grid = tuple(frames.shape[1:3]), tuple(frames.shape[-2:])
        if (self.offset, self.spread) != (0.0, 1.0):
            frames = (frames - self.offset) / self.spread
        seen = scaled_size(grid, self.scale)
        below, beside = (-size % self.multiple for size in seen)
        frames = frames.flatten(1, 2)
        if seen != grid:
            frames = functional.interpolate(frames, size=seen, mode="bilinear", align_corners=False)
        if below or beside:
            frames = functional.pad(frames, (0, beside, 0, below), mode="replicate")
        padded = tuple(frames.shape[-2:])
        if self.layout == "clip":
            frames = frames.unflatten(1, window).transpose(1, 2)
        elif not torch.compiler.is_exporting():
            frames = frames.contiguous(memory_format=torch.channels_last)
        return {name: to_grid(value, seen, grid) if value.ndim == 4 and value.shape[-2:] == padded else value
                for name, value in self._core(frames).items()}

    def _core(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        try:
            return self.core(frames)
        except ValueError as error:
            if len(frames) == 1 and "more than 1 value per channel" in str(error):
                raise InputError("training.batch_size: found a training batch of one sample, expected at least two, "
                                 "because this network normalises single values over the batch (batch normalisation of "
                                 "a 1 x 1 map): choose 3 or more, so that no batch of one is left over, or a network "
                                 "without global pooling") from None
            raise


def mirrored_maps(name: str, value: torch.Tensor) -> torch.Tensor:
    """An output for a mirrored frame as that for the frame: maps, of frames or of clips, are mirrored; numbers stay."""
    return value.flip(-1) if value.ndim in (4, 5) else value


def to_grid(values: torch.Tensor, seen: tuple[int, int], grid: tuple[int, int]) -> torch.Tensor:
    """(B, K, padded rows, padded columns) of the core -> (B, K, H, W) of the window's grid."""
    values = values[..., :seen[0], :seen[1]]
    if seen != grid:
        values = functional.interpolate(values, size=grid, mode="bilinear", align_corners=False)
    return values
