"""Image files of any size to a model's input."""

import math
import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from experiments.config import Problem, Refused
from experiments.config.schema import Data
from experiments.data.checks import Images

# Data sets of digits that were written in light ink and put into the middle of a dark square.
CENTRED = ("mnist", "digits")
# Share of a digit's square that its longer side fills (LeCun et al., 1998: 20 of 28 pixels).
INK_SHARE = 20 / 28
MOST_PIXELS = 1_000_000_000  # of all pictures of a command
# Those that Pillow reads by itself: for PostScript it would start another program.
FORMATS = (
    "BMP", "DDS", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF",
    "WEBP", "XBM",
)  # fmt: skip
SEEN = 0.2  # brightness from which a pixel counts as ink


def is_picture(value: object) -> bool:
    """Whether a value is the name of a file, or one of Pillow's pictures."""
    return isinstance(value, str | os.PathLike | Image.Image)


def read_images(files: Sequence[str]) -> Iterator[Image.Image]:
    """Read image files of any size and mode, upright; transparent parts become white paper.

    Returns:
        Pictures of 8 bits, grey (mode L) or in colour (RGB). All were read, to know that they can be; each is read
        again when its turn comes, as all at once may be larger than the memory.

    Raises:
        Refused: A file is not there, or no image, and all such files are named; or they are too large together.
    """
    problems: list[Problem] = []
    pixels = 0
    for file in files:
        try:
            pixels += math.prod(_picture(file).size)
        except Refused as refused:
            problems += refused.problems
        if pixels > MOST_PIXELS:
            what = f"are of more than {MOST_PIXELS // 1_000_000:,} million pixels together; give fewer, or smaller ones"
            raise Refused([*problems, Problem("images", what)])
    if problems:
        raise Refused(problems)
    return map(_picture, files)


def _picture(file: str) -> Image.Image:
    where = f"images: {file}"
    try:
        return _read(file)
    except FileNotFoundError:
        folder = "" if os.path.isabs(file) else f" in the current folder, {Path.cwd()}"
        problem = Problem(where, f"there is no such file{folder}")
    except Exception as error:  # Pillow's decoders raise nearly all classes of exceptions
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        problem = Problem(where, f"is no readable image ({reason})")
    raise Refused(problem)


def _read(file: str) -> Image.Image:
    file = os.path.expanduser(file)
    if not stat.S_ISREG(os.stat(file).st_mode):
        raise ValueError("it is a folder, a pipe or a device")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what does not concern the pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(file, formats=FORMATS) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.mode.startswith(("I", "F")):
                return _to_8_bits(np.asarray(picture), 65535 if picture.mode.startswith("I;16") else None)
            if picture.mode in ("1", "L"):
                return picture.convert("L")
            if not picture.has_transparency_data:
                return picture.convert("RGB")
            rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _to_8_bits(pixels: NDArray[np.generic], white: float | None) -> Image.Image:
    """Scale grey values to 0 to 255.

    Args:
        pixels: (height, width).
        white: The value of white; None: the smallest of 1 (floats only), 255 and 65535 that no pixel exceeds.
    """
    low, high = float(pixels.min()), float(pixels.max())
    ends = [white] if white else [1.0, 255.0, 65535.0][pixels.dtype.kind != "f" :]
    fitting = [end for end in ends if 0 <= low <= high <= end]
    if not fitting:
        what = f"holds values from {low:g} to {high:g}, expected 0 to 1, to 255 or to 65535"
        raise ValueError(what)
    scaled = pixels.astype(np.float32)
    scaled *= np.float32(255 / fitting[0])
    return Image.fromarray(scaled.round(out=scaled).astype(np.uint8))


def to_input(pictures: Iterable[Image.Image], shape: tuple[int, ...], data: Data, inverted: bool | str) -> Images:
    """Turn pictures into what the model saw as its training images.

    Args:
        pictures: At least one.
        shape: (height, width, channels) of the model's input.
        data: What the model was trained on.
        inverted: Whether they show dark ink on light paper; ``"auto"``: whether their border is light.

    Returns:
        (pictures, height, width, channels).

    Raises:
        Refused: The model does not take images.
    """
    if len(shape) != 3:
        raise Refused(Problem("images", f"the model takes {shape[0]} numbers, not images"))
    if shape[2] not in (1, 3):
        what = f"the model takes images of {shape[2]} channels; files are read as grey (1) or colour (3)"
        raise Refused(Problem("images", what, "images=[]"))
    return np.stack([_fitted(picture, shape, data, inverted) for picture in pictures])


def _fitted(picture: Image.Image, shape: tuple[int, ...], data: Data, inverted: bool | str) -> NDArray[np.float32]:
    height, width, channels = shape
    flat = picture.convert("L" if channels == 1 else "RGB")
    if channels == 1 and (_light_border(flat) if inverted == "auto" else inverted):
        flat = ImageOps.invert(flat)
    if data.name in CENTRED and flat.size != (width, height):
        flat = _centred(flat, width, height)
    pixels = np.asarray(flat.resize((width, height), Image.Resampling.LANCZOS), dtype=np.float32)
    scale = 255.0 if data.name in (*CENTRED, "fashion_mnist") else data.scale
    return (pixels / np.float32(scale)).reshape(shape)


def _light_border(image: Image.Image) -> bool:
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return float(np.median(border)) > 127


def _centred(image: Image.Image, width: int, height: int) -> Image.Image:
    """Do what MNIST's makers did: fit the ink into the inner square, its centre of mass into the middle."""
    pixels = np.asarray(image, dtype=np.float32) / 255
    ink = pixels > SEEN * max(float(pixels.max()), 1e-6)
    if not ink.any():
        return image
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    cropped = image.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
    ratio = INK_SHARE * min(width / cropped.width, height / cropped.height)
    size = (max(1, round(cropped.width * ratio)), max(1, round(cropped.height * ratio)))
    small = cropped.resize(size, Image.Resampling.LANCZOS)
    weights = np.asarray(small, dtype=np.float64)
    if not weights.any():  # dots that vanish when they are made smaller
        return image
    y, x = (float((np.indices(weights.shape)[axis] * weights).sum() / weights.sum()) for axis in (0, 1))
    canvas = Image.new("L", (width, height))
    canvas.paste(small, (round((width - 1) / 2 - x), round((height - 1) / 2 - y)))
    return canvas
