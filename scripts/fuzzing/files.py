"""Files that a command meets: YAML trees, data, images, right ones and damaged ones; and how each is made."""

import io
import os
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from fuzzing.case import FOLDER
from fuzzing.words import drawn_from, light_overrides, texts

# What hostile files would run: it writes a file, by which the oracle notices.
CANARY = "EXPERIMENTS_FUZZ_CANARY"
EVIL = f"""
import os
open(os.environ["{CANARY}"], "a").write("imported\\n")
class Boom:
    def __init__(self, *args, **kwargs): open(os.environ["{CANARY}"], "a").write("called\\n")
boom = Boom
"""
Recipe = list[Any]
Damage = list[Any]

# --- makers: they turn a recipe into a file -------------------------------------------------------------------------


def make(path: Path, maker: str, *arguments: Any) -> None:
    """Carry out a recipe."""
    path.parent.mkdir(parents=True, exist_ok=True)
    MAKERS[maker](path, *arguments)


def damaged(content: bytes, damages: Sequence[Damage]) -> bytes:
    """Damage bytes; places are given as fractions of the length."""
    data = bytearray(content)
    for how, place, *more in damages:
        at = int(place * len(data))
        if how == "flip" and data:
            data[min(at, len(data) - 1)] ^= 1 << more[0]
        elif how == "cut":
            del data[at:]
        elif how == "drop":
            del data[at : at + more[0]]
        elif how == "put":
            data[at:at] = bytes.fromhex(more[0])
        elif how == "replace":
            data = bytearray(bytes(data).replace(bytes.fromhex(more[0]), bytes.fromhex(more[1])))
    return bytes(data)


def _text(path: Path, content: str, coding: str = "utf-8") -> None:
    path.write_bytes(content.encode(coding, "surrogateescape" if coding == "utf-8" else "replace"))


def _array(spec: dict[str, Any]) -> Any:
    """An array from plain data: shape, dtype, how it is filled, and single values."""
    chance = np.random.default_rng(spec.get("seed", 0))
    shape, fill = tuple(spec["shape"]), spec.get("fill", "pixels")
    count = int(np.prod(shape, dtype=np.int64))
    flat: Any = chance.integers(0, 17, count) if fill == "pixels" else np.arange(count) % spec.get("classes", 10)
    if fill == "constant":
        flat = np.full(count, spec["value"])
    with np.errstate(all="ignore"):
        flat = flat.astype(spec.get("dtype", "uint8")) if spec.get("dtype") != "object" else flat.astype(object)
        for place, value in spec.get("values", []):
            if count:
                flat[int(place * (count - 1))] = np.array([value], dtype="float64").astype(flat.dtype)[0]
    shaped = flat.reshape(shape)
    return np.asfortranarray(shaped) if spec.get("fortran") else shaped


def _npz(path: Path, arrays: dict[str, Any], zipped: str = "", damages: Sequence[Damage] = ()) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA if zipped == "lzma" else zipfile.ZIP_DEFLATED) as archive:
        for name, spec in arrays.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), _npy(spec))
        if zipped == "traversal":
            archive.writestr("../../escaped.npy", _npy({"shape": [1]}))
    content = buffer.getvalue()
    if zipped in ("encrypted", "method", "version"):
        content = _with_odd_headers(content, zipped)
    elif zipped == "prefixed":
        content = b"#!/bin/sh\n" * 5 + content
    path.write_bytes(damaged(content, damages))


def _npy(spec: Any) -> bytes:
    """The bytes of an array; of a text: a header that says it; of bytes in hex: themselves."""
    if isinstance(spec, dict):
        buffer = io.BytesIO()
        np.save(buffer, _array(spec), allow_pickle=True)
        return buffer.getvalue()
    if spec.startswith("hex:"):
        return bytes.fromhex(spec[4:])
    header = bytes(spec.encode("latin-1", "replace"))
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + b"\0" * 64


def _with_odd_headers(content: bytes, how: str) -> bytes:
    data = bytearray(content)
    for signature, flags, method, version in ((b"PK\x03\x04", 6, 8, 4), (b"PK\x01\x02", 8, 10, 6)):
        at = data.find(signature)
        while at >= 0:
            if how == "encrypted":
                data[at + flags] |= 1
            elif how == "method":
                data[at + method] = 97
            else:
                data[at + version] = 255
            at = data.find(signature, at + 4)
    return bytes(data)


def _image(path: Path, mode: str, size: Sequence[int], kind: str, damages: Sequence[Damage] = ()) -> None:
    from PIL import Image

    width, height = size
    pixels = np.random.default_rng(0).integers(0, 255, (height, width), np.uint8)
    image = Image.fromarray(pixels).convert("L")
    buffer = io.BytesIO()
    try:
        image.convert(mode).save(buffer, kind)
    except (OSError, ValueError):  # the format does not know this mode
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
    path.write_bytes(damaged(buffer.getvalue(), damages))


def _fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _folder(path: Path) -> None:
    path.mkdir(exist_ok=True)


def _bytes(path: Path, content: str, damages: Sequence[Damage] = ()) -> None:
    path.write_bytes(damaged(bytes.fromhex(content), damages))


def _big(path: Path, unit: str, times: int) -> None:
    path.write_text(unit * times)


def _mode(path: Path, mode: int) -> None:
    path.chmod(mode)


def _evil(path: Path) -> None:
    path.write_text(EVIL)


MAKERS: dict[str, Callable[..., None]] = {
    "text": _text,
    "npz": _npz,
    "image": _image,
    "fifo": _fifo,
    "link": _link,
    "folder": _folder,
    "bytes": _bytes,
    "big": _big,
    "mode": _mode,
    "evil": _evil,
}

# --- strategies: they draw recipes ----------------------------------------------------------------------------------

fractions = st.floats(0, 1, width=16)
headers = drawn_from("headers") | st.sampled_from(["-" * 9000, "(" * 300, "{'a': " * 200])
yaml_values = drawn_from("yaml_values") | st.sampled_from(["9" * 5000, "'" + "x" * 300 + "'"])
# A few lines that make a gigabyte when they are expanded.
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
wholes = drawn_from("yaml_files") | st.sampled_from(["[" * 2000, "{a: " * 500, BOMB])
heads = st.just("# @package _global_\n") | drawn_from("yaml_heads") | st.just("# @package " + "x." * 300 + "y\n")
places = st.just("experiment/x.yaml") | drawn_from("yaml_places")
damages = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), fractions, st.integers(0, 7)).map(list),
        st.tuples(st.just("flip"), fractions, st.integers(0, 7)).map(list),
        st.tuples(st.just("cut"), fractions).map(list),
        st.tuples(st.just("drop"), fractions, st.integers(1, 40)).map(list),
        st.tuples(st.just("put"), fractions, st.binary(min_size=1, max_size=8).map(bytes.hex)).map(list),
    ),
    min_size=1,
    max_size=4,
)
maybe_damaged: st.SearchStrategy[list[Damage]] = st.one_of(st.just([]), damages)
not_a_file = st.sampled_from([["fifo"], ["folder"], ["link", "/dev/zero"], ["link", "/dev/null"], ["link", "nowhere"]])
odd_files = st.one_of(
    not_a_file,
    st.sampled_from([["link", "/proc/self/mem"], ["link", "."], ["bytes", ""], ["text", "\n"], ["text", "\x00" * 9]]),
    st.binary(max_size=30).map(lambda content: ["bytes", content.hex()]),
)


@st.composite
def _arrays(draw: st.DrawFn) -> dict[str, Any]:
    """The four arrays of a data set of ours, some with something odd."""
    classes = draw(st.sampled_from([10, 10, 3, 2, 1]))
    pixels = draw(st.sampled_from([[8, 8], [8, 8], [5, 4, 3], [6], [1, 1], [28, 28, 1]]))
    found: dict[str, Any] = {}
    for part, count in (("train", 60), ("test", 30)):
        found[f"x_{part}"] = {"shape": [count, *pixels], "dtype": "uint8"}
        found[f"y_{part}"] = {"shape": [count], "fill": "labels", "classes": classes}
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(found)))
        odd = draw(st.integers(0, 7))
        if odd == 0 or not isinstance(found[name], dict):
            found[name] = draw(st.one_of(headers, st.binary(max_size=40).map(lambda x: f"hex:{x.hex()}")))
        elif odd == 1:
            found[name]["dtype"] = draw(drawn_from("dtypes"))
        elif odd == 2:
            found[name]["shape"] = draw(
                st.sampled_from(
                    [[], [0], [60], [60, 8], [0, 8, 8], [60, 0, 8], [1], [59, 8, 8], [60, 1], [2, 2, 2, 2, 2, 2]]
                )
            )
        elif odd < 5:
            some = st.sampled_from(
                [-1.0, 1e300, 5e-324, 0.5, 255.0, 1e9, 9.2e18, float("nan"), float("inf"), -1e300, 11.0]
            )
            found[name]["values"] = draw(st.lists(st.tuples(fractions, some).map(list), min_size=1, max_size=3))
            found[name]["dtype"] = draw(st.sampled_from(["float64", "float32", "int64", "float16"]))
        elif odd == 5:
            found[name] |= {"fill": "constant", "value": draw(st.sampled_from([0, 1, 1e30, float("nan"), -5, 1e-40]))}
            found[name]["dtype"] = draw(st.sampled_from(["float64", "float32", "int64"]))
        elif odd == 6:
            found[draw(st.sampled_from(["x", "x_train2", "../x", "X_TRAIN"]))] = found.pop(name)
        else:
            found[name]["fortran"] = True
    return found


@st.composite
def data_files(draw: st.DrawFn) -> tuple[list[Recipe], list[str]]:
    """A data file, and the arguments that name it."""
    name = draw(
        st.sampled_from(["my.npz"] * 6 + ["my data.npz", "ü漢.npz", "a=b,c.npz", "my.txt", "#?%.npz", "x\x1b[2J.npz"])
    )
    zipped = draw(st.sampled_from([""] * 10 + ["lzma", "traversal", "encrypted", "method", "version", "prefixed"]))
    recipe: Recipe = [name, "npz", draw(_arrays()), zipped, draw(st.one_of(st.just([]), maybe_damaged))]
    if draw(st.integers(0, 6)) == 0:
        recipe = [name, *draw(odd_files)]
    arguments = ["data=npz", f"data.path='{name}'", "epochs=1", "model.layer_sizes=[8]"]
    if draw(st.integers(0, 3)) == 0:
        arguments += draw(
            st.sampled_from(
                ["data.scale=1e-300", "data.scale=1e300", "data.validation_size=0.5", "data.limit=5", "model=convnet"]
            ).map(lambda text: [text])
        )
    return [recipe], arguments


@st.composite
def image_files(draw: st.DrawFn) -> tuple[list[Recipe], list[str]]:
    """Image files, and the arguments of `predict` that name them."""
    recipes: list[Recipe] = []
    for number in range(draw(st.integers(1, 2))):
        name = draw(
            st.sampled_from(["a.png", "b c.png", "ü.jpg", "x=1,2.gif", "d.bmp", "e\x1b[31m.png", "no", "f.svg"])
        )
        if draw(st.integers(0, 3)) == 0:
            recipe: Recipe = [f"{number}{name}", *draw(odd_files)]
        else:
            mode = draw(st.sampled_from(["L", "RGB", "RGBA", "LA", "P", "1", "I;16", "I", "F", "CMYK", "HSV"]))
            size = draw(st.sampled_from([[8, 8], [28, 28], [1, 1], [1, 300], [200, 100], [3000, 2]]))
            kind = draw(
                st.sampled_from(["PNG", "PNG", "TIFF", "GIF", "JPEG", "BMP", "ICO", "PPM", "WEBP", "TGA", "ICNS"])
            )
            recipe = [f"{number}{name}", "image", mode, size, kind, draw(maybe_damaged)]
        recipes.append(recipe)
    names = ",".join(f"'{recipe[0]}'" for recipe in recipes)
    return recipes, [f"images=[{names}]"]


@st.composite
def yaml_texts(draw: st.DrawFn) -> str:
    """A YAML file that may be a preset, or anything else."""
    head = draw(heads)
    if draw(st.integers(0, 3)) == 0:
        return f"{head}{draw(st.one_of(wholes, texts))}"
    lines = []
    if draw(st.integers(0, 2)) == 0:
        found = draw(
            st.one_of(st.lists(drawn_from("yaml_defaults"), max_size=3), st.sampled_from(["3", "{a: 1}", "null", "x"]))
        )
        lines.append("defaults:\n  " + "\n  ".join(found) if isinstance(found, list) else f"defaults: {found}")
    for _ in range(draw(st.integers(0, 3))):
        key, value = draw(drawn_from("yaml_keys")), draw(yaml_values)
        if key == "epochs" and len(value) > 1000:
            value = "9"
        lines.append(
            f"{key}: {value}" if draw(st.integers(0, 4)) else f"{key}:\n  {draw(drawn_from('yaml_keys'))}: {value}"
        )
    return "\n".join([f"{head}{lines[0]}" if lines else head, *lines[1:]]) + "\n"


@st.composite
def yaml_folders(draw: st.DrawFn) -> tuple[list[Recipe], list[str]]:
    """A config folder, and arguments that choose its files."""
    recipes: list[Recipe] = []
    chosen = []
    for place in draw(st.lists(places, min_size=1, max_size=2, unique=True)):
        content = draw(yaml_texts())
        coding = draw(st.sampled_from(["utf-8"] * 9 + ["utf-16", "latin-1"]))
        recipe = [f"cd/{place}", "text", content, coding]
        if draw(st.integers(0, 14)) == 0:
            recipe = [f"cd/{place}", *draw(not_a_file)]
        recipes.append(recipe)
        group, _, name = place.rpartition("/")
        name = name.removesuffix(".yaml").removesuffix(".yml")
        if group and not group.startswith("hydra"):
            chosen.append(f"{group}={name}" if group != "callbacks" else f"callbacks=[{name}]")
    recipes.append(["evilmod.py", "evil"])
    folder = draw(
        st.sampled_from(
            ["cd"] * 12
            + ["./cd/", f"{FOLDER}/cd", "cd/experiment", ".", "cd/../cd", "evilmod.py", "file://cd", "pkg://evilmod"]
        )
    )
    arguments = ["data=digits", "data.limit=100", "epochs=1", "model.layer_sizes=[8]"][
        : draw(st.sampled_from([4, 4, 4, 2, 0]))
    ]
    more = draw(st.lists(light_overrides("run"), max_size=1)) if draw(st.integers(0, 4)) == 0 else []
    return recipes, [draw(st.sampled_from(["--config-dir", "--config-dir", "-cd"])), folder, *arguments, *chosen, *more]
