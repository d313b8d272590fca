"""lib.networks: every name builds, takes any size, leaves through ONNX unchanged, and refuses what it cannot do."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lib.conversion import OPSET, quiet
from lib.imaging.geometry import scaled_size
from lib.networks import make_network
from lib.networks.mobilenet import HeatmapHead
from lib.networks.window import WindowNetwork
from lib.study import InputError, load_study


def study_with(size=(32, 48), frames=3, scale=1.0, **network):
    study = load_study("flair_visibility", [f"data.size=[{size[0]}, {size[1]}]", f"window.frames={frames}",
                                            f"window.scale={scale}"])
    return dataclasses.replace(study, network=network)


@pytest.mark.parametrize("scale", [1.0, 0.5, 1.5])
@pytest.mark.parametrize("size", [(32, 64), (37, 51)])
@pytest.mark.parametrize("network", [{"name": "unet", "width": 4}, {"name": "unet", "width": 4, "bilinear": True},
                                     {"name": "unet", "width": 4, "depth": 2},
                                     {"name": "smp/Unet/resnet18", "encoder_depth": 3, "decoder_channels": [16, 8, 8]},
                                     {"name": "smp/DeepLabV3Plus/efficientnet-b0"}])
def test_logits_have_the_size_of_the_frames(network, size, scale):
    made = make_network(study_with(size=size, scale=scale, **network), channels=2, outputs=3).eval()
    with torch.no_grad():
        assert made(torch.zeros(2, 3, 2, *size))["logits"].shape == (2, 3, *size)


@pytest.mark.parametrize("head", ["heatmap", "regression"])
@pytest.mark.parametrize("size", [(64, 96), (76, 84)])
def test_a_detector_gives_a_presence_and_a_box_for_each_structure(head, size):
    made = make_network(study_with(size=size, name="mobilenet_v2_boxes", head=head, width=8), channels=2, outputs=4).eval()
    with torch.no_grad():
        outputs = made(torch.zeros(2, 3, 2, *size))
    assert outputs["presence"].shape == (2, 4) and outputs["boxes"].shape == (2, 4, 4)
    assert ((outputs["boxes"] > 0) & (outputs["boxes"] < 1)).all()


def test_the_centre_is_where_the_heat_is():
    """All heat in one of 10 x 16 cells: the middle of that cell."""
    head = HeatmapHead(outputs=1, width=4, stride=4)
    maps = {level: torch.zeros(1, channels, -(-40 // level), -(-64 // level))
            for level, channels in {4: 24, 8: 32, 16: 96, 32: 320}.items()}
    assert head.eval()(maps)["heat"].shape == (1, 1, 10, 16)
    heat = torch.full((1, 1, 10, 16), -100.0)
    heat[0, 0, 7, 3] = 100.0
    head.heat.forward = lambda merged: heat
    x, y, width, height = head(maps)["boxes"][0, 0].tolist()
    assert (x, y) == pytest.approx((3.5 / 16, 7.5 / 10))


def test_half_precision_does_not_move_the_centre():
    """bf16 has 8 bits: a place near 0.9 would be rounded by a pixel of 320."""
    torch.manual_seed(0)
    made = make_network(study_with(size=(64, 320), frames=1, name="mobilenet_v2_boxes", width=8), 1, outputs=3).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = made(torch.randn(2, 1, 1, 64, 320) * 50 + 127)
    share = outputs["heat"].double().flatten(2).softmax(-1).view(2, 3, 16, 80)
    x = (share.sum(2) * ((torch.arange(80) + 0.5) / 80)).sum(-1)
    assert outputs["boxes"].dtype == torch.float32 and (outputs["boxes"][..., 0] - x).abs().max() < 1e-4


def test_boxes_of_a_mirror_image_are_mirrored_back():
    study = study_with(name="mobilenet_v2_boxes", width=8)
    plain = make_network(study, channels=1, outputs=2).eval()
    both = WindowNetwork(plain.core, study.data.store, mirror=True).eval()
    frames = torch.randn(1, 3, 1, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        here, there, mean = (made["boxes"] for made in (plain(frames), plain(frames.flip(-1)), both(frames)))
    assert mean[..., 0].numpy() == pytest.approx(((here[..., 0] + 1 - there[..., 0]) / 2).numpy())
    assert mean[..., 1:].numpy() == pytest.approx(((here[..., 1:] + there[..., 1:]) / 2).numpy())


@pytest.mark.parametrize("channels, bilinear", [(1, False), (3, True)])
def test_unet_has_the_parameters_of_the_paper(channels, bilinear):
    """64 to 1024 channels, two 3 x 3 convolutions per level: counted by hand, batch normalisation instead of biases."""
    network = make_network(study_with(frames=1, name="unet", bilinear=bilinear), channels, outputs=2).core
    assert [block[0].out_channels for block in network.down] == [64, 128, 256, 512, 1024]
    assert network.down[0][0].in_channels == channels
    widths = [64, 128, 256, 512, 1024]
    pair = lambda entering, width: 9 * width * (entering + width) + 4 * width  # noqa: E731  (and two pairs of scales)
    expected = sum(pair(c, w) for c, w in zip([channels, *widths], widths))
    expected += sum((1 if bilinear else 4) * 2 * w * w + w + pair(2 * w, w) for w in widths[:-1]) + 64 * 2 + 2
    assert sum(p.numel() for p in network.parameters()) == expected


def test_every_frame_of_the_window_reaches_the_network():
    made = make_network(study_with(name="unet", width=4), channels=2, outputs=1).eval()
    frames = torch.randn(1, 3, 2, 32, 48, generator=torch.Generator().manual_seed(0)).requires_grad_()
    made(frames)["logits"].sum().backward()
    assert (frames.grad.abs().sum(dim=(0, 3, 4)) > 0).all()


# --- the window: size ------------------------------------------------------------------------------------------------

class Recorder(nn.Module):
    """A core that notes what it sees, gives it back, and has outputs of other sizes."""

    def __init__(self, multiple: int = 1, layout: str = "channels"):
        super().__init__()
        self.multiple, self.layout, self.seen = multiple, layout, None

    def forward(self, frames):
        self.seen = frames
        flat = frames if self.layout == "channels" else frames[:, :, 0]
        return {"logits": flat, "heat": 2 * flat, "coarse": flat[..., ::2, ::2], "scores": flat.mean(dim=(2, 3))}


def test_sizes_after_scaling():
    assert scaled_size((35, 29), 1.0) == (35, 29) and scaled_size((36, 30), 0.5) == (18, 15)
    assert scaled_size((10, 7), 1.5) == (15, 10) and scaled_size((8, 9), 0.01) == (1, 1)  # 10.5 rounds to the even


def test_frames_are_continued_by_their_last_rows_and_columns_and_logits_cropped():
    core = Recorder(multiple=4)
    frames = torch.randn(2, 1, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    outputs = WindowNetwork(core, "float16")(frames)
    assert core.seen.shape == (2, 3, 8, 8)
    assert np.array_equal(core.seen, np.pad(frames[:, 0].numpy(), [(0, 0), (0, 0), (0, 3), (0, 2)], mode="edge"))
    assert torch.equal(outputs["logits"], frames[:, 0]) and torch.equal(outputs["heat"], 2 * frames[:, 0])
    assert torch.equal(outputs["coarse"], core.seen[..., ::2, ::2]) and outputs["scores"].shape == (2, 3)


def test_a_size_that_fits_is_left_alone():
    core = Recorder(multiple=4)
    frames = torch.randn(1, 1, 1, 8, 12)
    assert torch.equal(WindowNetwork(core, "float16")(frames)["logits"], frames[:, 0])
    assert core.seen.shape[-2:] == (8, 12)


def test_scaling_by_hand():
    """Half of the columns 0 1 2 3 is 0.5 2.5; their bilinear double, with pixel centres kept, is 0.5 1 2 2.5."""
    core = Recorder()
    frames = torch.arange(4.0).expand(1, 1, 1, 4, 4)
    outputs = WindowNetwork(core, "float16", scale=0.5)(frames)
    assert core.seen[0, 0].tolist() == [[0.5, 2.5]] * 2
    assert outputs["logits"][0, 0].tolist() == [[0.5, 1.0, 2.0, 2.5]] * 4
    assert outputs["heat"][0, 0, 0].tolist() == [1.0, 2.0, 4.0, 5.0] and outputs["coarse"].shape[-2:] == (1, 1)


def test_scaled_frames_are_padded_after_scaling():
    core = Recorder(multiple=8)
    outputs = WindowNetwork(core, "uint8", scale=0.5)(torch.full((1, 1, 1, 19, 30), 191.25))
    assert core.seen.shape[-2:] == (16, 16) and outputs["logits"].shape == (1, 1, 19, 30)
    assert torch.allclose(outputs["logits"], torch.ones(1))  # (191.25 - 127.5) / 63.75, and resizing keeps constants


def test_clips_are_fitted_frame_by_frame():
    core = Recorder(multiple=4, layout="clip")
    frames = torch.randn(2, 3, 2, 10, 9, generator=torch.Generator().manual_seed(0))
    outputs = WindowNetwork(core, "float16", scale=0.5)(frames)
    half = functional.interpolate(frames[:, 1], (5, 4), mode="bilinear")
    assert core.seen.shape == (2, 2, 3, 8, 4) and torch.equal(core.seen[:, :, 1, :5, :4], half)
    assert outputs["logits"].shape == (2, 2, 10, 9)


def test_outside_training_a_window_and_its_mirror_image_are_averaged():
    """A core that adds its column number: 0 1 2 forwards, and backwards 2 1 0; their mean is 1 everywhere."""
    class Columns(torch.nn.Module):
        def forward(self, frames):
            return {"logits": frames + torch.arange(frames.shape[-1]), "score": frames.mean(dim=(1, 2, 3))}
    network = WindowNetwork(Columns(), "float16", mirror=True)
    frames = torch.tensor([5.0, 0.0, 1.0]).expand(1, 1, 1, 2, 3)
    assert network.eval()(frames)["logits"][0, 0].tolist() == [[6.0, 1.0, 2.0]] * 2
    assert network(frames)["score"].tolist() == [2.0]
    assert network.train()(frames)["logits"][0, 0].tolist() == [[5.0, 1.0, 3.0]] * 2


# --- ONNX ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("network, channels, scale", [
    ({"name": "unet", "width": 4}, 1, 0.5), ({"name": "unet", "width": 4}, 3, 1.0),
    ({"name": "unet", "width": 4, "bilinear": True}, 1, 1.0), ({"name": "unet", "width": 4, "bilinear": True}, 3, 0.5),
    ({"name": "smp/Unet/resnet18"}, 1, 0.5), ({"name": "smp/Unet/resnet18"}, 3, 1.0),
    ({"name": "smp/Linknet/resnet18"}, 3, 0.5),
    ({"name": "deeplabv3_resnet50"}, 1, 0.5), ({"name": "deeplabv3_resnet101"}, 3, 1.0),
    ({"name": "mobilenet_v2_boxes", "width": 8}, 1, 1.0),
    ({"name": "mobilenet_v2_boxes", "width": 8, "head": "regression"}, 3, 0.5)])
def test_onnx_says_what_the_network_says(network, channels, scale, tmp_path):
    """Exported at an odd size as script 3 does, for any batch; differences are rounding (1e-4 of the largest logit)."""
    import onnxruntime

    torch.manual_seed(0)
    rows, columns = (36, 28) if network["name"].endswith("_boxes") else (35, 29)  # a heat map needs whole cells
    made = make_network(study_with((rows, columns), 1, scale, **network), channels, outputs=2).eval()
    path = tmp_path / "network.onnx"
    with torch.no_grad():
        names = list(made(torch.zeros(2, 1, channels, rows, columns)))
    with quiet():
        torch.onnx.export(made, (torch.zeros(2, 1, channels, rows, columns),), path, dynamo=True, opset_version=OPSET,
                          external_data=False, input_names=["frames"], output_names=names,
                          dynamic_shapes={"frames": {0: torch.export.Dim("batch")}}, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    path.unlink()  # up to 240 MB
    for batch in (1, 2, 5):
        frames = torch.randn(batch, 1, channels, rows, columns)
        with torch.no_grad():
            expected = made(frames)
        found = dict(zip(names, session.run(names, {"frames": frames.numpy()})))
        for name in names:
            assert found[name].shape == expected[name].shape
            assert np.abs(found[name] - expected[name].numpy()).max() <= 1e-4 * expected[name].abs().max()


# --- what cannot be --------------------------------------------------------------------------------------------------

NAMES = "known: unet, deeplabv3_resnet50, deeplabv3_resnet101, mobilenet_v2_boxes, smp/<Architecture>/<encoder>"


@pytest.mark.parametrize("network, text", [
    ({"name": "unet", "widht": 8}, "did you mean width"),
    ({"name": "unet", "depth": 0}, "at least 1"),
    ({"name": "mobilenet_v2_boxes", "head": "anchors"}, "network.head: unknown 'anchors'"),
    ({"name": "mobilenet_v2_boxes", "stride": 32}, r"data.size times window.scale: found \[32, 48\], expected multiples"),
    ({"name": "deeplabv3_resnet50", "weight": "coco"}, "did you mean weights"),
    ({"name": "smp/Unet/resnet18", "encoder_dept": 3}, "did you mean encoder_depth"),
    ({"name": "smp/Unet/resnet18", "encoder_weights": "imagnet"}, "encoder_weights"),
    ({"name": "smp/Nonet/resnet18"}, "expected smp/"),
    ({"name": "smp/Unet/resnet1800"}, "encoder"),
    ({"name": "smp/Unet/tu-no_such_model"}, "tu-no_such_model"),
    ({"name": "smp/PAN/resnet18"}, "cannot take frames of 32 x 48"),
    ({"name": "deeplabv3_resnet5"}, "did you mean 'deeplabv3_resnet50'"),
    ({"name": "unet/resnet18"}, NAMES), ({"name": "smp"}, NAMES),
    ({"name": "alexnet"}, "unknown 'alexnet'; " + NAMES)])
def test_a_network_that_cannot_be_is_an_input_error(network, text):
    with pytest.raises(InputError, match=text):
        make_network(study_with(**network), channels=2, outputs=3)


@pytest.mark.parametrize("network", [{"name": "deeplabv3_resnet50"}, {"name": "smp/DeepLabV3/resnet18"},
                                     {"name": "unet", "width": 4, "depth": 5}])  # whose last level is 1 x 1
def test_one_sample_is_no_batch_where_single_values_are_normalised(network):
    made = make_network(study_with(size=(32, 32), frames=1, **network), channels=1, outputs=1).train()
    with pytest.raises(InputError, match="training.batch_size: found a training batch of one sample"):
        made(torch.zeros(1, 1, 1, 32, 32))
    assert made(torch.zeros(2, 1, 1, 32, 32))["logits"].shape == (2, 1, 32, 32)
    assert made.eval()(torch.zeros(1, 1, 1, 32, 32))["logits"].shape == (1, 1, 32, 32)
