"""The browser that the tests of a module share."""

import os
from collections.abc import Iterator

import pytest

from tests.browser.page import Page, missing, started


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page; without a browser the test is skipped, unless `.ci/run` requires one."""
    if reason := missing():
        (pytest.fail if os.environ.get("EXPERIMENTS_REQUIRE_BROWSER") else pytest.skip)(reason)
    with started() as shown:
        yield shown
