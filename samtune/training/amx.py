"""Does the processor really have the AMX tiles it speaks of?

Some virtual machines announce AMX without describing its tiles. oneDNN looks at the announcement
alone, so the first bfloat16 layer ends the process with an illegal instruction.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from functools import cache

import torch

LIMIT = "ONEDNN_MAX_CPU_ISA"
OLD_LIMIT = "DNNL_MAX_CPU_ISA"
WITHOUT_AMX = "AVX512_CORE_FP16"
TILE_INFORMATION = 0x1D  # the leaf of CPUID whose eax is the highest tile palette
# push rbx; mov eax, edi; mov ecx, esi; cpuid; pop rbx; ret
CPUID = bytes.fromhex("53 89f8 89f1 0fa2 5b c3")


@cache
def has_amx() -> bool:
    """Whether AMX is announced, can be used, and is not ruled out by `ONEDNN_MAX_CPU_ISA`."""
    limit = (os.environ.get(LIMIT) or os.environ.get(OLD_LIMIT) or "ALL").upper()
    allowed = "AMX" in limit or limit in ("ALL", "DEFAULT")
    return allowed and _is_announced() and _has_tiles()


def avoid_missing_amx() -> None:
    """Tells oneDNN to do without AMX where it is announced and missing.

    It must be called before the first layer runs: oneDNN asks once in a process. A limit that the
    user set stays.
    """
    if OLD_LIMIT not in os.environ and _is_announced() and not _has_tiles():
        os.environ.setdefault(LIMIT, WITHOUT_AMX)


def _is_announced() -> bool:
    return torch.cpu._is_amx_tile_supported()


def _has_tiles() -> bool:
    if not sys.platform.startswith("linux"):
        return True  # not known; there is no way to ask
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:  # a hardened kernel: rather slow than dead
        return False
    page.write(CPUID)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    cpuid = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32)(address)
    # Beyond the highest leaf, which leaf 0 tells, a processor may answer anything.
    highest_leaf: int = cpuid(0, 0)
    highest_palette: int = cpuid(TILE_INFORMATION, 0)
    return highest_leaf >= TILE_INFORMATION and highest_palette > 0
