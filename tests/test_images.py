"""Readers of photographs: layouts, mask encodings, conversions, spacings, bad input, and predictions written back."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lib.data.case import CaseError
from lib.imaging.photographs import (MaskCoding, PhotographError, find_values, read_facts, read_image, read_mask,
                                     write_prediction, write_shares)
from lib.readers import make_reader
from lib.study import Data, Folds, InputError, build

SIZE = (20, 30)  # rows, columns
GREY = np.random.default_rng(0).integers(0, 256, SIZE).astype(np.uint8)
LABELS = np.zeros(SIZE, np.uint8)  # 1 in 50 pixels, 2 in 24
LABELS[2:7, 5:15], LABELS[10:14, 20:26] = 1, 2
COLOURS = np.array([[0, 0, 0], [200, 10, 0], [0, 30, 255]], np.uint8)  # R, G, B of the labels
SUFFIXES = ("png", "PNG", "jpg", "jpeg", "tif", "tiff", "bmp")


def save(path: Path, pixels, **keys) -> Path:
    """PIL writes what OpenCV reads, and the other way round."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
    image.save(path, **keys)
    return path


def palette(labels, colours=COLOURS) -> Image.Image:
    image = Image.fromarray(labels).convert("P")
    image.putdata(labels.ravel().tolist())
    image.putpalette(colours.ravel().tolist())
    return image


def reader(classes=("head",), folds=Folds(), encoding="regions", **keys):
    return make_reader(Data(reader={"kind": "image_pairs", **keys}, classes=classes, encoding=encoding, folds=folds))


def pairs(root: Path, names=("a", "b"), images="images", masks="masks", mask_name="{stem}.png",
          mask=LABELS == 1) -> Path:
    for name in names:
        save(root / images / f"{name}.png", GREY)
        save(root / masks / mask_name.format(name=f"{name}.png", stem=name), mask)
    return root


def only(found, root, labels=True):
    """The single case of a folder, read."""
    scan = found.headers(root, labels)
    assert not scan.problems, scan.problems
    (header,) = scan.headers
    return found.read(root, header, labels)


def problems(found, root) -> list[str]:
    return [str(problem) for problem in found.headers(root).problems]


# --- layouts -------------------------------------------------------------------------------------------------------

def test_a_pair_of_folders(tmp_path):
    pairs(tmp_path, ("frame_10", "frame_9"), "pictures", "truth/seg", "seg_{name}", (LABELS == 1) * np.uint8(255))
    for stranger in ("notes.txt", "pictures/.hidden.png", "pictures/notes.txt", "truth/other/x.png", "truth/seg/x.doc"):
        (tmp_path / stranger).parent.mkdir(exist_ok=True)
        (tmp_path / stranger).write_text("?")
    (tmp_path / "pictures" / "folder.png").mkdir()
    found = reader(images="pictures", masks="truth/seg", mask_name="seg_{name}")
    scan = found.headers(tmp_path)
    assert not scan.problems and [h.case for h in scan.headers] == ["frame_9", "frame_10"]
    header = scan.headers[0]
    assert header.files == {"image": "pictures/frame_9.png", "mask": "truth/seg/seg_frame_9.png"}
    assert header.geometry.shape == (1, *SIZE) and header.geometry.flat and header.geometry.spacing_mm is None
    assert (header.channels, header.patient, header.subset) == (1, "frame_9", "")
    assert set(scan.ignored) == {"notes.txt", "pictures/.hidden.png", "pictures/notes.txt", "pictures/folder.png",
                                 "truth/other", "truth/seg/x.doc"} and len(scan.ignored) == 6
    assert len(scan.notes) == 1 and scan.notes[0].startswith("no patient_pattern: each image")
    case = found.read(tmp_path, header)
    assert case.frames.dtype == np.uint8 and case.truth["head"].dtype == bool
    np.testing.assert_array_equal(case.frames, GREY[None, None])
    np.testing.assert_array_equal(case.truth["head"], (LABELS == 1)[None])
    assert found.has_truth(tmp_path, "frame_9") and not found.has_truth(tmp_path, "frame_1")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_and_masks_with_another_one(tmp_path, suffix):
    save(tmp_path / "images" / f"a.{suffix}", np.full(SIZE, 77, np.uint8))
    save(tmp_path / "masks" / "a_Mask.tif", LABELS == 1)
    case = only(reader(mask_name="{stem}_Mask.png"), tmp_path)
    assert case.header.case == "a" and case.header.files["mask"] == "masks/a_Mask.tif" and (case.frames == 77).all()
    np.testing.assert_array_equal(case.truth["head"][0], LABELS == 1)


@pytest.mark.parametrize("folders", [("train", "val", "test"), ("Train", "valid"), ("train", "validation")])
def test_predefined_subsets(tmp_path, folders):
    for folder in folders:
        pairs(tmp_path / folder, ("a",))
    (tmp_path / folders[0] / "readme").write_text("?")
    names = ["train", "validation", "test"][:len(folders)]
    scan = reader().headers(tmp_path)
    assert not scan.problems and scan.ignored == [f"{folders[0]}/readme"]
    assert [h.subset for h in scan.headers] == names
    assert [h.case for h in scan.headers] == [f"{name}-a" for name in names]
    pooled = reader(folds=Folds(pool=True)).headers(tmp_path)
    assert [h.subset for h in pooled.headers] == [""] * len(folders)
    assert [h.case for h in pooled.headers] == [h.case for h in scan.headers]
    assert reader().has_truth(tmp_path, "validation-a") and not reader().has_truth(tmp_path, "a")
    (tmp_path / folders[0].lower() / "masks").mkdir(parents=True, exist_ok=True)
    if folders[0] == "Train":
        with pytest.raises(InputError, match="both mean train"):
            reader().headers(tmp_path)


def test_a_second_pair_is_the_validation_set(tmp_path):
    keys = {"validation_images": "more", "validation_masks": "more_masks"}
    pairs(tmp_path, ("a", "b"))
    with pytest.raises(InputError, match="no folder more/; it holds images, masks"):
        reader(**keys).headers(tmp_path)
    assert [h.case for h in reader(**keys).headers(tmp_path, labels=False).headers] == ["a", "b"]  # new data
    pairs(tmp_path, ("a",), "more", "more_masks")
    found = {h.case: h.subset for h in reader(**keys).headers(tmp_path).headers}
    assert found == {"train-a": "train", "train-b": "train", "validation-a": "validation"}
    assert {h.subset for h in reader(folds=Folds(pool=True), **keys).headers(tmp_path).headers} == {""}


def test_images_and_masks_in_one_folder(tmp_path):
    pairs(tmp_path, ("a", "b"), ".", ".", "{stem}_Mask.png")
    save(tmp_path / "c.png", GREY)
    found = reader(images=".", masks=".", mask_name="{stem}_Mask.png")
    scan = found.headers(tmp_path)
    assert [h.case for h in scan.headers] == ["a", "b"] and problems(found, tmp_path) == [
        "c: c_Mask.png: missing: there is no mask for c.png"]
    with pytest.raises(InputError, match="tells masks from images"):
        reader(images="x", masks="x")


def test_new_data_needs_no_masks(tmp_path):
    save(tmp_path / "b" / "images" / "a.png", GREY)
    save(tmp_path / "c" / "a.png", GREY)
    found = reader()
    for root in (tmp_path / "b", tmp_path / "c"):
        case = only(found, root, labels=False)
        assert case.truth == {} and "mask" not in case.header.files and not found.has_truth(root, "a")
        assert found.headers(root, labels=False).notes == []
        with pytest.raises(InputError, match="there is no folder"):
            found.headers(root)


# --- what masks mean -----------------------------------------------------------------------------------------------

TWO = {"bone": 255, "ligament": [100, 128]}


@pytest.mark.parametrize("mask", [LABELS == 1, (LABELS == 1) * np.uint8(1), (LABELS == 1) * np.uint8(255),
                                  (LABELS == 1) * np.uint8(38), (LABELS == 1) * np.uint16(999),
                                  np.stack([(LABELS == 1) * np.uint8(255)] * 3, -1),
                                  np.stack([(LABELS == 1) * np.uint8(7)] * 3 + [LABELS * 0 + np.uint8(255)], -1),
                                  palette((LABELS == 1) * np.uint8(1))],
                         ids=["1 bit", "0/1", "0/255", "0/38", "16 bits", "grey RGB", "grey RGBA", "palette"])
def test_a_single_class_is_whatever_is_not_background(tmp_path, mask):
    found = read_mask(save(tmp_path / "m.png", mask), MaskCoding("values", 1), SIZE)
    np.testing.assert_array_equal(found[0], LABELS == 1)


def test_an_empty_mask_is_kept(tmp_path):
    save(tmp_path / "m.png", LABELS * 0)
    for coding in (MaskCoding("values", 1), MaskCoding("values", 1, ((255,),)), MaskCoding("colours", 1)):
        found = read_mask(tmp_path / "m.png", coding, SIZE)
        assert found.shape == (1, *SIZE) and not found.any()


def test_values_of_classes_and_of_background(tmp_path):
    pairs(tmp_path, ("a",), mask=np.array([0, 255, 128], np.uint8)[LABELS])
    case = only(reader(TWO, encoding="exclusive"), tmp_path)
    assert {k: int(v.sum()) for k, v in case.truth.items()} == {"bone": 50, "ligament": 24}
    assert case.header.geometry.source == {"format": "image", "encoding": "values", "classes": ["bone", "ligament"],
                                           "values": [255, 100]}
    nested = only(reader({"liver": [128, 255], "tumour": 128}), tmp_path)  # the outer region has both values
    assert int(nested.truth["liver"].sum()) == 74 and int(nested.truth["tumour"].sum()) == 24
    assert nested.header.geometry.source["values"] == [255, 128]
    named = only(reader({"rest": 0, "bone": 255, "ligament": 128}), tmp_path)
    assert int(named.truth["rest"].sum()) == GREY.size - 74


def test_the_index_of_a_palette_is_its_value_and_its_colour_its_colour(tmp_path):
    pairs(tmp_path, ("a",), mask=palette(LABELS))
    by_value = only(reader({"one": 1, "two": 2}), tmp_path)
    by_colour = only(reader({"one": [200, 10, 0], "two": "#001eFF"}, mask_encoding="colours"), tmp_path)
    for case in (by_value, by_colour):
        np.testing.assert_array_equal(case.truth["one"][0], LABELS == 1)
        np.testing.assert_array_equal(case.truth["two"][0], LABELS == 2)


@pytest.mark.parametrize("alpha", [False, True])
def test_colours(tmp_path, alpha):
    mask = COLOURS[LABELS]
    pairs(tmp_path, ("a",), mask=np.dstack([mask, GREY]) if alpha else mask)
    found = reader({"one": "#c80a00", "two": [[0, 30, 255], [9, 9, 9]]}, mask_encoding="colours")
    case = only(found, tmp_path)
    assert [int(v.sum()) for v in case.truth.values()] == [50, 24]
    assert case.header.geometry.source["values"] == [[200, 10, 0], [0, 30, 255]]
    with pytest.raises(CaseError, match=r'masks/a.png: holds "#001eff" \(24 pixels\), which mean no class'):
        _raise(only, reader({"one": "#c80a00"}, mask_encoding="colours"), tmp_path)
    with pytest.raises(CaseError, match="set mask_encoding to colours"):
        _raise(only, reader(), tmp_path)


def test_a_mask_that_lies_in_its_transparency_is_refused(tmp_path):
    pairs(tmp_path, ("a",), mask=np.dstack([np.full((*SIZE, 3), 255, np.uint8), (LABELS == 1).astype(np.uint8) * 255]))
    with pytest.raises(CaseError, match="shapes in the transparency"):
        _raise(only, reader({"one": 255}), tmp_path)


def test_a_damaged_tiff_is_refused(tmp_path):
    """One flipped bit in compressed data: the decoder hands on other pixels, its checks do not."""
    path = tmp_path / "mask.tif"
    Image.fromarray((LABELS == 1).astype(np.uint8) * 255).resize((300, 200), Image.Resampling.NEAREST).save(path, compression="tiff_deflate")
    good = path.read_bytes()
    right = read_mask(path, MaskCoding("values", 1), (200, 300))
    for place in range(40, len(good) - 40, 7):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1:])
        try:
            found = read_mask(path, MaskCoding("values", 1), (200, 300))
        except PhotographError:
            continue
        np.testing.assert_array_equal(found, right)  # a bit that means nothing


def _raise(function, *arguments):
    """pytest matches the text of an exception, which of a CaseError is that of its problem."""
    try:
        function(*arguments)
    except CaseError as error:
        raise CaseError(str(error.problem), "", "") from None


@pytest.mark.parametrize("top", [1, 255, 65535])
def test_channels_are_regions_that_may_overlap(tmp_path, top):
    regions = np.stack([LABELS == 1, LABELS > 0, LABELS * 0 == 1])
    planes = np.moveaxis(regions[[2, 1, 0]], 0, -1) * np.array(top, np.uint16 if top > 255 else np.uint8)  # B, G, R
    for name in ("a.png", "a.tif"):
        assert cv2.imwrite(str(tmp_path / name), planes)
        coding = MaskCoding("channels", 3)
        np.testing.assert_array_equal(read_mask(tmp_path / name, coding, SIZE), regions)
        assert read_mask(tmp_path / name, MaskCoding("channels", 2), SIZE).shape == (2, *SIZE)  # B is empty
        with pytest.raises(PhotographError, match="marks 74 pixels in channel 2; expected 1 classes"):
            read_mask(tmp_path / name, MaskCoding("channels", 1), SIZE)
        assert find_values(tmp_path / name, "channels", SIZE) == [1, 2]


def test_channels_that_are_too_few_or_not_binary(tmp_path):
    pairs(tmp_path, ("a",), mask=np.stack([LABELS == 1] * 3, -1) * np.uint8(90))
    with pytest.raises(CaseError, match="has 90 as its largest value"):
        _raise(only, reader("xyz", mask_encoding="channels"), tmp_path)
    (problem,) = problems(reader(tuple("uvxy"), mask_encoding="channels"), tmp_path)
    assert "a: masks/a.png: has 3 channels; expected one for each of u, v, x, y" in problem
    alpha = np.dstack([np.stack([LABELS == c for c in (1, 2, 1)], -1), LABELS == 0]) * np.uint8(255)
    save(tmp_path / "masks" / "a.png", alpha)
    case = only(reader(tuple("uvxy"), mask_encoding="channels"), tmp_path)
    assert [int(v.sum()) for v in case.truth.values()] == [50, 24, 50, 526]
    assert len(only(reader(tuple("uvx"), mask_encoding="channels"), tmp_path).truth) == 3  # alpha means nothing


def test_jpeg_masks_are_cut_where_that_is_clear(tmp_path):
    big = np.kron(LABELS, np.ones((16, 16), np.uint8))[3:, 5:]  # edges inside the 8 x 8 blocks of JPEG
    size = big.shape
    path = save(tmp_path / "m.jpg", (big == 1) * np.uint8(255), quality=97)
    assert len(np.unique(Image.open(path))) > 2
    np.testing.assert_array_equal(read_mask(path, MaskCoding("values", 1), size)[0], big == 1)
    assert find_values(path, "values", size) == [255]
    save(path, np.array([0, 255, 128], np.uint8)[big], quality=97)
    np.testing.assert_array_equal(read_mask(path, MaskCoding("values", 2, ((255,), (128,))), size),
                                  [big == 1, big == 2])
    save(path, cv2.GaussianBlur((big == 1) * np.uint8(255), (0, 0), 5))
    with pytest.raises(PhotographError) as caught:
        read_mask(path, MaskCoding("values", 1), size)
    assert len(caught.value.unnamed) > 32


@pytest.mark.parametrize("classes, values, text", [
    (("head",), [0, 3, 7], r"holds 3 \(50 pixels\), 7 \(24 pixels\); expected one value besides background, or say in "
                           r"data.classes which values mean head, such as \{head: \[3, 7\]\}"),
    ({"bone": 3}, [0, 3, 7], r"holds 7 \(24 pixels\), which mean no class; name them in data.classes"),
])
def test_a_value_of_no_class(tmp_path, classes, values, text):
    pairs(tmp_path, ("a",), mask=np.array(values, np.uint8)[LABELS])
    with pytest.raises(CaseError, match=text):
        _raise(only, reader(classes), tmp_path)


def test_a_photograph_instead_of_a_mask(tmp_path):
    pairs(tmp_path, ("a",), mask=GREY)
    for classes in (("head",), TWO):
        with pytest.raises(CaseError, match=r"pixels\) and \d+ more: it looks like an image or a JPG"):
            _raise(only, reader(classes), tmp_path)
    with pytest.raises(InputError, match="masks/a.png: more than 32 different values"):
        found = reader(())
        found.find_classes(tmp_path, found.headers(tmp_path).headers)


@pytest.mark.parametrize("encoding, masks, classes", [
    ("values", [LABELS == 1], {"foreground": 255}),
    ("values", [np.array([0, 9, 200], np.uint8)[LABELS], (LABELS == 1) * np.uint8(30), LABELS * 0],
     {"class_1": 9, "class_2": 30, "class_3": 200}),
    ("colours", [COLOURS[LABELS], COLOURS[LABELS * (LABELS == 1)]], {"class_1": [0, 30, 255], "class_2": [200, 10, 0]}),
    ("channels", [np.stack([LABELS == 1, LABELS == 2, LABELS == 5], -1) * np.uint8(255)],
     {"class_1": None, "class_2": None}),
])
def test_classes_that_are_found(tmp_path, encoding, masks, classes):
    for index, mask in enumerate(masks):
        pairs(tmp_path, (f"{index}",), mask=mask)
    pairs(tmp_path, ("broken",))
    cut(tmp_path / "masks" / "broken.png")
    found = reader((), mask_encoding=encoding)
    headers = found.headers(tmp_path).headers
    named = found.find_classes(tmp_path, headers)
    assert named == classes and list(named) == list(classes)
    known = make_reader(dataclasses.replace(found.data, classes=named))
    assert known.read(tmp_path, headers[0]).truth.keys() == classes.keys()


def test_no_classes_in_empty_masks(tmp_path):
    pairs(tmp_path, mask=LABELS * 0)
    found = reader(())
    with pytest.raises(InputError, match="none found in 2 masks, which are all empty"):
        found.find_classes(tmp_path, found.headers(tmp_path).headers)


# --- images --------------------------------------------------------------------------------------------------------

def test_sixteen_bits_are_scaled_from_minimum_to_maximum(tmp_path):
    deep = np.array([[1000, 1255], [1051, 1510]], np.uint16)  # 510 steps
    for path in (tmp_path / "a.png", tmp_path / "a.tif"):
        assert cv2.imwrite(str(path), deep)
        assert read_facts(path).deep
        np.testing.assert_array_equal(read_image(path, 1, (2, 2))[0, 0], [[0, 128], [26, 255]])  # 127.5, 25.5 to even
    save(tmp_path / "f.tif", np.array([[0.0, 1.0], [0.2, 0.4]], np.float32))
    np.testing.assert_array_equal(read_image(tmp_path / "f.tif", 1, (2, 2))[0, 0], [[0, 255], [51, 102]])
    save(tmp_path / "f.tif", np.array([[0.0, np.nan], [0.2, 0.4]], np.float32))
    with pytest.raises(PhotographError, match="NaN"):
        read_image(tmp_path / "f.tif", 1, (2, 2))
    assert cv2.imwrite(str(tmp_path / "c.png"), deep * 0 + 300)
    assert not read_image(tmp_path / "c.png", 1, (2, 2)).any()


def test_colours_and_grey_as_the_study_wants_them(tmp_path):
    red, green, blue = (np.full(SIZE, v, np.uint8) for v in (200, 100, 50))
    colour = np.stack([red, green, blue], -1)
    for name, image in {"rgb.png": colour, "rgba.png": np.dstack([colour, GREY]), "rgb.bmp": colour, "rgb.tif": colour,
                        "p.png": Image.fromarray(colour).quantize(4)}.items():
        path = save(tmp_path / name, image)
        grey, planes = read_image(path, 1, SIZE), read_image(path, 3, SIZE)
        assert (grey == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)).all() and grey.shape == (1, 1, *SIZE)
        assert [set(p.ravel().tolist()) for p in planes] == [{200}, {100}, {50}] and planes.flags.c_contiguous
    planes = read_image(save(tmp_path / "grey.png", GREY), 3, SIZE)
    np.testing.assert_array_equal(planes[:, 0], [GREY] * 3)
    assert planes.flags.c_contiguous
    deep = np.dstack([GREY.astype(np.uint16) * 257] * 3 + [np.full(SIZE, 65535, np.uint16)])
    deep[0, 0, :3], deep[0, 1, :3] = 0, 65535
    assert cv2.imwrite(str(tmp_path / "deep.png"), deep)
    assert read_facts(tmp_path / "deep.png").deep
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png", 1, SIZE)[0, 0], deep[:, :, 0] // 257)


def test_conversions_are_said_once_with_their_count(tmp_path):
    pairs(tmp_path, ("a", "b", "c", "d"))
    for name in "ab":
        save(tmp_path / "images" / f"{name}.png", np.dstack([GREY] * 3))
    save(tmp_path / "images" / "c.png", GREY.astype(np.uint16) * 200)
    save(tmp_path / "images" / "d.png", np.dstack([GREY] * 2))
    notes = reader(patient_pattern=".").headers(tmp_path).notes
    assert notes == ["1 image of more than 8 bits: converted to 8 bits, each from its own minimum and maximum",
                     "1 image with alpha, which was dropped",
                     "2 images with colours: turned grey (channels: 3 would keep them)"]
    assert "2 images in grey: repeated as red, green and blue" in reader(channels=3).headers(tmp_path).notes
    assert reader(channels=3).channel_names == ("red", "green", "blue") and reader().channel_names == ("grey",)


# --- patients and spacings -----------------------------------------------------------------------------------------

def test_patients_by_a_pattern_on_the_file_name(tmp_path):
    pairs(tmp_path, ("D10frame_102", "D10frame_7", "D2frame_1"))
    scan = reader(patient_pattern=r"^(D\d+)frame_\d+\.png$").headers(tmp_path)
    assert [h.patient for h in scan.headers] == ["D2", "D10", "D10"] and scan.notes == []
    assert problems(reader(patient_pattern="D10"), tmp_path) == [
        "D2frame_1: its name does not match data.reader.patient_pattern 'D10'"]
    with pytest.raises(InputError, match=r"'\^P' finds a patient in none of 3 file names, such as D2frame_1.png"):
        reader(patient_pattern="^P").headers(tmp_path)
    new = reader(patient_pattern="^(D10)").headers(tmp_path, labels=False, new=True)  # to be predicted: any name will do
    assert [h.patient for h in new.headers] == ["D2frame_1", "D10", "D10"] and not new.problems


def test_spacing_from_pixels_per_mm(tmp_path):
    assert only(reader(pixels_per_mm=4.0), pairs(tmp_path, ("a",))).header.geometry.spacing_mm == (1.0, 0.25, 0.25)


def write_table(path: Path, rows: list, separator=",", bom=""):
    if path.suffix == ".xlsx":
        from openpyxl import Workbook
        book = Workbook()
        for row in rows:
            book.active.append(row)
        book.save(path)
    else:
        path.write_text(bom + "\n".join(separator.join(map(str, row)) for row in rows), encoding="utf-8")


@pytest.mark.parametrize("file, separator, bom", [("t.csv", ",", "\ufeff"), ("t.csv", ";", ""), ("t.xlsx", ",", "")])
def test_spacing_from_a_table(tmp_path, file, separator, bom):
    pairs(tmp_path, ("a", "b", "1"))
    write_table(tmp_path / file, [["file ", "mm", "row mm"], ["a.png", 0.25, 0.5], ["b", " 0.125", 1], [1, 2, 3],
                                  ["other.png", "x", ""], ["", "", ""]], separator, bom)
    keys = {"file": file, "name_column": "file", "spacing_column": "mm", "separator": separator}
    scan = reader(spacing_table=keys).headers(tmp_path)
    assert not scan.problems and scan.ignored == []
    assert {h.case: h.geometry.spacing_mm for h in scan.headers} == {
        "a": (1.0, 0.25, 0.25), "b": (1.0, 0.125, 0.125), "1": (1.0, 2.0, 2.0)}
    both = reader(spacing_table={**keys, "row_spacing_column": "row mm"}).headers(tmp_path)
    assert {h.case: h.geometry.spacing_mm for h in both.headers}["a"] == (1.0, 0.5, 0.25)


def test_a_decimal_comma(tmp_path):
    write_table(pairs(tmp_path, ("a",)) / "t.csv", [["n", "mm"], ["a.png", "0,25"]], ";")
    keys = {"file": "t.csv", "name_column": "n", "spacing_column": "mm", "separator": ";"}
    assert only(reader(spacing_table=keys), tmp_path).header.geometry.spacing_mm == (1.0, 0.25, 0.25)


def test_rows_that_a_table_lacks_or_has_wrong(tmp_path):
    names = ("a", "b", "c", "d", "e", "f")
    pairs(tmp_path, names)
    write_table(tmp_path / "t.csv", [["n", "mm"], ["a.png", 1], ["a", 1.0], ["b", 1], ["b.png", 2], ["c", "wide"],
                                     ["d", -1], ["e", "nan"]])
    keys = {"file": "t.csv", "name_column": "n", "spacing_column": "mm"}
    found = reader(spacing_table=keys)
    assert [h.case for h in found.headers(tmp_path).headers] == ["a"]
    assert problems(found, tmp_path) == [
        "b: images/b.png: has two rows with different numbers in t.csv",
        *(f"{case}: images/{case}.png: has the spacing {value!r}, expected mm per pixel above 0, in t.csv"
          for case, value in (("c", "wide"), ("d", "-1"), ("e", "nan"))),
        "f: images/f.png: has no row in t.csv"]
    for change, text in {"name_column": r"no column 'x' .*; it has n, mm", "spacing_column": "no column 'x'",
                         "file": "there is no such file"}.items():
        with pytest.raises(InputError, match=text):
            reader(spacing_table={**keys, change: "x"}).headers(tmp_path)
    (tmp_path / "t.xlsx").write_text("no book")
    with pytest.raises(InputError, match="cannot be read as a table"):
        reader(spacing_table={**keys, "file": "t.xlsx"}).headers(tmp_path)
    (tmp_path / "t.csv").unlink()
    scan = found.headers(tmp_path, labels=False)  # new data
    assert scan.headers[0].geometry.spacing_mm is None and "t.csv is not in" in scan.notes[0]


# --- bad input -----------------------------------------------------------------------------------------------------

def cut(path: Path, keep: float = 0.6) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[:int(len(raw) * keep)])


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(bytes(raw))


def test_all_bad_headers_are_listed_at_once(tmp_path):
    pairs(tmp_path, ("good", "nomask", "size", "broken", "empty", "pages", "turned", "twin", "masktwin"))
    images, masks = tmp_path / "images", tmp_path / "masks"
    (masks / "nomask.png").unlink()
    save(masks / "noimage.png", LABELS)
    save(masks / "size.png", LABELS[:-1])
    (images / "broken.png").write_text("a letter")
    (masks / "empty.png").write_bytes(b"")
    (masks / "pages.png").unlink()
    save(masks / "pages.tif", LABELS, save_all=True, append_images=[Image.fromarray(LABELS)])
    exif = Image.Exif()
    exif[0x0112] = 6
    save(images / "turned.jpg", GREY, exif=exif)
    (images / "turned.png").unlink()
    save(images / "twin.BMP", GREY)
    (masks / "masktwin.png").unlink()
    for suffix in ("tif", "bmp"):
        save(masks / f"masktwin.{suffix}", LABELS)
    save(images / " blank.png", GREY)
    save(masks / " blank.png", LABELS)
    scan = reader().headers(tmp_path)
    assert [h.case for h in scan.headers] == ["good"]
    assert {str(problem) for problem in scan.problems} == {
        "blank: the file's name begins or ends with a blank; rename it",
        "nomask: masks/nomask.png: missing: there is no mask for images/nomask.png",
        "noimage: masks/noimage.png: is a mask without an image in images/ (data.reader.mask_name is '{name}')",
        "size: masks/size.png: has 19 x 30 pixels (rows x columns), but its image size.png has 20 x 30; make them "
        "equal",
        "broken: images/broken.png: is no PNG, JPEG, TIFF or BMP image",
        "empty: masks/empty.png: is empty (0 bytes)",
        "pages: masks/pages.tif: holds 2 pages; expected one image per file, so save them one by one",
        "turned: images/turned.jpg: is to be shown turned (its EXIF orientation is not 1), and a mask would lie on "
        "other pixels; save it upright, without that entry",
        "twin: images: holds twin.BMP and twin.png, which would be one case; rename or remove one",
        "masktwin: masks/masktwin.png: is meant, but there are masktwin.bmp and masktwin.tif; remove one"}
    assert len(scan.problems) == 10


def test_names_that_no_table_could_hold(tmp_path):
    pairs(tmp_path, ("a\nb",))
    os.rename(tmp_path / "images" / "a\nb.png", os.fsencode(tmp_path / "images") + b"/\xe4.png")
    found = problems(reader(), tmp_path)
    assert len(found) == 2 and all("\n" not in text and text.encode() for text in found)
    assert any("bytes that are not UTF-8; rename it" in text for text in found)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.97])
def test_truncated_files_are_refused(tmp_path, suffix, keep):
    pairs(tmp_path, ("a",))
    noise = np.random.default_rng(1).integers(0, 256, (64, 64)).astype(np.uint8)
    keys = {"compression": "tiff_lzw"} if "tif" in suffix else {}
    path = save(tmp_path / f"a.{suffix}", noise, **keys)
    assert read_image(path, 1, (64, 64)).shape == (1, 1, 64, 64)
    cut(path, keep)
    with pytest.raises(PhotographError, match="truncated|readable|is no PNG"):
        read_image(path, 1, (64, 64))


def test_damaged_and_changed_files_are_named(tmp_path):
    pairs(tmp_path, ("a",), mask=palette(LABELS))
    found = reader({"one": 1, "two": 2})
    (header,) = found.headers(tmp_path).headers
    cut(tmp_path / "masks" / "a.png", 0.97)
    with pytest.raises(CaseError, match="a: masks/a.png: is truncated or damaged; copy the file again"):
        _raise(found.read, tmp_path, header)
    save(tmp_path / "masks" / "a.png", LABELS[1:])
    with pytest.raises(CaseError, match="masks/a.png: changed while"):
        _raise(found.read, tmp_path, header)
    flip(tmp_path / "images" / "a.png")
    with pytest.raises(CaseError, match="images/a.png: is truncated or damaged"):
        _raise(found.read, tmp_path, header)
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(CaseError, match="images/a.png: cannot be read"):
        _raise(found.read, tmp_path, header)


@pytest.mark.parametrize("make, text", [
    (lambda root: None, "does not exist: make it, or name yours with -i"),
    (lambda root: root.write_text("?"), "is a file: name the folder that holds images/"),
    (lambda root: root.mkdir(), "there is no folder images/; it holds nothing"),
    (lambda root: save(root / "pictures" / "a.png", GREY), "there is no folder images/; it holds pictures"),
    (lambda root: save(root / "images" / "a.png", GREY), "there is no folder masks/; it holds images"),
    (lambda root: save(root / "train" / "images" / "a.png", GREY), "there is no folder train/masks/"),
])
def test_folders_that_are_missing(tmp_path, make, text):
    make(tmp_path / "in")
    with pytest.raises(InputError, match=text):
        reader().headers(tmp_path / "in")


@pytest.mark.parametrize("classes, keys, text", [
    (("bone", "ligament"), {}, r"data.classes: no mask value for bone, ligament; .*\{bone: 255, ligament: 128\}"),
    ({"bone": 255, "ligament": None}, {}, "no mask value for ligament"),
    ({"bone": "white"}, {}, "data.classes.bone: found 'white', expected the mask value"),
    ({"bone": 70000}, {}, "a whole number of 0 to 65535"),
    ({"bone": []}, {}, "data.classes.bone"),
    ({"bone": 255}, {"mask_encoding": "colours"}, r'data.classes.bone: found 255, expected a colour, \[r, g, b\]'),
    ({"bone": [1, 2, 300]}, {"mask_encoding": "colours"}, "expected a colour"),
    ({"bone": 255}, {"mask_encoding": "channels"}, "names alone, in the order of the masks' channels"),
    (("bone",), {"mask_encoding": "color"}, "did you mean 'colours'"),
    (("bone",), {"channels": 2}, "data.reader.channels"),
    (("bone",), {"mask_name": "mask.png"}, r"a file name with \{name\} or \{stem\}"),
    (("bone",), {"mask_name": "{nam}_{stem}"}, "data.reader.mask_name"),
    (("bone",), {"images": "../x"}, "a path inside the input folder"),
    (("bone",), {"patient_pattern": "("}, "not a regular expression"),
    (("bone",), {"pixels_per_mm": 0}, "data.reader.pixels_per_mm"),
    (("bone",), {"validation_images": "v"}, "both or none"),
    (("bone",), {"spacing_table": {"file": "t.csv", "nam_column": "a", "spacing_column": "b"}},
     "did you mean name_column"),
    (("bone",), {"pixels_per_mm": 2, "spacing_table": {"file": "t.csv", "name_column": "a", "spacing_column": "b"}},
     "only one of them"),
])
def test_keys_that_could_never_work(classes, keys, text):
    with pytest.raises(InputError, match=text):
        reader(classes, **keys)


def test_channels_and_exclusive_classes_exclude_each_other():
    with pytest.raises(InputError, match="encoding: regions"):
        reader(encoding="exclusive", mask_encoding="channels")


def test_the_yaml_keys_build_it():
    values = {"reader": {"kind": "image_pairs", "mask_name": "seg_{name}"},
              "classes": {"bone": 255, "ligament": [1, 2]}}
    found = make_reader(build(Data, values, "data"))
    assert found.coding == MaskCoding("values", 2, ((255,), (1, 2))) and "images/" in found.expected


# --- predictions written back --------------------------------------------------------------------------------------

@pytest.mark.parametrize("encoding, values", [("values", [255, 128]), ("values", [1, 700]),
                                              ("colours", [[200, 10, 0], [0, 30, 255]])])
def test_a_label_map_comes_back_as_a_mask_of_its_study(tmp_path, encoding, values):
    source = {"format": "image", "encoding": encoding, "classes": ["a", "b"], "values": values}
    (path,) = write_prediction(tmp_path / "new", "case", LABELS[None], source)
    assert path == tmp_path / "new" / "case.png"
    coding = MaskCoding(encoding, 2, tuple((tuple(v) if isinstance(v, list) else v,) for v in values))
    np.testing.assert_array_equal(read_mask(path, coding, SIZE), [LABELS == 1, LABELS == 2])


@pytest.mark.parametrize("encoding, value, pixel", [("values", None, 255), ("values", 7, 7), ("channels", None, 255),
                                                    ("colours", [9, 8, 7], (9, 8, 7)), ("colours", None, (255,) * 3)])
def test_a_single_region(tmp_path, encoding, value, pixel):
    source = {"encoding": encoding, "classes": ["head"], "values": [value]}
    (path,) = write_prediction(tmp_path, "case", (LABELS == 1)[None, :, :, None].astype(np.uint8), source)
    assert path.name == "case.png" and Image.open(path).getpixel((6, 3)) == pixel
    np.testing.assert_array_equal(read_mask(path, MaskCoding(encoding, 1), SIZE)[0], LABELS == 1)


def test_several_regions(tmp_path):
    regions = np.stack([LABELS == 1, LABELS > 0, LABELS == 0], -1)[None].astype(np.uint8)
    source = {"encoding": "channels", "classes": ["a", "b", "c"], "values": [None] * 3}
    (path,) = write_prediction(tmp_path, "case", regions, source)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), regions[0] * 255)  # R, G, B
    np.testing.assert_array_equal(read_mask(path, MaskCoding("channels", 3), SIZE), np.moveaxis(regions[0], -1, 0))
    paths = write_prediction(tmp_path, "one", regions, {**source, "encoding": "values", "values": [3, 2, 1]})
    assert [p.name for p in paths] == ["one.png"] * 3 and [p.parent.name for p in paths] == ["a", "b", "c"]
    np.testing.assert_array_equal(np.asarray(Image.open(paths[1])), regions[0, :, :, 1] * 255)
    assert len(write_prediction(tmp_path, "two", regions[..., :2], {**source, "classes": ["a", "b"]})) == 2


def test_shares_are_grey(tmp_path):
    shares = np.stack([np.full(SIZE, 0.2), np.full(SIZE, 1.0)], -1)[None].astype(np.float32)
    paths = write_shares(tmp_path, "case", shares, {"classes": ["a", "b"]})
    assert [(p.parent.name, np.unique(Image.open(p)).tolist()) for p in paths] == [("a", [51]), ("b", [255])]
    assert [p.name for p in write_shares(tmp_path, "case", shares[..., :1], {"classes": ["a"]})] == ["case.png"]
