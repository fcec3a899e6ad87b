"""Weights: both formats come back bit for bit; broken and unfitting files give one clear line."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnc import CnncError, FormatError, Network, dense, load_weights, match_weights, save_weights
from cnnc.ir.graph import Value
from cnnc.ir.types import Array, f32
from cnnc.source import source_of

PARAMS = (Value("c1.weight", f32(2, 3)), Value("c1.bias", f32(2)))
SUFFIXES = (".safetensors", ".npz")


def weights() -> dict[str, Array]:
    generator = np.random.default_rng(0)
    return {p.name: generator.normal(size=p.type.shape).astype(np.float32) for p in PARAMS}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_saved_weights_come_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    save_weights(path, weights() | {"turned": np.arange(6, dtype=np.float32).reshape(2, 3).T})
    back = load_weights(path)
    assert set(back) == {"c1.weight", "c1.bias", "turned"}
    for name, weight in weights().items():
        assert back[name].dtype == np.float32
        np.testing.assert_array_equal(back[name], weight)
    np.testing.assert_array_equal(back["turned"], [[0, 3], [1, 4], [2, 5]])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_saving_twice_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in "ab":
        save_weights(tmp_path / f"{name}{suffix}", weights())
    first, second = sorted(tmp_path.iterdir())
    assert first.read_bytes() == second.read_bytes()


def test_other_suffixes(tmp_path: Path) -> None:
    for call in (lambda p: load_weights(p), lambda p: save_weights(p, weights())):
        with pytest.raises(FormatError, match=r"w\.bin: weights are kept in a \.safetensors or \.npz file"):
            call(tmp_path / "w.bin")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_broken_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    with pytest.raises(FormatError, match=r"cannot read .*: no such file or directory"):
        load_weights(path)
    save_weights(path, weights())
    content = path.read_bytes()
    for broken in (b"", b"not weights at all", content[:-5], content[: len(content) // 2]):
        path.write_bytes(broken)
        with pytest.raises(FormatError, match=f"w{suffix}: not a readable {suffix} file: "):
            load_weights(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damage_never_gives_another_error(suffix: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"w{suffix}"
        save_weights(path, weights())
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        try:
            match_weights(PARAMS, load_weights(path), path)
        except FormatError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_gives_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.symlink_to("/dev/full")
    with pytest.raises(CnncError, match=f"cannot write .*w{suffix}: no space left on device"):
        save_weights(path, weights())


def test_match_gives_contiguous_float32() -> None:
    halves = {name: np.asfortranarray(w.astype(np.float64)) for name, w in weights().items()}
    matched = match_weights(PARAMS, halves)
    for name, weight in weights().items():
        assert matched[name].dtype == np.float32 and matched[name].flags.c_contiguous
        np.testing.assert_array_equal(matched[name], weight)


def test_weights_that_do_not_match() -> None:
    good = weights()
    renamed = {"c1.wieght": good["c1.weight"], "c1.bias": good["c1.bias"]}
    with pytest.raises(FormatError, match=r"w: no c1\.weight, which .* needs; the file has 'c1\.wieght'$"):
        match_weights(PARAMS, renamed, "w")
    with pytest.raises(FormatError, match=r"no c1\.weight, c1\.bias, which the network needs$"):
        match_weights(PARAMS, {})
    with pytest.raises(FormatError, match="holds a, b, c and 1 more, which the network does not have"):
        match_weights(PARAMS, good | dict.fromkeys("abcd", good["c1.bias"]))
    with pytest.raises(FormatError, match=r"c1\.bias has shape \[3\], the network needs \[2\]"):
        match_weights(PARAMS, good | {"c1.bias": np.zeros(3, np.float32)})
    with pytest.raises(FormatError, match=r"c1\.bias has dtype int64; floats are needed"):
        match_weights(PARAMS, good | {"c1.bias": np.zeros(2, np.int64)})


def test_weights_made_elsewhere_get_the_networks_names() -> None:
    net = Network("n", weight_name=lambda name: {"first": "c1.weight", "aux": None}.get(name, name))
    dense(net.input(3), 2, name="c1")
    net.output(dense(net.input(3, name="other"), 2, name="c2"))
    own = net.initial_weights()
    given = {**own, "first": own["c1.weight"], "aux": np.ones(3), "c2.num_batches_tracked": np.array(7)}
    del given["c1.weight"]
    found = source_of(net).weights(given)
    assert set(found) == set(own)
    for name, weight in own.items():
        np.testing.assert_array_equal(found[name], weight)
    with pytest.raises(
        FormatError, match=r"first is one of several weights which the network calls c1\.weight"
    ):
        source_of(net).weights(own | {"first": own["c1.weight"]})
    with pytest.raises(FormatError, match="holds second, which the network does not have"):
        source_of(net).weights(own | {"second": own["c1.weight"]})
