import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from weakref import ref

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from experiments.config import Refused
from experiments.config.schema import Data
from experiments.data import Images
from experiments.data.images import read_images, to_input

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
    files = [str(tmp_path / "none.png"), str(broken)]
    assert [problem.where for problem in refused.value.problems] == [f"images: {file}" for file in files]


def test_a_file_that_is_not_there_is_named_as_it_was_typed_with_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused) as refused:
        read_images(["nope.png", f"{tmp_path}/a.png"])
    relative, absolute = map(str, refused.value.problems)
    assert relative == f"error: images: nope.png: there is no such file in the current folder, {tmp_path}"
    assert absolute == f"error: images: {tmp_path}/a.png: there is no such file"


def test_one_picture_at_a_time_is_in_memory(tmp_path: Path) -> None:
    file = str(drawn(tmp_path / "a.png"))
    seen: list[ref[Image.Image]] = []
    for picture in read_images([file] * 3):
        assert [known() for known in seen] == [None] * len(seen)
        seen.append(ref(picture))
        del picture
    assert len(seen) == 3


def test_pictures_that_are_too_large_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.data.images.MOST_PIXELS", 2 * 28 * 28)
    file = str(drawn(tmp_path / "a.png"))
    assert len(list(read_images([file] * 2))) == 2
    with pytest.raises(Refused, match="images: are of more than"):
        read_images([file] * 3)


def test_a_model_of_numbers_takes_no_images(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="takes 4 numbers"):
        as_seen([str(drawn(tmp_path / "a.png"))], (4,), OWN, "auto")


def test_16_bits_and_floats_are_scaled_not_clipped(tmp_path: Path) -> None:
    drawn(tmp_path / "8.png", (90, 90), inverted=True)
    pixels = np.asarray(Image.open(tmp_path / "8.png"))
    wide = pixels.astype(np.uint16) * 257
    Image.fromarray(wide).save(tmp_path / "16.png")
    Image.fromarray(wide).save(tmp_path / "16.tif")
    Image.fromarray(wide.astype(np.int32)).save(tmp_path / "32.tif")
    for name, white in (("one", 1.0), ("byte", 255.0), ("word", 65535.0)):
        Image.fromarray((pixels / 255 * white).astype(np.float32)).save(tmp_path / f"{name}.tif")
    names = ("8.png", "16.png", "16.tif", "32.tif", "one.tif", "byte.tif", "word.tif")
    first, *others = read_images([str(tmp_path / name) for name in names])
    for name, other in zip(names[1:], others, strict=True):
        np.testing.assert_array_equal(np.asarray(other), np.asarray(first), err_msg=name)


def test_values_of_unknown_range_are_refused(tmp_path: Path) -> None:
    for name, values in (("below", -3.0), ("above", 1e6), ("nan", np.nan)):
        Image.fromarray(np.array([[0, values]], np.float32)).save(tmp_path / f"{name}.tif")
        with pytest.raises(Refused, match="expected 0 to 1, to 255 or to 65535"):
            read_images([str(tmp_path / f"{name}.tif")])


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) + b"".join(chunks)
    )


PALETTE = struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 8, 0, 4, 1, 1, 10**9, 0)
BROKEN = {
    "short header.png": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\0\0\0\1"),
    "bomb.png": png(100_000, 100_000, chunk(b"IDAT", b"")),
    "large.png": png(10_000, 10_000, chunk(b"IDAT", b"")),
    "text.png": png(1, 1, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(70_000_000))), chunk(b"IDAT", b"")),
    "palette.bmp": b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + PALETTE,
    "icon.icns": b"icns" + struct.pack(">I", 16) + b"ic07" + struct.pack(">I", 2**31),
    "nothing.jpg": b"",
    "cut.gif": b"GIF89a\x10\x00",
    "cut.tif": b"II*\x00\x08\x00\x00\x00\xff\xff",
    "text.png.txt": b"no image",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_refused_with_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(Refused) as refused:
        read_images([str(tmp_path / name)])
    [problem] = refused.value.problems
    assert problem.where == f"images: {tmp_path / name}"
    assert "is no readable image (" in problem.what


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(["png", "jpeg", "bmp", "gif", "tiff", "webp", "ppm", "icns", "tga"]),
    place=st.floats(0, 1),
    content=st.binary(min_size=1, max_size=8),
)
def test_an_image_with_wrong_bytes_is_read_or_refused(tmp_path: Path, form: str, place: float, content: bytes) -> None:
    file = tmp_path / f"image.{form}"
    Image.fromarray(np.arange(1024, dtype=np.uint32).astype(np.uint8).reshape(32, 32)).save(file, form)
    whole = file.read_bytes()
    start = int(place * len(whole))
    file.write_bytes(whole[:start] + content + whole[start + len(content) :])
    with suppress(Refused):
        as_seen([str(file)], SHAPE, DIGITS, "auto")


def test_what_is_no_ordinary_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    files = [str(tmp_path / "fifo.png"), str(tmp_path), "/dev/zero", "a\0b", "x" * 300]
    with pytest.raises(Refused) as refused:
        read_images(files)
    assert [problem.where for problem in refused.value.problems] == [f"images: {file}" for file in files]


@pytest.mark.parametrize("channels", [2, 4])
def test_a_model_of_other_channels_takes_no_files(tmp_path: Path, channels: int) -> None:
    with pytest.raises(Refused, match=f"takes images of {channels} channels"):
        as_seen([str(drawn(tmp_path / "a.png"))], (8, 8, channels), OWN, "auto")


def test_dots_that_vanish_are_no_error(tmp_path: Path) -> None:
    pixels = np.zeros((3000, 3000), np.uint8)
    pixels[::2999, ::2999] = 60
    Image.fromarray(pixels).save(tmp_path / "dots.png")
    assert as_seen([str(tmp_path / "dots.png")], SHAPE, DIGITS, False).shape == (1, *SHAPE)


def test_no_program_is_started_for_postscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, file = tmp_path / "gs", tmp_path / "a.png"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(Refused, match=r"a\.png: is no readable image"):
        list(read_images([str(file)]))
    assert not (tmp_path / "started").exists()


def test_the_home_folder_can_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [picture.size for picture in read_images(["~/a.png"])] == [(8, 8)]
