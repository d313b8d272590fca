"""Plug point 1: how do raw files become cases? A dict from `data.reader.kind` to a reader class.

A reader is a frozen dataclass whose fields are its keys in the YAML. It offers

    headers(root, labels, new) -> Scan   the cases of a folder: files, shapes, spacing; checked, no pixels read
    has_truth(root, case) -> bool        whether any truth file of a case is there, usable or not
    read(root, header, labels) -> Case   frames on the native grid, and the truth if `labels`
    methods(headers) -> sentences        what of the prepared cases (their headers as `read` gave them back) was computed,
                                         converted or assumed while they were read: whole sentences, without names and
                                         paths, which the manifest keeps and report.html prints as they are

    find_classes(root, headers) -> dict  class -> value (or None), of the masks of a study that names no classes;
                                         only readers that take such a study have it
    remarks(headers) -> notes            what reading the pixels has shown, of readers that have such
    channel_names, expected              names of the channels; what to say that an input folder should hold

`headers` and `read` report bad files as `CaseProblem`s, so that all of them can be listed at once.
"""

from __future__ import annotations

from lib.readers.boxes import ImageBoxes
from lib.readers.images import ImagePairs
from lib.readers.labels import ImageLabels
from lib.readers.nifti import NiftiFolders
from lib.readers.points import ImagePoints
from lib.readers.videos import VideoTable
from lib.study import Data, build, one_of

READERS = {
    "nifti_folders": NiftiFolders,
    "image_pairs": ImagePairs,
    "image_boxes": ImageBoxes,
    "image_classes": ImageLabels,
    "image_points": ImagePoints,
    "video_table": VideoTable,
}


def make_reader(data: Data):
    """The reader that `data.reader.kind` names, with its keys checked. Raises InputError."""
    options = dict(data.reader)
    kind = options.pop("kind", None)
    one_of(kind, tuple(READERS), "data.reader.kind")
    return build(READERS[kind], options, "data.reader", data=data)
