"""Addresses of stores: what is taken out of them before they are shown or recorded."""

import json
import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.config.schema import Tracking
from experiments.tracking.provenance import origin
from experiments.tracking.store import redact, redact_all

# Whatever a keyboard gives, but blanks, which end a word.
SECRETS = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=3, max_size=20)
FORMS = [
    "http://user:{}@host:5000/path",
    "postgresql+psycopg2://user:{}@host/db?sslmode=require",
    "https://{}@host",
    "http://:{}@host",
    "http:/user:{}@host",
    "//user:{}@host",
    "mysql://{}:{}@[::1]:3306/db",
    "http://host/?token={}",
    "http://host/path?a=b&api_key={}",
    "http://host/path#access_token={}",
]
TEXTS = ["{}", "tracking.uri={}", "'tracking.uri=\"{}\"' epochs=3", "error: {} cannot be reached", "see\n- {}\nand on"]


@given(secret=SECRETS, form=st.sampled_from(FORMS), text=st.sampled_from(TEXTS), encoded=st.booleans())
def test_no_part_of_a_password_is_left(secret: str, form: str, text: str, encoded: bool) -> None:
    if "?" in form or "#" in form:
        secret = secret.replace("&", "")
    whole = text.format(form.format(*2 * [quote(secret, safe="") if encoded else secret]))
    shown, usual = redact(whole), text.format(form.format("", "")) + "***@***"
    pieces = {secret[start : start + 3] for start in range(len(secret) - 2)}
    assert [piece for piece in pieces if piece in shown and piece not in usual] == []
    assert redact(shown) == shown


@given(secret=SECRETS)
def test_a_password_is_in_no_tag(secret: str) -> None:
    address = f"http://user:{secret}@host/x"
    tracking = Tracking(enabled=True, experiment="e", tags={"x": address})
    tags = origin(tracking, [f'tracking.uri="{address}"', f"+tracking.tags.x={address}"], "run")
    shown = json.dumps([tags, redact_all({"a": [{"b": (address, 1)}]})], ensure_ascii=False)
    assert tags["x"] == "http://***@host/x"
    assert "user" not in shown.replace("mlflow.user", "")


@pytest.mark.parametrize(
    "text",
    [
        "optimizer=adam data.path=/data/me@home.npz",
        'filter="val_accuracy>0.9"',
        "http://127.0.0.1:5000/#/experiments/1",
        '"mypackage @ git+https://github.com/me/mypackage.git@v1.2",',
        "sqlite:////home/me/mlruns/mlflow.db",
        "file:///home/me/mlruns/artifacts",
        "@decorator  # see https://example.com",
        string.punctuation.replace("//", ""),
    ],
)
def test_what_holds_no_password_stays(text: str) -> None:
    assert redact(text) == text
