"""Objects in the making: each kernel goes to LLVM as soon as it is known, while others are still written.

backend/proven.py tells of new kernels, backend/unit.py asks for the objects of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from cnnc.backend.cache import ObjectCache
from cnnc.backend.emit import emit_kernel
from cnnc.backend.kernel.ir import Kernel
from cnnc.backend.llvm import CodeGenerator, at_rest, version
from cnnc.backend.processes import processors, worker_processes
from cnnc.backend.target import Target


@contextmanager
def object_maker(target: Target, cache: ObjectCache) -> Iterator[ObjectMaker]:
    """A maker of objects for a target, with as many processes as there are processors."""
    with worker_processes(processors()) as workers:
        yield ObjectMaker(target, cache, workers)


class ObjectMaker:
    """Makes those objects that the cache lacks. `begin` hands in work, `objects` waits for what comes of it.

    Both raise ChildProcessError if a worker has ended before its time.
    """

    def __init__(self, target: Target, cache: ObjectCache, workers: Executor) -> None:
        self._cache, self._workers, self._generator = cache, workers, CodeGenerator(target)
        self._keys: dict[Kernel, str] = {}
        self._found: dict[str, bytes] = {}
        self._made: dict[str, Future[bytes]] = {}

    def begin(self, kernel: Kernel) -> None:
        """Compile a kernel, if that was not begun before."""
        if kernel in self._keys:
            return
        text = emit_kernel(kernel, self._generator.target)
        key = self._keys[kernel] = self._look_up(text)
        if key not in self._found:
            with at_rest(), _told_of_deaths():  # the first submission makes the workers
                self._made[key] = self._workers.submit(self._generator.object_code, text)

    def objects(self, kernels: Sequence[Kernel], functions: str) -> tuple[bytes, ...]:
        """The object of each kernel, and behind them that of a module with the functions around them; the
        cache has them then."""
        for kernel in kernels:
            self.begin(kernel)
        keys = [*(self._keys[kernel] for kernel in kernels), self._look_up(functions)]
        made: dict[str, bytes] = {}
        if keys[-1] not in self._found:  # this process has nothing else to do
            made[keys[-1]] = self._generator.object_code(functions)
        with _told_of_deaths():
            made |= {key: future.result() for key, future in self._made.items()}
        self._cache.keep(made)
        codes = {**self._found, **made}
        return tuple(codes[key] for key in keys)

    def _look_up(self, text: str) -> str:
        """The cache's key for a text; what it keeps under it counts as found."""
        key = f"{version()}\n{self._generator.target.suited_to()}\n{text}"
        code = self._cache.find(key)
        if code is not None:
            self._found[key] = code
        return key


@contextmanager
def _told_of_deaths() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise ChildProcessError("a process that compiled kernels ended without a result") from error
