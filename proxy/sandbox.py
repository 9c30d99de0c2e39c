"""What a worker process gives up before it reads anything from outside: network, new programs, memory and time.

Owns the limits and the system call filter. On Linux/x86-64 and Linux/arm64 a seccomp filter refuses (EPERM) every
call that makes a socket, connects, starts a program or traces another process; elsewhere only the limits hold, and
`enter` says so by returning False. Needs no privilege (`no_new_privs` is set first).
Specification: seccomp(2), setrlimit(2), linux/filter.h.
"""

import ctypes
import errno
import os
import platform
import resource
import struct

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_PR_SET_DUMPABLE = 4
_MODE_FILTER = 2
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EPERM

_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_OFFSET_NUMBER, _OFFSET_ARCH = 0, 4
_X32_BIT = 0x40000000

# audit architecture, then the numbers of: socket, socketpair, connect, accept, accept4, bind, listen, sendto,
# execve, execveat, ptrace, process_vm_readv, process_vm_writev, io_uring_setup
_CALLS = {
    "x86_64": (0xC000003E, (41, 53, 42, 43, 288, 49, 50, 44, 59, 322, 101, 310, 311, 425)),
    "aarch64": (0xC00000B7, (198, 199, 203, 202, 242, 200, 201, 206, 221, 281, 117, 270, 271, 425)),
}


def limit_resources(memory: int) -> None:
    """Cap the address space at `memory` bytes, and allow no core dump."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_cpu(seconds: int) -> None:
    """Let this process use `seconds` more of CPU time; past that the kernel ends it (SIGXCPU)."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds + 1, hard))


def enter() -> bool:
    """Drop network and program start for good; returns whether the kernel enforces it here."""
    calls = _CALLS.get(platform.machine())
    if platform.system() != "Linux" or calls is None:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    program = _filter(*calls)
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, then a pointer to them
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer)))
    return bool(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(header), 0, 0) == 0)


def _filter(arch: int, numbers: tuple[int, ...]) -> bytes:
    """Assemble the BPF program: another architecture or a listed call is refused, the rest allowed."""
    checks = len(numbers)
    code = [
        (_LOAD, 0, 0, _OFFSET_ARCH),
        (_JUMP_EQUAL, 0, checks + 3, arch),  # not this architecture: to the refusal
        (_LOAD, 0, 0, _OFFSET_NUMBER),
        (_JUMP_SET, checks + 1, 0, _X32_BIT),
    ]
    code += [(_JUMP_EQUAL, checks - at, 0, number) for at, number in enumerate(numbers)]
    code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    return b"".join(struct.pack("HBBI", *line) for line in code)


def drop_environment() -> None:
    """Forget the environment: a worker needs none, and secrets may stand in it."""
    os.environ.clear()
