"""Executables: bytes and back, and a cache that saves all compiling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnnc import executable as module
from cnnc.backend.cache import ObjectCache
from cnnc.backend.kernel.ir import Kernel
from cnnc.backend.llvm import host
from cnnc.executable import Executable, Request, executable
from cnnc.ir.types import Array
from cnnc.model import Model
from cnnc.native import Code, Native
from cnnc.passes.choose_algorithms import Preferences
from cnnc.source import source_of
from tests.small_networks import classifier, digits


def request(train: bool = False, batch: int = 2) -> Request:
    return Request(source_of(classifier()), batch, train, host(), Preferences(), False)


@pytest.mark.parametrize("train", [False, True])
def test_bytes_and_back(train: bool) -> None:
    made = executable(request(train), ObjectCache(None))
    assert Executable.from_bytes(made.to_bytes()) == made


def test_a_second_time_nothing_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, images = ObjectCache(tmp_path), digits(2)[0]

    def outputs() -> Array:
        found = executable(request(), cache)
        interface = found.interface
        code = Code(interface.name, host(), found.objects, interface.workspace_bytes)
        return Model(interface, request().source.weights(None), Native(code, 1))(images)

    first = outputs()
    monkeypatch.setattr(module, "inference_unit", lambda *_: pytest.fail("compiled again"))
    np.testing.assert_array_equal(outputs(), first)


def test_keys_tell_requests_apart() -> None:
    base = request()
    others = [
        request(train=True),
        request(batch=3),
        replace(base, strict=True),
        replace(base, max_memory=10**6),
        replace(base, preferences=Preferences(forced="direct")),
        replace(base, target=replace(host(), fork_flops=1)),
    ]
    assert len({base.key, *(r.key for r in others)}) == 7
    assert request().key == base.key


@pytest.mark.parametrize("train", [False, True])
def test_a_listener_hears_of_every_kernel_once(train: bool) -> None:
    heard: list[Kernel] = []
    unit = request(train).compiled(heard.append).unit
    assert len(heard) == len(unit.kernels) and set(heard) == set(unit.kernels)
    assert heard[0] is unit.kernels[0]


def test_with_a_limit_of_memory_it_hears_of_none() -> None:
    heard: list[Kernel] = []
    replace(request(True), max_memory=10**6).compiled(heard.append)
    assert not heard


@pytest.mark.parametrize("max_memory", [None, 10**6])
def test_the_number_of_processes_changes_no_byte(
    max_memory: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = replace(request(True), max_memory=max_memory)
    several = executable(wanted, ObjectCache(None))
    monkeypatch.setattr("cnnc.backend.objects.processors", lambda: 1)
    assert executable(wanted, ObjectCache(None)) == several
