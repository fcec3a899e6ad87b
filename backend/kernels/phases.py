"""One axis of a contraction cut into phases: positions of the result that read the source alike.

A convolution has one phase. Its input gradient of stride s has s: position p of the result receives tap t
from source (p + pad - t * dilation) / stride, where that is whole, so positions that differ by the stride
share their taps, and the others are not visited at all. Between two taps of a phase both the place in the
filter and the place in the source advance by constants, so that a kernel can loop over them.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnnc.backend.kernel.builder import Coordinate


@dataclass(frozen=True)
class Phase:
    """Positions `first + i * step` of the result, i in 0..count.

    Tap k in 0..taps reads source position `i * stride + offset + k * shift` and stands at place
    `place + k * turn` of the filter.
    """

    first: int
    step: int
    count: int
    taps: int
    place: int
    turn: int
    stride: int
    offset: int
    shift: int

    def result(self, i: Coordinate) -> Coordinate:
        return i * self.step + self.first

    def source(self, i: Coordinate, tap: Coordinate) -> Coordinate:
        return i * self.stride + tap * self.shift + self.offset

    def filter(self, tap: Coordinate) -> Coordinate:
        return tap * self.turn + self.place

    def starts_before(self, tap: int) -> bool:
        """Whether the tap reads in front of the source at some position."""
        return self.offset + tap * self.shift < 0

    def ends_behind(self, tap: int, extent: int) -> bool:
        """Whether the tap reads behind a source of `extent` at some position."""
        return (self.count - 1) * self.stride + self.offset + tap * self.shift >= extent

    def overhangs(self, extent: int) -> bool:
        """Whether some tap reads outside a source of `extent`."""
        return self.taps > 0 and (self.starts_before(0) or self.ends_behind(self.taps - 1, extent))


def forward_phase(count: int, taps: int, stride: int, pad: int, dilation: int) -> Phase:
    """The one phase of a convolution whose result has `count` positions."""
    return Phase(0, 1, count, taps, 0, 1, stride, -pad, dilation)


def gradient_phases(extent: int, kernel: int, stride: int, pad: int, dilation: int) -> tuple[Phase, ...]:
    """The phases of the input gradient of a convolution, whose input has `extent` positions."""
    return tuple(
        _gradient_phase(first, -(-(extent - first) // stride), kernel, stride, pad, dilation)
        for first in range(min(stride, extent))
    )


def _gradient_phase(first: int, count: int, kernel: int, stride: int, pad: int, dilation: int) -> Phase:
    """The taps that reach `first`, from the last to the first, as they advance in the source."""
    reaching = [t for t in reversed(range(kernel)) if (first + pad - t * dilation) % stride == 0]
    if not reaching:
        return Phase(first, stride, count, 0, 0, 0, 1, 0, 1)
    offsets = [(first + pad - t * dilation) // stride for t in reaching]
    turn, shift = (reaching[1] - reaching[0], offsets[1] - offsets[0]) if len(reaching) > 1 else (0, 1)
    return Phase(first, stride, count, len(reaching), reaching[0], turn, 1, offsets[0], shift)
