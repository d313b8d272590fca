"""R(2+1)D with 18 layers (Tran et al. 2018, arXiv:1711.11248) as torchvision builds it, for clips of any size."""

from __future__ import annotations

from typing import Mapping

import torch
from torch import nn

from lib.networks import SCALES, Inputs, as_pretrained
from lib.networks.gradcam import Explained
from lib.networks.weights import load_weights, read_weights, weights_file
from lib.study import require

STEM = "stem.0.weight"
HEAD = "fc."


def build_r2plus1d(inputs: Inputs, outputs: int, weights_follow: bool, weights: str | None = None, dropout: float = 0.0,
                   mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None,
                   gradcam_layer: str | None = None) -> VideoNetwork:
    """`r2plus1d_18`. dropout: share of the 512 features that are dropped before the linear layer.

    weights: null, random; `kinetics` (Kinetics-400), from torchvision's cache; or the path of a state dict or of a checkpoint
    with one. The linear layer stays random where it has other outputs. mean, std: of the stored values (grey levels 0..255)
    with which the weights were trained, a list of one number or of one per channel; three make grey clips three channels.
    null: of `kinetics` its own for 1 or 3 channels, otherwise the usual scale of WindowNetwork. gradcam_layer: layer4, or
    null. Raises InputError.
    """
    from torchvision.models.video import R2Plus1D_18_Weights, r2plus1d_18

    pretrained = R2Plus1D_18_Weights.KINETICS400_V1
    require(0 <= dropout < 1, "network.dropout", dropout, "0 <= dropout < 1")
    if as_pretrained(weights, mean, std, inputs.store, inputs.channels):
        mean, std = ([255 * value for value in values] for values in (pretrained.transforms().mean, pretrained.transforms().std))
    levels = None
    if mean is not None or std is not None:
        levels = Levels(inputs, mean or (), std or ())
    network = r2plus1d_18(weights=None, num_classes=outputs)
    channels, first = levels.channels if levels else inputs.channels, network.stem[0]
    if channels != first.in_channels:
        network.stem[0] = nn.Conv3d(channels, first.out_channels, first.kernel_size, first.stride, first.padding, bias=False)
        nn.init.kaiming_normal_(network.stem[0].weight, mode="fan_out", nonlinearity="relu")  # as in torchvision
    made = VideoNetwork(network, levels, dropout, gradcam_layer)
    if weights is not None and not weights_follow:
        path = weights_file(weights, {"kinetics": pretrained.url})
        load_weights(network, own_names(read_weights(path)), path, stem=STEM, heads=(HEAD,), optional=(HEAD,))
    return made


class VideoNetwork(Explained):
    """(B, channels, T, H, W) -> {"class_logits": (B, outputs)}, for any T, H and W; maps have T / 8, H / 16 and W / 16,
    rounded up."""
    layout = "clip"

    def __init__(self, network: nn.Module, levels: nn.Module | None, dropout: float, gradcam_layer: str | None):
        super().__init__(gradcam_layer, cam_layers=("layer4",))
        self.network, self.levels, self.dropout = network, levels or nn.Identity(), nn.Dropout(dropout)

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        own = self.network
        return own.stem, own.layer1, own.layer2, own.layer3, own.layer4, own.fc

    def forward(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.levels(clips)
        for layer in self.layers[:-1]:
            features = layer(features)
        logits = self.network.fc(self.dropout(features.mean(dim=(2, 3, 4))))
        return self.answer(logits, features, self.network.fc.weight)


class Levels(nn.Module):
    """Clips as WindowNetwork scales them -> as pretrained weights saw them: (stored - mean) / std.

    The numbers are of the study, not learnt, so that they are no part of a state dict. Raises InputError.
    """

    def __init__(self, inputs: Inputs, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        fitting = {1, inputs.channels} | ({3} if inputs.channels == 1 else set())
        require(len(mean) == len(std) and len(mean) in fitting, "network.mean and network.std", [list(mean), list(std)],
                f"{' or '.join(map(str, sorted(fitting)))} numbers each")
        require(min(std) > 0, "network.std", list(std), "numbers above 0")
        self.channels = max(len(mean), inputs.channels)
        offset, spread = SCALES[inputs.store]
        mean, std = (torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1, 1) for values in (mean, std))
        self.register_buffer("gain", spread / std, persistent=False)
        self.register_buffer("shift", (offset - mean) / std, persistent=False)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return clips * self.gain + self.shift


def own_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of an R(2+1)D in a file, by torchvision's names.

    Files of other programs have it inside a larger network (`backbone.stem...`), and its linear layer after a dropout (`fc.1`);
    a head of several linear layers is not ours, and is left out.
    """
    first = next((name for name in state if name.endswith(STEM)), STEM)
    prefix = first.removesuffix(STEM)
    state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    kernels = [name for name in state if name.startswith(HEAD) and name.endswith(".weight") and state[name].ndim == 2]
    head = {f"{HEAD}{key}": state[name] for key in ("weight", "bias")
            for name in [kernels[0].removesuffix("weight") + key] if name in state} if len(kernels) == 1 else {}
    return {name: value for name, value in state.items() if not name.startswith(HEAD)} | head
