"""Lossless JPEG of 8 bits, frequent in ultrasound, for pydicom: decoded by Pillow, whose libjpeg-turbo has learnt it."""

from __future__ import annotations

from io import BytesIO

from PIL import Image, features
from pydicom.uid import JPEGLossless, JPEGLosslessSV1

# the names that pydicom looks for in a module of decoders
DECODER_DEPENDENCIES = {JPEGLossless: ("pillow>=11",), JPEGLosslessSV1: ("pillow>=11",)}


def is_available(uid: str) -> bool:
    return uid in DECODER_DEPENDENCIES and features.check_codec("jpg")


def decode(source: bytes, runner) -> bytes:
    """A frame's pixels as they are coded, without a change of colours: that is for the one who knows the data set."""
    with Image.open(BytesIO(source), formats=("JPEG",)) as image:
        if runner.samples_per_pixel != 1 and "adobe_transform" not in image.info:
            image.draft("YCbCr", image.size)  # what libjpeg takes such values for, so that it leaves them alone
        return image.tobytes()
