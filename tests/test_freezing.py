"""lib.networks.freezing: how many parameters learn, and that nothing else moves, statistics included."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from lib.networks import make_network
from lib.networks.freezing import check_layers, layers_of, set_trainable
from lib.optimisation import make_optimizer, warming_average
from lib.study import InputError, Training, load_study


def core_of(name: str, outputs: int = 2, device: str = "meta", size: int = 64, **keys) -> nn.Module:
    """A network's core for grey frames; on the meta device it has shapes and no numbers, which counting does not need."""
    study = dataclasses.replace(load_study("lumbar_spine", [f"data.size=[{size}, {size}]"]), network={"name": name, **keys})
    torch.manual_seed(0)
    with torch.device(device):
        return make_network(study, 1, outputs).core.train()


def normalised(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))


class Small(nn.Module):
    """Three layers: two convolutions with batch normalisation, and a linear one behind a dropout of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.dropout, self.linear = normalised(1), normalised(4), nn.Dropout(0.5), nn.Linear(4, 2)

    @property
    def layers(self):
        return self.first, self.second, self.linear

    def forward(self, frames):
        return self.linear(self.dropout(self.second(self.first(frames)).mean(dim=(2, 3))))


FIRST, SECOND, LINEAR = 4 * (9 + 1) + 8, 4 * (4 * 9 + 1) + 8, 2 * (4 + 1)


def learn(core: nn.Module, optimizer, batches: int = 3) -> None:
    """As an epoch of the training loop does."""
    for _ in range(batches):
        core(torch.randn(8, 1, 6, 6) * 3 + 1).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def changed(core: nn.Module, before: dict) -> set[str]:
    return {name for name, value in core.state_dict().items() if not torch.equal(value, before[name])}


def state_of(core: nn.Module) -> dict:
    return copy.deepcopy(core.state_dict())


# --- counts ----------------------------------------------------------------------------------------------------------

def test_counts_of_the_biometry_network():
    linear, second, first = 8 * (24 * 16 * 16 + 1), 24 * (12 * 9 + 1), 12 * (9 + 1)
    core = core_of("biometry_cnn", outputs=8)
    assert [set_trainable(core, count) for count in (1, 2, 3, None)] == [linear, linear + second, *[linear + second + first] * 2]
    assert {name for name, value in core.named_parameters() if set_trainable(core, 2) and value.requires_grad} == {
        "conv2.weight", "conv2.bias", "linear.weight", "linear.bias"}


def test_counts_of_the_video_network():
    """Its last stage by hand. A (2+1)D convolution from a to b channels has 9 a m + 3 m b weights (m channels between), its
    two normalisations 2 m and 2 b; Tran et al. choose m = 27 a b / (9 a + 3 b), of a block's first convolution for both."""
    def convolution(a, b, m):
        return 9 * a * m + 2 * m + 3 * m * b + 2 * b
    m, n = 27 * 256 * 512 // (9 * 256 + 3 * 512), 27 * 512 * 512 // (9 * 512 + 3 * 512)
    stage = convolution(256, 512, m) + convolution(512, 512, m) + 256 * 512 + 2 * 512 + 2 * convolution(512, 512, n)
    core = core_of("r2plus1d_18", outputs=1)
    assert set_trainable(core, 1) == 513 and set_trainable(core, 2) == 513 + stage
    whole = 31505325 - 400 * 513 + 513 - 2 * 45 * 49  # torchvision's count for 400 classes and three channels
    assert set_trainable(core, 6) == set_trainable(core, None) == whole
    assert [len(list(layer.parameters())) > 0 for layer in core.layers] == [True] * 6


@pytest.mark.parametrize("network, layers", [
    ({"name": "unet", "depth": 3}, 3 + 1 + 3 + 1), ({"name": "deeplabv3_resnet50"}, 6), ({"name": "mobilenet_v2_boxes"}, 19),
    ({"name": "torchvision/resnet18"}, 6), ({"name": "biometry_cnn"}, 3), ({"name": "r2plus1d_18"}, 6),
    ({"name": "torchvision/densenet121"}, 9), ({"name": "torchvision/efficientnet_b0"}, 10)])
def test_layers_hold_every_parameter_once(network, layers):
    core = core_of(**network)
    held = [id(parameter) for layer in core.layers for parameter in layer.parameters()]
    assert len(core.layers) == layers
    assert len(held) == len(set(held)) and set(held) == {id(parameter) for parameter in core.parameters()}


def test_layers_of_segmentation_models():
    core = core_of("smp/Unet/resnet18", device="cpu", size=32, encoder_depth=3, decoder_channels=[16, 8, 8])
    network = core.network
    assert core.layers == (network.encoder, network.decoder, network.segmentation_head)
    assert set_trainable(core, 1) == sum(parameter.numel() for parameter in network.segmentation_head.parameters())


def test_a_normalisation_belongs_to_the_layer_before_it():
    parts = [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2), nn.LayerNorm(2), nn.Dropout()]
    first, second = layers_of(parts)
    assert list(first) == parts[:2] and list(second) == parts[2:]
    assert layers_of(parts[:1]) == (parts[0],)


# --- what moves ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "rmsprop"])
def test_frozen_layers_and_their_statistics_do_not_move(optimizer):
    """Layers are thawed one by one and frozen again, with one optimiser, as a schedule does: momentum and weight decay of
    before do not move a frozen layer either."""
    torch.manual_seed(0)
    core = Small()
    steps = make_optimizer(core, Training(optimizer=optimizer, weight_decay=0.1))
    for count, expected, learning in ((3, FIRST + SECOND + LINEAR, {"first", "second", "linear"}), (1, LINEAR, {"linear"}),
                                      (2, SECOND + LINEAR, {"second", "linear"}), (1, LINEAR, {"linear"})):
        before = state_of(core)
        core.train()
        assert set_trainable(core, count) == expected
        learn(core, steps)
        moved = changed(core, before)
        assert {name.split(".")[0] for name in moved} == learning
        assert ({"second.1.running_mean", "second.1.running_var", "second.0.weight"} <= moved) == ("second" in learning)


def test_without_freezing_after_train_statistics_would_move():
    """network.train() thaws batch normalisation: hence set_trainable after it."""
    core = Small()
    set_trainable(core, 1)
    core.train()
    before = state_of(core)
    core(torch.randn(8, 1, 6, 6) + 1)
    assert "first.1.running_mean" in changed(core, before)


def test_modes_of_layers():
    """Frozen layers drop nothing; the dropout before the head stays active; evaluation stays evaluation."""
    core = Small()
    set_trainable(core, 1)
    assert core.training and core.dropout.training and core.linear.training
    assert not any(module.training for layer in (core.first, core.second) for module in layer.modules())
    set_trainable(core, 2)
    assert core.second[1].training and core.second[3].training and not core.first[1].training
    core.eval()
    assert set_trainable(core, 3) and not any(module.training for module in core.modules())


def test_a_gradient_of_before_does_not_move_a_frozen_layer():
    core = Small()
    optimizer = make_optimizer(core, Training())
    core(torch.randn(4, 1, 6, 6)).sum().backward()
    set_trainable(core, 1)
    before = state_of(core)
    optimizer.step()
    assert {name.split(".")[0] for name in changed(core, before)} == {"linear"}


def test_the_video_network_s_frozen_statistics_do_not_move():
    core = core_of("r2plus1d_18", outputs=1, device="cpu", size=16)
    set_trainable(core, 2)
    before = {name: value.clone() for name, value in core.named_buffers()}
    core(torch.randn(2, 1, 2, 16, 16) + 1)["class_logits"].sum().backward()
    moved = {name.split(".")[1] for name, value in core.named_buffers() if not torch.equal(value, before[name])}
    assert moved == {"layer4"}
    assert {name.split(".")[1] for name, value in core.named_parameters() if value.grad is not None} == {"layer4", "fc"}


def test_the_moving_average_of_a_frozen_layer_is_the_layer():
    """To the bit; the average keeps no gradients and learns with the layers that are thawed later."""
    torch.manual_seed(0)
    core = Small()
    average = AveragedModel(core, multi_avg_fn=warming_average(0.9), use_buffers=True)
    optimizer = make_optimizer(core, Training(learning_rate=0.1))
    start = state_of(core)
    for count in (1, 2):
        core.train()
        set_trainable(core, count)
        for _ in range(3):
            learn(core, optimizer, batches=1)
            average.update_parameters(core)
        frozen = {name for name in start if name.startswith(("first.", "second.")[:3 - count])}
        kept = average.module.state_dict()
        assert frozen and all(torch.equal(kept[name], start[name]) for name in frozen)
        assert not torch.equal(kept["linear.weight"], start["linear.weight"])
    assert not torch.equal(average.module.second[0].weight, start["second.0.weight"])


# --- what cannot be --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("core, count, text", [
    (Small(), 0, r"training.unfrozen_layers: found 0, expected 1 \(the head\) to 3: this network has 3 layers"),
    (Small(), 4, "found 4, expected 1 .* to 3"), (nn.Linear(1, 1), 1, "found 1, expected null")])
def test_layers_that_are_not_there(core, count, text):
    for function in (check_layers, set_trainable):
        with pytest.raises(InputError, match=text):
            function(core, count)


def test_a_network_without_layers_learns_as_a_whole():
    core = nn.Linear(3, 2)
    core.requires_grad_(False)
    assert set_trainable(core, None) == 8 and check_layers(Small(), 3) is None
