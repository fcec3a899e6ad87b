"""`cnnc run`: inputs with and without a batch axis, by place and by name; what it prints and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnnc.compiler import compile
from cnnc.frontend.load import load_network
from tests.cli.conftest import Cnnc

Save = Callable[[str, object], Path]
TWO = """
graph @two(%left: f32[1,3], %right: f32[1,3]) -> (%sum, %difference) {
  %sum: f32[1,3] = add(%left, %right)
  %difference: f32[1,3] = sub(%left, %right)
}
"""


def test_pixels_floats_and_single_images(cnnc: Cnnc, tiny: Path, tmp_path: Path, saved: Save) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 1, 6, 6), np.uint8)
    scaled = pixels.astype(np.float32) * np.float32(1 / 255)
    expected = compile(load_network(str(tiny)))(scaled)
    out = tmp_path / "y.npy"
    for array in (pixels, scaled, pixels[:, 0]):
        assert cnnc("run", tiny, saved("x", array), "-o", out) == ""
        np.testing.assert_array_equal(np.load(out), expected)
    cnnc("run", tiny, saved("one", pixels[2]), "-o", out)
    np.testing.assert_array_equal(np.load(out), expected[2])
    cnnc("run", tiny, saved("x", pixels), "-o", out, "--batch", 3, "--threads", 2)
    np.testing.assert_allclose(np.load(out), expected, rtol=1e-5, atol=1e-6)


def test_printed_outputs(cnnc: Cnnc, tiny: Path, saved: Save) -> None:
    x = saved("x", np.zeros((2, 1, 6, 6), np.float32))
    assert cnnc("run", tiny, x) == "digit (2, 3)\n[[0. 0. 0.]\n [0. 0. 0.]]\n"
    assert json.loads(cnnc("run", tiny, x, "--json")) == {
        "digit": {"shape": [2, 3], "values": [[0.0] * 3, [0.0] * 3]}
    }


def test_several_inputs_and_outputs(cnnc: Cnnc, tmp_path: Path, saved: Save) -> None:
    net = tmp_path / "two.txt"
    net.write_text(TWO)
    left, right = saved("l", [[1.0, 2.0, 3.0]]), saved("r", [[10.0, 20.0, 30.0]])
    total, difference = tmp_path / "s.npy", tmp_path / "d.npy"
    cnnc("run", net, left, right, "-o", total, "-o", difference)
    np.testing.assert_array_equal(np.load(difference), [[-9, -18, -27]])
    cnnc("run", net, f"right={left}", f"left={right}", "-o", f"difference={difference}", "-o", total)
    np.testing.assert_array_equal(np.load(total), [[11, 22, 33]])
    np.testing.assert_array_equal(np.load(difference), [[9, 18, 27]])
    assert "files given: 1; needed, one for each input: left, right" in cnnc.fails("run", net, left)
    assert "files given: 1; needed, one for each output" in cnnc.fails("run", net, left, right, "-o", total)
    assert "did you mean 'left'" in cnnc.fails("run", net, f"lefft={left}", right)
    assert "no batch axis" in cnnc.fails("run", net, left, saved("v", [1.0, 2.0, 3.0]))
    assert "different numbers of rows" in cnnc.fails(
        "run", net, left, saved("m", np.zeros((2, 3), np.float32))
    )


def test_bad_inputs(cnnc: Cnnc, tiny: Path, tmp_path: Path, saved: Save) -> None:
    whole = saved("x", np.zeros((2, 1, 6, 6), np.float32)).read_bytes()
    cut = tmp_path / "cut.npy"
    cut.write_bytes(whole[:-10])
    assert "truncated or malformed .npy" in cnnc.fails("run", tiny, cut)
    assert "cannot read" in cnnc.fails("run", tiny, tmp_path / "none.npy")
    assert "neither .npy nor IDX" in cnnc.fails("run", tiny, tiny)
    assert "does not fit the input image" in cnnc.fails("run", tiny, saved("s", np.zeros((2, 5, 5))))
    assert "dtype int64" in cnnc.fails("run", tiny, saved("i", np.zeros((1, 6, 6), np.int64)))
    assert "has no images" in cnnc.fails("run", tiny, saved("e", np.zeros((0, 1, 6, 6), np.float32)))
    out = tmp_path / "no" / "y.npy"
    assert "cannot write" in cnnc.fails("run", tiny, tmp_path / "x.npy", "-o", out)


def test_graphs_with_labels_are_refused(cnnc: Cnnc, tiny: Path, tmp_path: Path, saved: Save) -> None:
    loss = tmp_path / "loss.txt"
    loss.write_text(cnnc("dump", tiny, "--train", "--after", "source"))
    x = saved("x", np.zeros((1, 6, 6), np.float32))
    assert "labels is i32[1]" in cnnc.fails("run", loss, x, x)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk(cnnc: Cnnc, tiny: Path, saved: Save) -> None:
    x = saved("x", np.zeros((1, 6, 6), np.float32))
    assert "/dev/full: no space left" in cnnc.fails("run", tiny, x, "-o", "/dev/full")
