"""libseccomp: from rules to the program that the kernel runs. Through ctypes; seccomp_init(3).

QEMU cannot do without the library (it is what `-sandbox on` uses), so every host that can run a
sandbox has it. docs/dependencies.md says why none of the Python bindings is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
from collections.abc import Iterator

from ...errors import ConfigError, HostError
from .table import Answer, Entry, Kind, Table

LIBRARY = "libseccomp.so.2"

# seccomp.h: actions, attributes, comparisons, tokens of architectures (linux/audit.h)
_ACTIONS = {
    Kind.KILL_PROCESS: 0x80000000,
    Kind.KILL_THREAD: 0x00000000,
    Kind.TRAP: 0x00030000,
    Kind.ERRNO: 0x00050000,
    Kind.LOG: 0x7FFC0000,
    Kind.ALLOW: 0x7FFF0000,
}
_ON_FOREIGN, _OPTIMIZE, _BINARY_TREE = 2, 8, 2
_COMPARISONS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_ARCHES = {
    "x86_64": 0xC000003E,
    "aarch64": 0xC00000B7,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_ARM": 0x40000028,
}
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


class _Comparison(ctypes.Structure):  # struct scmp_arg_cmp
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise HostError(
            f"{LIBRARY}, which makes seccomp filters, cannot be loaded: {error}.",
            hint="Install it (Debian, Ubuntu: libseccomp2; Fedora: libseccomp), or say "
            "--seccomp none and do without a profile.",
        ) from error
    context, word, number = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int
    library.seccomp_init.restype = context
    library.seccomp_init.argtypes = (word,)
    library.seccomp_release.argtypes = (context,)
    library.seccomp_release.restype = None
    library.seccomp_attr_set.argtypes = (context, number, word)
    for name in ("seccomp_arch_add", "seccomp_arch_remove"):
        getattr(library, name).argtypes = (context, word)
    library.seccomp_arch_native.restype = word
    library.seccomp_rule_add_array.argtypes = (
        *(context, word, number, ctypes.c_uint),
        ctypes.POINTER(_Comparison),
    )
    library.seccomp_export_bpf.argtypes = (context, number)
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_syscall_resolve_num_arch.argtypes = (word, number)
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p  # to be freed
    return library


def number_of(name: str) -> int | None:
    """What the library takes for a call: its number here, or a negative one where it has none.

    None: neither the library nor we know it.
    """
    number: int = _library().seccomp_syscall_resolve_name(name.encode())
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


def compile_table(where: Table, machine: str) -> bytes:
    """The classic BPF program for `machine`, as bwrap and seccomp(2) take it.

    What runs under another system call table than the profile opens is killed. Raises
    ConfigError, HostError.
    """
    library = _library()
    with _filter(library, where.default) as context:
        _set(library, context, _ON_FOREIGN, _action(Answer(Kind.KILL_PROCESS)))
        with contextlib.suppress(ConfigError):  # a library before 2.5 makes a slower program
            _set(library, context, _OPTIMIZE, _BINARY_TREE)
        native: int = library.seccomp_arch_native()
        if native != _ARCHES[machine]:
            _check(library.seccomp_arch_add(context, _ARCHES[machine]), "an architecture")
            _check(library.seccomp_arch_remove(context, native), "an architecture")
        for name in where.sub_arches:
            _check(library.seccomp_arch_add(context, _ARCHES[name]), "an architecture")
        for entry in where.entries:
            if entry.answer != where.default:
                _add(library, context, entry, where.default)
        return _exported(library, context)


@contextlib.contextmanager
def _filter(library: ctypes.CDLL, default: Answer) -> Iterator[int]:
    context: int | None = library.seccomp_init(_action(default))
    if not context:
        raise HostError("libseccomp makes no filter.", hint="Is its version 2.5 or later?")
    try:
        yield context
    finally:
        library.seccomp_release(context)


def _action(given: Answer) -> int:
    return _ACTIONS[given.kind] | (given.errno if given.kind is Kind.ERRNO else 0)


def _set(library: ctypes.CDLL, context: int, attribute: int, value: int) -> None:
    _check(library.seccomp_attr_set(context, attribute, value), f"attribute {attribute}")


def _add(library: ctypes.CDLL, context: int, entry: Entry, default: Answer) -> None:
    number = number_of(entry.name)
    if number is None:
        if entry.answer.allows or not default.allows:
            return  # what nobody knows gets the default answer, which is as strict
        raise ConfigError(
            f"the seccomp profile refuses “{entry.name[:40]}”, a call that this libseccomp does "
            "not know.",
            hint="Write a profile that allows by name and refuses the rest, or update libseccomp.",
        )
    conditions = (_Comparison * len(entry.conditions))(
        *(
            _Comparison(part.index, _COMPARISONS[part.op], part.value, part.valueTwo)
            for part in entry.conditions
        )
    )
    result: int = library.seccomp_rule_add_array(
        context, _action(entry.answer), number, len(conditions), conditions
    )
    # EDOM: not on that architecture. EEXIST: the same rule twice. EFAULT: a number of RECENT's that
    # the library cannot translate to another architecture, where it gets the default answer.
    strict = entry.answer.allows or not default.allows
    if result == -errno.EFAULT and entry.name in RECENT and strict:
        return
    if result not in (0, -errno.EDOM, -errno.EEXIST):
        _check(result, f"a rule for {entry.name}")


def _exported(library: ctypes.CDLL, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with open(fd, "rb") as file:
        _check(library.seccomp_export_bpf(context, fd), "the filter")
        file.seek(0)
        return file.read()


def _check(result: int, what: str) -> None:
    if result < 0:
        raise ConfigError(
            f"libseccomp does not take {what}: {os.strerror(-result)}.",
            hint="Compare the profile with docs/seccomp.md.",
        )
