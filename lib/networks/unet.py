"""The plain U-Net (Ronneberger et al. 2015): two convolutions per level, full-resolution skip connections."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from lib.networks import Inputs
from lib.networks.freezing import layers_of
from lib.networks.weights import load_weights, read_weights
from lib.study import InputError


def build_unet(inputs: Inputs, outputs: int, weights_follow: bool, width: int = 64, depth: int = 4,
               bilinear: bool = False, weights: str | None = None) -> UNet:
    """`unet`: channels width, 2 width, ... over `depth` halvings (64 to 1024 in the paper); padded convolutions with
    batch normalisation, so that outputs have the size of inputs. bilinear: upsample by interpolation instead of
    transposed convolution. weights: path of a state dict of such a network, or of a checkpoint. Raises InputError.
    """
    if width < 1 or depth < 1:
        raise InputError(f"network: width {width} and depth {depth}: expected at least 1")
    network = UNet(inputs.frames * inputs.channels, outputs, width, depth, bilinear)
    if weights is not None and not weights_follow:
        load_weights(network, read_weights(Path(weights)), weights, stem="down.0.0.weight", heads=("head.",))
    return network


def convolutions(channels: int, width: int) -> nn.Sequential:
    layers = []
    for entering in (channels, width):
        layers += [nn.Conv2d(entering, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """(B, channels, H, W) -> {"logits": (B, outputs, H, W)}, for H and W that can be halved `depth` times."""
    layout = "channels"

    def __init__(self, channels: int, outputs: int, width: int, depth: int, bilinear: bool):
        super().__init__()
        self.multiple = 2 ** depth
        widths = [width * 2 ** level for level in range(depth + 1)]
        self.down = nn.ModuleList(convolutions(c, w) for c, w in zip([channels, *widths], widths))
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), nn.Conv2d(2 * w, w, 1))
            if bilinear else nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1]))
        self.merge = nn.ModuleList(convolutions(2 * w, w) for w in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, outputs, 1)

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        levels = [nn.ModuleList([grow, merge]) for grow, merge in zip(self.up, self.merge)]
        return layers_of([*self.down, *levels, self.head])

    def forward(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        skips = []
        for level, block in enumerate(self.down):
            frames = block(self.pool(frames) if level else frames)
            skips.append(frames)
        skips.pop()
        for grow, merge in zip(self.up, self.merge):
            frames = merge(torch.cat([skips.pop(), grow(frames)], dim=1))
        return {"logits": self.head(frames)}
