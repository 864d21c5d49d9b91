from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import ConfigError
from corral.spec.schema import json_schema
from corral.spec.settings import SETTINGS
from corral.spec.tables import NAMED_TABLES, TABLES
from corral.spec.tables.keys import KeyTable
from corral.spec.text import toml_string
from corral.spec.toml import line_of, parse_document
from corral.spec.values import Base, NamedShare

BASE = Base("/p", "/home/u", "/p")


def parse(text: str | bytes) -> dict[str, object]:
    content = text if isinstance(text, bytes) else text.encode()
    return parse_document(content, "corral.toml", BASE).values


def error_of(text: str | bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return caught.value


def test_a_whole_file_is_read() -> None:
    values = parse(
        """
        [machine]
        cpus = "2cpu"
        memory = "4GiB"
        [workspace]
        read_only = true
        mask = [".env"]
        [[share]]
        source = "~/data"
        target = "/data"
        [[share]]
        source = "lib"
        writable = true
        [run]
        env = { A = "b" }
        pass_env = ["LANG"]
        timeout = 2.5
        tools = ["~/.nvm"]
        """
    )
    assert values["machine.cpus"] == 2
    assert values["share"] == (
        NamedShare("/home/u/data", "/data", False),
        NamedShare("/p/lib", "/p/lib", True),
    )
    assert values["run.tools"] == ("/home/u/.nvm",)
    assert values["run.timeout"] == 2.5


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[machine]\ncpu = 2", "line 2: machine.cpu is not a known key", "machine.cpus"),
        ("[machin]\ncpus = 2", "line 1: machin is not a known key", "machine"),
        ("memory = '4g'", "line 1: memory is not a known key", "machine.memory"),
        ("[workspace]\ntimeout = 3", "workspace.timeout is not", "run.timeout"),
        ("[[share]]\nsource='a'\nsorce='b'", "line 3: share.sorce", "share.source"),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_the_nearest_one(
    text: str, message: str, hint: str
) -> None:
    error = error_of(text)
    assert message in error.message
    assert hint in (error.hint or "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[machine]\n\ncpus = [1]", "line 3: machine.cpus: expected a whole number or text"),
        ("[machine]\ncpus = true", "not true or false"),
        ("[machine]\naccel = 'fast'", "machine.accel: invalid enum value 'fast'"),
        ("machine = 3", "line 1: machine: expected a table, not a whole number"),
        ("share = {source='a'}", "share: expected a list"),
        ("[[share]]\ntarget='/a'", "source is missing"),
        ("[run]\nenv = {A = 1}", "run.env: expected text, not a whole number"),
        ("[machine]\nmemory = '4x'", "line 2: machine.memory: “4x” is not a size"),
        ("[run]\nenv = {'A=B' = 'c'}", "is not a name"),
        ("[workspace]\nmask = ['/']", "not a pattern"),
        ("[workspace]\nunprotect = ['../x']", "not a path inside"),
        ("[machine\n", "is not valid TOML"),
        (b"\xff", "is not UTF-8"),
    ],
)
def test_a_wrong_value_is_named(text: str, message: str) -> None:
    assert message in error_of(text).message


def test_an_escape_sequence_in_a_file_does_not_reach_the_terminal() -> None:
    error = error_of('"\\u001b[31mred\\u202e" = 1')
    assert error.message.isprintable()
    assert "\\U0000001b[31mred" in error.message


@pytest.mark.parametrize("text", ["a = " + "[" * 50_000, "a = " + "9" * 5_000, "a." * 20_000])
def test_a_file_made_to_exhaust_the_parser_is_only_wrong(text: str) -> None:
    assert "corral.toml" in error_of(text).message


@given(st.binary(max_size=200))
def test_nothing_but_a_config_error_comes_of_any_bytes(content: str) -> None:
    try:
        parse(content)
    except ConfigError as error:
        assert error.message.isprintable()


_scalars = st.one_of(st.integers(), st.text(max_size=10), st.booleans(), st.lists(st.text()))


@given(st.sampled_from(sorted(TABLES)), st.data())
def test_nothing_but_a_config_error_comes_of_any_value(table: str, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(TABLES[table].__struct_fields__))
    value = json.dumps(data.draw(_scalars))
    header = f"[[{table}]]" if table in ("share", "agent") else f"[{table}]"
    try:
        parse(f"{header}\n{field} = {value}\n".encode("utf-8", "replace"))
    except ConfigError as error:
        assert error.message.isprintable()


_values = st.one_of(
    _scalars,
    st.floats(),
    st.fixed_dictionaries(
        {}, optional={field: _scalars for field in (*KeyTable.__struct_fields__, "x")}
    ),
)


@given(st.sampled_from(sorted(NAMED_TABLES)), st.text(max_size=12), st.data())
def test_nothing_but_a_config_error_comes_of_a_gateway_or_a_secret(
    table: str, name: str, data: st.DataObject
) -> None:
    """And never what was given as a key: it could be one, by mistake."""
    lines = [f"[{table}.{toml_string(name)}]"]
    for field in NAMED_TABLES[table].__struct_fields__:
        if data.draw(st.booleans()):
            lines.append(f"{field} = {_toml(data.draw(_values))}")
    try:
        parse("\n".join(lines).encode("utf-8", "replace"))
    except ConfigError as error:
        assert error.message.isprintable()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, float):
        return str(value)
    return json.dumps(value)


def test_lines_are_found_in_headers_dotted_keys_and_arrays() -> None:
    text = "machine.cpus = 1\n[run]\n# c\ntimeout = 3\n[[share]]\nsource = 'a'\n"
    assert line_of(text, "machine.cpus") == 1
    assert line_of(text, "run.timeout") == 4
    assert line_of(text, "share.source") == 6
    assert line_of(text, "share") == 5
    assert line_of(text, "run.missing") == 2
    assert line_of(text, "nothing") is None


def test_every_key_of_the_model_is_a_setting_and_the_other_way_round() -> None:
    modelled = {
        f"{table}.{field}"
        for table, model in TABLES.items()
        if table not in ("share", "agent")
        for field in model.__struct_fields__
    }
    assert modelled | {"share", "actions", "agent", "name"} == set(SETTINGS)


def test_the_schema_names_every_key_and_refuses_others() -> None:
    schema: Any = json_schema()
    parts = schema["$defs"]
    tables: dict[str, Any] = {**TABLES, **NAMED_TABLES, "key": KeyTable}
    for table, model in tables.items():
        part = parts[model.__name__]
        assert set(part["properties"]) == set(model.__struct_fields__), table
        assert part["additionalProperties"] is False
        assert all("description" in field for field in part["properties"].values())
    assert schema["$ref"] == "#/$defs/ConfigTable"
