"""./corral from a fresh clone: makes its environment once, then only starts it.

The clone here has the project's own pyproject.toml without its dependencies, and a package that
prints how it was started: what is promised is the launcher's part.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
PROBE = """\
import json, os, sys
import corral
json.dump({"argv": sys.argv[1:], "prefix": sys.prefix, "package": corral.__file__,
           "path": sys.path, "pid": os.getpid(), "cache": sys.pycache_prefix}, sys.stdout)
"""
TOOLS = (
    "sh",
    "cmp",
    "cat",
    "mktemp",
    "tail",
    "mv",
    "rm",
    "mkdir",
    "id",
    "readlink",
    "flock",
    "env",
)


def make_clone(folder: Path) -> Path:
    (folder / "src" / "corral").mkdir(parents=True)
    (folder / "src" / "corral_guest").mkdir()
    for name in ("corral", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, folder / name)
    text = (PROJECT / "pyproject.toml").read_text()
    text = re.sub(r"^dependencies = \[.*?^\]", "dependencies = []", text, flags=re.M | re.S)
    (folder / "pyproject.toml").write_text(text)
    (folder / "src/corral/__init__.py").write_text('__version__ = "0.1.0"\n')
    (folder / "src/corral/__main__.py").write_text(PROBE)
    (folder / "src/corral_guest/__init__.py").write_text("")
    return folder


def environment(cache: Path, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    return {**inherited, "CORRAL_CACHE_DIR": str(cache), **more}


def launch(
    program: Path | str, *args: str, cache: Path, cwd: Path, **env: str
) -> dict[str, object]:
    done = subprocess.run(
        [str(program), *args],
        cwd=cwd,
        env=environment(cache, **env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    answer["stderr"] = done.stderr
    return answer


class FirstStart:
    """What two starts at once in a fresh clone did."""

    def __init__(self, base: Path) -> None:
        self.clone = make_clone(base / "a clone" / "of mine")
        self.cache = base / "cache"
        self.elsewhere = base / "project"
        self.elsewhere.mkdir()
        starts = [
            subprocess.Popen(
                [self.clone / "corral", "run", word],
                cwd=self.elsewhere,
                env=environment(self.cache),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for word in ("one", "two")
        ]
        self.outputs = [start.communicate(timeout=100) for start in starts]
        self.statuses = [start.returncode for start in starts]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirstStart]:
    yield FirstStart(tmp_path_factory.mktemp("launcher"))


def test_two_first_starts_at_once_make_one_environment(first: FirstStart) -> None:
    assert first.statuses == [0, 0], first.outputs
    said = "".join(err for _out, err in first.outputs)
    assert said.count("setting up") == 1
    answers = [json.loads(out) for out, _err in first.outputs]
    assert [answer["argv"] for answer in answers] == [["run", "one"], ["run", "two"]]
    assert {answer["prefix"] for answer in answers} == {str(first.clone / ".venv")}


def test_a_later_start_is_silent_and_passes_arguments_as_they_are(first: FirstStart) -> None:
    args = ("run", "--", "sh", "-c", 'echo "a  b" $HOME', "", "*", "--yes")
    answer = launch(first.clone / "corral", *args, cache=first.cache, cwd=first.elsewhere)
    assert answer["argv"] == list(args)
    assert answer["stderr"] == ""


def test_it_works_through_symlinks_from_any_folder(first: FirstStart) -> None:
    links = first.elsewhere / "bin"
    links.mkdir()
    (links / "absolute").symlink_to(first.clone / "corral")
    (links / "relative").symlink_to("absolute")
    for program in (links / "absolute", links / "relative", "bin/relative"):
        answer = launch(program, cache=first.cache, cwd=first.elsewhere)
        assert answer["prefix"] == str(first.clone / ".venv")
    on_path = {"PATH": f"{links}:{os.environ['PATH']}"}
    answer = launch("relative", cache=first.cache, cwd=Path("/"), **on_path)
    assert answer["prefix"] == str(first.clone / ".venv")


def test_modules_of_the_users_project_are_never_imported(first: FirstStart) -> None:
    """The current folder is the project, which a guest may have written."""
    project = first.elsewhere / "hostile"
    (project / "corral").mkdir(parents=True)
    for name in ("json.py", "sitecustomize.py", "corral/__init__.py", "corral/__main__.py"):
        (project / name).write_text("raise SystemExit('the project was imported')\n")
    hostile = {"PYTHONPATH": str(project), "PYTHONSTARTUP": str(project / "json.py")}
    answer = launch(first.clone / "corral", cache=first.cache, cwd=project, **hostile)
    assert str(project) not in answer["path"]  # type: ignore[operator]  # a list, from JSON
    assert answer["package"] == str(first.clone / "src/corral/__init__.py")


def test_a_later_start_runs_no_python_before_corrals(first: FirstStart, tmp_path: Path) -> None:
    """The Python it starts is the launcher's own process, and no other is found on PATH."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "cmp"):
        (tools / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    with subprocess.Popen(
        [first.clone / "corral"],
        env=environment(first.cache, PATH=str(tools)),
        stdout=subprocess.PIPE,
        text=True,
    ) as start:
        answer = json.loads(start.communicate(timeout=30)[0])
    assert answer["pid"] == start.pid


def test_a_clone_that_is_not_ours_to_write_uses_the_cache(
    first: FirstStart, tmp_path: Path
) -> None:
    clone = make_clone(tmp_path / "shared clone")
    if os.getuid() == 0:
        os.chown(clone, 65534, 65534)  # root may write anywhere; the owner tells
    else:
        clone.chmod(0o555)
    answer = launch(clone / "corral", "x", cache=tmp_path / "cache", cwd=tmp_path)
    assert str(answer["prefix"]).startswith(str(tmp_path / "cache" / "venv-"))
    assert not (clone / ".venv").exists()
    assert str(answer["cache"]).startswith(str(tmp_path / "cache"))
    again = launch(clone / "corral", "x", cache=tmp_path / "cache", cwd=tmp_path)
    assert again["stderr"] == "" and again["prefix"] == answer["prefix"]
    clone.chmod(0o755)


def test_a_changed_pyproject_is_installed_anew(first: FirstStart) -> None:
    pyproject = first.clone / "pyproject.toml"
    pyproject.write_text(pyproject.read_text() + "\n# changed\n")
    answer = launch(first.clone / "corral", cache=first.cache, cwd=first.elsewhere)
    assert "setting up" in str(answer["stderr"])
    answer = launch(first.clone / "corral", cache=first.cache, cwd=first.elsewhere)
    assert answer["stderr"] == ""


def test_an_environment_that_cannot_be_made_is_an_error_and_is_tried_again(
    first: FirstStart, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(first.clone, clone, symlinks=True)  # so also: a clone that was copied elsewhere
    (clone / "pyproject.toml").write_text("not toml [")
    done = subprocess.run(
        [clone / "corral"],
        env=environment(first.cache),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 125
    assert "could not be made" in done.stderr and "Traceback" not in done.stdout
    assert not (clone / ".venv/corral-clone").exists()


class Bare:
    """A machine with a shell and apt-get, and without Python."""

    def __init__(self, base: Path) -> None:
        self.tools = base / "tools"
        self.tools.mkdir()
        self.log = base / "apt.log"
        for name in TOOLS:
            (self.tools / name).symlink_to(shutil.which(name) or f"/bin/{name}")
        apt = self.tools / "apt-get"
        apt.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>"{self.log}"\n')
        apt.chmod(0o755)
        self.clone = make_clone(base / "clone")
        self.cache = base / "cache"

    def start(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.clone / "corral", *args],
            env=environment(self.cache, PATH=str(self.tools), **env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def test_missing_python_is_named_with_the_command_and_not_installed_unasked(
    tmp_path: Path,
) -> None:
    bare = Bare(tmp_path)
    # The last: what follows the verb's first word may be the user's command and its options.
    for args in ((), ("run", "--", "npm", "--yes"), ("run", "npm", "--yes")):
        done = bare.start(*args)
        assert done.returncode == 125
        assert "Python 3.11" in done.stderr
        assert "apt-get install -y --no-install-recommends python3 python3-venv" in done.stderr
    assert not bare.log.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root installs without sudo")
@pytest.mark.parametrize(("args", "env"), [(("--yes",), {}), (("run",), {"CI": "true"})])
def test_missing_python_is_installed_when_allowed(
    tmp_path: Path, args: tuple[str, ...], env: dict[str, str]
) -> None:
    bare = Bare(tmp_path)
    done = bare.start(*args, **env)
    assert bare.log.read_text().splitlines() == [
        "update",
        "install -y --no-install-recommends python3 python3-venv",
    ]
    assert "no Python 3.11 or later was found" in done.stderr  # this apt-get brings none


def test_missing_venv_module_is_named(tmp_path: Path) -> None:
    """Debian's Python comes without it."""
    bare = Bare(tmp_path)
    fake = bare.tools / "python3"
    fake.write_text(
        '#!/bin/sh\ncase "$*" in\n*base_executable*) echo "$0";;\n'
        "*ensurepip*) exit 1;;\n*version_info*) echo 3.11;;\nesac\n"
    )
    fake.chmod(0o755)
    done = bare.start()
    assert done.returncode == 125
    assert "python3.11-venv" in done.stderr


def test_a_python_that_can_make_environments_goes_before_one_that_cannot(tmp_path: Path) -> None:
    bare = Bare(tmp_path)
    real = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}").resolve()
    without = bare.tools / "python3"
    without.write_text(f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\nexec {real} "$@"\n')
    without.chmod(0o755)
    (bare.tools / "python3.11").symlink_to(real)
    done = bare.start()
    assert done.returncode == 0, done.stderr
    assert not bare.log.exists()
