"""What a picture shows beyond its frame."""

import io
from pathlib import Path

import numpy as np
from matplotlib.image import imread


def coloured(picture: bytes | Path) -> float:
    """Share of a PNG's pixels that have a colour: frames, ticks, text and paper are all grey."""
    content = picture.read_bytes() if isinstance(picture, Path) else picture
    pixels = imread(io.BytesIO(content), format="png")[..., :3]
    return float((np.ptp(pixels, axis=-1) > 0.1).mean())
