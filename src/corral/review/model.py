"""What a review is about, as values: how a file was, how it is now, what changed."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["file", "link", "folder", "other"]
# Inode, size, times of content and of status: a file that still has these is as it was. A guest can
# set the time of its content; that of its status is the host kernel's clock.
Signature = tuple[int, int, int, int]
NONE: Signature = (0, 0, 0, 0)


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """A file or link on one side of a change. mode: permission bits. size: bytes."""

    kind: Kind
    mode: int = 0o644
    size: int = 0
    link: str = ""

    @property
    def executable(self) -> bool:
        """Whether git calls it so (100755)."""
        return self.kind == "file" and bool(self.mode & 0o100)

    @property
    def git_mode(self) -> str:
        """The mode as git writes it."""
        return "120000" if self.kind == "link" else "100755" if self.executable else "100644"


class Found(msgspec.Struct, frozen=True):
    """What a name was found to be."""

    kind: Kind
    mode: int
    size: int
    link: str
    signature: Signature

    @property
    def side(self) -> Side:
        """As one side of a change."""
        return Side(kind=self.kind, mode=self.mode, size=self.size, link=self.link)


class Was(msgspec.Struct, frozen=True, array_like=True):
    """How a name was when the snapshot was made, or when a change of it was last applied.

    path, link: as the system has them, bytes. offset: of its content in the pack. here, work: its
    signatures in the user's folder and in the snapshot. hidden: it is masked.
    """

    path: bytes
    kind: Kind
    mode: int
    size: int
    offset: int
    link: bytes
    here: Signature
    work: Signature
    hidden: bool = False

    @property
    def side(self) -> Side:
        """As one side of a change."""
        link = self.link.decode("utf-8", "surrogateescape")
        return Side(kind=self.kind, mode=self.mode, size=self.size, link=link)


class Danger(msgspec.Struct, frozen=True, kw_only=True):
    """Why a change needs a yes of its own. rule: a short stable word. reason: for a person."""

    rule: str
    reason: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one name. old, new: None where there was, or is, none.

    repository: it lies in a git folder, and is applied only when it is named. problem: why it can
    never be applied, or "".
    """

    path: str
    old: Side | None
    new: Side | None
    repository: bool = False
    problem: str = ""

    @property
    def status(self) -> str:
        """One letter, as git has it: A, D, M, T (of another kind)."""
        if self.old is None:
            return "A"
        if self.new is None:
            return "D"
        return "M" if self.old.kind == self.new.kind else "T"


class Standing(msgspec.Struct, frozen=True):
    """How a change stands to the user's folder: clean, done (there already), or in conflict."""

    state: Literal["clean", "done", "conflict"]
    reason: str = ""
