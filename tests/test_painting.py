"""Pictures pixel by pixel: colours of areas and outlines, calipers where they were measured, words the right way up."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from lib.imaging.boxes import draw_boxes, legible, place_labels
from lib.imaging.captions import DARK, LINE_PX, MARK, PANEL_PX, TICK_PX, draw_marks, extent, printable, row_of, write
from lib.imaging.geometry import Geometry
from lib.imaging.painting import (PALETTE, TRUTH, Upright, class_colours, filled, overlay, panel_scale, parse_colour,
                                  upright)
from lib.reporting.style import COLOURS

RED, GREEN = (200, 0, 0), (0, 100, 0)
GREY = np.full((20, 30), 100, np.uint8)


@dataclass
class Mark:
    points: list
    closed: bool = False
    text: str = ""
    frame: int = 0

    def __post_init__(self):
        self.points = np.array(self.points, float)


def rectangle(shape, rows, columns) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def box_of(mask: np.ndarray) -> list[int]:
    """First and last row, first and last column."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [rows[0], rows[-1], columns[0], columns[-1]]


def inked(picture: np.ndarray) -> np.ndarray:
    """Where a grey picture was drawn on in the colour of marks; lines between two pixels are half as strong in both."""
    return picture[..., 0].astype(int) - picture[..., 2] > (MARK[0] - MARK[2]) * 0.4


# --- colours -----------------------------------------------------------------------------------------------------


def test_colours_are_read_from_text_or_numbers():
    assert parse_colour("#ff8000") == (255, 128, 0) and parse_colour([1, 2, 3]) == (1, 2, 3)
    assert parse_colour("#0A0b0C") == (10, 11, 12)
    for wrong in ("ff8000", "#ff80", "red", "#ff8000\n", [1, 2], [1, 2, 256], [1, 2, -1], [1.0, 2, 3], [True, 0, 0], None):
        with pytest.raises(ValueError, match="no colour"):
            parse_colour(wrong)


def test_classes_without_a_colour_take_their_turn_of_the_palette():
    assert class_colours(["a", "b", "c"], {"b": RED}) == {"a": PALETTE[0], "b": RED, "c": PALETTE[2]}
    many = [str(n) for n in range(len(PALETTE) + 2)]
    assert list(class_colours(many).values()) == [*PALETTE, *PALETTE[:2]]


# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB: no colour blindness, protan, deutan, tritan
EYES = [np.eye(3),
        np.array([[.152286, 1.052583, -.204868], [.114503, .786281, .099216], [-.003882, -.048116, 1.051998]]),
        np.array([[.367322, .860646, -.227968], [.280085, .672501, .047413], [-.011820, .042940, .968881]]),
        np.array([[1.255528, -.076749, -.178779], [-.078411, .930809, .147602], [.004733, .691367, .303900]])]


def lab_colour(colour, eye) -> np.ndarray:
    """CIELAB (D65) of sRGB 0..255 as `eye` sees it."""
    share = np.array(colour) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(eye @ linear, 0, 1)
    x, y, z = np.array([[.4124564, .3575761, .1804375], [.2126729, .7151522, .0721750],
                        [.0193339, .1191920, .9503041]]) @ seen / (.95047, 1, 1.08883)
    x, y, z = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def hex_colour(text: str) -> tuple[int, ...]:
    return tuple(int(text[i:i + 2], 16) for i in (1, 3, 5))


@pytest.mark.parametrize("palette", [PALETTE, [hex_colour(text) for text in COLOURS]])
def test_twelve_colours_differ_for_every_eye(palette):
    assert len(set(palette)) == len(palette) >= 12
    for eye in EYES:
        seen = [lab_colour(colour, eye) for colour in palette]
        apart = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
        assert min(apart) > 7  # where about 2 can just be told apart


def test_colours_of_pictures_show_on_dark_frames():
    assert min(lab_colour(colour, np.eye(3))[0] for colour in PALETTE) > 40


@pytest.mark.parametrize("scale", [1, 3])
def test_filled_areas(scale):
    first, second = rectangle(GREY.shape, (2, 12), (2, 12)), rectangle(GREY.shape, (7, 17), (7, 17))
    picture = filled(GREY, {"a": first, "b": second}, {"a": RED, "b": GREEN}, scale)
    assert picture.shape == (20 * scale, 30 * scale, 3) and picture.dtype == np.uint8
    at = scale // 2
    assert picture[4 * scale + at, 4 * scale + at].tolist() == [155, 45, 45]  # 0.45 * 100 + 0.55 * (200, 0, 0)
    assert picture[9 * scale + at, 9 * scale + at].tolist() == [45, 100, 45]  # both: the later one, not a mixture
    assert picture[0, 0].tolist() == picture[-1, -1].tolist() == [100, 100, 100]
    assert picture[2 * scale, 5 * scale].tolist() == [120, 0, 0]  # outlines: 0.6 of the colour
    assert picture[17 * scale - 1, 9 * scale].tolist() == [0, 60, 0]
    opaque = filled(GREY, {"a": first}, {"a": RED}, scale, opacity=1)
    assert opaque[4 * scale + at, 4 * scale + at].tolist() == [200, 0, 0]


def test_outlines_have_the_colour_of_their_class():
    mask = rectangle(GREY.shape, (5, 10), (5, 15))[None]
    default, chosen = (overlay(GREY[None], {"a": mask}, {}, None, 2, colours)[0] for colours in (None, {"a": RED}))
    for picture, colour in ((default, PALETTE[0]), (chosen, RED)):
        outline = (picture == colour).all(axis=2)
        assert box_of(outline) == [10, 19, 10, 29] and not outline[12:18, 12:28].any()
        assert np.count_nonzero(outline) == 2 * 20 + 2 * 8
    dots = overlay(GREY[None], {}, {"a": mask}, None, 2)[0]
    assert {tuple(p) for p in dots.reshape(-1, 3).tolist()} == {(100, 100, 100), *TRUTH}
    assert (overlay(GREY[None], {}, {}, None, 1)[0] == 100).all()


@pytest.mark.parametrize("scale", [0.5, 1, 3])
def test_what_is_painted_on_a_photograph_is_as_on_grey_and_the_rest_keeps_its_colour(scale):
    skin, mask = np.full((20, 30, 3), (210, 150, 120), np.uint8), rectangle(GREY.shape, (4, 12), (4, 12))
    skin.flags.writeable = False  # the restored image is used again
    for paint in (lambda image: overlay(image[None], {"a": mask[None]}, {"b": ~mask[None]}, None, scale, {"a": RED})[0],
                  lambda image: filled(image, {"a": mask}, {"a": RED}, scale, opacity=1)):
        grey, colour = paint(GREY), paint(skin)
        assert colour.shape == grey.shape and colour.dtype == np.uint8
        bare = (grey == 100).all(axis=2)
        assert 0.3 < bare.mean() < 1 and (colour[bare] == (210, 150, 120)).all() and (colour[~bare] == grey[~bare]).all()
    heat = np.where(mask, np.float32(1), np.float32(0))[None]
    heated = overlay(skin[None], {}, {}, heat, scale)[0]
    assert (heated[-1] == (210, 150, 120)).all() and (heated[round(8 * scale), round(8 * scale)] != (210, 150, 120)).any()


def test_shrunk_pictures_keep_what_covers_half_a_pixel():
    mask = rectangle((40, 60), (10, 20), (20, 40))
    picture = filled(np.full((40, 60), 100, np.uint8), {"a": mask, "none": mask & False}, {"a": RED}, 0.5)
    assert picture.shape == (20, 30, 3) and box_of((picture != 100).any(axis=2)) == [5, 9, 10, 19]


@pytest.mark.parametrize("shape, spacing, expected", [
    ((1, 540, 800), None, 0.9), ((1, 100, 70), None, 4), ((1, 256, 256), None, 1), ((1, 2000, 1000), None, 0.36),
    ((20, 100, 100), (5.0, 1.0, 2.0), 2),  # 200 pixels wide once they are square
    ((1, 1, 1000), None, 0.72)])
def test_panel_scale(shape, spacing, expected):
    assert panel_scale(Geometry(shape, spacing), 360, 720) == pytest.approx(expected)


# --- upright -----------------------------------------------------------------------------------------------------


VIEWS = [(turn, spacing, box) for turn in range(4) for spacing in (None, (5.0, 1.0, 1.7), (5.0, 0.6, 0.3))
         for box in (None, (slice(8, 98), slice(4, 150)))]


@pytest.mark.parametrize("turn, spacing, box", VIEWS)
def test_a_caliper_lies_on_what_it_measured_however_the_frame_is_turned(turn, spacing, box):
    """A bright rectangle is measured along its columns, from edge to edge, and then across its rows."""
    image = np.zeros((50, 80), np.uint8)
    image[20:30, 10:70] = 255
    view = Upright(Geometry((1, 50, 80), spacing, True, {}, turn), 2, *([box] if box else []))
    shown = view.show(overlay(image[None], {}, {}, None, 2)[0])
    first_row, last_row, first_column, last_column = box_of(shown[..., 0] > 127)
    for ends, axis in (([(24.5, 9.5), (24.5, 69.5)], "columns"), ([(19.5, 40), (29.5, 40)], "rows")):
        drawn = inked(draw_marks(shown, [Mark(ends)], view))
        top, bottom, left, right = box_of(drawn)
        if (axis == "columns") == (turn % 2 == 0):
            assert abs(left - first_column) <= 1 and abs(right - last_column) <= 1
            middle, across = (first_row + last_row) / 2, (top + bottom) / 2
            assert axis == "rows" or abs(middle - across) <= 1
            assert abs(bottom - top - 2 * TICK_PX) <= 1
        else:
            assert abs(top - first_row) <= 1 and abs(bottom - last_row) <= 1
            middle, across = (first_column + last_column) / 2, (left + right) / 2
            assert axis == "rows" or abs(middle - across) <= 1
            assert abs(right - left - 2 * TICK_PX) <= 1


def test_points_by_hand():
    view = Upright(Geometry((1, 4, 10), None, turn=1), 1)  # anticlockwise: the last column becomes the first row
    assert view.points([(0, 9), (3, 0)]).tolist() == [[0, 0], [9, 3]]
    view = Upright(Geometry((1, 4, 10), (1, 2, 1), turn=2), 1)  # rows are twice as high as columns are wide
    assert view.points([(3, 9), (0, 0)]).tolist() == [[0.5, 0], [6.5, 9]]
    view = Upright(Geometry((1, 4, 10), None), 2, (slice(2, 8), slice(0, 20)))
    assert view.points([(1, 0)]).tolist() == [[0.5, 0.5]]


def test_right_is_marked_on_volumes_only():
    black = np.zeros((40, 40, 3), np.uint8)
    assert upright(black, Geometry((3, 40, 40), (1, 1, 1), False, turn=2)).any()
    assert not upright(black, Geometry((1, 40, 40), None, True, turn=2)).any()
    assert not upright(black, Geometry((3, 40, 40), (1, 1, 1), False, turn=1)).any()


# --- marks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", range(4))
def test_words_stand_upright_and_inside(turn):
    geometry = Geometry((1, 90, 140), (5, 1.0, 1.4), False, {}, turn)
    view = Upright(geometry, 2)
    bare = view.show(np.full((180, 280, 3), 60, np.uint8))
    word = np.zeros((*extent("NT 1.32 mm")[::-1], 3), np.uint8)
    write(word, "NT 1.32 mm", (0, 0), MARK)
    for points in ([(2, 2), (9, 2)], [(88, 138), (80, 138)], [(45, 70), (50, 70)]):
        picture = draw_marks(bare, [Mark(points, text="NT 1.32 mm")], view)
        seen, written = (inked(p).astype(np.uint8) for p in (picture, word))
        assert cv2.matchTemplate(seen, written, cv2.TM_CCORR_NORMED).max() > 0.97
    assert (bare[5:, 40:] == 60).all()  # the picture that was given stays as it was


def test_text_that_is_too_long_is_cut_and_stays_inside():
    bare = np.full((60, 80, 3), 60, np.uint8)
    picture = draw_marks(bare, [Mark([(30, 40), (35, 40)], text="a measurement of a very long name 12.3 mm")])
    assert (picture[:, [0, 1, -2, -1]] == 60).all() and (picture[[0, 1, -2, -1]] == 60).all()


def test_two_texts_do_not_cover_each_other():
    bare = np.full((200, 300, 3), 60, np.uint8)
    marks = [Mark([(100, 150), (110, 150)]), Mark([(100, 156), (110, 156)])]
    alone = []
    for mark in marks:
        mark.text = "12.34 mm"
        alone.append(np.count_nonzero(inked(draw_marks(bare, [mark]))))
    together = np.count_nonzero(inked(draw_marks(bare, marks)))
    assert together > 0.85 * sum(alone)


def test_a_text_keeps_clear_of_other_marks_on_a_photograph_too():
    """Right of the first caliper, where its text would go, stands another one."""
    marks = [Mark([(90, 100), (110, 100)], text="12.34 mm"), Mark([(80, 150), (120, 150)])]
    where = []
    for ground in ((60, 60, 60), (210, 150, 120)):
        bare = np.full((200, 300, 3), ground, np.uint8)
        where.append((draw_marks(bare, marks) != draw_marks(bare, [Mark(mark.points) for mark in marks])).any(axis=2))
    assert where[0].any() and box_of(where[0]) == box_of(where[1])


def test_ellipses_are_closed_and_nothing_is_drawn_of_nothing():
    bare = np.full((100, 100, 3), 60, np.uint8)
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    points = np.stack([50 + 20 * np.sin(angles), 50 + 40 * np.cos(angles)], axis=1)
    drawn = inked(draw_marks(bare, [Mark(points, closed=True)]))
    assert np.abs(np.array(box_of(drawn)) - [30, 70, 10, 90]).max() <= 1
    count, _ = cv2.connectedComponents((~drawn).astype(np.uint8), connectivity=4)
    assert count == 3  # the line, its inside, its outside
    assert (draw_marks(bare, [Mark(np.empty((0, 2))), Mark([(np.nan, 1), (2, 2)], text="x")]) == bare).all()
    assert (draw_marks(bare, [Mark([(50, 50), (50, 50)], text="0.0 mm")]) != bare).any()  # no length, no direction


def test_a_scale_alone_places_points_too():
    bare = np.zeros((100, 200, 3), np.uint8)
    box = box_of(inked(draw_marks(bare, [Mark([(24.5, 9.5), (24.5, 69.5)])], 2)))
    assert np.abs(np.array(box) - [50 - TICK_PX, 49 + TICK_PX, 20, 139]).max() <= 1


# --- boxes -------------------------------------------------------------------------------------------------------


def boxed(*boxes, labels=None, colours=None, **options) -> np.ndarray:
    """A black picture of 20 x 20 pixels with boxes, red if nothing is said."""
    labels, colours = labels or [""] * len(boxes), colours or [RED] * len(boxes)
    return draw_boxes(np.zeros((20, 20, 3), np.uint8), boxes, labels, colours, **options)


def test_lines_are_centred_on_the_edges_of_a_box():
    expected = rectangle((20, 20), (3, 13), (5, 17)) & ~rectangle((20, 20), (5, 11), (7, 15))
    assert ((boxed((6, 4, 16, 12)) == RED).all(axis=2) == expected).all()
    assert (boxed((6, 4, 16, 12))[~expected] == 0).all()


def test_parts_of_a_pixel_are_painted_in_part():
    picture = boxed((6.25, 4, 16, 12), thickness=1)[8, :, 0]  # lines from 5.75 to 6.75, and from 15.5 to 16.5
    assert picture.nonzero()[0].tolist() == [5, 6, 15, 16] and picture[[5, 6, 15, 16]].tolist() == [50, 150, 100, 100]
    grey = draw_boxes(np.full((20, 20, 3), 100, np.uint8), [(6.5, 4, 16, 12)], [""], [RED])
    assert grey[8, 4:9].tolist() == [[100] * 3, [150, 50, 50], [200, 0, 0], [150, 50, 50], [100] * 3]


def test_dashes_begin_at_every_corner_and_their_gaps_are_dark():
    picture = draw_boxes(np.full((40, 60, 3), 250, np.uint8), [(10, 10, 50, 30)], [""], [RED], dashed=True)
    gap = [round(250 + 0.65 * (dark - 250)) for dark in DARK]
    along = picture[10, 10:50]
    red, dark = ((along == colour).all(axis=1) for colour in (RED, gap))
    assert (red | dark).all() and 16 <= np.count_nonzero(red) <= 24
    assert red[[0, 1, -1, -2]].all() and np.count_nonzero(np.diff(red.astype(int)) == -1) == 4  # 4 periods in 40 pixels
    for mirrored in (picture[:, ::-1], picture[::-1]):
        assert (mirrored[9:31, 9:51] == picture[9:31, 9:51]).all()
    assert (picture[14:26, 14:46] == 250).all() and (picture[:9] == 250).all()


def test_a_dashed_box_shows_on_a_solid_one_of_its_colour():
    box = (4, 4, 16, 16)
    alone, both = boxed(box), boxed(box, box, dashed=[True, False])  # whichever comes first
    assert (alone != both).any(axis=2).any() and (both == RED).all(axis=2).any()
    assert (both == boxed(box, box, dashed=[False, True])).all()


def test_boxes_beyond_the_picture_are_clipped_and_stay_visible():
    picture = (boxed((-30, 5, 10, 99)) == RED).all(axis=2)
    expected = rectangle((20, 20), (4, 20), (0, 11)) & ~rectangle((20, 20), (6, 18), (2, 9))
    assert (picture == expected).all()
    frame = (boxed((-5, -5, 25, 25)) == RED).all(axis=2)
    assert frame[[0, 1, 18, 19]].all() and frame[:, [0, 1, 18, 19]].all() and not frame[2:18, 2:18].any()


@pytest.mark.parametrize("box", [(np.nan, 1, 5, 5), (1, 1, np.inf, 5), (20, 1, 30, 5), (-9, 1, 0, 5), (9, 1, 5, 5),
                                 (1, 9, 5, 5), (1, -5, 5, 0), (1, 20, 5, 22)])
def test_what_is_no_box_in_the_picture_is_not_drawn(box):
    assert not boxed(box, labels=["name"]).any()
    assert (boxed(box, (4, 4, 9, 9), labels=["name", ""]) == boxed((4, 4, 9, 9))).all()


def test_boxes_without_extent_are_a_line_or_a_dot():
    assert np.count_nonzero(boxed((5, 5, 5, 15)).any(axis=2)) == 2 * 12
    assert np.count_nonzero(boxed((5, 5, 5, 5), dashed=True).any(axis=2)) == 4


def test_no_boxes_and_boxes_without_a_label():
    bare = np.full((20, 20, 3), 7, np.uint8)
    copy = draw_boxes(bare, [], [], [])
    assert (copy == bare).all() and copy is not bare
    assert (draw_boxes(bare, np.empty((0, 4)), [], []) == bare).all()
    given = draw_boxes(bare, [(2, 2, 9, 9)], [""], [RED])
    assert (bare == 7).all() and (given != 7).any()
    with pytest.raises(ValueError, match="1 boxes, 2 labels and 1 colours"):
        draw_boxes(bare, [(2, 2, 9, 9)], ["a", "b"], [RED])


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (20, 20), (15, 400)])
def test_labels_on_pictures_too_small_for_them(shape):
    assert draw_boxes(np.zeros((*shape, 3), np.uint8), [(0, 0, 1, 1)], ["nasal bone 0.97"], [RED]).shape == (*shape, 3)


def placed(boxes, names, shape=(300, 400), picture=None) -> list[tuple[slice, slice]]:
    """Rows and columns of the labels."""
    picture = np.full((*shape, 3), 60, np.uint8) if picture is None else picture
    sizes = [np.array(extent(name)) for name in names]
    corners = place_labels(picture, np.array(boxes, float), sizes, 4)
    return [(slice(y, y + height), slice(x, x + width)) for (x, y), (width, height) in zip(corners, sizes)]


def shared(places, shape=(300, 400)) -> int:
    """Pixels that belong to more than one of the places."""
    count = np.zeros(shape, int)
    for place in places:
        count[place] += 1
    return np.count_nonzero(count > 1)


def test_labels_of_separate_boxes_lie_beside_them_and_on_nothing():
    boxes = [(20, 30, 120, 80), (200, 30, 330, 60), (20, 150, 50, 250), (140, 150, 160, 160), (250, 200, 380, 290)]
    places = placed(boxes, ["thalami 0.91", "nasal skin 0.85", "palate 0.40", "IT 0.99", "cisterna magna 0.77"])
    taken = [(slice(y, bottom), slice(x, right)) for x, y, right, bottom in boxes]
    assert shared(places + taken) == 0
    for (rows, columns), (x, y, right, bottom) in zip(places, boxes):
        assert max(x - columns.stop, columns.start - right, y - rows.stop, rows.start - bottom) <= 5
        assert rows.start >= 0 and columns.start >= 0 and rows.stop <= 300 and columns.stop <= 400


def test_labels_of_crowded_boxes_make_room_for_each_other():
    boxes = [(180, 100, 230, 112), (190, 108, 215, 120), (200, 90, 240, 102), (185, 118, 225, 130), (170, 95, 195, 125)]
    assert shared(placed(boxes, [f"structure {n} 0.9" for n in range(5)])) == 0
    corner = [(0, 0, 12, 9), (8, 2, 22, 12), (3, 7, 18, 20), (0, 12, 9, 24)]  # where half of the places are outside
    places = placed(corner, [f"structure {n} 0.9" for n in range(4)])
    assert shared(places) == 0 and all(rows.start >= 0 and columns.start >= 0 for rows, columns in places)


def test_labels_prefer_dark_ground():
    picture = np.full((300, 400, 3), 10, np.uint8)
    picture[:, :200] = 240
    (_, columns), = placed([(190, 140, 210, 160)], ["name"], picture=picture)
    assert columns.start >= 200


def test_letters_are_light_enough_for_dark_ground():
    for colour in (*PALETTE, (0, 0, 0), (0, 0, 255)):
        letters = legible(colour)
        assert np.dot((0.299, 0.587, 0.114), letters) > 123 and all(a >= b for a, b in zip(letters, colour))
    assert legible((255, 255, 255)) == (255, 255, 255) and legible(PALETTE[4]) == PALETTE[4]


def test_a_label_is_written_in_the_colour_of_its_box():
    bare = np.full((100, 200, 3), 60, np.uint8)
    with_label, without = (draw_boxes(bare, [(90, 40, 110, 60)], [text], [PALETTE[4]]) for text in ("name", ""))
    written = (with_label != without).any(axis=2)
    assert written.any() and (with_label[written] == PALETTE[4]).all(axis=1).any()


# --- panels ------------------------------------------------------------------------------------------------------


def test_panels_stand_side_by_side_with_title_and_legend():
    panels = [("image", np.full((300, 400, 3), 90, np.uint8)), ("truth", np.full((300, 400, 3), 130, np.uint8))]
    bare, row = row_of(panels), row_of(panels, {"bone": RED, "ligament": GREEN})
    assert bare.shape[0] == LINE_PX + 300 and row.shape[1] == bare.shape[1] >= 800 and row.shape[0] > bare.shape[0]
    assert (row[LINE_PX:LINE_PX + 300, :400] == 90).all() and (row[LINE_PX:LINE_PX + 300, -400:] == 130).all()
    assert (row[:LINE_PX, :400] > 150).any() and (row[:LINE_PX, -400:] > 150).any()  # titles
    strip = row[LINE_PX + 300:]
    for colour in (RED, GREEN):
        assert np.count_nonzero((strip == colour).all(axis=2)) >= 64
    assert tuple(strip[-1, -1]) == DARK


def test_panels_are_neither_tiny_nor_huge():
    for shape in ((50, 40), (1500, 2000), (640, 100), (1, 900)):
        row = row_of([("x" * 200, np.zeros((*shape, 3), np.uint8))])
        height, width = row.shape[0] - LINE_PX, row.shape[1]
        assert PANEL_PX[0] <= max(height, width) <= PANEL_PX[1], shape


def test_long_legends_take_more_lines():
    panel = [("x", np.zeros((256, 256, 3), np.uint8))]
    few, many = (row_of(panel, class_colours([f"structure {i}" for i in range(n)])) for n in (1, 9))
    assert few.shape[1] == many.shape[1] and many.shape[0] >= few.shape[0] + 3 * LINE_PX
    row_of(panel, {"n" * 300: RED})


def test_letters_beyond_ascii():
    assert printable("Zürich 5 mm²") == "Zurich 5 mm2" and printable("猫") == "?"
