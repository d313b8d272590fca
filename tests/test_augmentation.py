"""lib.data.augmentation: one geometry for frames and targets, exact where it can be, and seeded."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from lib.data.augmentation import augment, blurred, check_augmentation, random_intensity, random_time, random_warp
from lib.study import Augmentation, Data, InputError, SyntheticLowQuality, Window
from lib.tasks.segmentation import Segmentation

CPU = torch.device("cpu")
REGIONS = Segmentation(Data(reader={}, classes=("a", "b")), {}, {})
EXCLUSIVE = Segmentation(Data(reader={}, classes=("a", "b", "c"), encoding="exclusive"), {}, {})
NOTHING = dict(flip_rows=False, flip_columns=False, rotation_range=(0.0, 0.0), zoom_range=(1.0, 1.0), translation_range=(0.0, 0.0),
               brightness_shift=(0.0, 0.0), brightness_range=(1.0, 1.0), noise_level=(0.0, 0.0))


def only(probability: float = 1.0, **change) -> Augmentation:
    """Nothing but the transforms named."""
    return Augmentation(transform_prob=probability, **{**NOTHING, **change})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count=3, frames=2, channels=2, rows=16, columns=16, seed=0):
    """Random frames float32 (B, T, C, H, W) and region targets uint8 (B, 2, H, W)."""
    random = np.random.default_rng(seed)
    return (torch.from_numpy(random.normal(size=(count, frames, channels, rows, columns)).astype(np.float32)),
            torch.from_numpy(random.integers(0, 2, (count, 2, rows, columns)).astype(np.uint8)))


def test_the_same_seed_gives_the_same_batch():
    frames, targets = batch()
    first = augment(Augmentation(), REGIONS, frames, targets, "float16", seeded(1))
    again = augment(Augmentation(), REGIONS, frames, targets, "float16", seeded(1))
    other = augment(Augmentation(), REGIONS, frames, targets, "float16", seeded(2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_one_generator_goes_on_from_batch_to_batch():
    frames, targets = batch()
    generator = seeded()
    first, second = (augment(Augmentation(), REGIONS, frames, targets, "float16", generator)[0] for _ in range(2))
    assert not torch.equal(first, second)


def test_the_input_is_left_as_it_was():
    frames, targets = batch()
    kept = frames.clone(), targets.clone()
    augment(Augmentation(transform_prob=1), REGIONS, frames, targets, "float16", seeded())
    assert torch.equal(frames, kept[0]) and torch.equal(targets, kept[1])


@pytest.mark.parametrize("rows, columns", [(16, 16), (17, 23), (1, 8)])
def test_probability_zero_changes_nothing(rows, columns):
    """With the shipped defaults, flips included."""
    frames, targets = batch(count=16, rows=rows, columns=columns)
    found, labels = augment(Augmentation(transform_prob=0), REGIONS, frames, targets, "float16", seeded())
    torch.testing.assert_close(found, frames, rtol=0, atol=1e-4)
    assert torch.equal(labels, targets) and labels.dtype == torch.uint8


def test_neutral_ranges_change_nothing():
    frames, targets = batch()
    found, labels = augment(only(), REGIONS, frames, targets, "float16", seeded())
    torch.testing.assert_close(found, frames, rtol=0, atol=1e-4)
    assert torch.equal(labels, targets)


@pytest.mark.parametrize("rows, columns", [(True, False), (False, True), (True, True)])
def test_a_flip_mirrors_frames_and_masks_together(rows, columns):
    frames, targets = batch(count=64)
    settings = only(0.5, flip_rows=rows, flip_columns=columns)
    found, labels = augment(settings, REGIONS, frames, targets, "float16", seeded())
    kinds = set()
    for index in range(64):
        options = [(r, c) for r in ({False, rows}) for c in ({False, columns})]
        matching = [(r, c) for r, c in options if torch.equal(
            labels[index], targets[index].flip([axis - 2 for axis in range(2) if (r, c)[axis]]))]
        assert len(matching) == 1, "a mask that is no mirror image of the source"
        axes = [axis - 2 for axis in range(2) if matching[0][axis]]
        torch.testing.assert_close(found[index], frames[index].flip(axes), rtol=0, atol=1e-4)
        kinds.add(matching[0])
    assert len(kinds) == 2 ** (rows + columns)  # each sample throws its own coins


def test_a_warp_tells_which_samples_were_mirrored():
    """Tasks whose labels have a left and a right need it."""
    frames, _ = batch(count=32)
    warp = random_warp(only(0.5, flip_rows=True, flip_columns=True), 32, (16, 16), seeded(), CPU)
    found = warp.frames(frames)
    for index, (rows, columns) in enumerate(warp.flips.tolist()):
        axes = [axis for axis, flipped in ((-2, rows), (-1, columns)) if flipped]
        torch.testing.assert_close(found[index], frames[index].flip(axes), rtol=0, atol=1e-4)


@pytest.mark.parametrize("degrees, quarters", [(90, 1), (180, 2), (-90, -1)])
def test_a_quarter_turn_is_rot90(degrees, quarters):
    """Positive angles turn counter-clockwise as the picture is seen, like numpy.rot90."""
    frames, targets = batch()
    settings = only(rotation_range=(float(degrees), float(degrees)))
    found, labels = augment(settings, REGIONS, frames, targets, "float16", seeded())
    np.testing.assert_array_equal(labels.numpy(), np.rot90(targets.numpy(), quarters, axes=(-2, -1)))
    np.testing.assert_allclose(found.numpy(), np.rot90(frames.numpy(), quarters, axes=(-2, -1)), atol=1e-4)


def test_a_quarter_turn_of_exclusive_labels_is_rot90():
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (2, 16, 16)).astype(np.uint8))
    frames = batch(count=2)[0]
    _, found = augment(only(rotation_range=(90.0, 90.0)), EXCLUSIVE, frames, labels, "float16", seeded())
    np.testing.assert_array_equal(found.numpy(), np.rot90(labels.numpy(), axes=(-2, -1)))


def test_a_turn_of_an_oblong_frame_keeps_shapes():
    """A square of 6 x 6 pixels at the centre of 16 x 32, turned by a quarter, is the same; 4 x 8 stands up."""
    targets = torch.zeros((1, 2, 16, 32), dtype=torch.uint8)
    targets[0, 0, 5:11, 13:19] = 1
    targets[0, 1, 6:10, 12:20] = 1
    frames = torch.zeros((1, 1, 1, 16, 32))
    _, labels = augment(only(rotation_range=(90.0, 90.0)), REGIONS, frames, targets, "float16", seeded())
    assert torch.equal(labels[0, 0], targets[0, 0])
    expected = torch.zeros(16, 32, dtype=torch.uint8)
    expected[4:12, 14:18] = 1
    assert torch.equal(labels[0, 1], expected)


def test_zoom_enlarges_about_the_centre():
    """Twice as large: 4 x 4 becomes 8 x 8."""
    targets = torch.zeros((1, 2, 16, 16), dtype=torch.uint8)
    targets[0, :, 6:10, 6:10] = 1
    frames = targets[:, None, :1].float()
    found, labels = augment(only(zoom_range=(2.0, 2.0)), REGIONS, frames, targets, "float16", seeded())
    expected = torch.zeros(16, 16, dtype=torch.uint8)
    expected[4:12, 4:12] = 1
    assert torch.equal(labels[0, 0], expected)
    assert float(found.sum()) == pytest.approx(64, rel=0.05)


def test_translation_is_a_share_of_the_frame():
    """A quarter of 16 x 8 pixels: 4 rows and 2 columns, for frames and masks alike; labels from outside are 0."""
    frames, targets = batch(count=2, rows=16, columns=8)
    found, labels = augment(only(translation_range=(0.25, 0.25)), REGIONS, frames, targets, "float16", seeded())
    expected = torch.zeros_like(targets)
    expected[..., :12, :6] = targets[..., 4:, 2:]
    assert torch.equal(labels, expected)
    torch.testing.assert_close(found[..., :12, :6], frames[..., 4:, 2:], rtol=0, atol=1e-4)
    last = frames[..., -1:, 2:].expand(*frames.shape[:-2], 4, 6)  # frames repeat their border
    torch.testing.assert_close(found[..., 12:, :6], last, rtol=0, atol=1e-4)


def test_labels_are_never_interpolated_and_nothing_lies_outside():
    settings = only(rotation_range=(45.0, 45.0), zoom_range=(0.8, 0.8))
    ones = torch.ones((2, 2, 32, 32), dtype=torch.uint8)
    three = torch.full((2, 32, 32), 3, dtype=torch.uint8)
    frames = torch.ones((2, 1, 1, 32, 32))
    _, regions = augment(settings, REGIONS, frames, ones, "float16", seeded())
    found, classes = augment(settings, EXCLUSIVE, frames, three, "float16", seeded())
    assert set(regions.unique().tolist()) == {0, 1} and set(classes.unique().tolist()) == {0, 3}
    for labels in (regions[:, 0], classes):
        corners = labels[:, [0, 0, -1, -1], [0, -1, 0, -1]]
        assert not corners.any() and labels[:, 16, 16].all()
    torch.testing.assert_close(found, frames, rtol=0, atol=1e-4)  # frames repeat their border instead of black


def test_frames_and_masks_stay_together_under_every_transform():
    """A disc is both the frame and the mask: after any geometry they still overlap."""
    rows, columns = np.ogrid[:64, :64]
    disc = torch.from_numpy(((rows - 24) ** 2 + (columns - 40) ** 2 < 144).astype(np.uint8))
    targets = disc.expand(32, 2, 64, 64).contiguous()
    frames = targets[:, None, :1].float().expand(32, 3, 1, 64, 64).contiguous()
    settings = only(flip_rows=True, flip_columns=True, rotation_range=(-40.0, 40.0), zoom_range=(0.7, 1.4),
                    translation_range=(-0.1, 0.1))
    found, labels = augment(settings, REGIONS, frames, targets, "float16", seeded())
    mask = labels[:, :1].bool()
    for frame in range(3):
        seen = found[:, frame] > 0.5
        dice = 2 * (seen & mask).sum((1, 2, 3)) / (seen.sum((1, 2, 3)) + mask.sum((1, 2, 3)))
        assert float(dice.min()) > 0.97
    assert len({int(area) for area in mask.sum((1, 2, 3))}) > 10  # each sample has its own geometry


def test_intensity_leaves_targets_alone_and_keeps_a_window_together():
    frames, targets = batch(count=4, frames=3, channels=2)
    settings = only(brightness_range=(0.5, 2.0), brightness_shift=(-1.0, 1.0))
    found, labels = augment(settings, REGIONS, frames, targets, "float16", seeded())
    assert torch.equal(labels, targets)
    # one straight line per sample and channel, the same for every frame of the window
    for sample in range(4):
        lines = []
        for channel in range(2):
            x, y = frames[sample, :, channel].flatten().numpy(), found[sample, :, channel].flatten().numpy()
            slope, offset = np.polyfit(x, y, 1)
            np.testing.assert_allclose(y, slope * x + offset, atol=1e-3)
            assert 0.5 <= slope <= 2 and -1 <= offset <= 1
            lines.append(slope)
        assert lines[0] != pytest.approx(lines[1])


def test_contrast_and_brightness_by_hand():
    """Times 2, plus half of the spread, which is 4."""
    frames, _ = batch()
    found = random_intensity(only(brightness_range=(2.0, 2.0), brightness_shift=(0.5, 0.5)), frames, 4.0, seeded())
    torch.testing.assert_close(found, frames * 2 + 2)


def test_noise_has_the_level_asked_for():
    frames = torch.zeros((2, 1, 1, 200, 200))
    found = random_intensity(only(noise_level=(0.1, 0.1)), frames, 5.0, seeded())
    assert found.std(dim=(1, 2, 3, 4)).tolist() == pytest.approx([0.5, 0.5], rel=0.02)
    assert float(found.mean()) == pytest.approx(0, abs=0.01)
    assert not torch.equal(found[0], found[1])


def test_probability_is_the_share_of_samples_that_change():
    frames = torch.zeros((1000, 1, 1, 2, 2))
    found = random_intensity(only(0.3, brightness_shift=(1.0, 1.0)), frames, 1.0, seeded())
    assert float((found[:, 0, 0, 0, 0] == 1).float().mean()) == pytest.approx(0.3, abs=0.05)


# --- time, contrast and degraded twins ---------------------------------------------------------------------------

class Quality(Segmentation):
    """Targets 1 are good, 0 poor; nothing moves with the image."""

    def transform(self, targets, warp):
        return targets

    def low_quality(self, targets):
        return targets == 1, torch.zeros_like(targets)


QUALITY = Quality(Data(reader={}, classes=("a", "b")), {}, {})


def ramp(count=2, frames=9) -> torch.Tensor:
    """Frame i is all i."""
    return torch.arange(float(frames)).view(1, -1, 1, 1, 1).expand(count, -1, 1, 4, 4).clone()


def test_a_crop_of_time_is_stretched_back():
    found = random_time(only(temporal_crop_range=(0.5, 0.5)), ramp(), seeded())
    for clip in found[:, :, 0, 0, 0].tolist():
        assert np.allclose(np.diff(clip), 0.5, atol=1e-5) and 0 <= clip[0] <= 4 and 4 - 1e-5 <= clip[-1] <= 8
    assert found[0, 0, 0, 0, 0] != found[1, 0, 0, 0, 0]  # each clip has a crop of its own
    assert (random_time(only(), ramp(), seeded()) == ramp()).all()


def test_a_masked_frame_is_the_mean_of_its_neighbours():
    frames = torch.zeros(400, 5, 1, 2, 2)
    frames[:, 2] = 8.0
    found = random_time(only(temporal_mask_prob=0.25), frames, seeded())[:, :, 0, 0, 0]
    masked = found[:, 2] == 0.0
    assert 60 < masked.sum() < 140 and ((found[:, 2] == 8.0) | masked).all()
    assert set(found[:, 1].tolist()) == {0.0, 4.0} and set(found[:, 0].tolist()) == {0.0}
    ends = random_time(only(temporal_mask_prob=1.0), ramp(1, 4), seeded())[0, :, 0, 0, 0]
    assert ends.tolist() == [1.0, 1.0, 2.0, 2.0]  # at the ends there is one neighbour


def test_contrast_changes_differences_from_the_mean_of_a_window():
    frames = torch.tensor([10.0, 30.0]).view(1, 2, 1, 1, 1).expand(1, 2, 1, 3, 3)
    found = random_intensity(only(contrast_range=(0.5, 0.5)), frames, 255.0, seeded())
    assert torch.allclose(found[0, :, 0, 0, 0], torch.tensor([15.0, 25.0]))


def test_a_clip_has_one_geometry_and_one_brightness():
    still = torch.rand(3, 1, 1, 16, 16, generator=seeded(5)).expand(3, 6, 1, 16, 16) * 255
    settings = only(rotation_range=(-20, 20), zoom_range=(0.8, 1.2), translation_range=(-0.1, 0.1), flip_columns=True,
                    brightness_range=(0.5, 1.5), brightness_shift=(-0.1, 0.1), contrast_range=(0.5, 1.5))
    found, _ = augment(settings, QUALITY, still, torch.tensor([0, 0, 0]), "uint8", seeded())
    assert torch.allclose(found, found[:, :1].expand_as(found), atol=1e-3) and not torch.allclose(found[:, 0], still[:, 0])


def test_good_clips_get_degraded_twins_in_the_same_batch():
    frames = torch.zeros(4, 3, 1, 32, 32)
    frames[..., 16:] = 200.0
    targets = torch.tensor([1, 0, 1, 0])
    settings = only(synthetic_low_quality=SyntheticLowQuality(share=1.0, noise_level=0.0, blur_kernel=1, contrast_reduction=0.5))
    found, labels = augment(settings, QUALITY, frames, targets, "uint8", seeded())
    assert labels.tolist() == [1, 0, 1, 0, 0, 0] and (found[:4] == frames).all()
    assert np.allclose(np.unique(found[4:]), [50.0, 150.0])  # half the differences from the mean, 100
    noisy = only(synthetic_low_quality=SyntheticLowQuality(1.0, 0.1, 5, 0.0))
    twin = augment(noisy, QUALITY, frames, targets, "uint8", seeded())[0][4]
    assert twin[:, :, :, 24:].std().item() == pytest.approx(25.5, rel=0.15) and twin.max() <= 255  # a tenth of white
    none = only(synthetic_low_quality=SyntheticLowQuality(share=0.0))
    assert len(augment(none, QUALITY, frames, targets, "uint8", seeded())[0]) == 4


def test_the_blur_is_that_of_opencv():
    frames = torch.rand(2, 2, 1, 20, 24, generator=seeded(1)) * 255
    expected = cv2.GaussianBlur(frames[1, 0, 0].numpy(), (5, 5), 1.1, borderType=cv2.BORDER_REPLICATE)
    assert np.allclose(blurred(frames, 5)[1, 0, 0].numpy(), expected, atol=1e-2)


def test_what_means_nothing_is_refused():
    with pytest.raises(InputError, match="temporal_mask_prob.*a window is one frame"):
        check_augmentation(only(temporal_mask_prob=0.1), REGIONS, Window(1, 1), "uint8")
    with pytest.raises(InputError, match="synthetic_low_quality: this task has no class of poor images"):
        check_augmentation(only(synthetic_low_quality=SyntheticLowQuality()), REGIONS, Window(8, 1), "uint8")
    with pytest.raises(InputError, match="blur_kernel: found 4"):
        SyntheticLowQuality(blur_kernel=4)
