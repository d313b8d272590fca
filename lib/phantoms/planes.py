"""Phantom planes for `fetal_biometry` (eight classes) and heads with calipers for `fetal_biometry_landmarks`."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lib.phantoms.bodies import abdomen, crown_rump, femur, humerus, thorax
from lib.phantoms.heads import ENDS, Skull, head
from lib.phantoms.tables import refuse_other_table, write_table
from lib.phantoms.ultrasound import refuse_other_images, write_png
from lib.phantoms.views import Subject, make_view, pixel_places, scene_points

SHAPES = {"small": ((64, 80), (68, 76)), "demo": ((192, 256), (208, 248)), "full": ((540, 800), (600, 760))}
LABELS, POINTS, SPACINGS = "labels.csv", "points.csv", "pixel_size.csv"


def some_head(rng: np.random.Generator, plane: str) -> Subject:
    return head(plane, Skull.draw(rng, drop_out=0.7), 12, (0.74, 0.95), 0.4)


SUBJECTS: dict[str, Callable[[np.random.Generator], Subject]] = {
    "trans_thalamic": partial(some_head, plane="trans_thalamic"),
    "trans_ventricular": partial(some_head, plane="trans_ventricular"),
    "trans_cerebellar": partial(some_head, plane="trans_cerebellar"),
    "abdomen": abdomen, "femur": femur, "humerus": humerus, "thorax": thorax, "crown_rump": crown_rump,
}


def image_names(patients: int, cohort: np.random.Generator) -> list[list[str]]:
    """Names of each patient's images, one or two: PatientNNN_<number>.png."""
    digits = max(3, len(str(patients)))
    counts = 1 + (cohort.permutation(patients) % 2)
    return [[f"Patient{i + 1:0{digits}d}_{n + 1}.png" for n in range(count)] for i, count in enumerate(counts)]


def check_arguments(patients: int, size: str) -> None:
    if size not in SHAPES:
        raise ValueError(f"no size '{size}'; known: {', '.join(SHAPES)}")
    if patients < 1:
        raise ValueError("need patients >= 1")


def deal_planes(rng: np.random.Generator, counts: Sequence[int]) -> list[list[str]]:
    """The class of each image of each patient: all classes equally often (to one), no patient with one twice."""
    classes, turn, dealt = list(SUBJECTS), 0, []
    for count in counts:
        row = []
        for _ in range(count):
            if turn % len(classes) == 0:
                order = rng.permutation(len(classes))
                if row and classes[order[0]] == row[-1]:
                    order = np.roll(order, 1)
            row.append(classes[order[turn % len(classes)]])
            turn += 1
        dealt.append(row)
    return dealt


def make_planes(folder: Path | str, patients: int = 24, seed: int = 0, *, size: str = "demo") -> list[Path]:
    """Write images/PatientNNN_<n>.png and labels.csv (image, label) under `folder`; returns the images.

    One or two images per patient of different classes (the keys of SUBJECTS, all equally often to one image), grey
    uint8, of the sizes of `SHAPES[size]` in turn. The same arguments give the same bytes. Raises ValueError for
    impossible arguments, FileExistsError if there are other files.
    """
    check_arguments(patients, size)
    folder = Path(folder)
    cohort, *streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(patients + 1)]
    names = image_names(patients, cohort)
    planes = deal_planes(cohort, [len(row) for row in names])
    images = [folder / "images" / name for row in names for name in row]
    refuse_other_images(images)
    refuse_other_table(folder / LABELS, ["image", "label"], [image.name for image in images])

    labels = [pair for row, classes in zip(names, planes) for pair in zip(row, classes)]
    for i, (rng, row, classes) in enumerate(zip(streams, names, planes)):
        for name, plane in zip(row, classes):
            picture, _, _ = make_view(rng, SHAPES[size][i % len(SHAPES[size])], SUBJECTS[plane](rng))
            write_png(folder / "images" / name, picture)
    write_table(folder / LABELS, ["image", "label"], labels)
    return images


def make_landmark_plane(rng: np.random.Generator, shape: tuple[int, int], skull: Skull,
                        ) -> tuple[np.ndarray, np.ndarray, float]:
    """A head in the transthalamic plane: uint8 (rows, columns), its ENDS (4, 2) as x, y in px, and mm per pixel."""
    picture, view, pose = make_view(rng, shape, head("trans_thalamic", skull, 40, (0.55, 0.86), 0.8))
    return picture, pixel_places(view, scene_points(pose, skull.ends().T)).T, view.mm


def make_landmark_planes(folder: Path | str, patients: int = 24, seed: int = 0, *, size: str = "demo") -> list[Path]:
    """Write images/PatientNNN_<n>.png, points.csv and pixel_size.csv under `folder`; returns the images.

    One or two transthalamic planes per patient, grey uint8, of the sizes of `SHAPES[size]` in turn, the head turned by
    up to 40 degrees, its brow always on the left. points.csv: image, ofd_1_x, ofd_1_y, ... bpd_2_y, x and y in px with
    0 at the first pixel's centre. Both diameters are outer to outer, so that the ellipse with these axes is the skull's
    outer edge (Papageorghiou et al., Lancet 384:869, 2014): ofd_1 the brow, ofd_2 the occiput, bpd_1 the side near to
    the probe, bpd_2 the far one. pixel_size.csv: image, pixel_size_mm. The same arguments give the same bytes. Raises
    ValueError for impossible arguments, FileExistsError if there are other files.
    """
    check_arguments(patients, size)
    folder = Path(folder)
    cohort, *streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(patients + 1)]
    names = image_names(patients, cohort)
    images = [folder / "images" / name for row in names for name in row]
    columns = ["image", *(f"{end}_{axis}" for end in ENDS for axis in "xy")]
    refuse_other_images(images)
    refuse_other_table(folder / POINTS, columns, [image.name for image in images])
    refuse_other_table(folder / SPACINGS, ["image", "pixel_size_mm"], [image.name for image in images])

    points, spacings = [], []
    for i, (rng, row) in enumerate(zip(streams, names)):
        skull = Skull.draw(rng, drop_out=1.5)
        for name in row:
            picture, ends, mm = make_landmark_plane(rng, SHAPES[size][i % len(SHAPES[size])], skull)
            write_png(folder / "images" / name, picture)
            points.append((name, *(f"{number:.2f}" for number in ends.ravel())))
            spacings.append((name, f"{mm:.5f}"))
    write_table(folder / POINTS, columns, points)
    write_table(folder / SPACINGS, ["image", "pixel_size_mm"], spacings)
    return images
