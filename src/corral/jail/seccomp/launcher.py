"""Starts a program whose system calls are all told to somebody. Run by path, standard library only.

argv: the program's absolute path, then its argv. Descriptor 10: a socket over which the listener
goes (seccomp_unotify(2)), 11: the filter, which lets sendmsg through on the descriptor SAY, as
nobody could answer it before the listener has arrived. From the filter on nothing is done but that.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import os
import struct
import sys
import termios

SOCKET_FD, FILTER_FD, SAY = 10, 11, 977
_SECCOMP = {"x86_64": 317, "aarch64": 277}  # the kernel's tables of calls
_SET_FILTER, _NEW_LISTENER = 1, 1 << 3  # linux/seccomp.h
_NO_NEW_PRIVS = 38  # linux/prctl.h
_SOL_SOCKET, _SCM_RIGHTS = 1, 1


def main() -> None:
    """Become the program."""
    with open(FILTER_FD, "rb") as file:
        program = file.read()
    os.dup2(SOCKET_FD, SAY, inheritable=False)
    os.close(SOCKET_FD)
    if os.isatty(0):  # we lead a session without a terminal: this becomes its
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    # struct sock_fprog, msghdr, iovec and cmsghdr with one descriptor, made before they are needed.
    steps = ctypes.create_string_buffer(program, len(program))
    wanted = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(steps))
    byte = ctypes.create_string_buffer(b"x", 1)
    vector = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(byte), 1), 16)
    rights = ctypes.create_string_buffer(struct.pack("Niii", 20, _SOL_SOCKET, _SCM_RIGHTS, -1), 24)
    places = (ctypes.addressof(vector), ctypes.addressof(rights))
    message = ctypes.create_string_buffer(
        struct.pack("PiPNPNi", 0, 0, places[0], 1, places[1], 24, 0)
    )
    listener = ctypes.c_int.from_buffer(rights, 16)
    seccomp, sendmsg = libc.syscall, libc.sendmsg
    values = (_SECCOMP[os.uname().machine], _SET_FILTER, _NEW_LISTENER)
    numbers = [ctypes.c_long(value) for value in values]
    environment, words = dict(os.environ), sys.argv[2:]
    gc.disable()
    fd = seccomp(*numbers, wanted)
    if fd >= 0:
        listener.value = fd
        sendmsg(SAY, message, 0)
        os.set_inheritable(fd, False)
        os.execve(sys.argv[1], words, environment)
    error = ctypes.get_errno()
    os.write(2, f"corral: the filter is not taken: {os.strerror(error)}\n".encode())
    os._exit(125)


if __name__ == "__main__":
    main()
