"""Who the user is: the account, and the name that git signs commits with."""

from __future__ import annotations

import grp
import pwd

import msgspec

from ..errors import HostError
from .system import System


class User(msgspec.Struct, frozen=True):
    """The user's account. gid: the primary group. home: an absolute path.

    git_name, git_email: from the user's own git configuration, None when not set there.
    """

    name: str
    uid: int
    gid: int
    home: str
    git_name: str | None = None
    git_email: str | None = None
    group: str = "users"


def find_user(system: System, git: str | None) -> User:
    """The account of `system.uid`. git: the git program, or None when there is none.

    Raises HostError when the id has no account and the environment names none.
    """
    environ = system.environ
    try:
        entry = pwd.getpwuid(system.uid)
        name, gid, home = entry.pw_name, entry.pw_gid, entry.pw_dir
    except KeyError:
        name, gid = environ.get("USER", ""), system.uid
        home = environ.get("HOME", "")
        if not name or not home:
            raise HostError(
                f"your user id {system.uid} has no account on this machine.",
                hint="Set USER and HOME, or add an entry to /etc/passwd.",
            ) from None
    home = environ.get("HOME") or home
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = name
    git_name, git_email = _git_identity(system, git, home)
    return User(name, system.uid, gid, home, git_name, git_email, group)


def _git_identity(system: System, git: str | None, home: str) -> tuple[str | None, str | None]:
    """user.name and user.email of the user's own configuration, never of a project's."""
    config_home = system.environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    files = (f"{home}/.gitconfig", f"{config_home}/git/config")
    if git is None or not any(system.path(file).exists() for file in files):
        return None, None
    # GIT_DIR keeps git from looking for a repository and its configuration, which a guest may
    # have written.
    answer = system.answer(
        [git, "config", "--global", "--includes", "-z", "--get-regexp", r"^user\.(name|email)$"],
        HOME=home,
        XDG_CONFIG_HOME=config_home,
        GIT_DIR="/dev/null",
        GIT_CONFIG_NOSYSTEM="1",
    )
    return parse_identity(answer.stdout if answer.status == 0 else "")


def parse_identity(output: str) -> tuple[str | None, str | None]:
    """Name and email from `git config -z --get-regexp`: key, newline, value, NUL; the last wins."""
    found: dict[str, str] = {}
    for record in output.split("\0"):
        key, _, value = record.partition("\n")
        if value and value.isprintable():
            found[key] = value
    return found.get("user.name"), found.get("user.email")
