"""lib.networks: every name builds, has the right shape, and refuses what it cannot do."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lib.networks import make_network
from lib.study import InputError, load_study


def study_with(size=(32, 48), frames=3, **network):
    study = load_study("flair_visibility", [f"data.size=[{size[0]}, {size[1]}]", f"window.frames={frames}"])
    return dataclasses.replace(study, network=network)


@pytest.mark.parametrize("network", [{"name": "unet", "width": 4}, {"name": "unet", "width": 4, "bilinear": True},
                                     {"name": "unet", "width": 4, "depth": 2},
                                     {"name": "smp/Unet/resnet18", "encoder_depth": 3, "decoder_channels": [16, 8, 8]},
                                     {"name": "smp/DeepLabV3Plus/efficientnet-b0"}])
def test_logits_have_the_size_of_the_frames(network):
    made = make_network(study_with(size=(32, 64), **network), channels=2, outputs=3).eval()
    logits = made(torch.zeros(2, 3, 2, 32, 64))["logits"]
    assert logits.shape == (2, 3, 32, 64)


def test_unet_has_the_parameters_of_the_paper():
    """64 to 1024 channels, two 3 x 3 convolutions per level: counted by hand, batch normalisation instead of biases."""
    network = make_network(study_with(frames=1, name="unet"), channels=1, outputs=2).core
    widths = [64, 128, 256, 512, 1024]
    pair = lambda entering, width: 9 * width * (entering + width) + 4 * width  # noqa: E731  (and two pairs of scales)
    expected = sum(pair(c, w) for c, w in zip([1, *widths], widths))
    expected += sum(4 * 2 * w * w + w + pair(2 * w, w) for w in widths[:-1]) + 64 * 2 + 2
    assert sum(p.numel() for p in network.parameters()) == expected


def test_every_frame_of_the_window_reaches_the_network():
    made = make_network(study_with(name="unet", width=4), channels=2, outputs=1).eval()
    frames = torch.randn(1, 3, 2, 32, 48, generator=torch.Generator().manual_seed(0)).requires_grad_()
    made(frames)["logits"].sum().backward()
    assert (frames.grad.abs().sum(dim=(0, 3, 4)) > 0).all()


@pytest.mark.parametrize("network, text", [({"name": "unet", "depth": 5}, "multiples of 32"),
                                           ({"name": "unet", "widht": 8}, "did you mean width"),
                                           ({"name": "smp/Unet/resnet18", "encoder_dept": 3}, "did you mean encoder_depth"),
                                           ({"name": "smp/Nonet/resnet18"}, "expected smp/"),
                                           ({"name": "smp/Unet/resnet1800"}, "encoder"),
                                           ({"name": "smp/Unet/tu-no_such_model"}, "tu-no_such_model"),
                                           ({"name": "alexnet"}, "unknown 'alexnet'")])
def test_a_network_that_cannot_be_is_an_input_error(network, text):
    with pytest.raises(InputError, match=text):
        make_network(study_with(**network), channels=2, outputs=3)
