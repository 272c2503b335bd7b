"""Image files of any size to a model's input."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from experiments.config import Problem, Refused
from experiments.config.schema import Data
from experiments.data import Images

# Data sets of digits that were written in light ink and put into the middle of a dark square.
CENTRED = ("mnist", "digits")
# Share of a digit's square that its longer side fills (LeCun et al., 1998: 20 of 28 pixels).
INK_SHARE = 20 / 28
SEEN = 0.2  # brightness from which a pixel counts as ink


def read_images(files: Sequence[str]) -> list[Image.Image]:
    """Read image files of any size and mode, upright; transparent parts become white paper.

    Raises:
        Refused: A file is not there, or no image. All such files are named.
    """
    problems: list[Problem] = []
    pictures = []
    for file in files:
        try:
            with Image.open(file) as opened:
                rgba = ImageOps.exif_transpose(opened).convert("RGBA")
        except (OSError, UnidentifiedImageError) as error:
            what = (
                "there is no such file" if isinstance(error, FileNotFoundError) else f"is no readable image ({error})"
            )
            problems.append(Problem(file, what))
        else:
            pictures.append(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba))
    if problems:
        raise Refused(problems)
    return pictures


def to_input(pictures: Sequence[Image.Image], shape: tuple[int, ...], data: Data, inverted: bool | str) -> Images:
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
    y, x = (float((np.indices(weights.shape)[axis] * weights).sum() / weights.sum()) for axis in (0, 1))
    canvas = Image.new("L", (width, height))
    canvas.paste(small, (round((width - 1) / 2 - x), round((height - 1) / 2 - y)))
    return canvas
