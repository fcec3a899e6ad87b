"""Those that agree are timed, the others named with the reason; tables and means of what was found."""

from __future__ import annotations

import math
import os
import time

import pytest

from benchmarks import networks
from benchmarks.contest import OURS, Call, Comparison, Entrant, Settings, contest
from benchmarks.pinning import distinct_cores_first, pinned
from benchmarks.progress import Progress
from benchmarks.rivals import COMPILED, EAGER
from benchmarks.rounds import Timing
from benchmarks.time_limit import time_limit
from benchmarks.zoo import BY_NAME, Entry
from cnnc.errors import CnncError

SETTINGS = Settings(seconds=0.0, compile_limit=0.05, progress=Progress())


def nothing() -> tuple[Call, float]:
    return (lambda: None), 1e-6


def disagreeing() -> tuple[Call, float]:
    raise CnncError("it disagrees\nat length")


def endless() -> tuple[Call, float]:
    time.sleep(10)
    return nothing()


def test_who_takes_part() -> None:
    entrants = [Entrant(EAGER, nothing), Entrant("other", disagreeing), Entrant(COMPILED, endless)]
    found = contest("title", lambda: None, entrants, ["x is not installed"], 1, SETTINGS)
    assert set(found.timings) == {OURS, EAGER}
    assert found.missing == ("x is not installed",)
    assert found.notes == (
        "other is left out: it disagrees",
        f"{COMPILED} is left out: it took longer than 0.05 s",
        "agreement within 1.0e-06",
    )


def test_work_within_the_limit_goes_on() -> None:
    with time_limit(0.05):
        pass
    time.sleep(0.1)


def test_pinning_takes_distinct_cores_and_gives_all_back() -> None:
    before = os.sched_getaffinity(0)
    with pinned(1):
        assert os.sched_getaffinity(0) == {distinct_cores_first(before)[0]}
    assert os.sched_getaffinity(0) == before
    assert sorted(distinct_cores_first(before)) == sorted(before)


def test_a_table_of_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"lenet5": (1.0, 2.0), "alexnet": (2.0, 16.0)}

    def compared(entry: Entry, batch: int, threads: int, settings: Settings) -> Comparison:
        if entry.name not in times:
            raise CnncError("it does not compile")
        ours, theirs = times[entry.name]
        timings = {OURS: Timing([ours, 2 * ours]), EAGER: Timing([theirs, theirs])}
        return Comparison(timings, ("agreement within 1.0e-06",), ("x is not installed",))

    monkeypatch.setattr(networks, "images_compared", compared)
    entries = [BY_NAME[name] for name in ("lenet5", "alexnet", "vgg16")]
    report = networks.inference(entries, 2, SETTINGS)
    assert report.failures == 1
    assert report.rows[0][:5] == ("LeNet-5", 1, 1e3, 1.5e3, 2e3)
    assert report.rows[1][-2:] == (8.0, pytest.approx(16 / 3))
    assert report.rows[-1][-2] == report.figures["ratio"] == pytest.approx(math.sqrt(2 * 8))
    assert report.figures["alexnet/1/PyTorch eager/best ms"] == 16e3
    assert report.notes == (
        "x is not installed",
        "VGG-16, batch 1 is left out: it does not compile",
        "LeNet-5, batch 1: agreement within 1.0e-06",
        "AlexNet, batch 1: agreement within 1.0e-06",
    )
