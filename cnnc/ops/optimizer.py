"""Optimizers as data: which states a weight has, and the assignments of one step as formulas.

An optimizer is no op: passes/append_updates turns its steps into elementwise ops of the training
graph, so that a compiled training step is one function.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from cnnc.errors import CnncError

SCHEDULES = ("constant", "linear")


@dataclass(frozen=True)
class StateSpec:
    """A state the optimizer keeps between steps: one tensor per weight, of the weight's shape, or,
    without `per_tensor`, one scalar for the whole network. Filled with `initial` before training."""

    name: str
    initial: float
    per_tensor: bool


@dataclass(frozen=True)
class Assignment:
    """`target` (`p`, the weight, or a state) takes the value of the formula `f`.

    `f` may read p, g (the loss's gradient by the weight), lr and the states; a later assignment
    of the same step sees the values assigned before. A network-wide state is assigned from
    network-wide states only, once per step.
    """

    target: str
    f: str


@dataclass(frozen=True)
class Optimizer:
    """Base of the optimizers. `lr` is the learning rate a run uses if the caller gives none.

    `schedule` says what becomes of it over a run: "constant", or "linear", by which epoch e of E
    (from 0) has lr * (1 - e / E).
    """

    lr: float = 0.01
    schedule: str = field(default="constant", kw_only=True)

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.schedule not in SCHEDULES:
            known = " or ".join(map(repr, SCHEDULES))
            raise CnncError(f"{name}: schedule must be {known}, got {self.schedule!r}")
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name != "schedule" and not 0 <= value < float("inf"):
                raise CnncError(f"{name}: {each.name} must be finite and not negative, got {value}")

    def rate(self, lr: float, epoch: int, epochs: int) -> float:
        """The learning rate of an epoch, counted from 0, of a run that begins with `lr`."""
        return lr * (1.0 - epoch / epochs) if self.schedule == "linear" else lr

    def states(self) -> tuple[StateSpec, ...]:
        """In the order in which they are stored behind a weight."""
        raise NotImplementedError

    def steps(self) -> tuple[Assignment, ...]:
        """Run in order, once per weight."""
        raise NotImplementedError

    def _below_one(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) >= 1:
                raise CnncError(f"{type(self).__name__}: {name} must be below 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class SGD(Optimizer):
    """m = momentum * m + (g + weight_decay * p); p = p - lr * m: the form of torch.optim.SGD.

    Without momentum there is no state.
    """

    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._below_one("momentum")

    def states(self) -> tuple[StateSpec, ...]:
        return (StateSpec("m", 0.0, per_tensor=True),) if self.momentum else ()

    def steps(self) -> tuple[Assignment, ...]:
        gradient = _decayed(self.weight_decay)
        if not self.momentum:
            return (Assignment("p", f"p - lr * {gradient}"),)
        return (
            Assignment("m", f"{float(self.momentum)} * m + {gradient}"),
            Assignment("p", "p - lr * m"),
        )


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1) with weight decay added to g, as torch.optim.Adam.

    m and v are the running means of g and g^2. They start at zero, which 1 - beta^t corrects; the
    powers beta^t are network-wide states, so the graph needs no step counter.
    """

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._below_one("beta1", "beta2")

    def states(self) -> tuple[StateSpec, ...]:
        return (
            StateSpec("m", 0.0, per_tensor=True),
            StateSpec("v", 0.0, per_tensor=True),
            StateSpec("beta1_power", 1.0, per_tensor=False),
            StateSpec("beta2_power", 1.0, per_tensor=False),
        )

    def steps(self) -> tuple[Assignment, ...]:
        beta1, beta2, gradient = float(self.beta1), float(self.beta2), _decayed(self.weight_decay)
        root = f"(sqrt(v / (1.0 - beta2_power)) + {float(self.eps)})"
        return (
            Assignment("beta1_power", f"beta1_power * {beta1}"),
            Assignment("beta2_power", f"beta2_power * {beta2}"),
            Assignment("m", f"{beta1} * m + {1.0 - beta1} * {gradient}"),
            Assignment("v", f"{beta2} * v + {1.0 - beta2} * {gradient} * {gradient}"),
            Assignment("p", f"p - lr * (m / (1.0 - beta1_power)) / {root}"),
        )


def _decayed(weight_decay: float) -> str:
    """The gradient with the weight's own share, as a factor."""
    return f"(g + {float(weight_decay)} * p)" if weight_decay else "g"
