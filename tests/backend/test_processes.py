"""Work in several processes: results, errors, deaths, and what remains."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

from cnnc.backend.processes import MOST_WORKERS, processors, worker_processes

KILLED = """
import os, signal, time
from cnnc.backend.processes import worker_processes

with worker_processes(2) as workers:
    workers.submit(time.sleep, 0).result()
    print("working", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
"""A program that is killed while it has workers."""


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_results_come_to_whom_they_belong(count: int) -> None:
    with worker_processes(count) as workers:
        futures = [workers.submit(pow, i, 2) for i in range(9)]
        assert [future.result() for future in futures] == [i * i for i in range(9)]


@pytest.mark.parametrize("count", [1, 2])
def test_where_the_work_is_done(count: int) -> None:
    with worker_processes(count) as workers:
        assert (workers.submit(os.getpid).result() == os.getpid()) == (count == 1)


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_is_raised_where_the_result_is_asked_for(count: int) -> None:
    with worker_processes(count) as workers:
        future = workers.submit(divmod, 1, 0)
        with pytest.raises(ZeroDivisionError):
            future.result()


def test_no_process_is_left_behind_by_an_error() -> None:
    with pytest.raises(KeyError), worker_processes(2) as workers:
        for _ in range(9):
            workers.submit(time.sleep, 0.01)
        raise KeyError
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_is_noticed() -> None:
    with worker_processes(2) as workers, pytest.raises(BrokenProcessPool):
        workers.submit(os._exit, 3).result()


def test_workers_leave_interrupts_to_their_parent() -> None:
    with worker_processes(2) as workers:
        assert workers.submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_IGN


def test_workers_do_not_outlive_a_parent_that_is_killed() -> None:
    """They have its output, which ends when the last of them has gone."""
    done = subprocess.run([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "working\n")


def test_there_are_never_too_many() -> None:
    with worker_processes(1000) as workers:
        workers.submit(os.getpid).result()
        assert len(multiprocessing.active_children()) == MOST_WORKERS


@pytest.mark.parametrize("error", [ImportError, NotImplementedError, OSError])
def test_without_semaphores_the_work_is_done_here(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("cnnc.backend.processes.ProcessPoolExecutor", refuse)
    with worker_processes(2) as workers:
        assert workers.submit(os.getpid).result() == os.getpid()


def test_a_process_of_a_pool_does_its_work_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "daemon", True)
    with worker_processes(2) as workers:
        assert workers.submit(os.getpid).result() == os.getpid()


def test_there_is_a_processor() -> None:
    assert processors() >= 1
