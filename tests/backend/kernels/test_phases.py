"""Phases against the definition of an input gradient, tap by tap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cnnc.backend.kernels.phases import Phase, forward_phase, gradient_phases

small = st.integers(1, 5)


def visits(phases: tuple[Phase, ...]) -> set[tuple[int, int, int]]:
    """(position of the result, place of the filter, position of the source) of every product."""
    return {
        (int(p.result(i)), int(p.filter(k)), int(p.source(i, k)))
        for p in phases
        for i in range(p.count)
        for k in range(p.taps)
    }


@given(extent=st.integers(1, 20), kernel=small, stride=small, pad=st.integers(0, 6), dilation=small)
def test_gradient_phases_are_the_definition(
    extent: int, kernel: int, stride: int, pad: int, dilation: int
) -> None:
    phases = gradient_phases(extent, kernel, stride, pad, dilation)
    assert visits(phases) == {
        (p, t, (p + pad - t * dilation) // stride)
        for p in range(extent)
        for t in range(kernel)
        if (p + pad - t * dilation) % stride == 0
    }
    positions = [int(p.result(i)) for p in phases for i in range(p.count)]
    assert sorted(positions) == list(range(extent))
    assert all(p.count <= phases[0].count and p.shift > 0 for p in phases)


@given(count=small, taps=small, stride=small, pad=st.integers(0, 6), dilation=small)
def test_a_convolution_is_one_phase(count: int, taps: int, stride: int, pad: int, dilation: int) -> None:
    assert visits((forward_phase(count, taps, stride, pad, dilation),)) == {
        (p, t, p * stride + t * dilation - pad) for p in range(count) for t in range(taps)
    }


@given(
    count=small, taps=small, stride=small, pad=st.integers(0, 6), dilation=small, source=st.integers(1, 12)
)
def test_overhanging_taps_are_known(
    count: int, taps: int, stride: int, pad: int, dilation: int, source: int
) -> None:
    phase = forward_phase(count, taps, stride, pad, dilation)
    for k in range(taps):
        reads = [int(phase.source(i, k)) for i in range(count)]
        assert phase.starts_before(k) == (min(reads) < 0)
        assert phase.ends_behind(k, source) == (max(reads) >= source)
    inside = all(0 <= read < source for _, _, read in visits((phase,)))
    assert phase.overhangs(source) == (not inside)
