"""Conditions on runs: ``val_accuracy > 0.97 and optimizer == 'adam'``. Python parses them; nothing is executed."""

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Literal

from experiments.config import Problem, Refused
from experiments.config.problems import quoted, shown

if TYPE_CHECKING:
    import pandas as pd

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
SIGNS: Mapping[type[ast.cmpop], str] = dict(
    zip((ast.GtE, ast.LtE, ast.NotEq, ast.Eq, ast.Gt, ast.Lt), OPERATORS, strict=True)
)
JOIN = {"and": operator.and_, "or": operator.or_}  # masks
MIRRORED = {">": "<", "<": ">", ">=": "<=", "<=": ">="}
# A single condition, whose value may be any text: KEY OPERATOR VALUE.
SINGLE = re.compile(r"\s*([^=!<>]*[^=!<>\s])\s*(>=|<=|!=|==|=|>|<)\s*(?![<>])(.*?)\s*", re.DOTALL)
EQUALS = re.compile(r"'[^']*'|\"[^\"]*\"|(?<![=!<>])=(?!=)")  # Python compares with two; texts in quotes stay
# What users write between conditions, and what is meant.
JOINED = {
    " and ": re.compile(r"\s+(?:AND|And)\s+|\s*&&?\s*|\s*[,;]\s*"),
    " or ": re.compile(r"\s+(?:OR|Or)\s+|\s*\|\|?\s*"),
}
JOINS = re.compile(r"(^|\s)(and|or|not)(\s|$)", re.IGNORECASE)
LONGEST = 1000  # characters of what Python parses


@dataclass(frozen=True)
class Condition:
    """A comparison of a run's value with a given one: as numbers where both are, as text else.

    Attributes:
        key: As it was typed; a parameter, a metric, or another fact.
        operator: One of ``OPERATORS``.
        value: As it was typed.
    """

    key: str
    operator: str
    value: str

    def singles(self) -> Iterator["Condition"]:
        """This one."""
        yield self

    def mask(self, facts: "pd.DataFrame", columns: "Mapping[Condition, str]") -> "pd.Series[bool]":
        """Which runs fit.

        Args:
            facts: A row a run.
            columns: The column that the key of each condition stands for.
        """
        return facts[columns[self]].map(self.holds).astype(bool)

    def holds(self, fact: str | float | None) -> bool:
        """Whether a run with this value fits; a run that lacks the key fits ``!=`` only."""
        if fact is None or (isinstance(fact, float) and math.isnan(fact)):
            return self.operator == "!="
        number, wanted = as_number(fact), as_number(self.value)
        if number is not None and wanted is not None:
            return OPERATORS[self.operator](number, wanted)
        same = _bare(str(fact)) == _bare(self.value)
        return {"=": same, "!=": not same}.get(self.operator, False)


@dataclass(frozen=True)
class Combined:
    """Conditions that are joined by ``and`` or ``or``, or one behind ``not``."""

    word: Literal["and", "or", "not"]
    parts: "Sequence[Filter]"

    def singles(self) -> Iterator[Condition]:
        """The conditions in it."""
        for part in self.parts:
            yield from part.singles()

    def mask(self, facts: "pd.DataFrame", columns: Mapping[Condition, str]) -> "pd.Series[bool]":
        """Which runs fit; see `Condition`."""
        masks = [part.mask(facts, columns) for part in self.parts]
        return ~masks[0] if self.word == "not" else reduce(JOIN[self.word], masks)


Filter = Condition | Combined


def parse(text: str, others: Sequence[str] = ()) -> Filter:
    """Read conditions: ``KEY OPERATOR VALUE``, joined by ``and``, ``or``, ``not`` and brackets.

    Args:
        text: The conditions.
        others: Those beside it, which a remedy keeps.

    Raises:
        Refused: It is none, or asks for more or less than something that is no number.
    """
    if found := _by_python(text):
        for condition in found.singles():
            _refuse_senseless(condition, text, others)
        return found
    meant = text
    for word, pattern in JOINED.items():
        meant = pattern.sub(word, meant)
    if meant != text and isinstance(_by_python(meant), Combined):
        what = f"got {text!r}, expected conditions joined by and, or, not"
        raise Refused(Problem("filter", what, written([*others, meant])))
    if (single := SINGLE.fullmatch(text)) is None:
        what = f"got {text!r}, expected a key, one of = != > >= < <=, and a value"
        raise Refused(Problem("filter", what, written(others or ["status=FINISHED"])))
    if JOINS.search(single[3]):
        what = f"got {text!r}, expected whole conditions joined by and, or, not; a text with these words in quotes"
        raise Refused(Problem("filter", what, written([*others, f"{single[1]}{single[2]}'{single[3]}'"])))
    condition = Condition(single[1], single[2].replace("==", "="), single[3])
    _refuse_senseless(condition, text, others)
    return condition


def _refuse_senseless(condition: Condition, text: str, others: Sequence[str]) -> None:
    if condition.operator[0] in "<>" and not condition.value:
        raise Refused(Problem("filter", f"got {text!r}, expected a number after {condition.operator}"))
    if condition.operator[0] in "<>" and as_number(condition.value) is None:
        what = f"got {text!r}, but {condition.value!r} is not a number; text is compared with = and !="
        raise Refused(Problem("filter", what, written([*others, f"{condition.key}={condition.value}"])))


def _by_python(text: str) -> Filter | None:
    """Read conditions as Python would; None: it is no such expression, though it may be a single condition."""
    spelled = EQUALS.sub(lambda found: "==" if found[0] == "=" else found[0], " ".join(text.split()))
    if "#" in text or len(text) > LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as of 1if
            found = _read(ast.parse(spelled, mode="eval").body, spelled)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    single = SINGLE.fullmatch(text)
    if isinstance(found, Condition) and single and single[1] == found.key and single[3][:1] not in ("'", '"'):
        return replace(found, value=single[3])  # as it was typed, with brackets and blanks
    return found


def _read(node: ast.expr, text: str) -> Filter:
    """Turn names, constants, comparisons, and, or, not into conditions.

    Raises:
        ValueError: It is more than that.
    """
    if isinstance(node, ast.BoolOp):
        word: Literal["and", "or"] = "and" if isinstance(node.op, ast.And) else "or"
        return Combined(word, tuple(_read(value, text) for value in node.values))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return Combined("not", (_read(node.operand, text),))
    if not isinstance(node, ast.Compare):
        raise ValueError
    if len(node.ops) > 1 and any(isinstance(sign, ast.Eq | ast.NotEq) for sign in node.ops):
        raise ValueError  # a text that holds the sign: name=seed=0
    operands = [node.left, *node.comparators]
    found = [_condition(*pair, text) for pair in zip(operands, node.ops, operands[1:], strict=False)]
    return found[0] if len(found) == 1 else Combined("and", tuple(found))


def _condition(left: ast.expr, sign: ast.cmpop, right: ast.expr, text: str) -> Condition:
    if type(sign) not in SIGNS:
        raise ValueError
    operator = SIGNS[type(sign)]
    if isinstance(left, ast.Name | ast.Attribute):
        return Condition(_source(left, text), operator, _source(right, text))
    number = left.operand if isinstance(left, ast.UnaryOp) else left
    if isinstance(number, ast.Constant) and isinstance(right, ast.Name | ast.Attribute):  # -0.9 < val_r2_score
        return Condition(_source(right, text), MIRRORED.get(operator, operator), _source(left, text))
    raise ValueError


def _source(node: ast.expr, text: str) -> str:
    """What was typed; of a text in quotes, what is within."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ast.get_source_segment(text, node) or ""


def parse_all(texts: Sequence[str]) -> list[Filter]:
    """Read several conditions.

    Raises:
        Refused: With all that are none.
    """
    found, problems = [], []
    for place, text in enumerate(texts):
        try:
            found.append(parse(text, [*texts[:place], *texts[place + 1 :]]))
        except Refused as refused:
            problems += refused.problems
    if problems:
        raise Refused(problems)
    return found


def written(conditions: Sequence[str]) -> str:
    """The override that sets conditions, as it is typed into a shell."""
    texts = [shown(text) if {'"', "\\"} & set(text) else f'"{text}"' for text in conditions]
    return quoted(f"filter={texts[0]}" if len(texts) == 1 else f"filter=[{','.join(texts)}]")


def as_number(value: str | float) -> float | None:
    """The number that a text is; None if it is none, or not a number in the sense of IEEE 754."""
    try:
        number = float(value)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _bare(text: str) -> str:
    """Without blanks and quotes: lists are recorded with quotes around texts."""
    return re.sub(r"[\s'\"]", "", text)
