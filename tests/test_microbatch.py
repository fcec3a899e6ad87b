"""How many images are computed at a time: what the caches hold, where memory is what bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cnnc.backend.algorithms.book import Algorithms
from cnnc.backend.target import TARGETS, Target
from cnnc.frontend import conv2d
from cnnc.frontend.network import Network
from cnnc.microbatch import CACHES, microbatch
from cnnc.passes.choose_algorithms import NO_PREFERENCES, ChooseAlgorithms
from cnnc.source import source_of
from cnnc.summary import summarize
from cnnc.units import CompiledUnit, inference_unit

IMAGE_BYTES = 2 * 4 * 8 * 16 * 16
"""Two maps are alive at a time."""


def network() -> Network:
    net = Network("maps")
    x = net.input(8, 16, 16)
    for _ in range(4):
        x = conv2d(x, 8, 1)
    net.output(x)
    return net


def machine(images: float, bytes_per_cycle: float = 0.01) -> Target:
    """Its caches hold so many images."""
    l2_bytes = int(images * IMAGE_BYTES / CACHES)
    return replace(TARGETS["avx2"], l2_bytes=l2_bytes, memory_bytes_per_cycle=bytes_per_cycle)


def chosen(batch: int, target: Target) -> int:
    algorithms = ChooseAlgorithms(Algorithms(target), NO_PREFERENCES)
    return microbatch(source_of(network()).graph, batch, target, algorithms)


@pytest.mark.parametrize(
    ("batch", "held", "wanted"),
    [(1, 0.5, 1), (8, 0.5, 1), (8, 2.5, 2), (8, 3.5, 3), (8, 5, 4), (8, 8, 8), (7, 4, 4)],
)
def test_as_many_as_the_caches_hold_in_equal_turns(batch: int, held: float, wanted: int) -> None:
    assert chosen(batch, machine(held)) == wanted


def test_all_where_products_take_longer_than_maps() -> None:
    assert chosen(8, machine(2, bytes_per_cycle=1e6)) == 8


def test_all_where_weights_outweigh_maps() -> None:
    net = Network("weights")
    net.output(conv2d(conv2d(net.input(512, 1, 1), 512, 1), 8, 1))
    target = machine(0.1)
    algorithms = ChooseAlgorithms(Algorithms(target), NO_PREFERENCES)
    assert microbatch(source_of(net).graph, 8, target, algorithms) == 8


def unit(target: Target) -> CompiledUnit:
    return inference_unit(source_of(network()), 7, target)


def test_the_interface_is_that_of_the_whole_batch_and_the_arena_that_of_a_turn() -> None:
    at_once, turns = unit(machine(100)), unit(machine(2))
    assert turns.main.program.microbatch == 2
    assert turns.main.plan.arena_bytes * 7 == at_once.main.plan.arena_bytes * 2
    known, other = at_once.interface(False), turns.interface(False)
    assert other == replace(known, workspace_bytes=other.workspace_bytes)
    assert (other.batch, other.inputs[0].shape, other.outputs[0].shape) == (7, (7, 8, 16, 16), (7, 8, 16, 16))


def test_a_summary_is_that_of_the_whole_batch() -> None:
    at_once, turns = summarize(unit(machine(100))), summarize(unit(machine(2)))
    assert (at_once.microbatch, turns.microbatch) == (7, 2)
    assert turns.layers == at_once.layers
