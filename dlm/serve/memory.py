"""The memory of a server that runs for long."""

from __future__ import annotations

import ctypes
import platform
from typing import Final

M_ARENA_MAX: Final = -8
"""The parameter of `mallopt` for the number of arenas, from glibc's malloc.h."""
ARENAS: Final = 2


def bound_arenas() -> bool:
    """Let the threads that follow allocate from two pools of memory; False where it has no effect.

    glibc gives threads pools ("arenas") of their own, up to eight a core, and none of them ever
    gives all of its memory back: the more there are, the longer a server grows under load. As the
    environment variable `MALLOC_ARENA_MAX=2`.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS))
