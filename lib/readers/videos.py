"""Cine loops (DICOM, AVI, MP4) and a table with a score for each: good from a threshold on, else poor."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Sequence

import numpy as np

from lib.data.case import Case, CaseError, CaseProblem, Header, Scan
from lib.imaging.cine import CineError, CineFacts
from lib.imaging.geometry import Geometry
from lib.imaging.loops import read_facts, read_frames
from lib.imaging.sector import Extent, find_sector
from lib.progress import READING, bar
from lib.readers.conversions import OF_VIDEOS, conversion_methods, conversion_notes, converted, counted
from lib.readers.image_files import CHANNELS, check_frames, check_root
from lib.readers.names import check_inside, check_name, check_pattern, patient_of, printable, relative, some
from lib.readers.tables import Table, WrittenCases, check_keys, read_table
from lib.readers.video_patients import patient_hash, patient_notes, videos
from lib.readers.video_rows import Rows, VideoRow, case_names, find_videos, read_rows, stays_inside
from lib.study import Data, InputError, require

COLUMNS = {"video": "video_path", "score": "quality_score"}
PATIENT = "patient"  # column that is used if it is there
CLASSES = ("poor", "good")  # of a study that names none


@dataclass(frozen=True)
class VideoTable(WrittenCases):
    """`data.reader` of a study of videos.

    table: CSV file (with its `separator`) or XLSX file (with its `sheet`, default the first) in the input folder, a row per
    video. columns: role -> name of the column, of those that differ from COLUMNS, and of `patient` and `subset` (train, val
    or test). root: folder in the input folder where the table's paths begin, by default the table's own.
    threshold: score from which a video is of the second class. channels: 1 or 3. mask_sector: what does not move around the
    ultrasound sector becomes 0.
    patient_pattern: regular expression whose first group (or whole match) in the video's name, or else in its path in the
    input folder, is the patient. Without it and a column, a hash of the DICOM PatientID is; patient_salt: secret text that
    the hash is keyed with.
    """
    data: Data
    table: str = "echo_annotations.csv"
    root: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    separator: str = ","
    sheet: str = ""
    threshold: float = 0.5
    channels: int = 1
    mask_sector: bool = True
    patient_pattern: str = ""
    patient_salt: str = ""

    def __post_init__(self):
        require(len(self.data.classes) in (0, 2), "data.classes", list(self.data.classes),
                "two names, of videos below the threshold and of others, such as [poor, good]")
        require(not self.data.class_values, "data.class_values", self.data.class_values, "none: scores say the class")
        check_frames(self.data, self.channels)
        require(bool(self.table), "data.reader.table", "none", "the name of the table in the input folder")
        check_keys(self.table, self.sheet, self.separator, self.columns, COLUMNS, ("patient", "subset"))
        check_inside(posixpath.normpath(self.root), "data.reader.root")
        require(-float("inf") < self.threshold < float("inf"), "data.reader.threshold", self.threshold, "a finite number")
        check_pattern(self.patient_pattern)
        require(not (self.columns.get("patient") and self.patient_pattern), "data.reader",
                "patient_pattern and columns.patient", "only one of them")

    @property
    def channel_names(self) -> tuple[str, ...]:
        return CHANNELS[self.channels]

    @property
    def expected(self) -> str:
        """What an input folder should hold."""
        return f"{self.table} with a row for each video, and the videos (DICOM, AVI, MP4, MOV or MKV), in sub-folders too"

    @property
    def classes(self) -> tuple[str, str]:
        return self.data.classes or CLASSES

    # --- what there is -------------------------------------------------------------------------------------------

    def headers(self, root: Path, labels: bool = True, new: bool = False) -> Scan:
        """The videos of `root` with their scores in `labels`, in natural order of paths; no pixel of DICOM is decoded.

        With `labels`, only videos with a row. Without, every video, and the table need not be there. `new` data (to be
        predicted) has no subsets. Raises InputError for what concerns all: a folder, table or column that is not there, and
        rows none of which names a video.
        """
        new = new or not labels
        check_root(root, self.table)
        table = self._table(root, labels)
        files, ignored = find_videos(root, {root / self.table})
        cases = case_names(files)
        rows = self._rows(root, table, files, cases, new, labels)
        extra = sorted(rows.named - set(files))  # of odd suffixes
        if extra:
            files, ignored = [*files, *extra], [path for path in ignored if path not in map(printable, extra)]
            cases = case_names(files)
        wanted = [file for file in files if file in rows.found] if labels else files
        facts, problems = self._facts(root, wanted, cases)
        problems = [*rows.problems, *problems] if labels else problems
        self._named[root] = {cases[file] for file in rows.named}
        left_out, headers = {problem.case for problem in problems}, []
        for file in wanted:
            if file in facts and printable(cases[file]) not in left_out:
                try:
                    headers.append(self._header(root, file, cases[file], facts[file], rows.found.get(file), labels, new))
                except CaseError as error:
                    problems.append(error.problem)
        without = [file for file in files if file not in rows.named] if labels else []
        unused = [CaseProblem(printable(cases[file]), printable(file), f"has no row in {table.place}") for file in without]
        notes = [f"{len(without)} of {len(files)} videos {'have' if len(without) > 1 else 'has'} no row in {table.place} and "
                 f"{'are' if len(without) > 1 else 'is'} left out: {some(without)}"] if without else []
        near = [name for name in (table.header if table and labels else ()) if "patient" in name.casefold()]
        if near and not (table.has(PATIENT) or self.columns.get("patient") or self.patient_pattern):
            notes.append(f"{table.place} has a column {printable(near[0])!r} that is not used: if it tells whose a video is, set "
                         f"data.reader.columns: {{patient: {printable(near[0])}}}")
        if labels and rows.twice:
            notes.append(f"{table.place}: of {videos(len(rows.twice))} there are several rows that say the same: "
                         f"{some(rows.twice)}")
        told = {header.files["video"]: facts[header.files["video"]] for header in headers}
        nameless = [file for file in told if not (file in rows.found and rows.found[file].patient or facts[file].patient_id)]
        return Scan(headers, problems, ignored, [*notes, *self._notes(headers, told, rows)], unused,
                    patients_known=bool(self.patient_pattern) or not nameless)

    def find_classes(self, root: Path, headers: list[Header]) -> dict:
        """The classes of a study that names none."""
        return dict.fromkeys(CLASSES)

    # --- one case ------------------------------------------------------------------------------------------------

    def read(self, root: Path, header: Header, labels: bool = True) -> Case:
        """One case: frames uint8 (channels, n, rows, columns); truth bool (1,) of both classes. Its header tells besides, in
        `about`, the share of each frame that the sector takes: 1 if too little moves to know. Raises CaseError."""
        shape, extent = header.geometry.shape, Extent()
        try:
            frames = np.empty((self.channels, *shape), np.uint8)
            for index, frame in enumerate(read_frames(root / header.files["video"], shape, self.channels)):
                frames[:, index] = frame
                if self.mask_sector:
                    extent.add(frame)
        except (CineError, MemoryError) as error:
            reason = str(error) or "does not fit into memory"
            raise CaseError(header.case, header.files["video"], reason) from None
        if self.mask_sector:
            sector = find_sector(extent.change)
            if sector is not None:
                np.multiply(frames, sector, out=frames)
            share = 1.0 if sector is None else round(float(sector.mean()), 4)
            header = replace(header, about={**header.about, "sector_share": share})
        truth = {name: np.array([name == header.labels["class"]]) for name in self.classes} if labels else {}
        return Case(header, frames, truth)

    def _header(self, root: Path, file: str, case: str, facts: CineFacts, row: VideoRow | None, labels: bool,
                new: bool) -> Header:
        if relative(root, root / file) != file:
            raise CaseError(printable(case), "", "its path holds line breaks, or bytes that are not UTF-8; rename it")
        check_name(case, "the file")
        spacing = (1.0, *facts.spacing_mm) if facts.spacing_mm else None
        geometry = Geometry(facts.shape, spacing, True, {"format": "video", "frame_rate": facts.frame_rate})
        said = {"class": self.classes[int(row.score >= self.threshold)], "score": row.score} if labels else {}
        about = {"frames": facts.frames, "frame_rate": facts.frame_rate or None, "heart_rate": facts.heart_rate or None,
                 "coding": facts.coding, **converted(OF_VIDEOS, facts, self.channels)}
        return Header(case, self._patient(file, case, facts, row, new), {"video": file}, geometry, self.channels,
                      row.subset if row and not new else "", said, about)

    def _patient(self, file: str, case: str, facts: CineFacts, row: VideoRow | None, new: bool) -> str:
        """Of the table, else of the name, else a hash of the DICOM PatientID, else the case itself. Raises CaseError."""
        if row and row.patient:
            return row.patient
        if self.patient_pattern:
            name = file.rpartition("/")[2]
            try:
                return patient_of(case, name, self.patient_pattern)
            except CaseError:
                return patient_of(case, file, self.patient_pattern, new)
        return patient_hash(facts.patient_id, self.patient_salt) if facts.patient_id else case

    def remarks(self, headers: Sequence[Header]) -> list[str]:
        """Loops in which no sector was found: what is written beside it is still there."""
        still = [header.case for header in headers if header.geometry.shape[0] > 1 and header.about.get("sector_share") == 1.0]
        return [f"{videos(len(still))} in which too little moves to tell the sector from what is around it, so names and other "
                f"text burnt into them were NOT removed: {some(still)}. Look at prepared/figures/samples.png, and cut such text "
                "off, or leave the videos out of the table, before you share pictures"] if still else []

    def methods(self, headers: Sequence[Header]) -> list[str]:
        """How many loops were converted, and how many lost what lies around their ultrasound sector."""
        return [*conversion_methods(OF_VIDEOS, headers, "video"), *([self._sectors(headers)] if self.mask_sector else [])]

    def _sectors(self, headers: Sequence[Header]) -> str:
        masked, line = sum(header.about["sector_share"] < 1 for header in headers), "What lies around the ultrasound sector"
        why = "too little moves to tell the sector, or all of the frame does"
        if not masked:
            return f"{line} was left as it is in all videos: {why}."
        rest = f" in {masked:,} of {counted(len(headers), 'video')}; in the others {why}" if masked < len(headers) else ""
        return f"{line}, where nothing moves, was made black{rest}."

    # --- the folder and its table --------------------------------------------------------------------------------

    def _table(self, root: Path, labels: bool) -> Table | None:
        """The table; without labels it only tells patients, and may be missing."""
        try:
            return read_table(root, self.table, "data.reader.table", self.separator, self.sheet)
        except InputError:
            if labels:
                raise
            return None

    def _rows(self, root: Path, table: Table | None, files: Sequence[str], cases: dict[str, str], new: bool,
              labels: bool) -> Rows:
        if table is None:
            return Rows({}, [], set(), [])
        columns = {**COLUMNS, **({PATIENT: PATIENT} if table.has(PATIENT) and not self.patient_pattern else {}), **self.columns}
        if new or self.data.folds.pool:
            columns.pop("subset", None)
        try:
            folder = root / posixpath.normpath(self.root) if self.root else table.path.parent
            return read_rows(root, table, folder, columns, files, cases, new)
        except InputError:
            if labels:
                raise
            return Rows({}, [], set(), [])

    def _facts(self, root: Path, files: Sequence[str], cases: dict[str, str]) -> tuple[dict[str, CineFacts], list[CaseProblem]]:
        """(path -> facts, problems), several files at once: frames of AVI and MP4 are counted by decoding them."""
        real, clashes = Path(os.path.realpath(root)), Counter(cases.values())

        def look(file: str) -> CineFacts | CaseProblem:
            reason = (None if stays_inside(real, root / file) else
                      "is a link that leaves the input folder; put the file itself there")
            if clashes[cases[file]] > 1:
                reason = "would be one case with another video of that name; rename one of them"
            try:
                if reason is None:
                    return read_facts(root / file, self.channels)
            except CineError as error:
                reason = str(error)
            return CaseProblem(printable(cases[file]), printable(file), reason)

        with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool:
            found = dict(zip(files, bar(pool.map(look, files), len(files), READING, unit="video")))
        return ({file: one for file, one in found.items() if isinstance(one, CineFacts)},
                [one for one in found.values() if isinstance(one, CaseProblem)])

    # --- what the user should know -------------------------------------------------------------------------------

    def _notes(self, headers: Sequence[Header], told: dict[str, CineFacts], rows: Rows) -> list[str]:
        """headers: of the videos that are used. told: path -> facts of these."""
        notes = conversion_notes(OF_VIDEOS, headers, "video")
        still = sum(facts.frames == 1 for facts in told.values())
        if still:
            notes.append(f"{videos(still)} of a single frame, which stands for all of a window"
                         + ("; nothing moves, so what is around its sector stays" if self.mask_sector else ""))
        unknown = [told[file] for file in told if not (file in rows.found and rows.found[file].patient)]
        scores = [rows.found[file].score for file in told if file in rows.found]
        if scores:
            good = sum(score >= self.threshold for score in scores)
            notes.append(f"a score of {self.threshold:g} or more is {self.classes[1]}: {good} of {videos(len(scores))}; the "
                         f"scores lie between {min(scores):g} and {max(scores):g}")
        return [*notes, *([] if self.patient_pattern else patient_notes(unknown, self.patient_salt))]
