"""The first lines that an interpreter in a sandbox runs: limits, then the code of its end.

    python -c <this text> PROOF FROM TO PACKAGES HIDDEN LIMIT=VALUE ...

PROOF is the pipe for the verdict at the tests' end, 1 at the program's. HIDDEN: 1 if no
namespaces keep the program from looking into other processes. Limits are set here, before any
program is read, rather than in a `preexec_fn`: that hook is not safe in a threaded parent. Hard
limits cannot be raised again. The tests' end is given everything on stdin, and hands the code on.
"""

from __future__ import annotations

import _frozen_importlib_external
import marshal
import resource
import sys
from posix import close, read, write


def received(pipe: int) -> bytes:
    """The next bytes of a pipe, with their length in eight bytes before them."""
    found = b""
    while len(found) < 8 or len(found) < 8 + int.from_bytes(found[:8], "big"):
        wanted = 8 if len(found) < 8 else 8 + int.from_bytes(found[:8], "big")
        data = read(pipe, wanted - len(found))
        if not data:
            sys.exit("nothing was given")
        found += data
    return found[8:]


def limit(name: str, value: int) -> None:
    """Set a limit, or find that a lower one is set."""
    kind = getattr(resource, "RLIMIT_" + name)
    try:
        resource.setrlimit(kind, (value, value))
    except (OSError, ValueError):
        hard = resource.getrlimit(kind)[1]
        if hard == resource.RLIM_INFINITY or hard > value:
            sys.exit("cannot limit " + name)


def hidden() -> None:
    """Let no process of the same user look into this one."""
    import ctypes

    zero = ctypes.c_ulong(0)
    ctypes.CDLL(None).prctl(4, zero, zero, zero, zero)  # PR_SET_DUMPABLE


def shut_in() -> None:
    """Let this process look into none but its children, where the kernel has Landlock.

    Any ruleset does that; this one takes the right to make block devices, and from its sixth
    version on signals to others.
    """
    import ctypes

    libc, zero = ctypes.CDLL(None), ctypes.c_ulong(0)
    version = libc.syscall(444, zero, zero, 1)  # landlock_create_ruleset
    if version < 1:
        return
    words = (1 << 11, 0, 3) if version >= 6 else (1 << 11,)
    rules = (ctypes.c_uint64 * len(words))(*words)
    ruleset = libc.syscall(444, rules, ctypes.c_size_t(ctypes.sizeof(rules)), 0)
    libc.prctl(38, ctypes.c_ulong(1), zero, zero, zero)  # PR_SET_NO_NEW_PRIVS
    if ruleset < 0 or libc.syscall(446, ruleset, 0) != 0:  # landlock_restrict_self
        sys.exit("cannot be shut in")
    close(ruleset)


def main() -> None:
    """Take the code of one end, and run it."""
    proof, incoming, outgoing = map(int, sys.argv[1:4])
    packages, hides, limits = sys.argv[4], sys.argv[5] == "1", sys.argv[6:]
    del sys.argv[1:]
    judges = proof != 1
    if hides and sys.platform == "linux":
        (hidden if judges else shut_in)()
    for pair in limits:
        name, _, value = pair.partition("=")
        limit(name, int(value))
    sys.path += [packages] * bool(packages)
    write(proof, b"ready\n")
    blob = received(0 if judges else incoming)
    magic, modules = marshal.loads(blob)
    same = magic == _frozen_importlib_external.MAGIC_NUMBER
    for name, source, code in modules:
        module = sys.modules[name] = type(sys)(name)
        exec(marshal.loads(code) if same else compile(source, name, "exec"), vars(module))
    ends = [sys.modules.pop(name) for name, *_ in modules]
    if judges:
        given = marshal.loads(received(0))
        for data in (len(blob).to_bytes(8, "big"), blob):
            while data:
                data = data[write(outgoing, data) :]
        ends[-1].main(proof, outgoing, incoming, given)
    else:
        ends[-2].main(incoming, outgoing)


if __name__ == "__main__":
    main()
