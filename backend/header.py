"""Writes the C side of an `Interface`: the public header and the tables of the built programs.

Interface -> c_header -> lenet5.h   what a C or C++ caller includes
Interface -> c_config -> network.h  what runtime/main_inference.c and main_train.c include
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from cnnc.backend.interface import ALIGNMENT, Interface, Port, Weight, argument_names
from cnnc.errors import UnsupportedError

MAX_RANK = 8
"""Axes a tensor may have in the programs' tables: TENSOR_MAX_RANK of runtime/tensor.h."""

C_TYPES: Mapping[str, str] = MappingProxyType({"f32": "float", "i32": "int32_t"})

INFERENCE_RULES = """
The functions keep no state and allocate nothing. Each may be called from several threads at once
when every call has its own workspace, its own outputs and its own pool (or NULL); parameters may
be shared. All memory belongs to the caller and is not needed after the call returns. Inputs and
outputs may have any alignment a float has; parameters and workspace begin at a multiple of
{alignment} bytes. The workspace need not be initialised. Results are the same bits for any number of threads.
"""

TRAINING_RULES = """
The functions keep no state and allocate nothing: weights and optimizer state are in `params`, which
a step reads and writes, so that two steps on the same parameters must not run at once. Different
parameters may be trained from several threads when every call has its own workspace and pool (or
NULL). All memory belongs to the caller and is not needed after the call returns. Inputs and outputs
may have any alignment their type has; parameters and workspace begin at a multiple of {alignment} bytes. The
workspace need not be initialised. Results are the same bits for any number of threads.
"""

PREAMBLE = """\
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef CNNC_POOL
#define CNNC_POOL
typedef struct cnnc_pool cnnc_pool;
#endif
"""

CLOSING = """\
#ifdef __cplusplus
}
#endif

#endif
"""


def c_header(interface: Interface) -> str:
    """The public header: declarations, sizes, and all rules a caller must keep. C99 or later, and C++."""
    guard = f"CNNC_{interface.name.upper()}_H"
    calls = _training_calls(interface) if interface.train else _inference_calls(interface)
    parts = [
        _comment(_title(interface)),
        f"#ifndef {guard}\n#define {guard}\n",
        PREAMBLE,
        _size_macros(interface),
        calls,
        _weight_calls(interface),
        _machine_calls(interface),
        CLOSING,
    ]
    return "\n".join(parts)


def shape_text(shape: Iterable[int]) -> str:
    """`(1,32,32)`, as the built programs print shapes too; a single axis is `(10,)`."""
    axes = tuple(shape)
    return f"({axes[0]},)" if len(axes) == 1 else f"({','.join(map(str, axes))})"


def _title(interface: Interface) -> str:
    what = "a training step" if interface.train else "inference"
    rules = (TRAINING_RULES if interface.train else INFERENCE_RULES).format(alignment=ALIGNMENT)
    most = "" if interface.train or interface.batch == 1 else "up to "
    return (
        f"{interface.name}: {what} for {most}{interface.batch} image{'s' * (interface.batch > 1)} at a time, "
        f"{interface.parameters} parameters.\n"
        f"Compiled by cnnc {interface.version} for {interface.target}.\n{rules}"
    )


def _comment(text: str) -> str:
    """A block comment of full lines; text from the user's network cannot end it."""
    lines = [line for part in text.strip().splitlines() for line in (textwrap.wrap(part, 100) or [""])]
    body = "\n".join(f" * {line}".rstrip() for line in lines).replace("*/", "* /")
    return f"/*\n{body}\n */"


def _size_macros(interface: Interface) -> str:
    prefix, most = interface.name.upper(), "" if interface.train else "most "
    macros = [
        ("BATCH", f"{interface.batch}", f"{most}images of one call"),
        ("PARAM_BYTES", f"{interface.param_bytes}u", "bytes of a packed parameter block"),
        ("WORKSPACE_BYTES", f"{interface.workspace_bytes}u", "bytes of a workspace"),
        ("WEIGHTS", f"{interface.parameters}u", f"floats that {interface.name}_pack reads"),
        ("ALIGNMENT", f"{ALIGNMENT}", "of parameters and workspaces, in bytes"),
    ]
    return "".join(f"#define {prefix}_{key} {value} /* {note} */\n" for key, value, note in macros)


def _inference_calls(interface: Interface) -> str:
    inputs, outputs = _arguments(interface.inputs, interface.outputs)
    note = (
        f"Computes the outputs of some images. Arrays are row-major; shapes are given for "
        f"{interface.batch} of them,\n"
        f"of fewer only the first rows are read and written.\n"
        f"images: how many, 1 to {interface.batch}; less is taken for 1, and more for {interface.batch}.\n"
    )
    note += _port_notes("read", interface.inputs, inputs) + _port_notes("written", interface.outputs, outputs)
    note += "params: a packed parameter block"
    note += f", for instance {interface.name}_params.\n" if interface.has_builtin_params else ".\n"
    note += f"workspace: {interface.workspace_bytes} bytes. pool: threads to use, NULL for this thread alone."
    read, written = (interface.inputs, inputs), (interface.outputs, outputs)
    signature = _signature(interface, "run", read, written, "const ", ("int64_t images",))
    return f"{_comment(note)}\n{signature}"


def _training_calls(interface: Interface) -> str:
    inputs, outputs = _arguments(interface.inputs, interface.outputs)
    note = "Trains on one batch. Arrays are row-major.\n"
    note += _port_notes("read", interface.inputs, inputs) + _port_notes("written", interface.outputs, outputs)
    if interface.classes is not None:
        note += f"Labels must be 0 to {interface.classes - 1}: they are not checked.\n"
    note += (
        f"params: {interface.param_bytes} bytes of weights and optimizer state, updated in place;\n"
        f"begin with a copy of {interface.name}_params. workspace: {interface.workspace_bytes} bytes.\n"
        "pool: threads to use, NULL for this thread alone."
    )
    results = (interface.outputs, outputs)
    step = _signature(interface, "step", (interface.inputs, inputs), results, "")
    kept = tuple(name for name, port in zip(inputs, interface.inputs, strict=True) if port.shape)
    evaluate = _signature(interface, "evaluate", (interface.evaluate_inputs, kept), results, "const ")
    about_step = _comment(note)
    about_evaluate = _comment("The same outputs for one batch, with no parameter changed.")
    return f"{about_step}\n{step}\n{about_evaluate}\n{evaluate}"


def _arguments(
    inputs: tuple[Port, ...], outputs: tuple[Port, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = argument_names(port.name for port in (*inputs, *outputs))
    return names[: len(inputs)], names[len(inputs) :]


def _port_notes(verb: str, ports: tuple[Port, ...], names: tuple[str, ...]) -> str:
    lines = []
    for port, name in zip(ports, names, strict=True):
        shape = f" of shape {shape_text(port.shape)}" if port.shape else ""
        is_scaled = (port.scale, port.shift) != (1.0, 0.0)
        scale = f"; a pixel v of 0..255 is meant as {_scaled(port)}" if is_scaled else ""
        lines.append(f"{name}: {C_TYPES[port.dtype]}{shape}, {verb}{scale}.\n")
    return "".join(lines)


def _signature(
    interface: Interface,
    call: str,
    inputs: tuple[tuple[Port, ...], tuple[str, ...]],
    outputs: tuple[tuple[Port, ...], tuple[str, ...]],
    params: str,
    first: tuple[str, ...] = (),
) -> str:
    arguments = [*first]
    arguments += [f"const {C_TYPES[port.dtype]} *{name}" for port, name in zip(*inputs, strict=True)]
    arguments += [f"{C_TYPES[port.dtype]} *{name}" for port, name in zip(*outputs, strict=True)]
    arguments += [f"{params}void *params", "void *workspace", "cnnc_pool *pool"]
    return _wrapped(f"void {interface.name}_{call}(", arguments)


def _wrapped(head: str, arguments: list[str]) -> str:
    """The declaration in lines of at most 100 characters, broken between arguments."""
    lines = [head]
    for text in [f"{argument}, " for argument in arguments[:-1]] + [f"{arguments[-1]});"]:
        if len(lines[-1]) + len(text.rstrip()) > 100:
            lines.append(" " * len(head))
        lines[-1] += text
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _weight_calls(interface: Interface) -> str:
    table = "\n".join(f"  {w.offset:>9}  {w.name} {shape_text(w.shape)}" for w in interface.weights)
    about = f"All weights as floats, row-major, one tensor after the other; offsets in floats:\n{table}\n\n"
    about += "pack writes a parameter block from them"
    about += ", with the optimizer's first state; unpack gives them back." if interface.train else "."
    name = interface.name
    lines = [
        _comment(about),
        f"void {name}_pack(const float *weights, void *params, void *workspace);",
    ]
    lines += [f"void {name}_unpack(const void *params, float *weights);\n"] if interface.train else [""]
    if interface.has_builtin_params:
        meaning = "Initial weights and optimizer state" if interface.train else "The network's weights"
        lines += [
            f"/* {meaning}: {interface.param_bytes} bytes, read-only, aligned. */",
            f"extern const unsigned char {name}_params[];\n",
        ]
    return "\n".join(lines)


def _machine_calls(interface: Interface) -> str:
    about = (
        "Threads that a call shares its work with: `threads` of them, the calling one included. NULL when\n"
        "they cannot be started. A pool serves one call at a time, and only functions of this header."
    )
    name = interface.name
    return "\n".join(
        [
            _comment(about),
            f"cnnc_pool *{name}_pool_create(int threads);",
            f"void {name}_pool_destroy(cnnc_pool *pool);\n",
            f"/* 1 if this processor can run {_plain(interface.target)} code, else 0; ask before a call. */",
            f"int {name}_supported(void);\n",
        ]
    )


def c_config(interface: Interface) -> str:
    """network.h: the tables and names by which the generic programs know this network.

    Raises UnsupportedError for a network that the programs cannot serve.
    """
    _check_program(interface)
    tables = [port for port in interface.inputs if port.dtype == "f32" and port.shape]
    parts = [
        f"/* The tables of {interface.name}, for the programs of cnnc. */",
        "#ifndef CNNC_NETWORK_H\n#define CNNC_NETWORK_H\n",
        f'#include "include/{interface.name}.h"\n#include "tensor.h"\n',
        _config_macros(interface, tables),
        _tensor_table("network_inputs", [(p.name, p.shape[1:]) for p in tables]),
        _scaling_table(tables),
        _tensor_table("network_weights", [(w.name, w.shape) for w in interface.weights]),
    ]
    if not interface.train:
        parts += [_tensor_table("network_outputs", [(p.name, p.shape[1:]) for p in interface.outputs])]
        parts += [_run_wrapper(interface)]
    return "\n".join([*parts, "#endif\n"])


def _check_program(interface: Interface) -> None:
    tensors: tuple[Port | Weight, ...] = (*interface.inputs, *interface.outputs, *interface.weights)
    for tensor in tensors:
        if len(tensor.shape) > MAX_RANK:
            raise UnsupportedError(
                f"{tensor.name}: {len(tensor.shape)} axes, programs serve up to {MAX_RANK}; use --emit shared"
            )
    images = interface.inputs[: 1 if interface.train else None]
    results = () if interface.train else interface.outputs
    for port in (*images, *results):
        if port.dtype != "f32" or port.shape[:1] != (interface.batch,):
            raise UnsupportedError(
                f"{port.name}: {port.dtype} of shape {shape_text(port.shape)}, programs serve float32 with "
                f"the batch of {interface.batch} as first axis; use --emit shared"
            )
    if interface.train:
        _check_training(interface)


def _check_training(interface: Interface) -> None:
    inputs = [(port.dtype, port.shape) for port in interface.inputs[1:]]
    outputs = [(port.dtype, port.shape) for port in interface.outputs]
    expected = [("i32", (interface.batch,)), ("f32", ())]
    if inputs != expected or outputs != [("f32", ())] * 2 or interface.classes is None:
        raise UnsupportedError(
            f"{interface.name}: a training program needs one image input, class labels and the outputs loss "
            "and correct; use --emit shared"
        )


def _config_macros(interface: Interface, inputs: list[Port]) -> str:
    name = interface.name
    macros = {
        "NAME": _quoted(name),
        "VERSION": _quoted(interface.version),
        "TARGET": _quoted(interface.target),
        "BATCH": f"{interface.batch}",
        "CLASSES": f"{interface.classes or 0}",
        "PARAMETERS": f"{interface.parameters}u",
        "PARAM_BYTES": f"{interface.param_bytes}u",
        "WORKSPACE_BYTES": f"{interface.workspace_bytes}u",
        "LEARNING_RATE": f"{_c_float(interface.learning_rate)}",
        "LINEAR_SCHEDULE": f"{int(interface.schedule == 'linear')}",
        "INPUTS": f"{len(inputs)}",
        "OUTPUTS": f"{len(interface.outputs)}",
        "WEIGHTS": f"{len(interface.weights)}",
        "HAS_PARAMS": f"{int(interface.has_builtin_params)}",
        "PARAMS": f"{name}_params" if interface.has_builtin_params else "NULL",
    }
    if not interface.train:
        files = _file_names("INPUT", inputs) + _file_names("OUTPUT", interface.outputs)
        macros["FILES"] = _quoted(" ".join(files))
    calls = ["pack", "unpack", "pool_create", "pool_destroy", "supported"]
    calls += ["step", "evaluate"] if interface.train else []
    macros |= {call.upper(): f"{name}_{call}" for call in calls}
    return "".join(f"#define NETWORK_{key} {value}\n" for key, value in macros.items())


def _file_names(kind: str, ports: Sequence[Port]) -> list[str]:
    """The command line's file names: INPUT.npy, or the ports' own names when there are several."""
    return [f"{kind}.npy"] if len(ports) == 1 else [f"{_plain(port.name)}.npy" for port in ports]


def _tensor_table(name: str, tensors: list[tuple[str, tuple[int, ...]]]) -> str:
    rows = []
    for tensor, shape in tensors:
        axes = ", ".join(f"{extent}u" for extent in shape) or "0"
        rows.append(
            f"    {{{_quoted(tensor)}, {len(shape)}, {{{axes}}}, {int(np.prod(shape, dtype=object))}u}},\n"
        )
    body = "".join(rows) or "    {0},\n"
    return f"static const tensor {name}[] = {{\n{body}}};\n"


def _scaling_table(inputs: list[Port]) -> str:
    rows = "".join(f"    {{{_c_float(port.scale)}, {_c_float(port.shift)}}},\n" for port in inputs)
    return f"static const scaling network_scalings[] = {{\n{rows}}};\n"


def _run_wrapper(interface: Interface) -> str:
    """A function of fixed form, whatever the number of inputs and outputs, that calls NAME_run."""
    arguments = [f"inputs[{i}]" for i in range(len(interface.inputs))]
    arguments += [f"outputs[{i}]" for i in range(len(interface.outputs))]
    call = ", ".join(["images", *arguments, "params", "workspace", "pool"])
    return (
        "static inline void network_run(int64_t images, const float *const *inputs, float *const *outputs,\n"
        "                               const void *params, void *workspace, cnnc_pool *pool) {\n"
        f"    {interface.name}_run({call});\n}}\n"
    )


def _c_float(value: float) -> str:
    """The float32 nearest to the value as an exact C constant."""
    return f"{float(np.float32(value)).hex()}f"


def _scaled(port: Port) -> str:
    """The value of pixel v in words of arithmetic, float32 constants in full."""
    scale, shift = float(np.float32(port.scale)), float(np.float32(port.shift))
    return f"v * {scale:.9g} {'-' if shift < 0 else '+'} {abs(shift):.9g}"


def _plain(text: str) -> str:
    return text.replace("*/", "* /")


def _quoted(text: str) -> str:
    """A C string literal of the text's UTF-8 bytes; `?` is escaped so that no trigraph can arise."""
    plain = {byte for byte in range(0x20, 0x7F)} - set(b'"\\?')
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in text.encode()) + '"'
