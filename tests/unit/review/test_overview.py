"""Who changed what, and where two disagree, before anything is applied."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral.review.model import Change, Side
from corral.review.overview import Made, made, overview

ONE, OTHER = Made(status="M", result="1"), Made(status="M", result="2")
GONE = Made(status="D", result=None)


def states(agents: dict[int, dict[str, Made]]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {one.path: (one.agents, one.state) for one in overview(agents)}


def test_agents_agree_or_disagree_by_what_they_leave() -> None:
    found = states(
        {
            2: {"a": ONE, "b": ONE, "c": GONE, "d": GONE},
            1: {"a": ONE, "b": OTHER, "c": GONE, "d": ONE, "e": ONE},
        }
    )
    assert found == {
        "a": ((1, 2), "agree"),
        "b": ((1, 2), "disagree"),
        "c": ((1, 2), "agree"),
        "d": ((1, 2), "disagree"),
        "e": ((1,), "alone"),
    }


def test_a_file_where_another_needs_a_folder_is_a_disagreement() -> None:
    found = {one.path: one for one in overview({1: {"x": ONE}, 2: {"x/y/z": ONE, "x/w": GONE}})}
    assert found["x"].state == found["x/y/z"].state == "disagree"
    assert found["x"].blocked_by == ("x/y/z",) and found["x/y/z"].blocked_by == ("x",)
    assert found["x/w"].state == "alone", "a file that is removed is in nobody's way"


def test_the_right_to_execute_counts() -> None:
    plain = Change(path="a", old=None, new=Side(kind="file"))
    program = Change(path="a", old=None, new=Side(kind="file", mode=0o755))
    gone = Change(path="a", old=Side(kind="file"), new=None)
    assert made(plain, "x") != made(program, "x")
    assert made(gone, "x").result is None


MADE = st.builds(Made, status=st.sampled_from("AM"), result=st.sampled_from(["1", "2", None]))
PATHS = st.sampled_from(["a", "b", "a/b", "a/b/c", "d/e"])


@given(st.dictionaries(st.integers(1, 12), st.dictionaries(PATHS, MADE), max_size=5))
def test_every_path_is_there_once_with_all_who_changed_it(
    agents: dict[int, dict[str, Made]],
) -> None:
    found = overview(agents)
    assert [one.path for one in found] == sorted({path for by in agents.values() for path in by})
    for one in found:
        assert set(one.agents) == {n for n, by in agents.items() if one.path in by}
        assert (one.state == "alone") <= (len(one.agents) == 1)
