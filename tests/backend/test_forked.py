"""Work in several processes: results in order, errors passed on."""

from __future__ import annotations

import os

import pytest

from cnnc.backend.forked import forked_map, processors


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 9])
def test_results_come_in_order(count: int, workers: int) -> None:
    assert forked_map(lambda i: i * i, range(count), workers) == [i * i for i in range(count)]


def test_several_processes_work() -> None:
    assert len(set(forked_map(lambda _: os.getpid(), range(4), 2))) == 2


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_is_raised_here(workers: int) -> None:
    with pytest.raises(ZeroDivisionError):
        forked_map(lambda i: 1 // (i - 2), range(4), workers)


def test_a_child_that_dies_is_noticed() -> None:
    parent = os.getpid()

    def dying(item: int) -> int:
        if os.getpid() != parent:
            os._exit(3)
        return item

    with pytest.raises(ChildProcessError):
        forked_map(dying, range(2), 2)


def test_there_is_a_processor() -> None:
    assert processors() >= 1
