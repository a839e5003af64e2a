"""A system call filter for programs that compute: no sockets but pairs, no mounts, no tracing.

Classic BPF, written by hand so that it needs no library; `bwrap --seccomp` reads it. On other
processors than x86-64 there is none, and namespaces alone must do.
"""

from __future__ import annotations

import errno
import platform
import struct
from typing import Final

ARCHITECTURE: Final = 0xC000003E  # AUDIT_ARCH_X86_64
FOREIGN: Final = 0x40000000  # from here on: the x32 calls
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
KILL, ALLOW, FAIL = 0x80000000, 0x7FFF0000, 0x00050000
CLONE3: Final = 435
"""Must say that it does not exist: then the C library takes `clone`, and threads can start."""
DENIED: Final = (
    41,  # socket
    *(101, 310, 311),  # ptrace, process_vm_readv, process_vm_writev
    *(155, 161, 165, 166, 167, 168, 169),  # pivot_root, chroot, mount, umount2, swapon/off, reboot
    *(175, 176, 246, 313, 320),  # modules, kexec
    *(248, 249, 250),  # keys
    *(272, 308),  # unshare, setns
    *(298, 321, 323),  # perf_event_open, bpf, userfaultfd
    *(303, 304),  # file handles
    *(425, 426, 427),  # io_uring
    *(428, 429, 430, 431, 432, 433, 442),  # the newer mount calls
)


def seccomp_filter() -> bytes | None:
    """The filter's instructions; None if this processor has none."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return None
    checks = len(DENIED) + 1
    program = [
        (LOAD, 0, 0, 4),  # the architecture
        (EQUAL, 1, 0, ARCHITECTURE),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0),  # the number of the call
        (AT_LEAST, checks + 1, 0, FOREIGN),
    ]
    for place, number in enumerate(DENIED):
        program.append((EQUAL, checks - place, 0, number))
    program += [
        (EQUAL, 2, 0, CLONE3),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, FAIL | errno.EPERM),
        (RETURN, 0, 0, FAIL | errno.ENOSYS),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
