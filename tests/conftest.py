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
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption(
        "--networks",
        type=int,
        metavar="N",
        help="tests/test_random_networks.py: try N networks with each algorithm, others each time",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--refresh-goldens") and os.environ.get("CI"):
        raise pytest.UsageError("--refresh-goldens is refused when CI is set: goldens are reviewed changes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes and repeats at full size what other tests do in small."""
    if config.getoption("--slow"):
        return
    left_out = pytest.mark.skip(reason="slow: run pytest with --slow")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(left_out)


@pytest.fixture
def goldens(request: pytest.FixtureRequest) -> Goldens:
    """Compares texts with the files under tests/golden, or refreshes them."""
    return Goldens(refresh=request.config.getoption("--refresh-goldens"))
