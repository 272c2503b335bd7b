import gzip
import hashlib
import os
import re
import struct
import sys
import urllib.error
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from experiments.config import Refused
from experiments.config.problems import visible
from experiments.config.schema import Data
from experiments.data import Dataset, describe, load, outlines
from experiments.data.checks import ARRAYS, Outline
from experiments.data.sources import keras_datasets, locate, outline, read
from experiments.data.splits import stratified
from tests.composed import MNIST


def config(name: str = "npz", **changes: Any) -> Data:
    return Data(**{"name": name, "scale": 1.0, "path": None, "validation_size": 0, "limit": None, **changes})


def arrays(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    whole = {
        "x_train": rng.integers(0, 255, (20, 4, 4), dtype=np.uint8),
        "y_train": np.arange(20) % 4,
        "x_test": rng.integers(0, 255, (8, 4, 4), dtype=np.uint8),
        "y_test": np.arange(8) % 4,
    }
    return {name: array for name, array in {**whole, **changes}.items() if array is not None}


def save(folder: Path, **changes: Any) -> str:
    np.savez(folder / "my.npz", **arrays(**changes))
    return str(folder / "my.npz")


def refusal(setting: Data) -> str:
    with pytest.raises(Refused) as caught:
        load(setting, 0)
    return str(caught.value)


def test_arrays_are_scaled_and_get_a_channel(tmp_path: Path) -> None:
    dataset = load(config(path=save(tmp_path), scale=255.0), 0)
    assert dataset.input_shape == (4, 4, 1)
    assert dataset.outputs == 4
    assert dataset.train.x.dtype == np.float32
    np.testing.assert_array_equal(dataset.train.x[..., 0], arrays()["x_train"].astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("shape", [(4, 4, 3), (5,), (4, 3)])
def test_colour_features_and_oblong_images_are_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    file = save(tmp_path, x_train=np.ones((20, *shape)), x_test=np.ones((8, *shape)))
    assert load(config(path=file), 0).input_shape == (shape if len(shape) != 2 else (*shape, 1))


def test_labels_may_be_floats_booleans_or_a_column(tmp_path: Path) -> None:
    assert load(config(path=save(tmp_path, y_train=(np.arange(20.0) % 4)[:, None])), 0).train.y[3] == 3
    assert load(config(path=save(tmp_path, y_train=np.arange(20) % 2 > 0, y_test=np.arange(8) % 2 > 0)), 0).outputs == 2


WITH_NAN = np.full((20, 4, 4), np.nan)
DAMAGE = {
    "missing": ({"y_test": None}, "has no y_test; found x_train"),
    "two missing": ({"y_test": None, "x_test": None}, "has no x_test and no y_test"),
    "objects": (
        {"x_train": np.array([[1], [2, 3]], dtype=object)},
        "x_train: holds Python objects, which are not read, as that could run code; save one",
    ),
    "dimensions": ({"x_train": np.ones((20, 2, 2, 2, 2))}, "x_train: got shape (20, 2, 2, 2, 2), expected (n, height"),
    "a number": ({"x_train": np.float32(3)}, "x_train: got shape ()"),
    "text": ({"x_train": np.full((20, 4, 4), "a")}, "x_train: got type <U1, expected numbers"),
    "dates": ({"x_train": np.zeros((20, 4, 4), "M8[s]")}, "x_train: got type datetime64[s], expected numbers"),
    "NaN": ({"x_train": WITH_NAN}, "x_train: holds NaN or infinity"),
    "lengths": ({"y_train": np.arange(19) % 4}, "y_train: got 19 labels for 20 images"),
    "empty": ({"x_test": np.ones((0, 4, 4)), "y_test": np.zeros(0, int)}, "x_test: is empty"),
    "empty training set": (
        {"x_train": np.ones((0, 4, 4)), "y_train": np.zeros(0, int)},
        "x_train: is empty: got shape (0, 4, 4)\n",
    ),
    "other test shape": ({"x_test": np.ones((8, 5, 5))}, "x_test: got images of (5, 5), those of x_train are (4, 4)"),
    "negative": ({"y_train": np.arange(20) % 4 - 1}, "y_train: got the label -1"),
    "fractions": ({"y_train": np.arange(20) / 2}, "y_train: got float64 that are not all whole"),
    "complex labels": (
        {"y_train": (np.arange(20) % 4).astype(complex)},
        "y_train: got type complex128, expected whole numbers from 0; encode the classes: ",
    ),
    "dates as labels": ({"y_train": (np.arange(20) % 4).astype("M8[s]")}, "y_train: got type datetime64[s], expected"),
    "infinite": ({"y_train": np.full(20, np.inf)}, "y_train: got float64 that are not all whole"),
    "no labels": ({"y_train": np.arange(20) * 10**9}, "y_train: got the label 19000000000 with 20 training images"),
    "one-hot": (
        {"y_train": np.eye(4)[np.arange(20) % 4]},
        "got shape (20, 4), expected (n,); of one-hot labels: y_train = y_train.argmax(axis=1)",
    ),
    "one class": ({"y_train": np.full(20, 3)}, "y_train: holds one class only"),
    "unknown class": ({"y_test": np.arange(8)}, "y_test: has the label 7, y_train ends at 3"),
    "unknown classes only": ({"y_test": np.arange(8) + 4}, "y_test: has the label 11, y_train ends at 3\n"),
}


@pytest.mark.parametrize(("changes", "expected"), DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.filterwarnings("ignore:.*ragged nested sequences.*")
def test_damaged_arrays_are_refused(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    assert expected in refusal(config(path=save(tmp_path, **changes))) + "\n"


def test_where_there_are_no_images_nothing_is_held_out_and_labels_are_not_to_blame(tmp_path: Path) -> None:
    nothing = {"x_train": np.ones((0, 4, 4)), "y_train": np.zeros(0, int)}
    for more in ({}, {"x_test": np.ones((0, 4, 4)), "y_test": np.zeros(0, int)}):
        said = refusal(config(path=save(tmp_path, **nothing, **more)))
        assert "hold out" not in said
        assert " y_" not in said
        assert len(said.splitlines()) == 1 + len(more) // 2


HOLES = np.random.default_rng(0).choice([0.5, np.nan], (20, 4, 4), p=[0.98, 0.02])
MENDED = {
    "complex labels": {"y_train": (np.arange(20) % 4).astype(complex), "y_test": np.arange(8) % 4 + 0j},
    "complex": {"x_train": np.ones((20, 4, 4), complex), "x_test": np.ones((8, 4, 4), complex)},
    "numbers as text": {"x_train": np.full((20, 4, 4), "1.5")},
    "some NaN": {"x_train": HOLES},
    "all NaN": {"x_train": WITH_NAN, "x_test": np.full((8, 4, 4), np.inf)},
    "no test set": {"x_test": np.ones((0, 4, 4), np.uint8), "y_test": np.zeros(0, int)},
    "too many labels": {"y_train": np.arange(23) % 4},
    "too many images": {"y_test": np.arange(7) % 4},
    "unknown class": {"y_test": np.arange(8)},
    "one-hot": {"y_train": np.eye(4)[np.arange(20) % 4], "y_test": np.eye(4)[np.arange(8) % 4]},
    "negative": {"y_train": np.arange(20) % 4 - 1, "y_test": np.arange(8) % 4 - 1},
    "fractions": {"y_train": np.arange(20) % 4 / 2, "y_test": np.arange(8) % 4 / 2},
    "five dimensions": {"x_train": np.ones((20, 2, 2, 2, 2)), "x_test": np.ones((8, 2, 2, 2, 2))},
    "one feature": {"x_train": np.ones(20), "x_test": np.ones(8)},
}


@pytest.mark.parametrize("changes", MENDED.values(), ids=MENDED.keys())
def test_a_refusal_gives_the_line_that_mends_the_arrays(tmp_path: Path, changes: dict[str, Any]) -> None:
    known: dict[str, Any] = {"np": np, **arrays(**changes)}
    message = refusal(config(path=save(tmp_path, **changes)))
    lines = re.findall(r": (\w+(?:, \w+)* = .*)", message)
    assert lines
    assert len(lines) == len(set(lines)), "each is given once"
    for line in lines:
        exec(line, known)
    assert load(config(path=save(tmp_path, **{name: known[name] for name in ARRAYS})), 0).outputs in (3, 4)


@pytest.mark.parametrize("name", ARRAYS)
def test_of_an_array_that_is_a_single_value_only_that_is_said(tmp_path: Path, name: str) -> None:
    file = save(tmp_path, **{name: np.float32(3)})
    expected = "(n, height, width[, channels]) or (n, features)" if name[0] == "x" else "(n,)"
    assert refusal(config(path=file)) == f"error: {file}: {name}: got shape (), expected {expected}"


def test_what_is_wrong_with_all_labels_is_mended_by_one_line(tmp_path: Path) -> None:
    names = np.array(["cat", "dog", "owl", "yak"])
    for kind in ("<U3", object):
        labels = {key: names[arrays()[key]].astype(kind) for key in ("y_train", "y_test")}
        message = refusal(config(path=save(tmp_path, **labels)))
        assert (message.count("error: "), message.count("encode the classes: ")) == (2, 1)


def test_all_that_is_wrong_is_reported_at_once(tmp_path: Path) -> None:
    message = refusal(config(path=save(tmp_path, x_train=WITH_NAN, y_test=np.arange(8) - 1)))
    assert "x_train: holds NaN" in message
    assert "y_test: got the label -1" in message


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    file = Path(save(tmp_path))
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not an archive", whole[:500] + bytes(200) + whole[700:]):
        file.write_bytes(damaged)
        assert f"{file}: is damaged, or not an .npz file" in refusal(config(path=str(file)))


def with_header(header: bytes, values: bytes = b"") -> bytes:
    """An .npy file, with a header that may be nonsense."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + values


def header(shape: str = "(20,)", descr: str = "'<i8'") -> bytes:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()


MEMBERS = {
    "huge shape": with_header(header("(10000000000, 4, 4)")),
    "shape beyond 64 bits": with_header(header(f"({10**26},)")),
    "huge type": with_header(header("(1,)", "'<U2000000000'")),
    "negative shape": with_header(header("(-1,)")),
    "shape of text": with_header(header("('a',)")),
    "shape of booleans": with_header(header("(True,)"), bytes(8)),
    "not closed": with_header(b"{'descr': '<i8', 'shape': (20,"),
    "not closed within text": with_header(b"{'descr': '<i8"),
    "deep": with_header(b"(" * 9000),
    "minuses": with_header(b"-" * 9000),
    "code": with_header(b"{'descr': __import__('os').abort()}"),
    "no dictionary": with_header(b"[1, 2]"),
    "type that is none": with_header(header(descr="'zzz'")),
    "type with fields of itself": with_header(header(descr="[('a', 'O'), ('a', 'O')]")),
    "unknown version": b"\x93NUMPY\x09\x00" + bytes(100),
    "too few values": with_header(header(), bytes(8 * 19)),
    "too many values": with_header(header(), bytes(8 * 21)),
    "no array": b"text",
    "nothing": b"",
}


@pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS.keys())
def test_a_damaged_array_is_refused_with_its_file(tmp_path: Path, member: bytes) -> None:
    file = Path(save(tmp_path, y_train=None))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("y_train.npy", member)
    assert f"{file}: is damaged, or not an .npz file" in refusal(config(path=str(file)))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("member", ["x_train", "y_train.npy"])
@pytest.mark.parametrize("content", [b"hello", with_header(header("(20, 4, 4)", "'|u1'"), bytes(320))])
def test_an_archive_with_two_members_for_an_array_is_refused(tmp_path: Path, member: str, content: bytes) -> None:
    file = Path(save(tmp_path))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(member, content)
    message = refusal(config(path=str(file)))
    assert f"{file}: is damaged, or not an .npz file" in message
    assert "once)" in message


def test_an_array_whose_member_lacks_its_ending_is_refused(tmp_path: Path) -> None:
    file = Path(save(tmp_path, y_train=None))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("y_train", b"hello")
    assert "it has members that NumPy would not write, y_train, expected y_train.npy once" in refusal(
        config(path=str(file))
    )


def patched(file: Path, *, flags: int = 0, method: int = 0, version: int = 20) -> None:
    """Change what the archive says of its members: that they are encrypted, or packed by an unknown method."""
    content = bytearray(file.read_bytes())
    for signature, place in ((b"PK\x03\x04", 4), (b"PK\x01\x02", 6)):
        start = content.find(signature)
        while start >= 0:
            struct.pack_into("<HHH", content, start + place, version, flags, method)
            start = content.find(signature, start + 4)
    file.write_bytes(content)


@pytest.mark.parametrize("changes", [{"flags": 1}, {"method": 97}, {"method": 14}, {"method": 12}, {"version": 99}])
def test_a_foreign_archive_is_refused(tmp_path: Path, changes: dict[str, int]) -> None:
    file = Path(save(tmp_path))
    patched(file, **changes)
    assert f"{file}: is damaged, or not an .npz file" in refusal(config(path=str(file)))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), content=st.binary(min_size=1, max_size=8))
def test_a_file_with_wrong_bytes_is_read_or_refused(tmp_path: Path, place: float, content: bytes) -> None:
    file = Path(save(tmp_path))
    whole = file.read_bytes()
    start = int(place * len(whole))
    file.write_bytes(whole[:start] + content + whole[start + len(content) :])
    with suppress(Refused):
        load(config(path=str(file)), 0)


def test_a_file_made_to_fill_the_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = Path(save(tmp_path, x_train=None))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("x_train.npy", "w") as member:
        member.write(with_header(header("(600, 1000, 1000)", "'|u1'")))
        for _ in range(600):
            member.write(bytes(1_000_000))
    assert "made to fill the memory?" in refusal(config(path=str(file)))


def test_arrays_that_do_not_fit_into_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here into what a container may use."""
    own = tmp_path / "own"
    own.write_text("0::/\n")
    (tmp_path / "memory.max").write_text("1000\n")
    monkeypatch.setattr("experiments.system.resources.OWN_GROUPS", str(own))
    monkeypatch.setattr("experiments.system.resources.GROUPS", str(tmp_path))
    assert "needs 0.0 GB of memory, and 0.0 GB are free" in refusal(config(path=save(tmp_path)))


def test_a_file_of_fashion_mnist_that_grows_is_refused(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = cache_fashion_mnist(offline)[0]
    file.write_bytes(gzip.compress(struct.pack(">4I", 2051, 2**31, 2**15, 2**15) + bytes(100)))
    assert f"{file}: needs 2,305,843,009.2 GB" in refusal(config("fashion_mnist"))
    file.write_bytes(gzip.compress(struct.pack(">4I", 2051, 2**31, 2**31, 2) + bytes(100)))  # 2**63 bytes
    assert f"{file}: needs 9,223,372,036.9 GB" in refusal(config("fashion_mnist"))


@pytest.mark.parametrize(("where", "kind"), [("train", "<U5"), ("test", "<U5"), ("train", object), ("train", "S5")])
def test_labels_that_are_text_are_refused_with_the_line_that_encodes_them(
    tmp_path: Path, where: str, kind: Any
) -> None:
    names = np.array(["cat", "dog", "owl", "yak"]).astype(kind)
    plain = arrays()
    texts = {key: names[plain[key]] for key in ("y_train", "y_test")}
    message = refusal(config(path=save(tmp_path, **{f"y_{where}": texts[f"y_{where}"]})))
    line = message.partition("encode the classes: ")[2].partition("\n")[0]
    known: dict[str, Any] = {"np": np, **texts}
    exec(line, known)
    assert known["y_train"].tolist() == plain["y_train"].tolist()
    assert load(config(path=save(tmp_path, y_train=known["y_train"], y_test=known["y_test"])), 0).outputs == 4


@pytest.mark.parametrize(
    ("x", "scale", "told"),
    [
        (1e300, 1.0, "holds values of up to 1e+300, but training is done in float32"),
        (-1e300, 1.0, "holds values of up to 1e+300, but training is done in float32"),
        (1e30, 1e-20, "holds values of up to 1e+30, which divided by data.scale=1e-20 are beyond float32"),
        (np.inf, 1.0, "holds NaN or infinity"),
    ],
)
def test_values_beyond_float32_are_refused(tmp_path: Path, x: float, scale: float, told: str) -> None:
    images = np.ones((20, 4, 4))
    images[3, 2, 1] = x
    assert f"x_train: {told}" in refusal(config(path=save(tmp_path, x_train=images), scale=scale))


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e300])
def test_a_scale_beyond_float32_is_refused(scale: float) -> None:
    with pytest.raises(ValidationError, match="scale"):
        config(scale=scale)


def test_the_data_is_described_in_a_line(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 5, 3), dtype=np.uint8)
    images[0, 0, 0, 0], images[1, 0, 0, 0] = 0, 255
    file = save(tmp_path, x_train=images, x_test=images[:8])
    scaled = describe(load(config(path=file, scale=255.0, validation_size=5), 0))
    assert scaled.startswith("npz: 15 + 5 + 8 images 3x5x3, 4 classes, values 0")
    assert "\n" not in scaled
    assert scaled.endswith(", one validation image is 20 points of accuracy")
    few, enough = (describe(load(config("digits", scale=16.0, validation_size=size), 0)) for size in (99, 100))
    assert few.endswith(", 10 classes, values 0 to 1, one validation image is 1 point of accuracy")
    assert enough.endswith(", 10 classes, values 0 to 1")
    one = describe(load(config("digits", scale=16.0, validation_size=1), 0))
    assert one.endswith(", one validation image is 100 points of accuracy")
    line, warning = describe(load(config(path=file), 0)).splitlines()
    assert line == "npz: 20 + 8 images 3x5x3, 4 classes, values 0 to 255"
    assert warning == "warning: data.scale: values reach 255, networks train best on values near 1; data.scale=255"
    assert describe(load(config("digits"), 0)) == "digits: 1,438 + 359 images 8x8, 10 classes, values 0 to 16\n" + (
        "warning: data.scale: values reach 16, networks train best on values near 1; data.scale=16"
    )
    rows = save(tmp_path, x_train=np.ones((20, 6)), x_test=np.ones((8, 6)))
    assert describe(load(config(path=rows), 0)) == "npz: 20 + 8 rows of 6 values, 4 classes, values 1 to 1"


def test_labels_with_gaps_are_warned_of(tmp_path: Path) -> None:
    plain = arrays(x_train=np.ones((20, 6)), x_test=np.ones((8, 6)))
    plain |= {"y_train": plain["y_train"] * 2 + 1, "y_test": plain["y_test"] * 2 + 1}
    _, warning = describe(load(config(path=save(tmp_path, **plain), limit=19), 0)).splitlines()
    assert "labels go up to 7, so there are 8 classes, but none is 0, 2, 4, 6; to number them from 0" in warning
    known: dict[str, Any] = {"np": np, **plain}
    exec(warning.partition("without gaps: ")[2], known)
    numbered = save(tmp_path, **{key: known[key] for key in ARRAYS})
    assert describe(load(config(path=numbered), 0)) == "npz: 20 + 8 rows of 6 values, 4 classes, values 1 to 1"


def test_what_is_no_ordinary_file_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo.npz")
    for path in (str(tmp_path / "fifo.npz"), "/dev/zero", "/dev/stdin"):
        assert f"data.path: there is no file {path}: it is a pipe, a socket or a device" in refusal(config(path=path))
    assert "it is a folder" in refusal(config(path=str(tmp_path)))
    for path in ("x" * 300, "a\0b"):
        assert f"data.path: there is no file {visible(path)}" in refusal(config(path=path))
    monkeypatch.setenv("EXPERIMENTS_DATA_DIR", str(tmp_path))
    (tmp_path / "fifo.npz").rename(tmp_path / "npz.npz")
    assert "data.path: is not set" in refusal(config())


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing.npz"):
        assert f"data.path: there is no file {path}" in refusal(config(path=str(path)))


@pytest.mark.parametrize(("limit", "size"), [(None, 0.2), (100, 20), (100, 0.25), (10**6, 1)])
def test_validation_images_are_taken_from_the_training_set(limit: int | None, size: float) -> None:
    whole = load(config("digits", limit=limit), 1)
    split = load(config("digits", limit=limit, validation_size=size), 1)
    assert split.validation is not None
    assert len(split.validation) == (size if size >= 1 else round(size * len(whole.train)))
    together = np.concatenate([split.train.x, split.validation.x]).reshape(len(whole.train), -1)
    np.testing.assert_array_equal(
        together[np.lexsort(together.T)], (x := whole.train.x.reshape(len(together), -1))[np.lexsort(x.T)]
    )
    np.testing.assert_array_equal(split.test.x, whole.test.x)


def test_a_validation_set_that_leaves_nothing_is_refused() -> None:
    for size, limit, what, works in (
        (100, 100, "got 100, but there are 100 training images, as data.limit=100 keeps no more: all would be", 0.2),
        (300, 200, "got 300, but there are 200 training images, as data.limit=200 keeps no more: all would be", 0.2),
        (0.001, 20, "got 0.001, but there are 20 training images, as data.limit=20 keeps no more: none would be", 0.2),
        (2, 2, "got 2, but there are 2 training images", 0.5),
        (0.1, 1, "got 0.1, but there is 1 training image, as data.limit=1 keeps no more: none would be held out", 0),
        (1438, None, "got 1438, but there are 1438 training images: all would be held out, and none left", 0.2),
    ):
        with pytest.raises(Refused) as refused:
            load(config("digits", limit=limit, validation_size=size), 0)
        [problem] = refused.value.problems
        assert what in problem.what
        assert problem.remedy == f"data.validation_size={works}"
        load(config("digits", limit=limit, validation_size=works), 0)


labels = st.lists(st.integers(0, 12), min_size=2, max_size=300).map(lambda y: np.array(y, np.int64))


@settings(max_examples=150, deadline=None)
@given(y=labels, part=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_stratified_draws_each_class_by_its_share(y: Any, part: float, seed: int) -> None:
    count = round(part * len(y))
    drawn, rest = stratified(y, count, seed)
    assert len(drawn) == count
    np.testing.assert_array_equal(np.sort(np.concatenate([drawn, rest])), np.arange(len(y)))
    assert (np.diff(drawn) > 0).all()
    assert (np.diff(rest) > 0).all()
    shares = np.bincount(y) * count / len(y)
    assert (abs(np.bincount(y[drawn], minlength=len(shares)) - shares) < 1).all()
    np.testing.assert_array_equal(drawn, stratified(y, count, seed)[0])


def test_another_seed_draws_other_images() -> None:
    y = np.arange(100) % 10
    assert not np.array_equal(stratified(y, 30, 0)[0], stratified(y, 30, 1)[0])


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network; the empty folder where Keras's cache would be."""

    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("EXPERIMENTS_DATA_DIR", raising=False)
    return tmp_path / "datasets"


def idx(array: Any) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 2048 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def cache_fashion_mnist(folder: Path) -> list[Path]:
    files = [folder / name for name in keras_datasets.FILES["fashion_mnist"]]
    files[0].parent.mkdir(parents=True)
    for file, name in zip(files, ARRAYS, strict=True):
        file.write_bytes(gzip.compress(idx(arrays()[name])))
    return files


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_data_that_is_not_to_be_had_is_refused_with_remedies(offline: Path, name: str) -> None:
    message = refusal(config(name))
    for remedy in ("$EXPERIMENTS_DATA_DIR", "data.path=FILE", "try  data=digits"):
        assert remedy in message


def test_fashion_mnist_comes_from_the_four_files_of_keras(offline: Path) -> None:
    cache_fashion_mnist(offline)
    dataset: Dataset = load(config("fashion_mnist"), 0)
    np.testing.assert_array_equal(dataset.train.x[..., 0], arrays()["x_train"])
    np.testing.assert_array_equal(dataset.test.y, arrays()["y_test"])


@pytest.mark.parametrize("number", range(4))
def test_a_missing_file_of_fashion_mnist_is_noticed(offline: Path, number: int) -> None:
    files = cache_fashion_mnist(offline)
    files[number].unlink()
    assert str(files[number]) in refusal(config("fashion_mnist"))


@pytest.mark.parametrize("number", range(4))
def test_a_damaged_file_of_fashion_mnist_is_named(offline: Path, number: int) -> None:
    file = cache_fashion_mnist(offline)[number]
    file.write_bytes(file.read_bytes()[:-20])
    assert f"{file}: is damaged" in refusal(config("fashion_mnist"))


def outline_of(whole: Data) -> Outline:
    dataset = load(whole, 0)
    return Outline(dataset.digest, len(dataset.train), len(dataset.test))


@pytest.mark.parametrize(
    "changes", [{}, {"limit": 6}, {"limit": 999}, {"validation_size": 5}, {"validation_size": 0.1, "limit": 12}]
)
def test_the_sizes_of_parts_are_known_before_they_are_drawn(tmp_path: Path, changes: dict[str, Any]) -> None:
    wanted = config(path=save(tmp_path), **changes)
    dataset = load(wanted, 0)
    assert outlines([(wanted, "classification")]) == {(wanted, "classification"): (dataset.digest, dataset.sizes)}


def test_the_known_digest_is_that_of_scikit_learns_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXPERIMENTS_DATA_DIR", raising=False)
    assert outline(config("digits")) == outline_of(config("digits"))
    file = save(tmp_path)
    own = config("digits", path=file)
    assert outline(own) == outline_of(own)
    assert outline(own).digest == read(own)[1] != outline(config("digits")).digest


@pytest.mark.mnist
def test_the_known_digest_is_that_of_the_original_mnist() -> None:
    """The sha256 of the four IDX files that LeCun published, unpacked."""
    published = [
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ]
    with np.load(MNIST) as raw:
        assert [hashlib.sha256(idx(raw[name])).hexdigest() for name in ARRAYS] == published
    load(config("mnist", path=str(MNIST)), 0)  # and so these arrays have the digest that sources.py knows


@pytest.mark.mnist
def test_tampered_mnist_is_refused(tmp_path: Path) -> None:
    with np.load(MNIST) as raw:
        tampered = {name: raw[name] for name in ARRAYS}
    tampered["y_train"][0] = 6
    np.savez(tmp_path / "mnist.npz", **tampered)
    message = refusal(config("mnist", path=str(tmp_path / "mnist.npz"), scale=255.0))
    assert "differs from the standard copy of mnist" in message
    remedy = dict(override.split("=") for override in message.split("try  ")[1].split())
    accepted = load(config(remedy["data"], path=remedy["data.path"], scale=float(remedy["data.scale"])), 0)
    assert accepted.train.y[0] == 6


def test_all_seeds_are_measured_on_the_same_test_images_whose_numbers_are_kept() -> None:
    whole = load(config("digits"), 0)
    first, second = (load(config("digits", limit=50, validation_size=10), seed) for seed in (0, 1))
    np.testing.assert_array_equal(first.test.x, second.test.x)
    assert not np.array_equal(first.train.x, second.train.x)
    for part, of in ((first.test, whole.test), (first.train, whole.train), (first.validation, whole.train)):
        assert part is not None
        assert part.numbers is not None
        np.testing.assert_array_equal(part.x, of.x[part.numbers])


def test_text_without_bytes_or_that_is_none_is_refused(tmp_path: Path) -> None:
    """The first would become a gigabyte, the second raises an error that no text does."""
    x, file = np.zeros((40, 8, 8), np.uint8), tmp_path / "mine.npz"
    wrong = np.frombuffer(b"\xff\xff\xff\x7f" * 40, "<U1")
    np.savez(file, x_train=x, y_train=wrong, x_test=x, y_test=np.zeros(40, int))
    with pytest.raises(Refused, match="mine"):
        read(config(path=str(file)))
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            header = "{'descr': '|S0', 'fortran_order': False, 'shape': (1000000000,), }".ljust(117) + "\n"
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00v\x00" + header.encode())
    with pytest.raises(Refused, match="1,000,000,000 values without any bytes"):
        read(config(path=str(file)))


def test_values_that_were_scaled_before_are_warned_of(tmp_path: Path) -> None:
    x, y = np.ones((10, 4)), np.arange(10) % 2
    file = save(tmp_path, x_train=x, y_train=y, x_test=x, y_test=y)
    told = describe(load(config(path=file, scale=255.0), 0)).splitlines()
    assert told[1:] == [
        "warning: data.scale: values reach only 0.003922, networks train best on values near 1; data.scale=1"
    ]
    assert len(describe(load(config(path=file), 0)).splitlines()) == 1


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_colour_photographs_are_read_from_a_file_of_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, classes: int
) -> None:
    """As Keras gives them: three channels, labels in a column."""
    random = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", 2 * classes), ("test", classes)):
        parts[f"x_{part}"] = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        parts[f"y_{part}"] = (np.arange(count) % classes).reshape(-1, 1)
    np.savez(tmp_path / f"{name}.npz", **parts)
    monkeypatch.setenv("EXPERIMENTS_DATA_DIR", str(tmp_path))
    dataset = load(config(name, scale=255.0), 0)
    assert (dataset.outputs, dataset.input_shape) == (classes, (32, 32, 3))
    assert describe(dataset).startswith(
        f"{name}: {2 * classes} + {classes} images 32x32x3, {classes} classes, values 0"
    )


def test_what_keras_has_in_its_cache_is_not_looked_for_elsewhere(offline: Path) -> None:
    """Keras itself reads it, when it is needed."""
    file = offline / keras_datasets.FILES["cifar10"][0]
    with pytest.raises(Refused, match=r"cifar10 was not found, and cannot be downloaded"):
        locate(config("cifar10"))
    file.parent.mkdir(parents=True)
    file.touch()
    assert locate(config("cifar10")) is None


OWN = """
import numpy as np
calls = []
def load():
    calls.append(1)
    x, y = np.arange(160).reshape(40, 4), np.arange(40) % 4
    return (x[:30], y[:30]), (x[30:], y[30:])
def one(): return 3
def takes(number): return number
def raises(): raise ValueError("no rows")
def ends(): raise SystemExit(0)
def masked():
    (x, y), test = load()
    return (np.ma.masked_less(x, 3), y), test
def pairs(): return (1, 2), (3, 4)
number = 5
"""


def test_a_function_of_a_trusted_package_gives_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_data.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    wanted = config("custom", function="own_data.load")
    with pytest.raises(Refused, match=r"data\.function: own_data\.load is not one of .*\n.*trust=\[own_data\]"):
        load(wanted, 0)
    assert "own_data" not in sys.modules
    dataset = load(wanted, 0, ["own_data"])
    assert (dataset.sizes, dataset.outputs, dataset.source) == ((30, 0, 10), 4, "own_data.load")
    assert outline(wanted, ["own_data"]) == Outline(dataset.digest, 30, 10)
    for name, told in {
        "own_data.none": "cannot import own_data.none",
        "own_data.number": "own_data.number is no function",
        "own_data.one": "own_data.one returned int, expected",
        "own_data.takes": "own_data.takes(number) takes arguments, expected a function that is called without any",
        "own_data.raises": f"own_data.raises raised ValueError: no rows ({tmp_path}/own_data.py, line ",
        "own_data.ends": "own_data.ends ended with sys.exit(0)",
        "own_data.masked": "own_data.masked returned masked arrays (x_train); fill them",
        "load": "got load, expected it with its package: mypackage.load",
        "own_data.pairs": "x_train: got shape (), expected",
    }.items():
        with pytest.raises(Refused, match=re.escape(told)):
            load(config("custom", function=name), 0, ["own_data"])
    del sys.modules["own_data"]
