"""Objects in the making: from the cache or compiled, once each, in order, wherever that is done."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Executor
from pathlib import Path

import pytest

from cnnc.backend.cache import ObjectCache
from cnnc.backend.emit import emit_kernel, kernel_symbol
from cnnc.backend.kernel.builder import KernelBuilder
from cnnc.backend.kernel.ir import Access, Kernel
from cnnc.backend.llvm import CodeGenerator, at_rest, host
from cnnc.backend.objects import ObjectMaker, object_maker
from cnnc.backend.processes import worker_processes

FUNCTIONS = "define void @nothing() { ret void }"


def kernel(name: str = "scale", factor: float = 2.0) -> Kernel:
    k = KernelBuilder(name)
    x, y = k.buffer("x", (8,), Access.READ), k.buffer("y", (8,), Access.WRITE)
    y.store((0,), x.load((0,), 8) * factor)
    return k.build()


KERNELS = tuple(kernel(factor=float(number)) for number in range(5))


def compiled(kernel: Kernel) -> bytes:
    return CodeGenerator(host()).object_code(emit_kernel(kernel, host()))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("begun", [(), (3, 1), (0, 1, 2, 3, 4, 0)])
def test_objects_come_in_order_whatever_was_begun_before(count: int, begun: tuple[int, ...]) -> None:
    with worker_processes(count) as workers:
        maker = ObjectMaker(host(), ObjectCache(None), workers)
        for number in begun:
            maker.begin(KERNELS[number])
        found = maker.objects(KERNELS, FUNCTIONS)
    assert found == (*map(compiled, KERNELS), CodeGenerator(host()).object_code(FUNCTIONS))


def test_equal_kernels_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    monkeypatch.setattr(CodeGenerator, "object_code", lambda _, text: texts.append(text) or b"code")
    with worker_processes(1) as workers:
        maker = ObjectMaker(host(), ObjectCache(None), workers)
        for factor in (2.0, 3.0, 2.0):
            maker.begin(kernel(factor=factor))
        assert maker.objects([kernel(factor=2.0), kernel(factor=3.0)], FUNCTIONS) == (b"code",) * 3
    assert len(texts) == 3


def test_only_what_the_cache_lacks_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ObjectCache(tmp_path)
    with object_maker(host(), cache) as maker:
        first = maker.objects(KERNELS[:3], FUNCTIONS)
    assert len(list(tmp_path.iterdir())) == 4
    made: list[str] = []
    monkeypatch.setattr(CodeGenerator, "object_code", lambda _, text: made.append(text) or b"code")
    with worker_processes(1) as workers:
        found = ObjectMaker(host(), cache, workers).objects(KERNELS[:4], FUNCTIONS)
    assert found == (*first[:3], b"code", first[3])
    (text,) = made
    assert kernel_symbol(KERNELS[3]) in text


@pytest.mark.parametrize("count", [1, 2])
def test_what_llvm_does_not_take_is_told(count: int) -> None:
    with worker_processes(count) as workers:
        maker = ObjectMaker(host(), ObjectCache(None), workers)
        maker.begin(kernel(name="not a name"))
        with pytest.raises(RuntimeError, match="parsing error"):
            maker.objects((), FUNCTIONS)


def test_another_thread_may_be_inside_llvm_when_workers_are_made() -> None:
    """They are copies of this process, and must not wait for what that thread has there."""
    is_inside, may_leave = threading.Event(), threading.Event()

    def work() -> None:
        with at_rest():
            is_inside.set()
            may_leave.wait()

    other = threading.Thread(target=work)
    other.start()
    is_inside.wait()
    threading.Timer(0.1, may_leave.set).start()
    with worker_processes(2) as workers:
        found = ObjectMaker(host(), ObjectCache(None), workers).objects(KERNELS[:1], FUNCTIONS)
    assert may_leave.is_set() and found[0] == compiled(KERNELS[0])
    other.join()


def test_a_worker_that_died_is_told(tmp_path: Path) -> None:
    def killed(workers: Executor) -> ObjectMaker:
        workers.submit(os._exit, 3).exception()
        return ObjectMaker(host(), ObjectCache(tmp_path), workers)

    with worker_processes(2) as workers, pytest.raises(ChildProcessError, match="compiled kernels"):
        killed(workers).begin(KERNELS[0])
    with worker_processes(2) as workers, pytest.raises(ChildProcessError, match="compiled kernels"):
        maker = ObjectMaker(host(), ObjectCache(tmp_path), workers)
        for each in KERNELS:
            maker.begin(each)
        killed(workers)
        maker.objects([kernel(factor=-1.0)], FUNCTIONS)
    assert not list(tmp_path.iterdir())
