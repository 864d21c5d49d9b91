from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import ConfigError
from corral.spec.masks import check_pattern, matcher, rebase


def test_patterns_hide_files_as_gitignore_does() -> None:
    masked = matcher([".env*", "!.env.example", "secrets/", "/build/*.key"])
    hidden = [(".env", False), ("a/.env.local", False), ("secrets", True), ("a/secrets/b", False)]
    assert all(masked(*each) for each in hidden)
    assert masked("build/x.key", False)
    shown = [(".env.example", False), ("secrets", False), ("a/build/x.key", False)]
    assert not any(masked(*each) for each in shown)


def test_no_patterns_hide_nothing() -> None:
    assert not matcher([])("anything", False)


@pytest.mark.parametrize("wrong", ["", " ", "#x", "!", "!/", "a\\", "/", "a\nb", "\udcff"])
def test_a_pattern_that_can_hide_nothing_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="mask"):
        check_pattern(wrong)


@pytest.mark.parametrize(
    ("pattern", "below", "expected"),
    [
        (".env", "sub", (".env",)),
        ("secrets/", "sub", ("secrets/",)),
        ("/sub/.env", "sub", ("/.env",)),
        ("sub/.env", "sub", ("/.env",)),
        ("other/.env", "sub", ()),
        ("!sub/.env", "sub", ("!/.env",)),
        ("*/deep/x/", "sub/deep", ("/x/",)),
        ("**/deep/x", "sub/deep", ("/x", "/**/deep/x")),
        ("sub/.env", "", ("sub/.env",)),
    ],
)
def test_patterns_of_a_folder_above_read_right_from_the_workspace(
    pattern: str, below: str, expected: tuple[str, ...]
) -> None:
    assert sorted(rebase([pattern], below)) == sorted(expected)


_part = st.sampled_from(["a", "b", ".env", "x.key"])
_pattern_part = st.one_of(_part, st.sampled_from(["*", "**", "*.key", "?"]))


@given(
    st.lists(st.lists(_pattern_part, min_size=1, max_size=4).map("/".join), max_size=4),
    _part,
    st.lists(_part, min_size=1, max_size=3),
)
def test_a_rebased_pattern_hides_the_same_files_below(
    patterns: list[str], folder: str, rest: str
) -> None:
    usable = []
    for pattern in patterns:
        try:
            usable.append(check_pattern("/" + pattern))
        except ConfigError:
            continue
    above, below = matcher(usable), matcher(rebase(usable, folder))
    if above(folder, True):
        return  # such a workspace is refused as a whole
    path = "/".join(rest)
    assert above(f"{folder}/{path}", False) == below(path, False)


@given(st.lists(st.sampled_from([".env", "!.env", "a/", "!a/", "*.key", "!x.key"])), st.data())
def test_one_more_pattern_never_shows_a_hidden_file(
    patterns: list[str], data: st.DataObject
) -> None:
    more = data.draw(st.sampled_from([".env", "a/", "*.key", "/a/b"]))
    position = data.draw(st.integers(0, len(patterns)))
    path = data.draw(st.sampled_from([".env", "a/b", "a/x.key", "x.key", "a/.env"]))
    before, after = matcher(patterns), matcher([*patterns[:position], more, *patterns[position:]])
    assert after(path, False) or not before(path, False)
