"""Whose a video is where no table and no name says it: a hash of the PatientID, which is never written anywhere."""

from __future__ import annotations

import hashlib
from typing import Sequence

from lib.imaging.cine import CineFacts

DEFAULT_SALT = "FoldScan"  # of studies that set none: it tells patients apart, and hides nothing from who knows it


def patient_hash(patient_id: str, salt: str) -> str:
    """12 hexadecimal digits that tell patients apart without naming them: blake2b (RFC 7693), keyed by the salt."""
    key = hashlib.blake2b((salt or DEFAULT_SALT).encode(), digest_size=64).digest()
    return hashlib.blake2b(patient_id.encode(), key=key, digest_size=6).hexdigest()


def patient_notes(unknown: Sequence[CineFacts], salt: str) -> list[str]:
    """What the user should know of the patients of videos of which nothing but the file says whose they are."""
    identified, notes = [facts.patient_id for facts in unknown if facts.patient_id], []
    if identified and not salt:
        notes.append(f"the patients of {videos(len(identified))} are known by a hash of PatientID: set data.reader."
                     "patient_salt to a secret text before you share results, or the IDs can be guessed from it")
    if len(identified) > 1 and len(set(identified)) == 1:
        notes.append(f"all {len(identified)} DICOM videos have the same PatientID, so they count as one patient: if they were "
                     "made anonymous so, name patients in a column of the table (columns.patient) or by patient_pattern")
    if len(identified) < len(unknown):
        notes.append(f"{videos(len(unknown) - len(identified))} without a patient (no column, no patient_pattern, no PatientID): "
                     "each counts as a patient of its own; if a patient has several videos, folds leak and scores are too good")
    return notes


def videos(count: int) -> str:
    return f"{count} video{'s' * (count != 1)}"
