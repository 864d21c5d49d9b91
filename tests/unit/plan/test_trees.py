"""What a guest sees of the host: read-only and writable parts never share an export."""

from __future__ import annotations

import pytest

from corral.plan import Export, trees
from corral.plan.model import NOBODY
from corral.proc.bwrap import Access, Bind, EmptyReadOnly, Folder
from corral.spec.model import Share
from tests.support import examples

PROJECT = examples.PROJECT
DATA = Share(source="/srv/data", target="/data", writable=False)
OUT = Share(source="/srv/out", target="/out", writable=True)


def binds(export: Export) -> dict[str, tuple[str, Access]]:
    """target below the export -> (source, access), the last one winning as in bwrap."""
    return {
        step.target.removeprefix(trees.EXPORT): (step.source, step.access)
        for step in export.tree
        if isinstance(step, Bind)
    }


def position(export: Export, target: str) -> int:
    """Where a path is bound in the order of the tree."""
    targets = [getattr(step, "target", getattr(step, "path", "")) for step in export.tree]
    return targets.index(trees.EXPORT + target)


def test_the_toolbox_holds_programs_a_little_of_etc_shares_and_tools_all_read_only() -> None:
    wanted = examples.spec(shares=(DATA, OUT), run={"tools": ("/home/ada/.nvm",)})
    toolbox = trees.toolbox(wanted, examples.layout())
    shown = binds(toolbox)
    assert set(shown) == {
        *("/usr", "/opt", "/etc/ld.so.cache", "/etc/ssl/certs", "/data", "/home/ada/.nvm")
    }
    assert {access for _source, access in shown.values()} == {Access.READ_ONLY}
    assert shown["/data"][0] == "/srv/data"
    assert toolbox.uid == NOBODY


def test_folders_above_a_part_are_there_for_everybody() -> None:
    """bubblewrap makes those that lead to a target for their owner only."""
    inside = Share(source="/srv/a", target="/usr/share/x/a", writable=False)
    wanted = examples.spec(shares=(DATA, inside), run={"tools": ("/home/ada/.nvm",)})
    steps = trees.toolbox(wanted, examples.layout()).tree
    folders = [step.path for step in steps if isinstance(step, Folder)]
    below = [path.removeprefix(trees.EXPORT) for path in folders]
    assert below == ["/etc", "/etc/ssl", "/home", "/home/ada"]  # /usr has its own
    first = {path: index for index, step in enumerate(steps) if (path := getattr(step, "path", ""))}
    bound = {step.target: index for index, step in enumerate(steps) if isinstance(step, Bind)}
    assert first[f"{trees.EXPORT}/home/ada"] < bound[f"{trees.EXPORT}/home/ada/.nvm"]


def test_an_agents_export_holds_the_workspace_and_writable_shares() -> None:
    export = trees.agent(examples.spec(shares=(DATA, OUT)), examples.layout(), 3)
    shown = binds(export)
    assert shown[PROJECT] == (PROJECT, Access.WRITABLE)
    assert shown["/out"] == ("/srv/out", Access.WRITABLE)
    assert "/data" not in shown
    assert (export.tag, export.uid) == ("agent3", 2003)


def test_what_is_protected_is_read_only_and_bound_after_what_holds_it() -> None:
    export = trees.agent(examples.spec(), examples.layout(), 1)
    shown = binds(export)
    for path in (f"{PROJECT}/.git/hooks", f"{PROJECT}/.git/config"):
        assert shown[path] == (path, Access.READ_ONLY)
        assert position(export, PROJECT) < position(export, f"{PROJECT}/.git")
        assert position(export, f"{PROJECT}/.git") < position(export, path)


def test_in_a_read_only_workspace_nothing_can_be_written() -> None:
    export = trees.agent(
        examples.spec(workspace={"read_only": True}), examples.layout(git_common="/x/.git"), 1
    )
    assert {access for _source, access in binds(export).values()} == {Access.READ_ONLY}


def test_masked_files_are_empty_and_masked_folders_are_empty_and_read_only() -> None:
    found = examples.layout(
        masked_files=(f"{PROJECT}/.env",), masked_folders=(f"{PROJECT}/secrets",)
    )
    export = trees.agent(examples.spec(), found, 1)
    assert binds(export)[f"{PROJECT}/.env"] == (trees.EMPTY_FILE, Access.READ_ONLY)
    assert EmptyReadOnly(f"{trees.EXPORT}{PROJECT}/secrets") in export.tree
    assert position(export, PROJECT) < position(export, f"{PROJECT}/secrets")


def test_a_linked_worktrees_common_git_folder_comes_along() -> None:
    common = "/home/ada/src/main/.git"
    found = examples.layout(git_common=common, protected=(f"{common}/hooks",))
    export = trees.agent(examples.spec(), found, 1)
    assert binds(export)[common] == (common, Access.WRITABLE)
    assert binds(export)[f"{common}/hooks"] == (f"{common}/hooks", Access.READ_ONLY)


def test_writable_parts_come_parents_first() -> None:
    inner = Share(source="/srv/deep", target=f"{PROJECT}/a/b", writable=True)
    parts = trees.writable_parts(examples.spec(shares=(inner, OUT)), examples.layout())
    assert parts.index(PROJECT) < parts.index(f"{PROJECT}/a/b")
    assert set(parts) == {PROJECT, f"{PROJECT}/a/b", "/out"}


def test_a_tool_shared_twice_is_bound_once() -> None:
    wanted = examples.spec(
        shares=(Share(source="/opt/x", target="/opt/x", writable=False),),
        run={"tools": ("/opt/x", "/opt/x")},
    )
    assert trees.read_only_parts(wanted) == [("/opt/x", "/opt/x")]


@pytest.mark.parametrize("read_only", [False, True])
def test_the_agents_export_never_shows_the_home(read_only: bool) -> None:
    export = trees.agent(examples.spec(workspace={"read_only": read_only}), examples.layout(), 1)
    assert "/home/ada" not in binds(export)
    assert "/" not in binds(export)
