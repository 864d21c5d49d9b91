"""What an agent's recipe gives stands below all that the user says."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.policy import Key, Secret
from corral.spec import Extra, Spec, load_spec


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CONFIG", "STATE", "CACHE"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"CORRAL_{name}_DIR", str(tmp_path / name))
    folder = tmp_path / "app"
    folder.mkdir()
    return folder


def loaded(folder: Path, extra: Extra, /, **overrides: object) -> Spec:
    given = {name.replace("_", ".", 1): value for name, value in overrides.items()}
    environ = {"HOME": str(folder.parent), "KEY": "k" * 20}
    return load_spec(folder, given, environ, extra=extra)


def extra(**values: object) -> Extra:
    keys = {name.replace("_", ".", 1): value for name, value in values.items()}
    return Extra(origin="the recipe claude", values=keys)


def test_the_users_options_and_files_win(workspace: Path) -> None:
    given = extra(run_env=["A=recipe", "B=recipe"], run_timeout="5m")
    spec = loaded(workspace, given, run_env=["A=mine"])
    assert dict(spec.run.env) == {"A": "mine", "B": "recipe"}
    assert spec.run.timeout == 300
    (workspace.parent / "CONFIG" / "config.toml").write_text("[run]\ntimeout = '1m'\n")
    assert loaded(workspace, given).run.timeout == 60


def test_its_hosts_open_only_these_and_a_users_mode_holds(workspace: Path) -> None:
    given = extra(network_allow=["api.example.org"])
    assert loaded(workspace, given).network.mode == "allow"
    assert loaded(workspace, given, network_mode="none").network.mode == "none"


def test_a_project_may_still_only_tighten(workspace: Path) -> None:
    (workspace / "corral.toml").write_text("[network]\nmode = 'none'\n")
    assert loaded(workspace, extra(network_allow=["api.example.org"])).network.mode == "none"


def test_its_secrets_are_there_and_a_users_own_goes_before(workspace: Path) -> None:
    pytest.importorskip("mitmproxy")
    key = Key(kind="env", value=("KEY",))
    held = Secret(name="KEY", hosts=("a.test",), header="x-key", key=key)
    given = Extra(origin="r", values={"network.secrets": ["KEY"]}, secrets={"KEY": held})
    assert loaded(workspace, given).secrets == (held,)
    (workspace.parent / "CONFIG" / "config.toml").write_text("[secrets.KEY]\nhosts = ['b.test']\n")
    assert loaded(workspace, given).secrets[0].hosts == ("b.test",)
