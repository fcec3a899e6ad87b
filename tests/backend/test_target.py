"""Targets: by name, and matched to a machine."""

from __future__ import annotations

import pytest

from cnnc.backend.llvm import host, host_features
from cnnc.backend.target import TARGETS, match_host, named_target
from cnnc.errors import CnncError, UnsupportedError

LINUX = "x86_64-unknown-linux-gnu"


def features(*names: str) -> dict[str, bool]:
    return {f: True for name in names for f in TARGETS[name].features} | {"amx-tile": False}


@pytest.mark.parametrize("name", ["x86-64", "avx2", "avx512"])
def test_a_machine_gets_the_widest_target_it_runs(name: str) -> None:
    found = match_host(LINUX, features("x86-64", name))
    assert found == TARGETS[name]


def test_one_missing_feature_is_enough_to_step_down() -> None:
    for feature in set(TARGETS["avx512"].features) - set(TARGETS["avx2"].features):
        assert match_host(LINUX, features("x86-64", "avx512") | {feature: False}).name == "avx2"
    for feature in TARGETS["avx2"].features:
        assert match_host(LINUX, features("x86-64", "avx512") | {feature: False}).name == "x86-64"


def test_a_cpu_of_half_the_units_gets_its_own_target() -> None:
    known = features("x86-64", "avx512")
    for cpu, name in (("znver4", "avx512-single"), ("znver5", "avx512"), ("icelake-server", "avx512")):
        assert match_host(LINUX, known, cpu).name == name
    assert match_host(LINUX, features("x86-64", "avx2"), "znver4").name == "avx2"


def test_a_machine_that_tells_nothing_is_plain_x86_64() -> None:
    assert match_host(LINUX, {}).name == "x86-64"


@pytest.mark.parametrize("triple", ["aarch64-unknown-linux-gnu", "arm64-apple-darwin23.4.0"])
def test_arm64_keeps_the_systems_triple(triple: str) -> None:
    found = match_host(triple, {})
    assert (found.name, found.triple) == ("arm64", triple)


def test_other_machines_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match="no kernels for riscv64-unknown-linux-gnu"):
        match_host("riscv64-unknown-linux-gnu", {})


def test_names() -> None:
    assert named_target("host", TARGETS["arm64"]) is TARGETS["arm64"]
    assert named_target("avx2", TARGETS["arm64"]) is TARGETS["avx2"]
    with pytest.raises(UnsupportedError, match=r"unknown target 'avx-512'; did you mean 'avx512'\?"):
        named_target("avx-512", TARGETS["avx2"])
    with pytest.raises(
        UnsupportedError,
        match=r"unknown target 'gpu' \(known: host, x86-64, avx2, avx512, avx512-single, arm64\)",
    ):
        named_target("gpu", TARGETS["avx2"])


def test_feature_text() -> None:
    assert TARGETS["arm64"].feature_text == "+neon"
    assert TARGETS["avx2"].feature_text.startswith("+avx,+avx2,+fma")


def test_this_machine_has_what_its_target_asks_for() -> None:
    target = host()
    if target.name != "arm64":
        assert set(target.features) <= host_features()
    assert target.lanes * 4 <= 64


def test_a_target_suits_any_number_of_threads() -> None:
    target = TARGETS["avx2"]
    assert target.suited_to(1).threads == 1
    assert target.suited_to(1).suited_to() == target
    with pytest.raises(CnncError, match="threads must be a positive whole number, not 0"):
        target.suited_to(0)
