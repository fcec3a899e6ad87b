"""`NAME_supported`, as LLVM IR: whether this CPU has what the code was built for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cnnc.backend.target import Target

LEAF_1_ECX: Mapping[str, int] = MappingProxyType({"fma": 12, "popcnt": 23, "avx": 28, "f16c": 29})
LEAF_7_EBX: Mapping[str, int] = MappingProxyType(
    {
        "bmi": 3,
        "avx2": 5,
        "bmi2": 8,
        "avx512f": 16,
        "avx512dq": 17,
        "avx512cd": 28,
        "avx512bw": 30,
        "avx512vl": 31,
    }
)
"""Bits of the words that the x86 instruction cpuid gives (Intel SDM, volume 2A, CPUID)."""

YMM_STATE, ZMM_STATE = 0x06, 0xE6
"""Bits of the extended control register 0 that say the system saves these registers."""


def supported_ir(symbol: str, target: Target) -> str:
    """`i32 @symbol()`: 1 if the CPU and the system support the target, else 0.

    arm64's NEON and x86-64's SSE2 are part of those architectures: the answer is 1 without a look. The
    function itself is compiled for any x86-64, as it must run on CPUs that lack what it asks for.
    """
    if not any(feature in LEAF_1_ECX or feature in LEAF_7_EBX for feature in target.features):
        return f"define i32 @{symbol}() nounwind {{\n  ret i32 1\n}}\n"
    leaf_1 = _mask(LEAF_1_ECX, target) | 1 << 27  # OSXSAVE: xgetbv may be used
    leaf_7 = _mask(LEAF_7_EBX, target)
    state = ZMM_STATE if "avx512f" in target.features else YMM_STATE
    return _TEMPLATE.format(symbol=symbol, leaf_1=leaf_1, leaf_7=leaf_7, state=state)


def _mask(bits: Mapping[str, int], target: Target) -> int:
    return sum(1 << bit for feature, bit in bits.items() if feature in target.features)


_TEMPLATE = """\
define i32 @{symbol}() nounwind "target-cpu"="x86-64" "target-features"="" {{
entry:
  %a = call {{ i32, i32, i32, i32 }} asm sideeffect "cpuid", \
"={{ax}},={{bx}},={{cx}},={{dx}},{{ax}},{{cx}},~{{dirflag}},~{{fpsr}},~{{flags}}"(i32 0, i32 0)
  %most = extractvalue {{ i32, i32, i32, i32 }} %a, 0
  %known = icmp uge i32 %most, 7
  br i1 %known, label %features, label %no
features:
  %b = call {{ i32, i32, i32, i32 }} asm sideeffect "cpuid", \
"={{ax}},={{bx}},={{cx}},={{dx}},{{ax}},{{cx}},~{{dirflag}},~{{fpsr}},~{{flags}}"(i32 1, i32 0)
  %ecx = extractvalue {{ i32, i32, i32, i32 }} %b, 2
  %has1 = and i32 %ecx, {leaf_1}
  %all1 = icmp eq i32 %has1, {leaf_1}
  br i1 %all1, label %state, label %no
state:
  %c = call {{ i32, i32 }} asm sideeffect "xgetbv", \
"={{ax}},={{dx}},{{cx}},~{{dirflag}},~{{fpsr}},~{{flags}}"(i32 0)
  %xcr0 = extractvalue {{ i32, i32 }} %c, 0
  %saved = and i32 %xcr0, {state}
  %all2 = icmp eq i32 %saved, {state}
  br i1 %all2, label %leaf7, label %no
leaf7:
  %d = call {{ i32, i32, i32, i32 }} asm sideeffect "cpuid", \
"={{ax}},={{bx}},={{cx}},={{dx}},{{ax}},{{cx}},~{{dirflag}},~{{fpsr}},~{{flags}}"(i32 7, i32 0)
  %ebx = extractvalue {{ i32, i32, i32, i32 }} %d, 1
  %has7 = and i32 %ebx, {leaf_7}
  %all3 = icmp eq i32 %has7, {leaf_7}
  %answer = zext i1 %all3 to i32
  ret i32 %answer
no:
  ret i32 0
}}
"""
