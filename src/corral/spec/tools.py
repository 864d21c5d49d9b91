"""Programs that the user has only below the home, and the folders that make them run.

A sandbox gets /usr and the like, not the home; node from nvm or cargo from rustup has to be
named. The folders named here are as small as will work: ~/.cargo/bin and not ~/.cargo, which may
hold a token.
"""

from __future__ import annotations

import os
import shlex

# Version managers whose whole folder is needed, relative to the home.
_MANAGERS = (
    ".nvm",
    ".nodenv",
    ".volta",
    ".bun",
    ".deno",
    ".pyenv",
    ".rye",
    ".rbenv",
    ".rvm",
    ".rustup",
    ".asdf",
    ".goenv",
    ".jenv",
    ".sdkman",
    ".ghcup",
    ".opam",
    ".juliaup",
    ".pixi",
    ".phpenv",
    ".swiftly",
    ".elan",
)
# Programs in the first folder do nothing without the second.
_COMPANIONS = {".cargo/bin": (".rustup",)}


def program_folders(command: str, path_env: str, home: str) -> tuple[str, ...]:
    """The folders below `home` that `command` needs, found through `path_env`; () when it is not
    there or is outside the home (and so in the sandbox anyway)."""
    program = find_program(command, path_env)
    if program is None or home in ("", "/"):
        return ()
    homes = tuple(dict.fromkeys((os.path.normpath(home), os.path.realpath(home))))
    folders: list[str] = []
    for path in program_chain(program):
        for each in homes:
            if path.startswith(each + "/"):
                folders += _roots(path[len(each) + 1 :], homes[0])
                break
    return _outermost(folders)


def is_on_path(command: str, path_env: str) -> bool:
    """Whether `command` is an executable file on the search path."""
    return find_program(command, path_env) is not None


def missing_program_hint(command: str, path_env: str, home: str) -> str | None:
    """What to do about a `command` that the sandbox lacks and the user has in the home.

    `node is in ~/.nvm: add --tool ~/.nvm`; None when it is not in the home. path_env: the
    user's PATH.
    """
    folders = program_folders(command, path_env, home)
    if not folders:
        return None
    shown = [abbreviated(folder, home) for folder in folders]
    options = " ".join(f"--tool {_quoted(folder)}" for folder in shown)
    return f"{os.path.basename(command)} is in {shown[0]}: add {options}"  # noqa: PTH119


def abbreviated(path: str, home: str) -> str:
    """`path` with the home as ~."""
    home = os.path.normpath(home)
    return "~" + path[len(home) :] if path.startswith(home + "/") else path


def _quoted(path: str) -> str:
    return "~/" + shlex.quote(path[2:]) if path.startswith("~/") else shlex.quote(path)


def find_program(command: str, path_env: str) -> str | None:
    """The executable file that `command` is on the search path; None when there is none."""
    if "/" in command:
        candidates = [command] if command.startswith("/") else []
    else:
        folders = [folder for folder in path_env.split(os.pathsep) if folder.startswith("/")]
        candidates = [os.path.join(folder, command) for folder in folders]  # noqa: PTH118
    for candidate in candidates:
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):  # noqa: PTH113
            return os.path.normpath(candidate)
    return None


def program_chain(program: str) -> list[str]:
    """`program`, every link on the way to its file, and the interpreter that a script names."""
    chain = [program]
    for _ in range(20):
        try:
            target = os.readlink(chain[-1])  # noqa: PTH115
        except OSError:
            break
        folder = os.path.dirname(chain[-1])  # noqa: PTH120
        chain.append(os.path.normpath(os.path.join(folder, target)))  # noqa: PTH118
    real = os.path.realpath(program)
    if real not in chain:
        chain.append(real)
    interpreter = _interpreter(real)
    if interpreter is not None and interpreter not in chain:
        chain += [interpreter, os.path.realpath(interpreter)]
    return chain


def _interpreter(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            line = file.readline(256)
    except OSError:
        return None
    if not line.startswith(b"#!/"):
        return None
    words = line[2:].split()
    return os.fsdecode(words[0]) if words else None


def _roots(relative: str, home: str) -> list[str]:
    """The folders for a program at `relative` to the home."""
    parts = relative.split("/")
    if parts[0] in _MANAGERS:
        return [f"{home}/{parts[0]}"]
    if parts[0] == ".local" and len(parts) > 3 and parts[1] in ("share", "lib", "opt", "state"):
        return [f"{home}/{'/'.join(parts[:3])}"]
    folder = parts[:-1]
    if not folder:
        return []  # a program in the home itself; sharing the home is never proposed
    companions = _COMPANIONS.get("/".join(folder), ())
    # ~/node-v20/bin/node needs ~/node-v20/lib; of a hidden folder only what holds programs.
    if folder[-1] in ("bin", "sbin") and len(folder) > 1 and not parts[0].startswith("."):
        folder = folder[:-1]
    return [f"{home}/{'/'.join(folder)}", *(f"{home}/{name}" for name in companions)]


def _outermost(folders: list[str]) -> tuple[str, ...]:
    unique = dict.fromkeys(folders)
    return tuple(
        folder
        for folder in unique
        if os.path.isdir(folder)  # noqa: PTH112
        and not any(folder.startswith(other + "/") for other in unique)
    )
