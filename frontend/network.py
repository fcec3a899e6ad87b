"""Network: collects what layer calls record and hands the compiler its graphs and first weights.

    net = Network("tiny", optimizer=SGD(lr=0.1))
    net.output(dense(net.input(4), 3))
    net.loss(softmax_cross_entropy)

`graph()` is the forward graph at batch 1, `loss_graph()` the same with the loss behind it; passes
take them from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cnnc.errors import CnncError
from cnnc.frontend.arguments import TENSOR_NAME, finite, layer_name, tensor_name, whole
from cnnc.frontend.calls import user_call, user_location
from cnnc.frontend.initializers import Initializer, he, initial_value
from cnnc.frontend.inputs import InputSpec
from cnnc.frontend.losses import Loss
from cnnc.frontend.optimizers import SGD
from cnnc.frontend.tensor import Tensor
from cnnc.frontend.weights import WeightName, same_name
from cnnc.ir.builder import GraphBuilder
from cnnc.ir.graph import Graph, Value
from cnnc.ir.location import Location
from cnnc.ir.op import Op
from cnnc.ir.types import Array, f32
from cnnc.ops.optimizer import Optimizer
from cnnc.ops.softmax import Softmax

# Values the training graph adds under these names.
RESERVED = frozenset({"labels", "target", "lr", "loss", "correct"})


@dataclass(frozen=True)
class Layer:
    """A layer being recorded: gives its name and place to the parameters and nodes it adds."""

    name: str
    loc: Location
    builder: GraphBuilder
    initializers: dict[str, Initializer]

    def param(self, part: str, shape: tuple[int, ...], init: Initializer) -> Value:
        """A float32 parameter `<layer>.<part>`."""
        name = f"{self.name}.{part}"
        self.initializers[name] = init
        return self.builder.param(name, f32(*shape))

    def emit(self, op: Op, *operands: Value) -> Value:
        with self.builder.at(self.name, self.loc):
            return self.builder.emit(op, *operands)


class Network:
    """A network under construction. `seed` and `init` say how weights begin where a layer does not.

    `weight_name` is a function from the name of an entry of a weights file made elsewhere, such as
    PyTorch's, to the name here, or to None for an entry to leave out. Names it does not know it returns.
    """

    @user_call
    def __init__(
        self,
        name: str,
        optimizer: Optimizer | None = None,
        seed: int = 0,
        init: Initializer = he,
        weight_name: WeightName | None = None,
    ) -> None:
        if optimizer is not None and not isinstance(optimizer, Optimizer):
            raise CnncError(f"optimizer must be one such as SGD(lr=0.1), not {optimizer!r}")
        if not callable(init):
            raise CnncError(f"init must be an initializer such as he or glorot, not {init!r}")
        if weight_name is not None and not callable(weight_name):
            raise CnncError(f"weight_name must be a function from a name to a name, not {weight_name!r}")
        self.name = layer_name(name)
        self.optimizer = optimizer or SGD(lr=0.01, momentum=0.9)
        self.seed = whole("seed", seed, 0)
        self.init = init
        self.weight_name: WeightName = weight_name or same_name
        self.location = user_location()
        self._builder = GraphBuilder(name)
        self._inputs: dict[str, InputSpec] = {}
        self._layers: dict[str, Location] = {}
        self._initializers: dict[str, Initializer] = {}
        self._outputs: dict[str, Value] = {}
        self._loss: tuple[Loss, Value, Location] | None = None

    @user_call
    def input(self, *shape: int, name: str | None = None, scale: float = 1.0, shift: float = 0.0) -> Tensor:
        """An input of (channels, height, width) or of (features); float32.

        A program that is given uint8 pixels reads each as u * scale + shift. The name is `image`
        for a picture and `features` for a vector unless given.
        """
        if len(shape) not in (1, 3):
            raise CnncError(f"give channels, height and width, or features alone; got {len(shape)} sizes")
        sizes = tuple(whole("a size", s, 1) for s in shape)
        default = "image" if len(sizes) == 3 else "features"
        chosen = self._free_tensor_name(default if name is None else name)
        spec = InputSpec(chosen, sizes, finite("scale", scale), finite("shift", shift))
        self._inputs[chosen] = spec
        return Tensor(self._builder.input(chosen, f32(1, *sizes)), self)

    @user_call
    def output(self, tensor: Tensor, name: str | None = None) -> None:
        """Make a tensor a result of the network, named after its layer unless `name` is given."""
        value = self._own(tensor)
        if value.name in self._inputs:
            raise CnncError(f"{value.name!r} is an input; an output is what a layer computes")
        if value in self._outputs.values():
            raise CnncError("this tensor is an output already")
        chosen = self._default_output_name(value) if name is None else self._free_tensor_name(name)
        self._outputs[chosen] = value

    @user_call
    def loss(self, loss: Loss, of: Tensor | None = None) -> None:
        """Train by `loss`, taken of the only output or of the tensor `of` (logits, for example)."""
        if not isinstance(loss, Loss):
            raise CnncError(f"loss must be softmax_cross_entropy or squared_error, not {loss!r}")
        if self._loss is not None:
            raise CnncError(f"the network has the loss {self._loss[0].name} already")
        value = self._only_output() if of is None else self._own(of)
        producers = [n.op for n in self._builder.build(()).nodes if value in n.results]
        if loss.classifies and any(isinstance(op, Softmax) for op in producers):
            raise CnncError(f"{loss.name} applies softmax itself; take it of softmax's operand with `of=`")
        loss.check(value.type)
        self._loss = loss, value, user_location()

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        return tuple(self._inputs.values())

    @property
    def classes(self) -> int | None:
        """How many classes the labels of the loss tell apart; None without such a loss."""
        if self._loss is None or not self._loss[0].classifies:
            return None
        return self._loss[1].type.shape[1]

    @property
    def has_loss(self) -> bool:
        """Whether a loss is declared, so that it can be trained."""
        return self._loss is not None

    def graph(self) -> Graph:
        """The forward graph at batch 1. Raises CnncError without an input or an output."""
        if not self._inputs:
            raise self._incomplete("input", "net.input(channels, height, width)")
        if not self._outputs:
            raise self._incomplete("output", "net.output(tensor)")
        return _renamed(self._builder.build(self._outputs.values()), self._output_values())

    def loss_graph(self) -> Graph:
        """The forward graph with the loss behind it, at batch 1.

        It has one more input, `labels` i32[1] or `target`, and its outputs are (loss, correct) for
        softmax cross-entropy, (loss,) for squared error. Raises CnncError without a loss.
        """
        forward = self.graph()
        if self._loss is None:
            raise self._incomplete("loss", "net.loss(softmax_cross_entropy)")
        loss, value, loc = self._loss
        builder = GraphBuilder.extend(forward)
        with builder.at("loss", loc):
            return builder.build(loss.append(builder, self._output_values().get(value, value)))

    def initial_weights(self, seed: int | None = None) -> dict[str, Array]:
        """The first value of each parameter, float32 in the logical order, by name."""
        chosen = self.seed if seed is None else seed
        shapes = {p.name: p.type.shape for p in self._builder.build(()).params}
        inits = self._initializers
        try:
            return {name: initial_value(name, shapes[name], inits[name], chosen) for name in shapes}
        except CnncError as error:
            raise error.at(self.location) from None

    def layer(self, kind: str, name: str | None) -> Layer:
        """Open a layer for a layer function: `name`, or `<kind>_<n>` with the first free n."""
        if name is None:
            numbers = range(1, len(self._layers) + 2)
            name = next(n for n in (f"{kind}_{i}" for i in numbers) if n not in self._layers)
        if layer_name(name) in self._layers:
            raise CnncError(f"the name {name!r} is used at {self._layers[name]} already; choose another")
        self._layers[name] = user_location()
        return Layer(name, self._layers[name], self._builder, self._initializers)

    def _own(self, tensor: Tensor) -> Value:
        if not isinstance(tensor, Tensor):
            raise CnncError(f"a tensor (what a layer returns) is needed, not {tensor!r}")
        if tensor.network is not self:
            raise CnncError(f"the tensor belongs to network {tensor.network.name!r}, not to {self.name!r}")
        return tensor.value

    def _only_output(self) -> Value:
        if len(self._outputs) != 1:
            count = len(self._outputs)
            raise CnncError(f"the network has {count} outputs so far; say which tensor it is of with `of=`")
        return next(iter(self._outputs.values()))

    def _free_tensor_name(self, name: str) -> str:
        if tensor_name(name, RESERVED) in self._inputs or name in self._outputs:
            raise CnncError(f"the name {name!r} is an input's or output's already; choose another")
        return name

    def _default_output_name(self, value: Value) -> str:
        """The layer's name where it can serve, else `output` with a number if needed."""
        layers = [n.layer for n in self._builder.build(()).nodes if value in n.results]
        fallback = ["output", *(f"output_{i}" for i in range(2, len(self._outputs) + len(self._inputs) + 3))]
        taken = RESERVED | self._inputs.keys() | self._outputs.keys()
        return next(n for n in [*layers, *fallback] if n not in taken and TENSOR_NAME.fullmatch(n))

    def _output_values(self) -> Mapping[Value, Value]:
        return {value: replace(value, name=name) for name, value in self._outputs.items()}

    def _incomplete(self, what: str, example: str) -> CnncError:
        return CnncError(f"network {self.name!r} has no {what}; declare it with {example}", self.location)


def _renamed(graph: Graph, new: Mapping[Value, Value]) -> Graph:
    """The graph with some values replaced by others of the same type."""

    def each(values: tuple[Value, ...]) -> tuple[Value, ...]:
        return tuple(new.get(v, v) for v in values)

    nodes = (replace(n, operands=each(n.operands), results=each(n.results)) for n in graph.nodes)
    return replace(graph, nodes=tuple(nodes), outputs=each(graph.outputs))
