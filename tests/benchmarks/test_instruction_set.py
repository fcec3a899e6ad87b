"""Other systems are held to a target by the variables they read when they are loaded."""

from __future__ import annotations

import os

import pytest

from benchmarks.instruction_set import HOST, LIMITS, hold_to


def test_holding(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LIMITS["avx2"]:
        monkeypatch.delenv(name, raising=False)
    hold_to(HOST)
    assert not LIMITS["avx2"].keys() & os.environ.keys()
    monkeypatch.setattr(os, "environ", dict(os.environ))
    hold_to("avx2")
    assert {name: os.environ[name] for name in LIMITS["avx2"]} == dict(LIMITS["avx2"])
