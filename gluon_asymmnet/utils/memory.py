"""The memory of images: kept for the next one."""

import ctypes
import functools
import os
import sys

_SETTINGS = {  # of glibc's malloc.h: variable -> parameter and value, bytes
    "MALLOC_TRIM_THRESHOLD_": (-1, 128 << 20),  # freed memory at the end of a heap that stays
    "MALLOC_MMAP_THRESHOLD_": (-3, 32 << 20),  # larger blocks are mapped by themselves
}


@functools.lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Let malloc keep what images leave for the next ones; without glibc nothing happens.

    By default the system gets the memory of a freed image back, and maps and clears it again for
    the next one, which takes a third of the time to decode and preprocess it.  Variables of the
    environment that the user set are kept.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _SETTINGS):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # another C library has none
    for parameter, value in _SETTINGS.values() if mallopt else ():
        mallopt(parameter, value)
