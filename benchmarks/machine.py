"""What a measurement ran on: the machine, the date, the versions."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

from cnnc.backend import llvm
from cnnc.compiler import find_target
from cnnc.version import VERSION

PACKAGES = ("numpy", "llvmlite", "torch", "onnxruntime", "openvino")


def describe(target: str) -> Mapping[str, str]:
    """In the order in which it is shown, with the target that systems are held to; packages that are not
    installed are left out."""
    versions = {package: _version(package) for package in PACKAGES}
    return {
        "CPU": f"{cpu_name()}, {os.cpu_count()} cores",
        "target": find_target(target).name,
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.date.today().isoformat(),
        "cnnc": VERSION,
        "LLVM": llvm.version(),
        "Python": platform.python_version(),
        **{package: version for package, version in versions.items() if version is not None},
    }


def cpu_name() -> str:
    """The CPU's name, with family and model, for hypervisors shorten the name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    return f"{fields['model name']} (family {fields.get('cpu family')}, model {fields.get('model')})"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
