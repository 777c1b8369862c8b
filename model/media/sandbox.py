"""A cage for code that reads what strangers sent: limits, Landlock, seccomp. Linux; no privileges.

Each layer is used where the kernel has it. After `confine` this process, and every thread and
child it starts, may read only the files named; it cannot write, open sockets or run programs.

Numbers: linux/landlock.h, linux/seccomp.h, linux/filter.h, asm/unistd.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SIGKILL = 9
# Landlock has the same system call numbers on every machine.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_QUERY, _PATH_BENEATH, _READ_FILE = 1, 1, 1 << 2
# Rights over files, TCP and other processes that a kernel of each ABI can take away.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_NET_RIGHTS, _SCOPES = (1 << 2) - 1, (1 << 2) - 1

# AUDIT_ARCH of a machine, and there: socket, connect, execve, execveat, ptrace, io_uring_setup,
# process_vm_readv, process_vm_writev.
_FORBIDDEN = {
    "x86_64": (0xC000003E, (41, 42, 59, 322, 101, 425, 310, 311)),
    "aarch64": (0xC00000B7, (198, 203, 221, 281, 117, 425, 270, 271)),
}
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # EPERM
_X32 = 0x40000000


def confine(readable: Iterable[Path], *, memory_bytes: int, cpu_s: int) -> set[str]:
    """Lock this process in, for good.

    readable : the only files that may be opened from now on.
    memory_bytes : of address space; more is refused, which libraries tell as out of memory.
    cpu_s : after so long the process is killed.

    Returns
    -------
    The layers that are in force: "limits", and "landlock" and "seccomp" where the kernel has them.
    """
    layers = {"limits"}
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    if not sys.platform.startswith("linux"):
        return layers
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return layers
    if _landlock(libc, readable):
        layers.add("landlock")
    if _seccomp(libc):
        layers.add("seccomp")
    return layers


def _landlock(libc: ctypes.CDLL, readable: Iterable[Path]) -> bool:
    """Take away all rights over files and TCP but reading `readable`; False if there is none."""
    abi = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_QUERY)
    if abi < 1:
        return False
    files = _FILE_RIGHTS[max(version for version in _FILE_RIGHTS if version <= abi)]
    rights = struct.pack("=QQQ", files, _NET_RIGHTS, _SCOPES)
    rights = rights[: 8 if abi < 4 else 16 if abi < 6 else 24]
    rules = libc.syscall(_CREATE_RULESET, rights, ctypes.c_size_t(len(rights)), 0)
    if rules < 0:
        return False
    try:
        for path in readable:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                rule = struct.pack("=Qi", _READ_FILE, handle)
                if libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0) != 0:
                    return False
            finally:
                os.close(handle)
        return bool(libc.syscall(_RESTRICT_SELF, rules, 0) == 0)
    finally:
        os.close(rules)


def _seccomp(libc: ctypes.CDLL) -> bool:
    """Refuse sockets, programs and other processes; False where this is not possible."""
    if platform.machine() not in _FORBIDDEN:
        return False
    architecture, calls = _FORBIDDEN[platform.machine()]
    n = len(calls)
    # A jump of k skips k instructions; the last two are: allow, refuse.
    program = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_EQUAL, 0, n + 3, architecture),
        (_LOAD, 0, 0, 0),  # the call
        (_AT_LEAST, n + 1, 0, _X32),
        *((_EQUAL, n - index, 0, call) for index, call in enumerate(calls)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    return bool(libc.prctl(_PR_SET_SECCOMP, 2, header, 0, 0) == 0)
