"""Options and fixtures of the whole suite."""

from __future__ import annotations

import os

import pytest

from tests.goldens import Goldens


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--refresh-goldens",
        action="store_true",
        help="write the texts under tests/golden anew instead of comparing with them; look at the diff",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--refresh-goldens") and os.environ.get("CI"):
        raise pytest.UsageError("--refresh-goldens is refused when CI is set: goldens are reviewed changes")


@pytest.fixture
def goldens(request: pytest.FixtureRequest) -> Goldens:
    """Compares texts with the files under tests/golden, or refreshes them."""
    return Goldens(refresh=request.config.getoption("--refresh-goldens"))
