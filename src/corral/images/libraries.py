"""The shared libraries that programs need, and where the guest's loader will find them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from ..errors import ImageError
from .elf import interpreter, is_elf

_HELPER_TIMEOUT = 120.0  # seconds


def libraries(programs: Iterable[Path]) -> dict[str, Path]:
    """Where in the guest each shared library goes that the programs need, and its file here.

    The programs' own loader lists them, by the rules that it applies when it runs them.
    """
    loaders: dict[str, Path] = {}
    found: dict[str, Path] = {}
    programs = list(programs)
    for program in programs:
        wanted = interpreter(read_program(program))
        if wanted is not None:
            loaders[wanted] = Path(wanted)
    if not loaders:
        return {}
    loader = next(iter(loaders))
    for program in programs:
        found |= _listed(loader, program)
    main = Path(next((n for n in found if Path(n).name.startswith("libc.so")), loader)).parent
    targets: dict[str, Path] = {}
    for name, path in (found | loaders).items():
        target = _guest_path(Path(name), main)
        if target in targets and targets[target].resolve() != path.resolve():
            target = name  # a second one of that name: its place is in the program's own path
        targets[target] = path
    return targets


def _listed(loader: str, program: Path) -> dict[str, Path]:
    purpose = f"the libraries of {program}"
    found = parse_libraries(output([loader, "--list", str(program)], purpose))
    if any("/glibc-hwcaps/" in path for path in found):
        # variants for this host's processor, which the guest's need not be able to run
        plain = [loader, "--glibc-hwcaps-mask", "none", "--list", str(program)]
        found = parse_libraries(output(plain, purpose))
    return found


def parse_libraries(output: bytes) -> dict[str, Path]:
    """Path by path, from lines like "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f...)".

    Raises ImageError that names a library which is not found.
    """
    found = {}
    for line in os.fsdecode(output).splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        if not arrow:
            continue
        if rest.startswith("not found"):
            raise ImageError(f"the shared library {name} is not installed.")
        path = rest.rsplit(" (0x", 1)[0]
        if path.startswith("/"):
            found[path] = Path(path)
    return found


def _guest_path(library: Path, main: Path) -> str:
    """Where the guest's loader finds it: as here, or beside libc if it lies somewhere private."""
    if library.parts[1] not in ("lib", "lib64", "usr", "nix"):
        library = main / library.name
    path = str(library)
    return f"/usr{path}" if path.startswith(("/lib/", "/lib64/")) else path


def read_program(path: Path) -> bytes:
    """The content of a program or library. Raises ImageError if it is no ELF file of 64 bits."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {path} for the base image: {error.strerror}.") from error
    if not is_elf(data):
        raise ImageError(
            f"{path} is not a program of this machine (a script, or for another architecture).",
        )
    return data


def output(argv: list[str], purpose: str) -> bytes:
    """What a program prints. Raises ImageError."""
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    try:
        result = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_HELPER_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImageError(f"cannot list {purpose}: {error}.") from error
    if result.returncode != 0:
        raise ImageError(
            f"cannot list {purpose}: {argv[0]} ended with status {result.returncode}.",
            detail=result.stderr.decode("utf-8", "replace").strip()[-2000:] or None,
        )
    return result.stdout
