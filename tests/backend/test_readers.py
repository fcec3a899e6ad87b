"""The C readers of the built programs by themselves: no warnings, inflate against zlib, damaged files."""

from __future__ import annotations

import ctypes
import gzip
import io
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from cnnc.backend.header import c_config, c_header
from cnnc.backend.interface import Interface
from cnnc.backend.link import RUNTIME, SHARED_SOURCES, program_sources
from tests.programs import idx
from tests.toy import CC, INFERENCE, TRAINING, needs_cc, weights

pytestmark = needs_cc

STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
READERS = (
    "array.c",
    "memory.c",
    "npy.c",
    "idx.c",
    "gzip.c",
    "inflate.c",
    "json.c",
    "safetensors.c",
    "dataset.c",
)


@pytest.mark.parametrize("interface", [INFERENCE, TRAINING], ids=["inference", "training"])
def test_sources_compile_without_warnings(interface: Interface, tmp_path: Path) -> None:
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "toy.h").write_text(c_header(interface))
    (tmp_path / "network.h").write_text(c_config(interface))
    sources = [str(RUNTIME / source) for source in program_sources(interface)]
    command = [str(CC), "-std=c11", "-fsyntax-only", *STRICT, f"-I{tmp_path}", f"-I{RUNTIME}", *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_source_belongs_to_a_program() -> None:
    used = {*SHARED_SOURCES, *program_sources(INFERENCE), *program_sources(TRAINING)}
    assert used == {path.name for path in RUNTIME.glob("*.c")}


@pytest.mark.parametrize("size", [0, 1, 63, 64, 4097, (2 << 20) - 1, 2 << 20, (5 << 20) + 1])
def test_aligned_memory(size: int, memory: ctypes.CDLL) -> None:
    """Small memory begins with a line, large memory with a large page; all of it can be written."""
    address = memory.memory_aligned(size)
    assert address % (64 if size < 2 << 20 else 2 << 20) == 0
    ctypes.memset(address, 1, size)
    assert ctypes.string_at(address, size) == b"\1" * size
    memory.free(ctypes.c_void_p(address))


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("memory") / "memory.so"
    sources = [str(RUNTIME / name) for name in ("memory.c", "error.c")]
    subprocess.run([str(CC), "-std=c11", "-shared", "-fPIC", *sources, "-o", str(path)], check=True)
    library = ctypes.CDLL(str(path))
    library.memory_aligned.restype = ctypes.c_void_p
    library.memory_aligned.argtypes = [ctypes.c_size_t]
    return library


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("inflate") / "inflate.so"
    subprocess.run(
        [str(CC), "-std=c11", "-O2", "-shared", "-fPIC", str(RUNTIME / "inflate.c"), "-o", path], check=True
    )
    made = ctypes.CDLL(str(path))
    made.inflate.restype = ctypes.c_char_p
    made.inflate.argtypes = [ctypes.c_char_p, ctypes.c_size_t] * 2 + [ctypes.POINTER(ctypes.c_size_t)]
    return made


def expand(library: ctypes.CDLL, packed: bytes, size: int) -> tuple[bytes, int, str | None]:
    out, consumed = ctypes.create_string_buffer(max(size, 1)), ctypes.c_size_t()
    error = library.inflate(packed, len(packed), out, size, ctypes.byref(consumed))
    return out.raw[:size], consumed.value, error and error.decode()


def deflate(content: bytes, level: int, strategy: int) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    return packer.compress(content) + packer.flush()


CONTENTS = st.one_of(
    st.binary(max_size=2000),
    st.tuples(st.binary(max_size=20), st.integers(0, 5000)).map(lambda pair: pair[0] * pair[1]),
    st.integers(0, 99).map(
        lambda seed: np.random.default_rng(seed).geometric(0.1, 90_000).astype("u1").tobytes()
    ),
)


@settings(max_examples=60, deadline=None)
@given(
    content=CONTENTS,
    level=st.sampled_from([0, 1, 6, 9]),
    strategy=st.sampled_from([zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE]),
)
def test_inflate_inverts_zlib(library: ctypes.CDLL, content: bytes, level: int, strategy: int) -> None:
    packed = deflate(content, level, strategy)
    assert expand(library, packed + b"tail", len(content)) == (content, len(packed), None)
    if content:
        assert expand(library, packed, len(content) - 1)[2] == "the compressed data are longer than they say"
        assert expand(library, packed, len(content) + 1)[2] == "the compressed data are shorter than they say"
        assert expand(library, packed[: len(packed) // 2], len(content))[2] is not None


def good_files() -> dict[str, bytes]:
    images = (np.arange(48) * 5 % 256).astype(np.uint8).reshape(3, 1, 4, 4)
    fixed = zlib.compressobj(9, zlib.DEFLATED, 31, 9, zlib.Z_FIXED)
    with io.BytesIO() as npy, io.BytesIO() as third, io.BytesIO() as numbers:
        np.save(npy, images[:, 0].astype(np.float32))
        np.lib.format.write_array(third, images, version=(3, 0))
        np.save(numbers, np.arange(10))
        return {
            "float.npy": npy.getvalue(),
            "third.npy": third.getvalue(),
            "labels.npy": numbers.getvalue(),
            "images.idx": idx(images),
            "stored.gz": gzip.compress(idx(images), 0),
            "dynamic.gz": gzip.compress(
                idx(images) + bytes(range(200)) * 9
            ),  # dynamic codes, but extra bytes
            "fixed.gz": fixed.compress(idx(images)) + fixed.flush(),
            "w.safetensors": save(weights(), metadata={"note": 'a "b" \\ \u00e9'}),
        }


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/backend/fuzz.c with the readers and the sanitizers, where the compiler has them."""
    made = tmp_path_factory.mktemp("fuzz") / "fuzz"
    sources = [str(Path(__file__).parent / "fuzz.c"), *(str(RUNTIME / source) for source in READERS)]
    command = [str(CC), "-std=c11", "-g", "-O1", f"-I{RUNTIME}", *sources, "-o", str(made)]
    if subprocess.run([*command, *SANITIZERS], capture_output=True, check=False).returncode != 0:
        subprocess.run(command, check=True)
    return made


@pytest.mark.parametrize("name", good_files())
def test_damaged_files_never_crash_a_reader(fuzz: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(good_files()[name])
    options = {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1"}  # failing jumps, and leaks
    done = subprocess.run(
        [fuzz, "3000", tmp_path / name], capture_output=True, text=True, check=False, env=options
    )
    assert done.returncode == 0, done.stderr
    accepted = int(done.stdout.split()[0])
    assert name == "dynamic.gz" or 100 < accepted < 2900
