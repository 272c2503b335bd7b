from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from experiments.config import Refused
from experiments.config.schema import Data
from experiments.data import Images
from experiments.images import read_images, to_input

DIGITS = Data(name="digits", scale=16.0, path=None, validation_size=0, limit=None)
OWN = Data(name="mine", scale=1.0, path="x.npz", validation_size=0, limit=None)
SHAPE = (28, 28, 1)


def as_seen(files: list[str], shape: tuple[int, ...], data: Data, inverted: bool | str) -> Images:
    return to_input(read_images(files), shape, data, inverted)


def drawn(file: Path, size: tuple[int, int] = (28, 28), inverted: bool = False) -> Path:
    """A thick vertical stroke, light on dark, left of the middle."""
    pixels = np.zeros((100, 100), np.uint8)
    pixels[20:80, 20:35] = 255
    image = Image.fromarray(255 - pixels if inverted else pixels).resize(size)
    image.save(file)
    return file


def test_light_and_dark_ink_look_alike(tmp_path: Path) -> None:
    light = as_seen([str(drawn(tmp_path / "a.png", (90, 90)))], SHAPE, DIGITS, "auto")
    dark = as_seen([str(drawn(tmp_path / "b.png", (90, 90), inverted=True))], SHAPE, DIGITS, "auto")
    np.testing.assert_allclose(light, dark, atol=0.02)
    assert light.max() == pytest.approx(1.0, abs=0.05)
    assert light[0, 0, 0, 0] == 0


@pytest.mark.parametrize("size", [(50, 50), (300, 500), (13, 40), (1000, 1000)])
def test_any_size_is_fitted_and_centred(tmp_path: Path, size: tuple[int, int]) -> None:
    (image,) = as_seen([str(drawn(tmp_path / "a.png", size))], SHAPE, DIGITS, "auto")
    assert image.shape == SHAPE
    rows, columns = np.nonzero(image[..., 0] > 0.5)
    assert 18 <= rows.max() - rows.min() + 1 <= 20
    assert abs((columns.min() + columns.max()) / 2 - 13.5) <= 1
    assert abs((rows.min() + rows.max()) / 2 - 13.5) <= 1


def test_an_image_of_the_right_size_is_taken_as_it_is(tmp_path: Path) -> None:
    digit = load_digits().images[7]
    Image.fromarray((digit * 255 / 16).round().astype(np.uint8)).save(tmp_path / "seven.png")
    (read,) = as_seen([str(tmp_path / "seven.png")], (8, 8, 1), DIGITS, "auto")
    np.testing.assert_allclose(read[..., 0], digit / 16, atol=0.003)


def test_inverted_can_be_said(tmp_path: Path) -> None:
    file = str(drawn(tmp_path / "a.png"))
    plain, inverted = (as_seen([file], SHAPE, DIGITS, choice) for choice in (False, True))
    np.testing.assert_allclose(plain, 1 - inverted, atol=0.01)


def test_transparency_and_colour(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (15, 5, 22, 35))
    picture.save(tmp_path / "ink.png")
    (read,) = as_seen([str(tmp_path / "ink.png")], SHAPE, DIGITS, "auto")
    assert read[14, 14, 0] > 0.9
    assert read[0, 0, 0] == 0
    (colour,) = as_seen([str(tmp_path / "ink.png")], (20, 20, 3), OWN, "auto")
    assert colour.shape == (20, 20, 3)
    assert colour.max() == 255


def test_an_empty_image_stays_empty(tmp_path: Path) -> None:
    Image.new("L", (60, 60)).save(tmp_path / "black.png")
    assert not as_seen([str(tmp_path / "black.png")], SHAPE, DIGITS, "auto").any()


def test_all_unreadable_files_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(Refused) as refused:
        read_images([str(tmp_path / "none.png"), str(broken)])
    assert [problem.where for problem in refused.value.problems] == [str(tmp_path / "none.png"), str(broken)]


def test_a_model_of_numbers_takes_no_images(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="takes 4 numbers"):
        as_seen([str(drawn(tmp_path / "a.png"))], (4,), OWN, "auto")
