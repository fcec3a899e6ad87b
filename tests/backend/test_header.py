"""The generated C: it compiles as C and C++, says what callers must know, and withstands odd names."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cnnc.backend.header import c_config, c_header
from cnnc.backend.interface import Interface, Port, argument_names, c_identifier, weight_table
from cnnc.backend.link import RUNTIME
from cnnc.errors import UnsupportedError
from tests.toy import BATCH, CC, INFERENCE, TRAINING, needs_cc

STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only")


def syntax(command: list[str], source: Path, *includes: Path) -> None:
    found = [f"-I{folder}" for folder in includes]
    done = subprocess.run(
        [*command, *STRICT, *found, str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_inference_header_declares_and_documents() -> None:
    text = c_header(INFERENCE)
    assert "void toy_run(int64_t images, const float *image, float *logits, const void *params," in text
    assert "images: how many, 1 to 4;" in text
    assert "#define TOY_BATCH 4 /* most images of one call */" in text
    assert "extern const unsigned char toy_params[];" in text
    assert "#define TOY_WORKSPACE_BYTES 64u" in text
    assert "image: float of shape (4,1,4,4), read; a pixel v of 0..255 is meant as v * 0.00392156886" in text
    assert "        48  fc.bias (3,)" in text
    assert "multiple of\n * 64 bytes" in text
    assert "own workspace" in text


def test_training_header_declares_step_and_evaluate() -> None:
    text = c_header(TRAINING)
    assert "void toy_step(const float *image, const int32_t *labels, const float *lr, float *loss," in text
    assert "void toy_evaluate(const float *image, const int32_t *labels, float *loss, float *correct" in text
    assert "Labels must be 0 to 2" in text
    assert "toy_run" not in text


def test_weights_outside_leave_no_builtin_symbol() -> None:
    assert "toy_params" not in c_header(replace(INFERENCE, has_builtin_params=False))


@needs_cc
@pytest.mark.parametrize("interface", [INFERENCE, TRAINING], ids=["inference", "training"])
def test_compiles_as_c_and_cpp(interface: Interface, tmp_path: Path) -> None:
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "toy.h").write_text(c_header(interface))
    (tmp_path / "network.h").write_text(c_config(interface))
    source = tmp_path / "use.c"
    source.write_text('#include "network.h"\nint main(void) { return network_inputs[0].rank; }\n')
    unused = "-Wno-unused"  # of the tables, which a real program uses
    syntax([str(CC), "-std=c11", unused], source, tmp_path, RUNTIME)
    if compiler := shutil.which("c++"):
        other = replace(interface, name="other", outputs=(Port("class", "f32", (BATCH, 3)),))
        (tmp_path / "other.h").write_text(c_header(other))
        both = tmp_path / "use.cc"
        both.write_text(
            '#include "include/toy.h"\n#include "other.h"\nint main() { return toy_supported(); }\n'
        )
        syntax([compiler, "-std=c++11"], both, tmp_path)


@needs_cc
def test_hostile_names_stay_inside_comments_and_strings(tmp_path: Path) -> None:
    odd = 'a*/b"\\\n??/ü'
    interface = replace(
        INFERENCE,
        inputs=(replace(INFERENCE.inputs[0], name=odd), Port("int", "f32", (BATCH, 2))),
        outputs=(Port(odd, "f32", (BATCH, 3)), Port("params", "f32", (BATCH, 3))),
        weights=weight_table([(odd, (2,))]),
        target=odd,
    )
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "toy.h").write_text(c_header(interface))
    config = c_config(interface)
    assert r'{"a*/b\042\134\012\077\077/\303\274", 1, {2u}, 2u}' in config
    (tmp_path / "network.h").write_text(config)
    source = tmp_path / "use.c"
    source.write_text('#include "network.h"\nint main(void) { return 0; }\n')
    syntax([str(CC), "-std=c11", "-Wno-unused"], source, tmp_path, RUNTIME)


def test_argument_names_are_distinct_identifiers() -> None:
    names = argument_names(["image", "image", "int", "params", "2x", "", "a b", "image_1"])
    assert names == ("image", "image_1", "int_1", "params_1", "n2x", "network", "a_b", "image_1_1")


@pytest.mark.parametrize(("text", "name"), [("lenet5", "lenet5"), ("resnet-18", "resnet_18"), ("3d", "n3d")])
def test_c_identifier(text: str, name: str) -> None:
    assert c_identifier(text) == name


def test_weight_table_offsets() -> None:
    table = weight_table([("a", (2, 3)), ("b", ()), ("c", (4,))])
    assert [(w.name, w.offset, w.size) for w in table] == [("a", 0, 6), ("b", 6, 1), ("c", 7, 4)]


def test_config_holds_exact_constants() -> None:
    text = c_config(INFERENCE)
    assert "{0x1.0101020000000p-8f, -0x1.99999a0000000p-4f}" in text
    assert '{"fc.weight", 4, {3u, 1u, 4u, 4u}, 48u}' in text
    assert "#define NETWORK_PARAMS NULL" in c_config(replace(INFERENCE, has_builtin_params=False))


def test_config_refuses_what_programs_cannot_serve() -> None:
    labels = Port("labels", "i32", (BATCH,))
    with pytest.raises(UnsupportedError, match=r"labels: i32 of shape \(4,\)"):
        c_config(replace(INFERENCE, inputs=(labels,)))
    with pytest.raises(UnsupportedError, match="needs one image input, class labels"):
        c_config(replace(TRAINING, classes=None))
    with pytest.raises(UnsupportedError, match="9 axes"):
        c_config(replace(INFERENCE, weights=weight_table([("w", (1,) * 9)])))
