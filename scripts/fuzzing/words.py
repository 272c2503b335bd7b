"""Command lines: overrides, options, and what people type by mistake or on purpose."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from fuzzing.case import RUN, SWEEP

CONF = Path(__file__).resolve().parents[2] / "conf"
MATERIAL: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "material.yaml").read_text(encoding="utf-8"))
BASE = ["data=digits", "model.layer_sizes=[8]"]
# Keys whose values, where they can be used, decide how long a run takes, and the largest that is fast enough.
LARGEST = {"epochs": 3, "layer_sizes": 3000, "units": 3000, "filters": 64, "kernel_size": 9, "workers": 4}
SPECIAL = "[]{}()$:,=\\'\"@#~+-?*%!|&<>;/._ \tabzAZ019äß漢🙂\u00a0\u202e\u2028\x01\x1b\x07\x7f\x9b\udcff"


def drawn_from(*names: str) -> st.SearchStrategy[Any]:
    """One of the entries of `material.yaml` under these keys."""
    return st.sampled_from([entry for name in names for entry in MATERIAL[name]])


texts = st.one_of(st.text(st.sampled_from(SPECIAL), max_size=12), drawn_from("texts"), st.just("x" * 300))
numbers = st.one_of(
    st.integers(-3, 20).map(str),
    drawn_from("numbers"),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.just("1" + "0" * 4400),
)
interpolations, functions, objects = drawn_from("interpolations"), drawn_from("functions"), drawn_from("objects")
quoted = texts.map(lambda text: "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'")
simple = st.sampled_from(["null", "true", "false"])
scalars = st.one_of(numbers, numbers, texts, interpolations, functions, quoted, simple)


def _nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    keys = st.one_of(st.sampled_from(["name", "units", "a", "_target_", "class_name", "config", "module", "0"]), texts)
    around = st.sampled_from(["{}[", "{}]", "[{}", "{{{}", "'{}", "{},", ",{}", "({})", " {} ", "{}#"])
    return st.one_of(
        st.lists(inner, max_size=4).map(lambda items: f"[{','.join(items)}]"),
        st.lists(st.tuples(keys, inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"
        ),
        st.lists(inner, min_size=2, max_size=3).map(",".join),
        st.tuples(around, inner).map(lambda pair: pair[0].format(pair[1])),
    )


values = st.one_of(scalars, st.recursive(scalars, _nested, max_leaves=6))
deep = st.sampled_from(["[" * 60 + "]" * 60, "{a:" * 50 + "1" + "}" * 50, "[" * 3000, "(" * 500, "${" * 40, "'" * 301])


@cache
def known_keys(command: str) -> Mapping[str, Any]:
    """Keys of a command's config and of its groups' files, dotted, with their defaults."""
    found: dict[str, Any] = {}

    def add(tree: Any, prefix: str) -> None:
        if isinstance(tree, dict):
            for key, value in tree.items():
                if key not in ("defaults", "hydra"):
                    found.setdefault(f"{prefix}{key}", value)
                    add(value, f"{prefix}{key}.")

    main = "config" if command == "run" else command
    add(yaml.safe_load((CONF / f"{main}.yaml").read_text()), "")
    groups = ["tracking"] if command != "run" else ["data", "model", "optimizer", "loss", "callbacks", "tracking"]
    for group in groups:
        for file in sorted((CONF / group).glob("*.yaml")):
            add(yaml.safe_load(file.read_text()), f"{group}.")
    for file in sorted((CONF / "optimizer" / "schedule").glob("*.yaml")) if command == "run" else ():
        add(yaml.safe_load(file.read_text()), "optimizer.schedule.")
    return found


@cache
def choices() -> Mapping[str, list[str]]:
    """The groups of the config, with their files."""
    groups = sorted({file.parent for file in CONF.rglob("*.yaml")} - {CONF})
    return {str(group.relative_to(CONF)): sorted(file.stem for file in group.glob("*.yaml")) for group in groups}


def is_light(override: str) -> bool:
    """Whether a run with this override cannot take long, nor much memory, by its right."""
    key, _, value = override.partition("=")
    limits = [LARGEST[name] for name in LARGEST if name in key or f"{name}:" in value]
    if "threads" in key and re.search(r"\d{3}|\de", value):
        return False
    counts = [
        float(number)
        for number in re.findall(r"\d+(?:\.\d+)?(?:e\d{1,3})?", value.replace("_", ""))
        if len(number) < 300
    ]
    return not limits or (all(count <= min(limits) for count in counts) and "range(1" not in value)


def misspelt(word: str, how: int) -> str:
    """A word with one letter less, more, or two exchanged."""
    at = how % max(len(word), 1)
    return [
        word[:at] + word[at + 1 :],
        word[:at] + word[at : at + 1] * 2 + word[at + 1 :],
        word[:at] + "." + word[at:],
    ][how % 3]


@st.composite
def overrides(draw: st.DrawFn, command: str) -> str:
    """One override that may be right, nearly right, or hostile."""
    kind = draw(st.integers(0, 19))
    if kind == 0:
        return str(draw(st.one_of(texts, values, deep, st.tuples(texts, values).map("=".join))))
    if kind == 1 or (kind == 2 and command == "run"):
        key, given = draw(st.sampled_from(sorted(MATERIAL["hydra"].items())))
        return f"{key}={draw(st.sampled_from(given))}"
    if kind < 6 and command == "run":
        group = draw(st.sampled_from(sorted(name for name in choices() if not name.startswith("hydra"))))
        choice = draw(st.one_of(st.sampled_from(choices()[group]), values))
        choice = f"[{choice}]" if group == "callbacks" and draw(st.booleans()) else choice
        package = draw(st.sampled_from(["", "", "", "", "", "", "@x", "@_global_", "@a:b", "@"]))
        return f"{draw(prefixes)}{group}{package}={choice}"
    known = known_keys(command)
    key = draw(st.sampled_from(sorted(known)))
    key = draw(
        st.sampled_from([key] * 8 + [misspelt(key, draw(st.integers(0, 30))), f"{key}.x", f"{key}[0]", f"{key}/x"])
    )
    if draw(st.integers(0, 9)) == 0:
        return f"{draw(st.sampled_from(['~', '~', '+~', '']))}{key}"
    value = draw(st.one_of(values, st.just(_as_typed(known.get(key))), objects, numbers, deep))
    return f"{draw(prefixes)}{key}={value}"


prefixes = st.sampled_from(["", "", "", "", "", "", "", "+", "++", "~"])


def _as_typed(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else re.sub(r"[{}' ]", "", str(value))


def light_overrides(command: str) -> st.SearchStrategy[str]:
    """Overrides without those that only take long."""
    return overrides(command).filter(is_light).filter(lambda text: "\0" not in text)


@st.composite
def right_overrides(draw: st.DrawFn) -> list[str]:
    """Overrides of a run that are right, or nearly always."""
    chosen = [f"data.limit={draw(st.integers(100, 300))}", f"epochs={draw(st.integers(1, 2))}"]
    note = texts.map(lambda text: "'" + re.sub(r"['\\$]", "", text) + "'")
    optional: list[st.SearchStrategy[str]] = [st.sampled_from(group) for group in MATERIAL["right"]]
    optional += [
        *(
            st.sampled_from(choices()[group]).map(f"{group}={{}}".format)
            for group in ("optimizer", "loss", "callbacks")
        ),
        st.sampled_from(choices()["optimizer/schedule"]).map("optimizer/schedule={}".format),
        st.lists(st.sampled_from(choices()["callbacks"]), max_size=3, unique=True).map(
            lambda names: f"callbacks=[{','.join(names)}]"
        ),
        st.integers(0, 2**32).map("seed={}".format),
        note.map("tracking.run_name={}".format),
        note.map("+tracking.tags.note={}".format),
    ]
    for option in draw(st.lists(st.sampled_from(optional), max_size=4, unique=True)):
        chosen.append(draw(option))
    return chosen


def sweep_values() -> st.SearchStrategy[list[str]]:
    """One or two values of a key, or something that looks like it."""
    called = st.sampled_from(["seed", "epochs", "optimizer", "loss", "batch_size"])
    listed = st.sampled_from(["seed", "tracking.uri", "tracking.experiment", "zzz"])
    return st.one_of(
        drawn_from("swept").map(str.split),
        st.tuples(called, functions).map(lambda parts: ["=".join(parts)]),
        st.tuples(listed, values, values).map(lambda parts: [f"{parts[0]}={parts[1]},{parts[2]}"]),
    ).filter(lambda words: is_light(words[0]) and not re.search(r"range\(1\d|glob\(\*\)|seed=glob", words[0]))


def asked(command: str) -> st.SearchStrategy[list[str]]:
    """Arguments of the commands that look at records, right or nearly."""
    references = st.one_of(drawn_from("references"), st.sampled_from([RUN, SWEEP, "x" * 300]), texts)
    options = [st.sampled_from(MATERIAL["asked"][command])]
    if command == "compare":
        filters = drawn_from("filters")
        options += [
            references.map("sweep={}".format),
            st.lists(references, max_size=2).map(lambda found: f"runs=[{','.join(found)}]"),
            filters.map('filter="{}"'.format),
            st.lists(filters, max_size=3).map(lambda found: f"filter={found}".replace(" ", "")),
        ]
    else:
        options += [references.map("run={}".format)] * 2
    return st.lists(st.one_of(options), max_size=3)
