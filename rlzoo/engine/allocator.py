"""Keep freed memory instead of giving it back to the system after every tensor (Linux with glibc).

A full-rate activation is tens of megabytes. glibc maps and unmaps each one, and page-faulting them in again took a
quarter of the CPU time of sampling. Kept pages are reused instead; results do not change.
"""

from __future__ import annotations

import ctypes
import sys

# mallopt's parameters, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Configure this process's allocator; false where it is not glibc's and is left as it is."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
