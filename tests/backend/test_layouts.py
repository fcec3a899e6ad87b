"""The rule book: which layouts nodes get."""

from __future__ import annotations

import pytest

from cnnc.backend.layouts import LayoutRules
from cnnc.backend.target import TARGETS
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.layout import CHANNELS_LAST, Layout
from cnnc.ir.op import Op
from cnnc.ir.types import TensorType, f32
from cnnc.ops import OPS
from cnnc.ops.conv import Conv2d, Conv2dInputGrad, Conv2dWeightGrad
from cnnc.ops.dense import Dense, DenseInputGrad, DenseWeightGrad
from cnnc.ops.elementwise import Add, Bias
from cnnc.ops.fused import Fused
from cnnc.ops.partial import PartialStrassenWeightGrad
from cnnc.ops.pool import MaxPool2d
from cnnc.ops.reduce import Sum
from cnnc.ops.softmax import Softmax
from cnnc.ops.strassen import StrassenWeightGrad
from cnnc.passes.assign_layouts import LayoutRule, Tensors

AVX2 = LayoutRules(TARGETS["avx2"])


def rule(op: Op, *operands: TensorType, layouts: tuple[Layout | None, ...] = ()) -> LayoutRule:
    known = layouts or (None,) * len(operands)
    return AVX2(op, Tensors(operands, known, op.infer(*operands)))


def tags(found: LayoutRule) -> str:
    operands, results = (" ".join(str(x) for x in side) for side in (found.operands, found.results))
    return f"{operands} -> {results}"


@pytest.mark.parametrize(
    ("op", "operands", "expected"),
    [
        (Conv2d(), (f32(1, 3, 58, 58), f32(64, 3, 3, 3)), "acdb Acdb16a -> acdb"),
        (Conv2d(groups=4), (f32(1, 16, 8, 8), f32(16, 4, 3, 3)), "acdb Acdb4a -> acdb"),
        (Conv2d(groups=16), (f32(1, 16, 8, 8), f32(16, 1, 3, 3)), "acdb bcda -> acdb"),
        (Conv2d(groups=16), (f32(1, 16, 8, 8), f32(32, 1, 3, 3)), "acdb Acdb2a -> acdb"),
        (
            Conv2dInputGrad(groups=16, size=(10, 10)),
            (f32(1, 16, 8, 8), f32(16, 1, 3, 3)),
            "acdb bcda -> acdb",
        ),
        (
            Conv2dWeightGrad(groups=16, kernel=(3, 3)),
            (f32(1, 16, 8, 8), f32(1, 16, 10, 10)),
            "acdb acdb -> bcda",
        ),
        (Conv2d(), (f32(1, 16, 8, 8), f32(1, 16, 3, 3)), "acdb acdb -> acdb"),
        (Conv2dInputGrad(size=(10, 10)), (f32(1, 64, 8, 8), f32(64, 16, 3, 3)), "acdb Bcda16b -> acdb"),
        (Conv2dInputGrad(size=(10, 10)), (f32(1, 64, 8, 8), f32(64, 1, 3, 3)), "acdb acdb -> acdb"),
        (Conv2dWeightGrad(kernel=(3, 3)), (f32(1, 64, 56, 56), f32(1, 3, 58, 58)), "acdb acdb -> Acdb16a"),
        (StrassenWeightGrad(), (f32(1, 64, 8, 8), f32(1, 48, 8, 8)), "acdb acdb -> Acdb16a"),
        (
            PartialStrassenWeightGrad(parts=2),
            (f32(2, 64, 8, 8), f32(2, 48, 8, 8)),
            "acdb acdb -> aBdec16b",
        ),
        (Dense(), (f32(64, 16, 5, 5), f32(16, 16, 5, 5)), "acdb Acdb16a -> ab"),
        (Dense(), (f32(64, 120), f32(10, 120)), "ab Ab16a -> ab"),
        (DenseInputGrad(), (f32(64, 10), f32(10, 16, 5, 5)), "ab Acdb16a -> acdb"),
        (DenseWeightGrad(), (f32(64, 10), f32(64, 120)), "ab ab -> Ab16a"),
        (MaxPool2d((2, 2), (2, 2)), (f32(1, 3, 4, 4),), "acdb -> acdb"),
        (Softmax(), (f32(1, 3),), "ab -> ab"),
        (Softmax(), (f32(1, 3, 4, 4),), "acdb -> acdb"),
        (Sum((0, 2, 3)), (f32(1, 3, 4, 4),), "acdb -> a"),
        (Bias(), (f32(1, 3, 4, 4), f32(3)), "abcd a -> abcd"),
    ],
    ids=lambda x: x.name if isinstance(x, Op) else "",
)
def test_rules(op: Op, operands: tuple[TensorType, ...], expected: str) -> None:
    assert tags(rule(op, *operands)) == expected


def test_a_source_without_blocks_may_stay_as_it_is() -> None:
    x, w = f32(1, 3, 58, 58), f32(64, 3, 3, 3)
    assert rule(Conv2d(), x, w, layouts=(Layout("abcd"), None)).operands[0] is None
    assert rule(Conv2d(), x, w, layouts=(Layout("Abcd8a"), None)).operands[0] == CHANNELS_LAST


def test_a_source_that_the_epilogue_reads_too_lies_as_the_result_does() -> None:
    body = GraphBuilder("fused")
    x, w = body.input("x", f32(1, 3, 8, 8)), body.input("w", f32(3, 3, 3, 3))
    region = Fused(body.build([body.emit(Add(), body.emit(Conv2d(pad=(1, 1, 1, 1)), x, w), x)]))
    assert rule(region, x.type, w.type, layouts=(Layout("abcd"), None)).operands[0] == CHANNELS_LAST


def test_elementwise_follows_its_first_operand_with_a_layout() -> None:
    x = f32(16, 3, 3, 3)
    assert tags(rule(Add(), x, x, layouts=(None, Layout("Acdb16a")))) == "Acdb16a Acdb16a -> Acdb16a"


def test_every_op_has_a_rule() -> None:
    """As many layouts as operands and results, of their ranks."""
    for op in OPS.values():
        for sample in op.samples():
            results = sample.op.infer(*sample.operands)
            given = tuple(Layout(tag) for tag in ("", "a", "ab", "abc", "abcd", "abcde"))
            known = tuple(given[t.rank] for t in sample.operands)
            found = AVX2(sample.op, Tensors(sample.operands, known, results))
            for layouts, types in ((found.operands, sample.operands), (found.results, results)):
                assert len(layouts) == len(types), sample
                assert all(x is None or len(x.axes) == t.rank for x, t in zip(layouts, types, strict=True)), (
                    sample
                )
