"""What a program says about a sandbox, as settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from corral.errors import ConfigError
from corral.sdk import Options, Spec
from corral.sdk.options import KEYS
from corral.spec import load_spec
from corral.spec.settings import SETTINGS


def test_options_become_settings(tmp_path: Path) -> None:
    for name in ("data", "project"):
        (tmp_path / name).mkdir()
    keys = {"ANTHROPIC_API_KEY": "x", "TOKEN": "x"}
    spec = Spec(
        workspace=tmp_path / "project",
        allow=["pypi.org", "@python"],
        deny=["evil.test"],
        hosts={"db.test:5432": "192.168.1.5"},
        ports=["8080:80", 3000],
        gateways=["anthropic"],
        secrets=["TOKEN@api.test"],
        memory="1g",
        cpus=1,
        shares=[f"{tmp_path}/data:/data"],
        env={"A": "b=c"},
        read_only=True,
        mask=[".env"],
        user="root",
        workdir="/tmp",
        name="box",
        settings={"machine.accel": "tcg"},
    )
    found = load_spec(spec.folder, spec.overrides(), {**os.environ, **keys})
    assert (found.machine.memory, found.machine.cpus, found.machine.accel) == (1 << 30, 1, "tcg")
    assert (found.run.user, found.run.workdir, found.run.env) == ("root", "/tmp", (("A", "b=c"),))
    assert (found.workspace.read_only, found.name) == (True, "box")
    assert found.shares[0].target == "/data"
    assert found.network.mode == "allow"
    assert found.network.allow[0].text == "pypi.org"
    assert found.network.allow[1].text.startswith("@python")
    assert found.network.deny[0].host == "evil.test"
    assert (found.network.addresses[0].port, found.network.addresses[0].address) == (
        5432,
        "192.168.1.5",
    )
    assert [(each.port, each.guest_port) for each in found.network.publish] == [
        (8080, 80),
        (3000, 3000),
    ]
    assert found.gateways[0].name == "anthropic"
    assert found.secrets[0].hosts == ("api.test",)


def test_every_key_is_a_setting_and_every_option_has_a_place() -> None:
    assert set(KEYS.values()) <= set(SETTINGS)
    others = {"workspace", "settings", "config_file", "force"}
    assert set(Options.__annotations__) == set(KEYS) | others


def test_a_spec_can_be_the_ground_for_others() -> None:
    first = Spec(memory="1g", name="one")
    second = Spec(first, name="two")
    assert second.options == {"memory": "1g", "name": "two"}
    assert first == Spec(memory="1g", name="one") != second
    assert hash(first) == hash(Spec(memory="1g", name="one"))
    assert repr(first) == "Spec(memory='1g', name='one')"


def test_the_network_is_what_it_is_said_to_be(tmp_path: Path) -> None:
    def mode(**options: Any) -> str:
        spec = Spec(workspace=tmp_path, **options)
        return load_spec(spec.folder, spec.overrides(), dict(os.environ)).network.mode

    assert mode() == mode(allow=[]) == "none"
    assert mode(allow=["pypi.org"]) == "allow"
    assert mode(net="internet") == mode(net="internet", allow=["pypi.org"]) == "internet"
    with pytest.raises(ConfigError, match="none of none, allow, internet"):
        mode(net="all")


@pytest.mark.parametrize("name", ["allow", "gateways", "ports", "shares", "mask", "tools"])
def test_one_text_is_no_list_of_texts(name: str) -> None:
    options: Any = {name: "pypi.org"}
    with pytest.raises(TypeError, match="must be a list"):
        Spec(**options)


def test_an_option_that_is_none_is_refused() -> None:
    options: Any = {"memroy": "1g"}
    with pytest.raises(TypeError, match="memroy"):
        Spec(**options)


def test_a_workspace_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a folder"):
        _ = Spec(workspace=tmp_path / "none").folder
    assert Spec().folder == Path.cwd()
