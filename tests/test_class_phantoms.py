"""Phantom planes, heads with calipers and echo loops: layout, truth, DICOM tags, faults; same seed, same bytes."""
from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import pixel_array
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless, UltrasoundMultiFrameImageStorage

from lib.phantoms import phantom_maker
from lib.phantoms.echo import SHAPES as LOOP_SHAPES
from lib.phantoms.echo import deal_faults, is_good, make_dicom, make_echo_loops, sector
from lib.phantoms.hearts import FAULTS, Heart, make_loop
from lib.phantoms.planes import SHAPES, SUBJECTS, deal_planes, make_landmark_plane, make_landmark_planes, make_planes
from lib.phantoms.heads import Skull
from lib.phantoms.ultrasound import View
from lib.phantoms.views import pixel_places

MAKERS = (make_planes, make_landmark_planes, make_echo_loops)
CLASSES = ["trans_thalamic", "trans_ventricular", "trans_cerebellar", "abdomen", "femur", "humerus", "thorax", "crown_rump"]


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "L" and image.format == "PNG" and image.info["Comment"] == "FoldScan phantom"
        return np.array(image)


def auc(values: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve, whichever way round: the share of pairs in the right order."""
    pairs = values[positive][:, None] - values[~positive][None]
    area = (pairs > 0).mean() + 0.5 * (pairs == 0).mean()
    return max(area, 1 - area)


# --- what all three have in common -----------------------------------------------------------------------------------

def test_registry():
    assert phantom_maker("fetal_biometry") is make_planes
    assert phantom_maker("fetal_biometry_landmarks") is make_landmark_planes
    assert phantom_maker("echo_quality") is make_echo_loops


@pytest.mark.parametrize("make", MAKERS)
def test_same_seed_same_files(tmp_path, make):
    first, again, _ = (make(tmp_path / name, 6, seed=seed, size="small") for name, seed in (("a", 5), ("b", 5), ("c", 6)))
    files = [{f.relative_to(root): f.read_bytes() for f in root.rglob("*.*") if f.is_file()}
             for root in (tmp_path / "a", tmp_path / "b", tmp_path / "c")]
    assert files[0] == files[1] and files[0] != files[2]
    assert [f.name for f in first] == [f.name for f in again] and all(f.is_file() for f in first)
    assert 6 <= len(first) <= 12


@pytest.mark.parametrize("make, table", [(make_planes, "labels.csv"), (make_landmark_planes, "points.csv"),
                                         (make_landmark_planes, "pixel_size.csv"), (make_echo_loops, "echo_annotations.csv")])
def test_other_files_are_left_alone(tmp_path, make, table):
    made = make(tmp_path, 3, size="small")
    assert make(tmp_path, 3, size="small") == made  # its own: made again
    with pytest.raises(FileExistsError, match="is not one of these .* another folder"):
        make(tmp_path, 1, size="small")
    own = (tmp_path / table).read_bytes()
    for other in (b"image,diagnosis\n1.png,2\n", own + b"somebody_else.png,1\n", b"\xff"):
        (tmp_path / table).write_bytes(other)
        with pytest.raises(FileExistsError, match=f"{table} is not a table of these phantoms"):
            make(tmp_path, 3, size="small")
        assert (tmp_path / table).read_bytes() == other
    (tmp_path / table).write_bytes(own)
    made[0].write_bytes(b"something else")
    with pytest.raises(FileExistsError, match="not a phantom"):
        make(tmp_path, 3, size="small")
    assert made[0].read_bytes() == b"something else"
    for bad in ({"patients": 0}, {"size": "big"}):
        with pytest.raises(ValueError):
            make(tmp_path / "never", **bad)
    assert not (tmp_path / "never").exists()


# --- eight planes ----------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def planes(tmp_path_factory) -> tuple[Path, list[dict[str, str]]]:
    """Sixty small patients, and the rows of their table."""
    folder = tmp_path_factory.mktemp("planes") / "new" / "input_data"
    made = make_planes(folder, 60, seed=1, size="small")
    rows = rows_of(folder / "labels.csv")
    assert sorted(f.name for f in folder.iterdir()) == ["images", "labels.csv"]
    assert [row["image"] for row in rows] == [f.name for f in made] and len(made) == len(set(made)) == 90
    return folder, rows


def test_planes_are_dealt_equally_and_not_twice_to_a_patient(planes):
    folder, rows = planes
    assert list(rows[0]) == ["image", "label"] and list(SUBJECTS) == CLASSES
    counts = Counter(row["label"] for row in rows)
    assert sorted(counts) == sorted(CLASSES) and max(counts.values()) - min(counts.values()) <= 1
    owned: dict[str, list[str]] = {}
    for row in rows:
        owned.setdefault(re.fullmatch(r"(Patient\d{3})_[12]\.png", row["image"]).group(1), []).append(row["label"])
    assert len(owned) == 60 and Counter(map(len, owned.values())) == {1: 30, 2: 30}
    assert all(len(set(labels)) == len(labels) for labels in owned.values())


def test_no_patient_has_a_plane_twice_whatever_the_order():
    for seed in range(40):
        dealt = deal_planes(np.random.default_rng(seed), [1, 2, 2, 1, 2] * 5)
        assert all(len(set(row)) == len(row) for row in dealt)
        assert set(Counter(sum(dealt, [])).values()) == {5}


def test_planes_are_grey_pictures_of_a_sector(planes):
    folder, rows = planes
    for row in rows:
        image = pixels_of(folder / "images" / row["image"])
        assert image.shape in SHAPES["small"] and image.dtype == np.uint8
        assert image.std() > 12 and 20 < image[image > 0].mean() < 200


def test_planes_can_be_told_apart_by_their_structure_and_not_by_their_brightness(planes):
    """Leave one out: the nearest mean picture of a class, of 12 x 16 cells, and the nearest mean grey level."""
    folder, rows = planes
    pictures = [pixels_of(folder / "images" / row["image"]) for row in rows]
    cells = np.array([np.array(Image.fromarray(picture).resize((16, 12), Image.BOX)) for picture in pictures], float)
    cells = cells.reshape(len(rows), -1)
    cells = (cells - cells.mean(axis=1, keepdims=True)) / cells.std(axis=1, keepdims=True)
    labels = np.array([row["label"] for row in rows])

    def accuracy(features: np.ndarray) -> float:
        right = 0
        for i, own in enumerate(features):
            others = np.arange(len(rows)) != i
            means = [features[others & (labels == name)].mean(axis=0) for name in CLASSES]
            right += CLASSES[int(np.argmin([np.square(own - mean).sum() for mean in means]))] == labels[i]
        return right / len(rows)

    assert accuracy(cells) > 0.5 and accuracy(np.array([[picture.mean()] for picture in pictures])) < 0.4


# --- heads with the ends of their diameters --------------------------------------------------------------------------

@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> list[tuple[str, np.ndarray, np.ndarray, float]]:
    """Of thirty small patients: name, picture, points (4, 2) as x, y in px, mm per pixel of each image."""
    folder = tmp_path_factory.mktemp("heads") / "input_data"
    made = make_landmark_planes(folder, 30, seed=2, size="small")
    assert sorted(f.name for f in folder.iterdir()) == ["images", "pixel_size.csv", "points.csv"]
    rows, sizes = rows_of(folder / "points.csv"), rows_of(folder / "pixel_size.csv")
    assert list(rows[0]) == ["image", "ofd_1_x", "ofd_1_y", "ofd_2_x", "ofd_2_y", "bpd_1_x", "bpd_1_y", "bpd_2_x", "bpd_2_y"]
    assert list(sizes[0]) == ["image", "pixel_size_mm"] and len(made) == 45
    assert [row["image"] for row in rows] == [row["image"] for row in sizes] == [f.name for f in made]
    return [(row["image"], pixels_of(f), np.array(list(row.values())[1:], float).reshape(4, 2), float(size["pixel_size_mm"]))
            for f, row, size in zip(made, rows, sizes)]


def test_diameters_are_the_axes_of_an_ellipse_in_the_picture(heads):
    angles = []
    for _, image, (front, back, near, far), mm in heads:
        assert ((0 <= np.array([front, back, near, far])) & (np.array([front, back, near, far]) < image.shape[::-1])).all()
        np.testing.assert_allclose((front + back) / 2, (near + far) / 2, atol=0.02)
        long, short = back - front, far - near
        assert abs(long @ short) / np.linalg.norm(long) / np.linalg.norm(short) < 0.002
        assert long[0] > 0 and short[1] > 0  # brow on the left, the probe above
        assert 47 < np.linalg.norm(long) * mm < 75 and 0.71 < np.linalg.norm(short) / np.linalg.norm(long) < 0.87
        angles.append(np.degrees(np.arctan2(long[1], long[0])))
    assert min(angles) < -25 and max(angles) > 25 and max(np.abs(angles)) <= 40.1


def test_the_images_of_a_patient_show_the_same_head(heads):
    sizes: dict[str, list[float]] = {}
    for name, _, (front, back, _, _), mm in heads:
        sizes.setdefault(name.split("_")[0], []).append(float(np.linalg.norm(back - front)) * mm)
    assert all(np.ptp(lengths) < 0.05 for lengths in sizes.values())
    assert len(sizes) == 30 and np.std([lengths[0] for lengths in sizes.values()]) > 4


def test_points_lie_on_the_outer_edge_of_the_skull():
    """The ellipse through them has bone just inside it, and darker scalp or fluid outside and brain inside of that."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        skull = Skull.draw(rng, drop_out=0)
        image, (front, back, near, far), mm = make_landmark_plane(rng, (256, 320), skull)
        assert np.linalg.norm(back - front) * mm == pytest.approx(2 * skull.radii[0])
        assert np.linalg.norm(far - near) * mm == pytest.approx(2 * skull.radii[1])
        turn = np.linspace(0, 2 * np.pi, 400)[:, None]

        def ring(inside_mm: float) -> float:
            a, b = ((stop - start) / 2 * (1 - inside_mm / mm / np.linalg.norm((stop - start) / 2))
                    for start, stop in ((front, back), (near, far)))
            x, y = np.rint((front + back) / 2 + a * np.cos(turn) + b * np.sin(turn)).astype(int).T
            seen = (x >= 0) & (y >= 0) & (x < image.shape[1]) & (y < image.shape[0])
            return float(image[y[seen], x[seen]].mean())

        profile = [ring(inside) for inside in np.arange(-6, 8, 0.25)]
        brightest = np.arange(-6, 8, 0.25)[int(np.argmax(profile))]
        assert 0.2 <= brightest <= skull.thick  # mm below the outer edge
        assert ring(brightest) > 1.25 * max(ring(-4.5), ring(6))


def test_the_cavum_marks_the_front():
    """Between brow and thalami there is a dark box between two bright lines, and none on the other side."""
    contrasts = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        image, (front, back, near, far), _ = make_landmark_plane(rng, (256, 320), Skull.draw(rng, drop_out=0))
        middle, along, across = (front + back) / 2, (back - front) / 2, (far - near) / 2

        def grey(share: float, aside: float) -> float:
            places = [middle + (share + d) * along + aside * across for d in np.linspace(-0.08, 0.08, 20)]
            return float(np.mean([image[int(round(y)), int(round(x))] for x, y in places]))

        lines = [max(grey(share, side * off) for off in np.linspace(0.05, 0.12, 8)) for share in (-0.51, 0.51)
                 for side in (-1, 1)]
        contrasts.append((min(lines[:2]) / grey(-0.51, 0), min(lines[2:]) / grey(0.51, 0)))
    front, back = np.median(contrasts, axis=0)
    assert front > 1.5 and back < 1.1


def test_a_pixels_place_is_that_of_its_centre():
    view = View((10, 20), 0.5, 3.0, 7.0)
    np.testing.assert_allclose(pixel_places(view, view.points()[:, 4, 13].astype(float)), (13, 4), atol=1e-5)
    np.testing.assert_allclose(pixel_places(view, view.points()[:, 0, 0].astype(float)), (0, 0), atol=1e-5)


# --- echo loops ------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def loops(tmp_path_factory) -> list[tuple[str, pydicom.Dataset, np.ndarray, bool]]:
    """Of forty small patients: path in the table, data set, pixels as stored (RGB of YBR), whether good."""
    folder = tmp_path_factory.mktemp("echo") / "input_data"
    made = make_echo_loops(folder, 40, seed=4, size="small")
    assert sorted(f.name for f in folder.iterdir()) == ["echo_annotations.csv", "echo_videos"]
    rows = rows_of(folder / "echo_annotations.csv")
    assert list(rows[0]) == ["video_path", "quality_score"] and len(made) == 60
    assert [folder / row["video_path"] for row in rows] == made and made[0].parent.name == "echo_videos"
    assert Counter(row["quality_score"] for row in rows) == {"0": 30, "1": 30}
    read = [pydicom.dcmread(path) for path in made]
    return [(row["video_path"], image, pixel_array(image), row["quality_score"] == "1") for row, image in zip(rows, read)]


def grey_levels(pixels: np.ndarray) -> np.ndarray:
    """(frames, rows, columns) below the burnt-in text and left of the depth marks."""
    return (pixels if pixels.ndim == 3 else pixels[..., 0])[:, 4:, :-4]


def test_loops_are_ultrasound_multiframe_images(loops):
    for _, image, pixels, _ in loops:
        assert image.SOPClassUID == image.file_meta.MediaStorageSOPClassUID == UltrasoundMultiFrameImageStorage
        assert image.Modality == "US" and image.Manufacturer == "FoldScan phantom" and image.BurnedInAnnotation == "YES"
        assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
        assert image.FrameIncrementPointer == 0x00181063 and float(image.FrameTime) * int(image.CineRate) == 1000
        assert 45 <= int(image.HeartRate) <= 110
        assert pixels.shape[:3] == (int(image.NumberOfFrames), image.Rows, image.Columns) and pixels.dtype == np.uint8
        assert pixels.shape[1:3] in LOOP_SHAPES["small"] and 10 <= len(pixels) <= 14
        assert image.StudyDate == image.ContentDate == "20000101"
        assert 0 < image.SequenceOfUltrasoundRegions[0].PhysicalDeltaX < 1
    assert len({len(pixels) for _, _, pixels, _ in loops}) > 2
    uids = [image.SOPInstanceUID for _, image, _, _ in loops]
    assert len(set(uids)) == 60 and all(UID(uid).is_valid for uid in uids)


def test_loops_come_in_all_formats_and_mostly_grey(loops):
    kinds = Counter((image.PhotometricInterpretation, image.file_meta.TransferSyntaxUID) for _, image, _, _ in loops)
    assert {kind for kind, _ in kinds} == {"MONOCHROME2", "RGB", "YBR_FULL"}
    assert {syntax for _, syntax in kinds} == {ExplicitVRLittleEndian, RLELossless}
    assert sum(count for (kind, _), count in kinds.items() if kind == "MONOCHROME2") > 30
    assert 5 < sum(count for (_, syntax), count in kinds.items() if syntax == RLELossless) < 20
    for _, image, _, good in loops[:16]:  # the format does not give the label away
        kinds[image.PhotometricInterpretation, good] += 1
    assert kinds["MONOCHROME2", True] and kinds["MONOCHROME2", False]


def test_patients_have_made_up_names_and_one_id(loops):
    owned: dict[str, list[str]] = {}
    for _, image, _, _ in loops:
        number = re.fullmatch(r"PHANTOM\^(\d\d)", str(image.PatientName)).group(1)
        assert image.PatientID == f"PHANTOM{number}" and image.PatientBirthDate == ""
        owned.setdefault(image.PatientID, []).append(image.StudyInstanceUID)
    assert len(owned) == 40 and Counter(map(len, owned.values())) == {1: 20, 2: 20}
    assert all(len(set(studies)) == 1 for studies in owned.values())


def test_grey_stays_grey_in_colour_and_text_is_coloured(loops):
    seen = 0
    for _, image, pixels, _ in loops:
        if image.PhotometricInterpretation != "MONOCHROME2":
            assert np.ptp(pixels[:, 5:, :-6].astype(int), axis=3).max() <= 2  # the sector
            assert np.ptp(pixels[:, 1:3].astype(int), axis=3).max() > 50  # the text
            seen += 1
    assert seen >= 15


def test_an_encoded_loop_has_the_pixels_of_the_plain_one():
    frames = np.random.default_rng(0).integers(0, 256, (3, 9, 11, 3)).astype(np.uint8)
    plain, encoded = (make_dicom(frames, "RGB", kind, "PHANTOM^01", (0,), 40, 61.4, View((9, 11), 1.0))
                      for kind in (False, True))
    np.testing.assert_array_equal(pixel_array(plain), frames)
    np.testing.assert_array_equal(pixel_array(encoded), frames)
    grey = make_dicom(frames, "MONOCHROME2", False, "PHANTOM^01", (0,), 40, 61.4, View((9, 11), 1.0))
    np.testing.assert_array_equal(pixel_array(grey), frames.max(axis=3))
    assert grey.HeartRate == 61 and grey.SOPInstanceUID == plain.SOPInstanceUID


def test_text_stands_still_and_the_sector_moves(tmp_path):
    """On the demo's size: bright still text above, black corners, an ECG that runs."""
    image = pydicom.dcmread(make_echo_loops(tmp_path, 1, seed=0)[0])
    pixels = pixel_array(image)
    assert pixels.shape[1:] == (120, 160) and 24 <= len(pixels) <= 30
    assert pixels[:, :8].max() > 200 and (pixels[:, :8] == pixels[:1, :8]).all()
    assert not pixels[:, 12:90, :5].any() and not pixels[:, 12:40, -25:-8].any()
    view, probe = sector((120, 160), 145.0)
    assert 0.2 < probe.sees(view.points()).mean() < 0.6
    ecg = [(frame[-10:] > 0).any(axis=0).sum() for frame in pixels]
    assert ecg[0] < 20 and ecg[-1] == 160 and sorted(ecg) == ecg
    changing = np.ptp(pixels[:, 12:108], axis=0) > 20
    assert changing[20:80, 60:100].mean() > 0.8 and not changing[:, :5].any() and not changing[:, -5:].any()


def cavity(heart: Heart, beat: float) -> np.ndarray:
    """bool: fluid at the points of a grid of 1 mm about the left ventricle, above its valve."""
    y, x = np.mgrid[2:int(heart.long - heart.descent), -30:31].astype(np.float32)
    return heart.levels(np.stack([x, y]), np.array([beat]))[0] < -45


def test_a_heart_beats():
    heart = Heart.draw(np.random.default_rng(0))
    beats = heart.beat(40, 20.0)  # 2 s
    assert beats[0] == 0 and np.diff(np.unwrap(beats, period=1)).sum() == pytest.approx(39 / 20 * heart.rate / 60)
    full, squeezed = (cavity(heart, beat).sum() for beat in (0.0, 0.38))
    assert 0.5 * full < squeezed < 0.85 * full
    assert cavity(heart, 1.0).sum() == pytest.approx(full, rel=0.02)


def test_valves_open_in_diastole():
    heart = Heart.draw(np.random.default_rng(0))
    base = heart.long - 0.25 * heart.descent
    y, x = np.mgrid[base - 8:base + 3, -4:5].astype(np.float32)  # where closed leaflets meet
    closed, opened = (heart.levels(np.stack([x, y + shift]), np.array([beat]))[0].max()
                      for beat, shift in ((0.02, 0.25 * heart.descent), (0.56, 0)))
    assert closed > -22 and opened < closed - 10


def spoilt(fault: str, degree: float, seed: int) -> tuple[np.ndarray, np.ndarray, Heart]:
    """A loop with one fault, where its sector is, and the heart as seen."""
    rng = np.random.default_rng(seed)
    faults = {**dict.fromkeys(FAULTS, 0.0), fault: degree}
    view, probe = sector((96, 128), 148.0)
    heart = Heart.draw(rng).seen(rng, faults["off_axis"])
    return make_loop(rng, view, probe, heart, 10, 25.0, faults).astype(float), probe.sees(view.points()), heart


@pytest.mark.parametrize("seed", range(3))
def test_each_fault_spoils_a_loop_in_its_own_way(seed):
    def contrast(degree: float) -> float:
        loop, seen, _ = spoilt("contrast", degree, seed)
        mean = loop.mean(axis=0)[seen]
        return float(np.percentile(mean, 90) / np.percentile(mean, 10))

    def flicker(degree: float) -> float:
        loop, seen, _ = spoilt("noise", degree, seed)
        return 1 - float(np.mean([np.corrcoef(one[seen], two[seen])[0, 1] for one, two in zip(loop, loop[1:])]))

    def darkness(degree: float) -> float:
        loop, seen, _ = spoilt("shadow", degree, seed)
        return float((loop.mean(axis=0)[seen] < 12).mean())

    def foreshortening(degree: float) -> float:
        return -spoilt("off_axis", degree, seed)[2].long

    for measure, better in ((contrast, -1), (flicker, 1), (darkness, 1), (foreshortening, 1)):
        good, mixed, bad = (measure(degree) for degree in (0.0, 0.6, 1.0))
        assert better * good < better * mixed < better * bad, measure.__name__
    assert contrast(1.0) < 0.5 * contrast(0.0) and flicker(1.0) > 1.5 * flicker(0.0) and darkness(1.0) > darkness(0.0) + 0.15


def test_each_fault_leads_as_often_and_most_poor_loops_have_more_than_one():
    dealt = deal_faults(np.random.default_rng(0), 81, 0.5)
    poor = [faults for faults in dealt if not is_good(faults)]
    assert len(poor) == 40 and Counter(max(faults, key=faults.get) for faults in poor) == dict.fromkeys(FAULTS, 10)
    assert all(max(faults.values()) >= 0.6 for faults in poor)
    assert all(max(faults.values()) < 0.46 for faults in dealt if is_good(faults))
    assert sum(sorted(faults.values())[-2] > 0.3 for faults in poor) > 20
    assert all(map(is_good, deal_faults(np.random.default_rng(0), 5, 0.0)))
    assert not any(map(is_good, deal_faults(np.random.default_rng(0), 5, 1.0)))


def test_no_simple_number_tells_good_from_poor(loops):
    good = np.array([label for *_, label in loops])
    values: dict[str, list[float]] = {}
    for _, _, pixels, _ in loops:
        grey = grey_levels(pixels).astype(float)
        inside = grey[:, grey.max(axis=0) > 0]
        for name, value in (("brightness", inside.mean()), ("spread", inside.std()), ("contrast", inside.std() / inside.mean()),
                            ("black", (inside < 40).mean()), ("flicker", np.abs(np.diff(inside, axis=0)).mean())):
            values.setdefault(name, []).append(value)
    areas = {name: auc(np.array(numbers), good) for name, numbers in values.items()}
    assert max(areas.values()) < 0.95, areas
    assert areas["spread"] > 0.7, areas


def test_patients_are_no_shortcut_to_quality(loops):
    """Some patients have a good loop and a poor one."""
    owned: dict[str, set[bool]] = {}
    for _, image, _, good in loops:
        owned.setdefault(image.PatientID, set()).add(good)
    assert sum(len(labels) == 2 for labels in owned.values()) >= 5


def test_share_of_poor_loops(tmp_path):
    make_echo_loops(tmp_path, 10, seed=0, size="small", poor=0.2)
    assert Counter(row["quality_score"] for row in rows_of(tmp_path / "echo_annotations.csv")) == {"1": 12, "0": 3}
    with pytest.raises(ValueError, match="poor in 0..1"):
        make_echo_loops(tmp_path / "never", 10, poor=1.5)
