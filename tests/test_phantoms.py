"""Phantoms: layout, truth, signal, geometry and speckle of every study's example data; same seed, same bytes."""
from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import openpyxl
import pytest
from PIL import Image

from lib.phantoms import PHANTOMS, phantom_maker
from lib.phantoms.anatomy import SHAPES as HEAD_SHAPES
from lib.phantoms.anatomy import STRUCTURES, Head, box, deal_structures, make_anatomy_images, make_heads, visible_masks
from lib.phantoms.anatomy import make_image as make_head_image
from lib.phantoms.nuchal import Pose, make_image, make_nuchal_images
from lib.phantoms.spine import KINDS, deal_kinds, make_spine_frames
from lib.phantoms.stroke import make_patient, make_stroke_patients, smooth_field, write_nifti
from lib.phantoms.ultrasound import Probe, Tissue, View, ellipse, scan, speckle

FILES = ["b0.nii.gz", "b1000.nii.gz", "flairviz_roi.nii.gz", "mask.nii.gz", "stroke_roi.nii.gz"]
SHAPES = [(64, 64, 8), (72, 64, 10)]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> list[dict[str, nib.Nifti1Image]]:
    """Eight small patients, with the true brain, as {file stem: image}."""
    folders = make_stroke_patients(tmp_path_factory.mktemp("phantoms"), 8, seed=3, shapes=SHAPES, masks=True)
    return [{f.name.split(".")[0]: nib.load(f) for f in sorted(folder.iterdir())} for folder in folders]


def voxels(image: nib.Nifti1Image) -> np.ndarray:
    return np.asanyarray(image.dataobj)


def volume_ml(image: nib.Nifti1Image) -> float:
    return float(voxels(image).sum() * abs(np.linalg.det(image.affine[:3, :3])) / 1000)


def test_layout(tmp_path):
    folders = make_stroke_patients(tmp_path / "new" / "input_data", 2, shapes=SHAPES)
    assert [f.name for f in folders] == ["Patient_01", "Patient_02"]
    for folder in folders:
        assert sorted(f.name for f in folder.iterdir()) == [name for name in FILES if name != "mask.nii.gz"]


def test_types_shapes_and_geometry(cohort):
    assert {p["b0"].shape for p in cohort} == set(SHAPES)
    assert {"".join(nib.aff2axcodes(p["b0"].affine)) for p in cohort} == {"RAS", "LAS", "LPS"}
    for patient in cohort:
        for name, image in patient.items():
            assert image.get_data_dtype() == (np.int16 if name.startswith("b") else np.uint8)
            assert image.shape == patient["b0"].shape
            np.testing.assert_array_equal(image.affine, patient["b0"].affine)
        columns, rows, _ = np.multiply(patient["b0"].shape, patient["b0"].header.get_zooms())
        assert 205 <= rows <= 240 and 205 <= columns <= 242


def test_rois_are_nested(cohort):
    for patient in cohort:
        brain, stroke, flair = (voxels(patient[name]) for name in ("mask", "stroke_roi", "flairviz_roi"))
        assert set(np.unique(stroke)) <= {0, 1} and set(np.unique(flair)) <= {0, 1}
        assert not (stroke > brain).any() and not (flair > stroke).any()


def test_volumes_and_visibility(cohort):
    strokes = [volume_ml(p["stroke_roi"]) for p in cohort]
    lesions = [v for v in strokes if v > 0]
    assert strokes.count(0.0) == 1
    assert all(1 <= v <= 100 for v in lesions) and max(lesions) > 4 * min(lesions)
    shares = [volume_ml(p["flairviz_roi"]) / v for p, v in zip(cohort, strokes) if v]
    assert min(shares) == 0 and max(shares) > 0.8 and any(0.05 < s < 0.8 for s in shares)


def test_a_lesion_lies_in_one_hemisphere(cohort):
    for patient in cohort:
        stroke = nib.as_closest_canonical(patient["stroke_roi"]).get_fdata()
        half = stroke.shape[0] // 2
        halves = sorted((stroke[:half].sum(), stroke[half:].sum()))
        assert halves[0] <= 0.25 * halves[1]  # heads are posed a little off the middle column


def test_signal_is_that_of_diffusion_mri(cohort):
    for patient in cohort:
        b0, b1000 = (voxels(patient[name]).astype(float) for name in ("b0", "b1000"))
        brain, stroke = (voxels(patient[name]) > 0 for name in ("mask", "stroke_roi"))
        assert 350 < np.median(b0[brain]) < 1000 and b0.max() > 1000  # tissue; CSF
        adc = np.log(np.median(b0[brain & ~stroke]) / np.median(b1000[brain & ~stroke])) / 1000
        assert 0.7e-3 < adc < 1.2e-3
        air = np.s_[:6, :6]
        assert 0 < np.median(b0[air]) < 0.1 * np.median(b0[brain])  # Rician: never zero
        if stroke.any():
            assert np.median(b1000[stroke]) > 1.1 * np.median(b1000[brain & ~stroke])
            assert np.median(np.log(b0[stroke] / b1000[stroke])) < 0.8 * adc * 1000


def test_visible_tissue_is_bright_on_b0():
    """The second region can be learnt from b0: its T2 signal is above that of the rest of the lesion."""
    volumes, _ = make_patient(np.random.default_rng(4), (96, 96, 16), 60.0, "partial")
    stroke, flair = volumes["stroke_roi"] > 0, volumes["flairviz_roi"] > 0
    assert np.median(volumes["b0"][flair]) > 1.12 * np.median(volumes["b0"][stroke & ~flair])


def test_same_seed_same_bytes(tmp_path):
    first, again, other = (make_stroke_patients(tmp_path / name, 3, seed=seed, shapes=SHAPES)
                           for name, seed in (("a", 5), ("b", 5), ("c", 6)))
    for f, a, o in zip(first, again, other):
        for file in f.iterdir():
            assert file.read_bytes() == (a / file.name).read_bytes()
        assert (f / "b0.nii.gz").read_bytes() != (o / "b0.nii.gz").read_bytes()


def test_lesion_volume_is_met_on_any_grid():
    for shape in ((48, 48, 8), (96, 80, 16)):
        for wanted in (1.1, 20.0, 98.0):
            volumes, affine = make_patient(np.random.default_rng(1), shape, wanted, "none")
            voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000
            assert abs(volumes["stroke_roi"].sum() * voxel_ml - wanted) <= voxel_ml
            assert not volumes["flairviz_roi"].any()


def test_smooth_field_is_the_same_on_any_grid():
    axes = [np.linspace(-60, 60, n) for n in (5, 9, 13)]
    coarse = smooth_field(np.random.default_rng(0), [a[::2] for a in axes], 20)
    fine = smooth_field(np.random.default_rng(0), axes, 20)
    np.testing.assert_allclose(fine[::2, ::2, ::2], coarse, atol=1e-5)


def test_disk_orientation_keeps_places(tmp_path):
    """A voxel keeps its scanner coordinates whichever way the axes are stored."""
    volume = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    affine = np.array([[2.0, 0, 0, -3], [0, 2, 0, 5], [0, 0, 6, 7], [0, 0, 0, 1]])
    for signs in ((1, 1), (-1, 1), (-1, -1)):
        write_nifti(tmp_path / "v.nii.gz", volume, affine, signs)
        image = nib.as_closest_canonical(nib.load(tmp_path / "v.nii.gz"))
        np.testing.assert_allclose(image.affine, affine)
        np.testing.assert_array_equal(voxels(image), volume.T)


def test_other_data_is_left_alone(tmp_path):
    make_stroke_patients(tmp_path, 3, shapes=SHAPES)
    make_stroke_patients(tmp_path, 3, shapes=SHAPES)  # its own: made again
    with pytest.raises(FileExistsError, match="Patient_03"):
        make_stroke_patients(tmp_path, 2, shapes=SHAPES)
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), tmp_path / "Patient_02" / "b0.nii.gz")
    with pytest.raises(FileExistsError, match="not a phantom"):
        make_stroke_patients(tmp_path, 3, shapes=SHAPES)


@pytest.mark.parametrize("bad", [{"patients": 0}, {"lesion_free": 2}, {"size": "big"}, {"shapes": [(9, 9)]}])
def test_bad_arguments(tmp_path, bad):
    with pytest.raises(ValueError):
        make_stroke_patients(tmp_path, **bad)


# --- ultrasound ------------------------------------------------------------------------------------------------------

Pairs = dict[str, tuple[np.ndarray, np.ndarray]]  # image's name -> image and mask


def read_pairs(images: list[Path], masks: str, prefix: str = "") -> Pairs:
    pairs = {}
    for path in images:
        with Image.open(path) as image, Image.open(path.parents[1] / masks / f"{prefix}{path.name}") as mask:
            assert image.mode == mask.mode == "L" and image.format == mask.format == "PNG"
            pairs[path.name] = np.array(image), np.array(mask)
    return pairs


@pytest.fixture(scope="module")
def nuchal(tmp_path_factory) -> Pairs:
    """Twenty small images."""
    folder = tmp_path_factory.mktemp("nuchal") / "input_data"
    return read_pairs(make_nuchal_images(folder, 20, seed=3, size="small"), "segmentations", "seg_")


@pytest.fixture(scope="module")
def spine(tmp_path_factory) -> Pairs:
    """The frames of ten small patients."""
    folder = tmp_path_factory.mktemp("spine") / "data"
    return read_pairs(make_spine_frames(folder, 10, seed=3, size="small"), "masks")


def parts(mask: np.ndarray) -> list[tuple[int, float]]:
    """Area and greatest half-thickness (px) of each connected part of any size."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8))
    found = [np.pad(labels == i, 1) for i in range(1, count)]
    return [(int(part.sum()), float(cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, 5).max()))
            for part in found if part.sum() > 5]


@pytest.mark.parametrize("make, folders, images", [(make_nuchal_images, ["preprocessed_images", "segmentations"], 5),
                                                   (make_spine_frames, ["images", "masks"], 20)])
def test_layout_of_images(tmp_path, make, folders, images):
    made = make(tmp_path / "new" / "in", 5, size="small")
    assert sorted(f.name for f in (tmp_path / "new" / "in").iterdir()) == folders
    names = [{f.name for f in (tmp_path / "new" / "in" / folder).iterdir()} for folder in folders]
    prefix = "seg_" if make is make_nuchal_images else ""
    assert names[0] == {f.name for f in made} and names[1] == {prefix + f.name for f in made}
    assert abs(len(made) - images) <= 2 and all(f.is_file() for f in made)


def test_images_have_grey_levels_and_masks_the_studys_values(nuchal, spine):
    for pairs, values in ((nuchal, {0, 255}), (spine, {0, 128, 255})):
        assert len({image.shape for image, _ in pairs.values()}) == 2
        for image, mask in pairs.values():
            assert image.shape == mask.shape and image.shape[0] < image.shape[1]
            assert set(np.unique(mask)) <= values and image.std() > 15 and 30 < image[image > 0].mean() < 190
    for make, shape in ((make_image, (256, 320)), (make_image, (540, 800))):
        image, mask = make(np.random.default_rng(0), shape)
        assert image.shape == mask.shape == shape and image.dtype == np.uint8 and mask.dtype == bool


def test_one_translucency_or_none(nuchal):
    masks = [mask > 0 for _, mask in nuchal.values()]
    assert sum(not mask.any() for mask in masks) == 2
    for mask in masks:
        if mask.any():
            (area, half), = parts(mask)
            assert 0.01 < area / mask.size < 0.08 and 1 <= half <= 5 and area > 12 * half**2  # long and thin


def test_translucency_is_dark_between_bright_lines():
    """On the demo's grid the mask holds far fewer echoes than 3 px about it; its thickness is 5 to 20 px."""
    ratios = []
    for seed in range(8):
        image, mask = make_image(np.random.default_rng(seed), (256, 320))
        disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
        rim = (cv2.dilate(mask.astype(np.uint8), disk) > 0) & ~mask
        ratios.append(image[mask].mean() / image[rim].mean())
        assert 5 <= 2 * max(half for _, half in parts(mask)) <= 20
    assert np.median(ratios) < 0.6 and max(ratios) < 0.85


def test_absence_keeps_the_rest_of_the_fetus():
    with_one, mask = make_image(np.random.default_rng(5), (128, 160))
    without, nothing = make_image(np.random.default_rng(5), (128, 160), present=False)
    assert mask.any() and not nothing.any() and without.std() > 20
    assert with_one[mask].mean() < without[mask].mean()


def test_frames_of_a_sweep(spine):
    patients: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    numbers = [re.fullmatch(r"(D\d+)frame_(\d+)\.png", name).groups() for name in spine]
    assert len(set(numbers)) == len(numbers)
    for (patient, _), pair in zip(numbers, spine.values()):
        patients.setdefault(patient, []).append(pair)
    assert set(patients) == {f"D{i + 1}" for i in range(10)}
    for frames in patients.values():
        assert 3 <= len(frames) <= 5 and len({image.shape for image, _ in frames}) == 1
        assert len({image.tobytes() for image, _ in frames}) == len(frames)
        assert all((mask > 0).any() for _, mask in frames[:-1])


def test_bone_and_ligament_are_bands_or_absent(spine):
    shown = [((mask == 255).any(), (mask == 128).any()) for _, mask in spine.values()]
    assert shown.count((False, True)) == 0 and 1 <= shown.count((False, False)) <= 4
    assert 1 <= shown.count((True, False)) <= 8
    for _, mask in spine.values():
        for value in (128, 255):
            found = parts(mask == value)
            assert not (mask == value).any() or 0.005 < (mask == value).mean() < 0.2
            assert all(half <= 6 for _, half in found) and (not found or max(half for _, half in found) >= 1.5)


def test_bone_is_bright_and_casts_a_shadow(spine):
    for image, mask in spine.values():
        bone = mask == 255
        if not bone.any():
            continue
        under = np.zeros_like(bone)
        for row, column in zip(*np.nonzero(bone & ~np.roll(bone, -1, axis=0))):
            under[row + 8:row + 24, column] = True
        under &= image > 0
        assert image[bone].mean() > image[mask == 0].mean() + 20
        assert image[under].mean() < 0.6 * image[bone].mean()


def test_kinds_are_dealt_by_share():
    kinds = deal_kinds(np.random.default_rng(0), [4] * 50, 0.06, 0.12)
    flat = [kind for row in kinds for kind in row]
    assert {kind: flat.count(kind) for kind in KINDS} == {"both": 164, "bone": 24, "none": 12}
    assert all("none" not in row[:-1] for row in kinds) and "none" not in kinds[0]
    assert deal_kinds(np.random.default_rng(0), [3], 1, 0) == [["both"] * 3]


@pytest.mark.parametrize("make", [make_nuchal_images, make_spine_frames, make_anatomy_images])
def test_same_seed_same_images(tmp_path, make):
    first, again, other = (make(tmp_path / name, 2, seed=seed, size="small")
                           for name, seed in (("a", 5), ("b", 5), ("c", 6)))
    files = [{f.relative_to(root): f.read_bytes() for f in root.rglob("*.*") if f.is_file()}
             for root in (tmp_path / "a", tmp_path / "b", tmp_path / "c")]
    assert files[0] == files[1] and files[0] != files[2]
    assert [f.name for f in first] == [f.name for f in again]


@pytest.mark.parametrize("make", [make_nuchal_images, make_spine_frames, make_anatomy_images])
def test_other_images_are_left_alone(tmp_path, make):
    made = make(tmp_path, 2, size="small")
    assert make(tmp_path, 2, size="small") == made  # its own: made again
    with pytest.raises(FileExistsError, match="is not one of these .* another folder"):
        make(tmp_path, 1, size="small")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(made[0])
    with pytest.raises(FileExistsError, match="not a phantom"):
        make(tmp_path, 2, size="small")
    for bad in ({"patients": 0}, {"size": "big"}, {"absent": 1.5}):
        with pytest.raises(ValueError):
            make(tmp_path / "never", **bad)
    assert not (tmp_path / "never").exists()


# --- nine structures with boxes --------------------------------------------------------------------------------------

Box = tuple[int, int, int, int]  # h_min, w_min, h_max, w_max
BRIGHT = ("palate", "nasal bone", "nasal tip", "nasal skin")


@pytest.fixture(scope="module")
def anatomy(tmp_path_factory) -> tuple[list[Path], dict[str, dict[str, Box]]]:
    """Forty small images, and the workbook's boxes of each as {structure: box}."""
    folder = tmp_path_factory.mktemp("anatomy") / "input_data"
    images = make_anatomy_images(folder, 40, seed=3, size="small")
    assert sorted(f.name for f in folder.iterdir()) == ["Dataset for Fetus Framework", "ObjectDetection.xlsx"]
    book = openpyxl.load_workbook(folder / "ObjectDetection.xlsx")
    assert book.sheetnames == ["ObjectDetection"]
    head, *rows = book.active.iter_rows(values_only=True)
    assert head == ("fname", "structure", "h_min", "w_min", "h_max", "w_max")
    assert all(type(edge) is int for row in rows for edge in row[2:])
    found: dict[str, dict[str, Box]] = {image.name: {} for image in images}
    for name, structure, *edges in rows:
        assert structure in STRUCTURES and structure not in found[name]
        found[name][structure] = tuple(edges)
    return images, found


def test_heads_are_split_and_grey(anatomy):
    images, _ = anatomy
    assert [f.parent.name for f in images] == ["TrainVal"] * 34 + ["Test"] * 6
    assert len({f.name for f in images}) == 40
    assert {f.parents[1].name for f in images} == {"Dataset for Fetus Framework"}
    for i, path in enumerate(images):
        with Image.open(path) as image:
            pixels = np.array(image)
            assert image.mode == "L" and image.format == "PNG" and image.info["Comment"] == "FoldScan phantom"
        assert pixels.shape == HEAD_SHAPES["small"][i % 2] and pixels.std() > 20


def test_boxes_are_those_of_the_drawn_masks(anatomy):
    images, boxes = anatomy
    for path, (picture, masks) in zip(images, make_heads(40, 3, "small")):
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.array(image), picture)
        assert set(boxes[path.name]) == set(masks)
        for name, mask in masks.items():
            (h_min, w_min, h_max, w_max), inside = boxes[path.name][name], np.argwhere(mask)
            assert (*inside.min(axis=0), *(inside.max(axis=0) + 1)) == (h_min, w_min, h_max, w_max)
            assert 0 <= h_min < h_max <= mask.shape[0] and 0 <= w_min < w_max <= mask.shape[1]
            assert (picture[mask] > 0).any()  # not in the black beside the sector


def test_box_is_half_open():
    mask = np.zeros((6, 9), bool)
    mask[2, 3], mask[4, 8] = True, True
    assert box(mask) == (2, 3, 5, 9)


def test_each_structure_is_in_most_heads_and_not_in_some(anatomy):
    _, boxes = anatomy
    for name in STRUCTURES:
        assert 30 <= sum(name in found for found in boxes.values()) <= 36  # four are not drawn, few are cut off
    assert min(map(len, boxes.values())) >= 1 and max(map(len, boxes.values())) == 9


def test_structures_are_dealt_by_share_and_no_head_has_none():
    dealt = deal_structures(np.random.default_rng(0), 50, 0.2)
    assert all(sum(name in has for has in dealt) == 40 for name in STRUCTURES)
    assert len(set(map(tuple, dealt))) > 20  # each on its own
    assert deal_structures(np.random.default_rng(0), 3, 1.0) == [["thalami"]] * 3
    assert deal_structures(np.random.default_rng(0), 2, 0.0) == [list(STRUCTURES)] * 2


def test_structures_lie_as_in_a_fetus_that_looks_up(anatomy):
    """Nose in front, neck behind, palate and neck on the same side of the thalami; faces look both ways."""
    sides = []
    for found in anatomy[1].values():
        middle = {name: ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for name, b in found.items()}
        order = [middle[n][0] for n in ("nasal skin", "nasal bone", "palate", "midbrain", "CM", "NT") if n in middle]
        assert order == sorted(order)
        if {"thalami", "palate", "NT"} <= set(middle):
            palate, neck = (np.sign(middle[name][1] - middle["thalami"][1]) for name in ("palate", "NT"))
            assert palate == neck
            sides.append(palate)
    assert min(sides.count(-1), sides.count(1)) >= 5


def test_boxes_of_the_demo_are_not_too_small_and_structures_can_be_seen():
    """Dark or bright against a rim of 3 px; sides at least about 5 by 8 px."""
    ratios: dict[str, list[float]] = {name: [] for name in STRUCTURES}
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    for seed in range(8):
        image, masks = make_head_image(np.random.default_rng(seed), HEAD_SHAPES["demo"][seed % 2])
        assert image.shape == HEAD_SHAPES["demo"][seed % 2] and image.dtype == np.uint8
        for name, mask in masks.items():
            h_min, w_min, h_max, w_max = box(mask)
            assert h_max - h_min >= 5 and w_max - w_min >= 8
            rim = (cv2.dilate(mask.astype(np.uint8), disk) > 0) & ~mask
            ratios[name].append(image[mask].mean() / image[rim].mean())
    for name, found in ratios.items():
        assert len(found) >= 7
        assert np.median(found) > 1.25 if name in BRIGHT else np.median(found) < 0.9


def test_absence_of_a_structure_changes_nothing_else():
    whole, masks = make_head_image(np.random.default_rng(4), HEAD_SHAPES["demo"][0])
    for name in STRUCTURES:
        rest = [other for other in STRUCTURES if other != name]
        without, others = make_head_image(np.random.default_rng(4), HEAD_SHAPES["demo"][0], rest)
        assert list(others) == rest and all((others[n] == masks[n]).all() for n in rest)
        brighter = float(whole[masks[name]].mean()) - float(without[masks[name]].mean())
        assert brighter > 15 if name in BRIGHT else brighter < -15
        if name not in ("palate", "nasal bone"):  # those cast a shadow; the cistern takes some of the skull's
            far = cv2.dilate(masks[name].astype(np.uint8), np.ones((41, 41))) == 0
            assert (whole[far] == without[far]).mean() > 0.97


def test_a_structure_needs_half_of_itself_in_the_picture():
    """The picture's right edge 0.6 mm to the right of its middle, and to the left."""
    head, pose = Head(np.random.default_rng(0), STRUCTURES), Pose(0.0, (1, 1), 0.0, 0.0)
    probe = Probe(0, -60, 30, 1.2, 200)

    def names(x: float, columns: int) -> set[str]:
        return set(visible_masks(head, pose, View((300, columns), 0.2, x, -30), probe))

    x, _ = head.blobs["IT"].centre
    assert names(0, 400) == set(STRUCTURES)
    assert "IT" in names(x + 0.6 - 20, 200) and "IT" not in names(x - 0.6 - 20, 200)


def test_a_workbook_of_boxes_keeps_no_time(tmp_path):
    make_anatomy_images(tmp_path, 1, size="small")
    with zipfile.ZipFile(tmp_path / "ObjectDetection.xlsx") as book:
        assert {entry.date_time for entry in book.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert b"modified" not in book.read("docProps/core.xml")


def test_a_workbook_of_boxes_that_is_not_ours_is_left_alone(tmp_path):
    path = tmp_path / "ObjectDetection.xlsx"
    book = openpyxl.Workbook()
    book.save(path)
    for content in (path.read_bytes(), b"fname,structure"):
        path.write_bytes(content)
        with pytest.raises(FileExistsError, match="ObjectDetection.xlsx is not .* another folder"):
            make_anatomy_images(tmp_path, 2, size="small")
        assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


# --- physics and the registry ----------------------------------------------------------------------------------------

def test_speckle_is_rayleigh_and_keeps_its_power():
    """A Rayleigh magnitude of mean square a^2 has mean a sqrt(pi) / 2; far from a mirror nothing else is added."""
    tissue = Tissue(np.zeros((2, 400, 400), np.float32), 0.2, -20)
    envelope = speckle(np.random.default_rng(0), tissue, (1.2, 2.0, 4.0), np.ones(400, np.float32))
    assert np.square(envelope).mean() == pytest.approx(0.01, rel=0.1)
    assert envelope.mean() / np.sqrt(np.square(envelope).mean()) == pytest.approx(np.sqrt(np.pi) / 2, rel=0.02)
    tissue.mirror[200] = 1
    assert speckle(np.random.default_rng(0), tissue, (1.2, 2.0, 4.0), np.ones(400, np.float32))[200].min() > 0.1


def test_scan_puts_things_where_they_are_and_shadows_below():
    """A bright disk in grey tissue, with loss: its place in the picture, black corners, a dark column underneath."""
    view, probe = View((100, 140), 0.5), Probe(0, -30, 30, 0.6, 60)

    def scene(points: np.ndarray, step_mm: float) -> Tissue:
        tissue = Tissue(points, step_mm, -30)
        tissue.blob(points, (8, 20), (4, 4), -5, loss=4)
        return tissue

    image = scan(np.random.default_rng(0), view, probe, scene, gain_spread_db=0).astype(float)
    points = view.points()
    assert image[0, 0] == image[0, -1] == 0 and points[:, 0, 0] == pytest.approx([-34.75, 0.25])
    disk = ellipse(points, (8, 20), (4, 4)) > 0.5
    top = disk & (points[1] < 18)
    (along, angle), (_, centre) = probe.locate(points), probe.locate(np.array([8.0, 20.0]))
    shadow = (np.abs(angle - centre) < 0.03) & (along > 28) & probe.sees(points)
    beside = (np.abs(angle + centre) < 0.03) & (along > 28) & probe.sees(points)
    assert image[top].mean() > image[beside].mean() + 40 and image[shadow].mean() < 0.6 * image[beside].mean()
    with pytest.raises(ValueError, match="outside the field"):
        scan(np.random.default_rng(0), View((10, 10), 0.5, 200), probe, scene)


def test_registry():
    assert phantom_maker("flair_visibility") is make_stroke_patients
    assert phantom_maker("nuchal_translucency") is make_nuchal_images
    assert phantom_maker("lumbar_spine") is make_spine_frames
    assert phantom_maker("fetal_anatomy") is make_anatomy_images
    with pytest.raises(ValueError, match=".*".join(sorted(PHANTOMS))):
        phantom_maker("nonesuch")


def test_command_line(tmp_path):
    def run(*arguments: object) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-m", "lib.phantoms", *map(str, arguments)], text=True,
                              capture_output=True, cwd=Path(__file__).resolve().parents[1])
    made = run("flair_visibility", tmp_path / "data", "--patients", 2, "--size", "small")
    assert made.returncode == 0 and "2 patients" in made.stdout
    assert len(list((tmp_path / "data").glob("Patient_*/*.nii.gz"))) == 8
    made = run("nuchal_translucency", tmp_path / "nuchal", "--patients", 3, "--size", "small")
    assert made.returncode == 0 and "3 images of nuchal_translucency" in made.stdout
    bad = run("nonesuch", tmp_path / "data")
    assert bad.returncode == 2 and bad.stderr.startswith("error: ") and bad.stderr.count("\n") == 1
