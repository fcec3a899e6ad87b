"""Checks a plan by running it in thought: every node must still find its operands where they lie.

Knows nothing of how the plan was made. A broken rule raises VerifyError.
"""

from __future__ import annotations

from itertools import combinations, pairwise

from cnnc.errors import VerifyError
from cnnc.ir.graph import Node, Value
from cnnc.ir.layout import Layout
from cnnc.ir.op import Trait
from cnnc.ir.plan import ALIGNMENT, Placement, Plan, Space, is_alias, is_dense, may_write_over, part_of
from cnnc.ir.verify import verify_graph


def verify_plan(plan: Plan) -> None:
    """Check that the graph is sound, that every value has a layout and an aligned place of the
    layout's size inside its space, and that no value is overwritten before its last reader ran.

    Raises VerifyError with the values in its text, placed at the user's line where there is one.
    """
    verify_graph(plan.graph)
    for value in plan.graph.values.values():
        _check_place(plan, value)
    _check_interface(plan)
    memory = _Memory(plan)
    for node in plan.graph.nodes:
        memory.run(node)
    memory.finish()
    if plan.live_bytes_bound > plan.arena_bytes:
        text = f"{plan.live_bytes_bound} bytes live at a time cannot fit an arena of {plan.arena_bytes}"
        raise VerifyError(text)


def _check_place(plan: Plan, value: Value) -> None:
    """The value has a layout for its rank, and a place of that layout's size in a space."""
    name = value.name
    if name not in plan.layouts or name not in plan.placements:
        raise VerifyError(f"{name!r} has no layout or no placement")
    layout, place = plan.layout(value), plan.placement(value)
    if len(layout.axes) != value.type.rank:
        raise VerifyError(f"{name!r} is {value.type}, which the layout {layout.tag!r} does not fit")
    if place.nbytes != layout.nbytes(value.type):
        wanted = layout.nbytes(value.type)
        raise VerifyError(f"{name!r} has {place.nbytes} bytes, {value.type} in {layout.tag!r} needs {wanted}")
    if place.pitch or place.row:
        _check_rows(value, layout, place)
    elif place.offset < 0 or place.offset % ALIGNMENT:
        raise VerifyError(f"{name!r} lies at offset {place.offset}, which is no multiple of {ALIGNMENT}")
    size = {Space.ARENA: plan.arena_bytes, Space.PARAM: plan.param_bytes}.get(place.space, place.nbytes)
    if place.end > size:
        raise VerifyError(f"{name!r} ends at byte {place.end} of {place.space.value}, which has {size}")


def _check_rows(value: Value, layout: Layout, place: Placement) -> None:
    """A value with a pitch has rows of its fastest axis, which do not run into each other."""
    name, item = value.name, value.type.numpy.itemsize
    if layout.block > 1 or not value.type.rank:
        raise VerifyError(f"{name!r} has a pitch, which {value.type} in {layout.tag!r} cannot have")
    row = value.type.shape[layout.axes[-1]] * item
    if place.row != row or place.pitch < row or place.pitch % item:
        raise VerifyError(f"{name!r} has rows of {row} bytes, not {place.row} every {place.pitch}")
    if place.offset < 0 or place.offset % item:
        raise VerifyError(f"{name!r} lies at offset {place.offset}, which is no multiple of {item}")


def _check_interface(plan: Plan) -> None:
    """Inputs and outputs are in the caller's buffers, params apart from each other in the block."""
    graph = plan.graph
    for value in (*graph.inputs, *graph.outputs, *graph.params):
        if plan.placement(value).pitch:
            raise VerifyError(f"{value.name!r} is the caller's, it cannot lie inside another value")
    for space, values in ((Space.INPUT, graph.inputs), (Space.OUTPUT, graph.outputs)):
        for index, value in enumerate(values):
            place = plan.placement(value)
            if (place.space, place.index, place.offset) != (space, index, 0):
                raise VerifyError(f"{value.name!r} must be {space.value} {index}, not {_text(place)}")
    for param in graph.params:
        if plan.placement(param).space is not Space.PARAM:
            raise VerifyError(f"the param {param.name!r} lies at {_text(plan.placement(param))}")
    for one, other in pairwise(sorted(graph.params, key=lambda p: plan.placement(p).offset)):
        if plan.placement(one).overlaps(plan.placement(other)):
            raise VerifyError(f"the params {one.name!r} and {other.name!r} overlap")


class _Memory:
    """What lies in memory as the nodes run: `intact` maps a value to its place until overwritten, in each
    block of memory on its own."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.updates = {new.name: param for param, new in plan.graph.updates}
        self.intact: dict[tuple[Space, int], dict[str, Placement]] = {}
        for value in (*plan.graph.inputs, *plan.graph.params):
            self._block(plan.placement(value))[value.name] = plan.placement(value)

    def _block(self, place: Placement) -> dict[str, Placement]:
        """What is intact in the block of memory in which a place is."""
        return self.intact.setdefault((place.space, place.index), {})

    def run(self, node: Node) -> None:
        """The node reads its operands and writes its results."""
        for operand in node.operands:
            self._expect_intact(operand, f"{_label(node)} reads", node)
        for one, other in combinations(node.results, 2):
            if self.plan.placement(one).overlaps(self.plan.placement(other)):
                raise VerifyError(f"the results of {_label(node)} overlap", node.loc)
        for result in node.results:
            self._check_write(node, result)
        for result in node.results:
            self._write(result, is_there=_is_alias(self.plan, node))

    def finish(self) -> None:
        """Outputs and new values of params must have survived, the latter in the params' places."""
        for output in self.plan.graph.outputs:
            self._expect_intact(output, "the output", None)
        for param, new in self.plan.graph.updates:
            self._expect_intact(new, f"the new value of {param.name!r}", None)
            if self.plan.placement(new) != self.plan.placement(param):
                raise VerifyError(f"the new value {new.name!r} does not lie where {param.name!r} does")

    def _expect_intact(self, value: Value, role: str, node: Node | None) -> None:
        place = self.plan.placement(value)
        if self._block(place).get(value.name) != place:
            text = f"{role} {value.name!r}, which is overwritten by then"
            raise VerifyError(text, node.loc if node else None)

    def _check_write(self, node: Node, result: Value) -> None:
        """The node may write there: over no operand but one it takes over, over no param but its own."""
        if _is_alias(self.plan, node):
            return
        place, source = self.plan.placement(result), self.plan.in_place.get(result.name)
        for operand in dict.fromkeys(node.operands):
            if place.overlaps(self.plan.placement(operand)):
                self._check_takes_over(node, result, operand)
        if place.space is Space.INPUT:
            raise VerifyError(f"{_label(node)} writes to an input", node.loc)
        param = self.updates.get(result.name)
        is_own = param is not None and self.plan.placement(param) == place and source == param.name
        if place.space is Space.PARAM and not is_own:
            raise VerifyError(f"{_label(node)} writes to a param that it is no update of", node.loc)

    def _check_takes_over(self, node: Node, result: Value, operand: Value) -> None:
        plan = self.plan
        if plan.in_place.get(result.name) != operand.name or not may_write_over(node, operand):
            raise VerifyError(
                f"{_label(node)} writes {result.name!r} over {operand.name!r}, which it reads", node.loc
            )
        alike = operand.type == result.type and plan.layout(operand) == plan.layout(result)
        if not alike or plan.placement(operand) != plan.placement(result):
            raise VerifyError(
                f"{_label(node)}: {result.name!r} does not cover {operand.name!r} exactly", node.loc
            )

    def _write(self, result: Value, is_there: bool) -> None:
        place = self.plan.placement(result)
        block = self._block(place)
        if not is_there:
            for name in [name for name, other in block.items() if other.overlaps(place)]:
                del block[name]
        block[result.name] = place


def _is_alias(plan: Plan, node: Node) -> bool:
    """Whether a node's result is there when its operands are, and the node therefore does not run.

    Raises VerifyError if the plan says so but the result lies elsewhere.
    """
    if not is_alias(plan, node):
        return False
    if node.op.has(Trait.JOIN) or node.op.has(Trait.PART):
        _check_parts(plan, node)
        return True
    operand, result = node.operands[0], node.result
    if plan.placement(operand) != plan.placement(result):
        raise VerifyError(f"the view {result.name!r} does not lie where {operand.name!r} does", node.loc)
    if not all(is_dense(plan.layout(v), v.type) for v in (operand, result)):
        raise VerifyError(f"the view {result.name!r} is not dense, so it needs a copy", node.loc)
    return True


def _check_parts(plan: Plan, node: Node) -> None:
    """What is joined, or is a part, is the range of the whole that the op says."""
    joins = node.op.has(Trait.JOIN)
    whole, parts = (node.result, node.operands) if joins else (node.operands[0], node.results)
    axis, start = node.op.attributes["axis"], 0 if joins else node.op.attributes["start"]
    layout = plan.layout(whole)
    assert isinstance(axis, int) and isinstance(start, int)
    for part in parts:
        size = part.type.shape[axis]
        if layout.block > 1 or layout.axes[-1] != axis or plan.layout(part) != layout:
            raise VerifyError(
                f"{_label(node)}: parts along axis {axis} are not in the rows of {layout}", node.loc
            )
        if plan.placement(part) != part_of(plan.placement(whole), layout, whole.type, start, size):
            raise VerifyError(f"{part.name!r} does not lie in its place inside {whole.name!r}", node.loc)
        start += size


def _label(node: Node) -> str:
    """`conv2d %1`, for messages."""
    return f"{node.op.name} {', '.join(f'%{v.name}' for v in node.results)}"


def _text(place: Placement) -> str:
    return f"{place.space.value} {place.index} at byte {place.offset}"
