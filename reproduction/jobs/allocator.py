"""How the C library's allocator treats freed memory."""

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # the largest that glibc takes, in bytes


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed: by default it returns each large tensor to the kernel and asks for it again.

    With small models on a CPU that took a fifth of an evaluation's time, and it adds page-fault noise to timings.
    Returns whether it was done: without glibc nothing changes.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)) and bool(mallopt(TRIM_THRESHOLD, 2**31 - 1))
