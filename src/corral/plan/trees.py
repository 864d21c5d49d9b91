"""What the guest sees of the host, as trees of binds. Pure.

Two kinds of export: the toolbox, read-only, one a sandbox; and one a writer, with its workspace and
writable shares. Read-only shares and tools stand in the toolbox, so no export mixes both.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..host.layout import Layout
from ..proc.bwrap import Access, Bind, EmptyReadOnly, Folder, Memory, Seal, Step, Symlink
from ..spec import Share, Spec
from .model import AGENT_UID_BASE, NOBODY, Export

EXPORT = "/export"
EMPTY_FILE = "@empty"  # replaced by the path of an empty file when the process is rendered


def toolbox(spec: Spec, layout: Layout) -> Export:
    """Programs, a little of /etc, tools and read-only shares."""
    parts: list[Bind | Symlink] = []
    parts += [Bind(path, EXPORT + path) for path in (*layout.folders, *layout.etc)]
    parts += [Symlink(text, EXPORT + path) for path, text in layout.links]
    real = {share.source for share in spec.shares}
    parts += [
        Bind(source, EXPORT + target, pinned=source in real)
        for source, target in read_only_parts(spec)
    ]
    tree = [Memory(EXPORT), *_with_parents(parts), Seal(EXPORT)]
    return Export(tag="toolbox", uid=NOBODY, tree=tuple(tree), submounts=False, cache="always")


def _with_parents(parts: Iterable[Bind | Symlink]) -> list[Step]:
    """The parts, and before each the folders that lead to it, which everybody may enter.

    Folders that bubblewrap makes of itself, nobody but their owner may.
    """
    steps: list[Step] = [Folder(f"{EXPORT}/etc")]
    made = {EXPORT, f"{EXPORT}/etc"}
    bound: set[str] = set()
    for part in parts:
        path = part.target if isinstance(part, Bind) else part.path
        missing: list[Step] = []
        parent = path.rpartition("/")[0]
        while parent and parent not in made and parent not in bound:
            missing.append(Folder(parent))
            made.add(parent)
            parent = parent.rpartition("/")[0]
        # What is in a folder of the host's is made, or not, by that folder.
        steps += reversed(missing if parent in made else [])
        steps.append(part)
        bound.add(path)
    return steps


def read_only_parts(spec: Spec) -> list[tuple[str, str]]:
    """(source, target) of what a guest may only read, besides the host's program folders."""
    parts = [(share.source, share.target) for share in spec.shares if not share.writable]
    parts += [(tool, tool) for tool in tools(spec)]
    return sorted(set(parts), key=lambda part: part[1])


def tools(spec: Spec) -> tuple[str, ...]:
    """Folders of programs, of all agents of the spec."""
    own = (tool for agent in spec.agents for tool in agent.tools)
    return tuple(dict.fromkeys((*spec.run.tools, *own)))


def writable_parts(spec: Spec, layout: Layout) -> list[str]:
    """Where the parts of an agent's export appear, parents first. spec: as that agent has it."""
    paths = [spec.workspace.path]
    if layout.workspace.git_common:
        paths.append(layout.workspace.git_common)
    paths += [share.target for share in _own_shares(spec)]
    return sorted(paths, key=lambda path: path.count("/"))


def agent(spec: Spec, layout: Layout, number: int) -> Export:
    """The workspace, what comes along with it, writable shares and what is this agent's alone.

    spec: as the agent has it (`agents.view`).
    """
    workspace = layout.workspace
    access = Access.READ_ONLY if spec.workspace.read_only else Access.WRITABLE
    host = workspace.path

    def inside(path: str) -> str:
        """Where a path of the workspace is in the guest, also when the host has a copy of it."""
        return spec.workspace.path + path[len(host) :] if _within(path, host) else path

    tree: list[Step] = [Memory(EXPORT), _pinned(host, inside(host), access)]
    if workspace.git_common:
        tree.append(_pinned(workspace.git_common, workspace.git_common, access))
    tree += [
        _pinned(share.source, share.target, Access.WRITABLE if share.writable else Access.READ_ONLY)
        for share in _own_shares(spec)
    ]
    tree += [_pinned(path, inside(path), access) for path in _parents_first(workspace.mounts)]
    tree += [
        _pinned(path, inside(path), Access.READ_ONLY)
        for path in _parents_first(workspace.protected)
    ]
    tree += [Bind(EMPTY_FILE, EXPORT + inside(path)) for path in workspace.masked_files]
    tree += [EmptyReadOnly(EXPORT + inside(path)) for path in workspace.masked_folders]
    # What joins the parts is memory of the host: a guest that could write there could fill it.
    tree.append(Seal(EXPORT))
    return Export(
        tag=f"agent{number}",
        uid=AGENT_UID_BASE + number,
        tree=tuple(tree),
        submounts=True,
        cache="auto",
    )


def _own_shares(spec: Spec) -> list[Share]:
    """What is in an agent's export: nobody else's toolbox shows what is one agent's alone."""
    return [share for share in spec.shares if share.writable] + [
        share for agent in spec.agents for share in agent.shares
    ]


def targets(export: Export) -> list[str]:
    """Where something of its own is in an export, as the guest names it, parents first."""
    return [
        step.target.removeprefix(EXPORT)
        for step in export.tree
        if isinstance(step, Bind) and step.source != EMPTY_FILE
    ]


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _pinned(source: str, target: str, access: Access) -> Bind:
    return Bind(source, EXPORT + target, access, pinned=True)


def _parents_first(paths: Iterable[str]) -> list[str]:
    return sorted(paths, key=lambda path: path.count("/"))
