"""glibc keeping the memory that it was given, for work that asks for the same tens of megabytes again and again.

By default what is freed at the top of the heap goes back to the kernel, and a tensor above 32 MiB is mapped when it is
made and unmapped when it goes. Either way its pages are faulted in anew each time: a fifth of an encoding, and more of
a training step where faults are dear (encode/README.md, train/README.md).
"""

import ctypes
import os
import sys

TOP_PAD = 1 << 26
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8  # malloc.h

# One arena: threads beside the first, Beam's and autograd's, would have arenas that give memory back all the same.
KEEPING = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "MALLOC_TOP_PAD_": str(TOP_PAD),
}


def keep_freed_memory() -> bool:
    """Let this process keep what it frees; False where nothing was changed.

    Does nothing beside another C library than glibc, nor where the user has set one of `KEEPING`.
    """
    if sys.platform != "linux" or any(name in os.environ for name in KEEPING):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, TOP_PAD))
    return all(mallopt(setting, value) for setting, value in settings)
