"""Runs a program under a seccomp filter that answers bpf(2) with EPERM, as container runtimes set up: no_bpf.py PROGRAM ..."""

import ctypes
import os
import struct
import sys

NUMBER = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
EPERM = 1

# Load the call's number; if it is bpf, the next instruction, else the one after that (linux/filter.h).
program = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in [(0x20, 0, 0, 0), (0x15, 0, 1, NUMBER), (0x06, 0, 0, ERRNO | EPERM), (0x06, 0, 0, ALLOW)]
)
code = ctypes.create_string_buffer(program, len(program))
whole = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
for arguments in [(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, whole, 0, 0)]:
    if libc.prctl(*arguments) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
