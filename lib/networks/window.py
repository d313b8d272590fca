"""The wrapper that every network wears: windows as they are stored in, named outputs out."""

from __future__ import annotations

import torch
from torch import nn

# Stored values -> about zero mean and unit spread. float16 frames are z-scores already.
SCALES = {"float16": (0.0, 1.0), "uint8": (127.5, 63.75)}


class WindowNetwork(nn.Module):
    """Normalises a window on the device and lays it out for its core.

    forward: (B, T, C, H, W) float -> {"logits": (B, outputs, H, W)} (or what the core names).
    """

    def __init__(self, core: nn.Module, store: str):
        super().__init__()
        self.core = core
        self.layout: str = getattr(core, "layout", "channels")
        self.offset, self.spread = SCALES[store]
        if self.layout == "channels":
            self.core.to(memory_format=torch.channels_last)

    def forward(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        if (self.offset, self.spread) != (0.0, 1.0):
            frames = (frames - self.offset) / self.spread
        if self.layout == "clip":
            return self.core(frames.transpose(1, 2))
        frames = frames.flatten(1, 2)
        if not torch.compiler.is_exporting():
            frames = frames.contiguous(memory_format=torch.channels_last)
        return self.core(frames)
