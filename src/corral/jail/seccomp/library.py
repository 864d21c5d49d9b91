"""libseccomp: which number a call has, and which name. Through ctypes.

Of the library only its tables are used (seccomp_syscall_resolve_name(3)). QEMU cannot do without
it (it is what `-sandbox on` uses), so every host that can run a sandbox has it.
docs/dependencies.md says why programs are made by compiler.py and not by the library.
"""

from __future__ import annotations

import ctypes
import functools
import os

from ...errors import HostError

LIBRARY = "libseccomp.so.2"

# Tokens of architectures: seccomp.h, from linux/audit.h
_ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NO_SUCH_CALL = -1  # __NR_SCMP_ERROR

# Calls that are younger than a library may be. From 424 on, numbers are the same everywhere
# (kernel: scripts/syscall.tbl); up to 449 every libseccomp 2.5 knows them.
RECENT = {
    **{"set_mempolicy_home_node": 450, "cachestat": 451, "fchmodat2": 452},
    **{"map_shadow_stack": 453, "futex_wake": 454, "futex_wait": 455, "futex_requeue": 456},
    **{"statmount": 457, "listmount": 458, "lsm_get_self_attr": 459, "lsm_set_self_attr": 460},
    **{"lsm_list_modules": 461, "mseal": 462, "setxattrat": 463, "getxattrat": 464},
    **{"listxattrat": 465, "removexattrat": 466, "open_tree_attr": 467},
}


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise HostError(
            f"{LIBRARY}, which knows the numbers of system calls, cannot be loaded: {error}.",
            hint="Install it (Debian, Ubuntu: libseccomp2; Fedora: libseccomp), or say "
            "--seccomp none and do without a profile.",
        ) from error
    library.seccomp_arch_native.restype = ctypes.c_uint32
    library.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
    library.seccomp_syscall_resolve_num_arch.argtypes = (ctypes.c_uint32, ctypes.c_int)
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p  # to be freed
    return library


def number_of(name: str, machine: str | None = None) -> int | None:
    """The number of a call on `machine` (default: this one); negative where that has no such call.

    None: neither the library nor we know it.
    """
    token = _ARCHES[machine or os.uname().machine]
    number: int = _library().seccomp_syscall_resolve_name_arch(token, name.encode())
    return RECENT.get(name) if number == _NO_SUCH_CALL else number


@functools.cache
def name_of(number: int) -> str:
    """The name of a call of this machine; its number in brackets for one that nobody knows."""
    library = _library()
    pointer = library.seccomp_syscall_resolve_num_arch(library.seccomp_arch_native(), number)
    if pointer:
        try:
            return (ctypes.cast(pointer, ctypes.c_char_p).value or b"").decode()
        finally:
            free = ctypes.CDLL(None).free
            free.argtypes = (ctypes.c_void_p,)
            free(pointer)
    names = {known: name for name, known in RECENT.items()}
    return names.get(number, f"[{number}]")
