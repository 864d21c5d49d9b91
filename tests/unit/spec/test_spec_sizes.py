from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import ConfigError
from corral.spec.sizes import (
    GIB,
    MAX_MEMORY,
    MIB,
    MIN_MEMORY,
    TIB,
    format_duration,
    format_size,
    parse_cpus,
    parse_disk,
    parse_duration,
    parse_limit_memory,
    parse_memory,
    parse_msize,
    parse_percent,
    parse_pids,
    parse_rate,
    parse_weight,
)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("4g", 4 * GIB),
        ("8gb", 8 * GIB),
        ("512MiB", 512 * MIB),
        ("512 MiB", 512 * MIB),
        ("1.5G", 1536 * MIB),
        ("1TiB", 1024 * GIB),
        (64 * MIB, 64 * MIB),
        (str(64 * MIB), 64 * MIB),
    ],
)
def test_memory_is_read_as_docker_and_qemu_write_it(written: str, size: int) -> None:
    assert parse_memory(written) == size


@pytest.mark.parametrize("wrong", ["63MiB", "1025GiB", "0", 4, -1, "99999999999999999999t"])
def test_memory_beyond_its_limits_is_refused_and_the_limits_are_named(wrong: str) -> None:
    with pytest.raises(ConfigError, match="64MiB to 1TiB"):
        parse_memory(wrong)


def test_a_number_without_a_unit_is_bytes_and_the_error_says_so() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_memory(4)
    assert "4 bytes" in caught.value.message
    assert "4GiB" in (caught.value.hint or "")


@pytest.mark.parametrize("wrong", ["", "g", "4x", "4 4g", "-4g", "1e9", "٤g", True, None, 1.5, []])
def test_what_is_no_size_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="not a size"):
        parse_memory(wrong)


def test_disks_go_to_ten_terabytes() -> None:
    assert parse_disk("10TB") == 10 * TIB
    with pytest.raises(ConfigError, match="10TiB"):
        parse_disk("10241g")
    with pytest.raises(ConfigError, match="64MiB"):
        parse_disk("63MiB")
    assert parse_disk("none") == parse_disk("0") == parse_disk(0) == 0


@pytest.mark.parametrize("written", [150, "150", "150%", " 150 %"])
def test_processor_time_is_percent_of_one_processor(written: object) -> None:
    assert parse_percent(written) == 150


@pytest.mark.parametrize("wrong", ["", "%", "1.5", "0", "0%", "102401", True, None, -1, "٣"])
def test_what_is_no_percentage_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigError):
        parse_percent(wrong)


def test_limits_of_the_host_have_bounds() -> None:
    assert parse_limit_memory("256MiB") == 256 * MIB
    assert parse_rate("50MiB/s") == parse_rate("50m") == 50 * MIB
    assert (parse_pids("500"), parse_weight(10_000)) == (500, 10_000)
    for parse, wrong in (
        (parse_limit_memory, "255MiB"),
        (parse_rate, "63KiB"),
        (parse_pids, 31),
        (parse_weight, 0),
        (parse_weight, 10_001),
    ):
        with pytest.raises(ConfigError, match="out of range"):
            parse(wrong)


def test_a_9p_message_is_between_4kib_and_16mib() -> None:
    assert parse_msize("512KiB") == 512 * 1024
    with pytest.raises(ConfigError):
        parse_msize("1k")


@pytest.mark.parametrize("written", [2, "2", "2cpu", "2cpus", "2 CPU"])
def test_cpus_are_counted(written: str) -> None:
    assert parse_cpus(written) == 2


@pytest.mark.parametrize("wrong", [0, 129, "0", "1000", True, "two", 1.5, None, 10**400])
def test_wrong_numbers_of_cpus_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError):
        parse_cpus(wrong)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30s", 30), ("5m", 300), ("1h30m", 5400), ("500ms", 0.5), (2, 2), (0.5, 0.5), ("90", 90)],
)
def test_durations_are_read(written: str, seconds: float) -> None:
    assert parse_duration(written) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "wrong", ["", "s", "30x", 0, -1, "0s", "366d", math.nan, math.inf, True, None, 10**400]
)
def test_wrong_durations_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError):
        parse_duration(wrong)


@given(st.integers(MIN_MEMORY // MIB, MAX_MEMORY // MIB))
def test_a_shown_size_reads_back_the_same(count: int) -> None:
    assert parse_memory(format_size(count * MIB)) == count * MIB


@given(st.integers(1, 10**9))
def test_a_shown_duration_reads_back_the_same(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(
        milliseconds / 1000
    )


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none()))
def test_nothing_but_a_config_error_comes_of_any_value(value: str) -> None:
    for parse in (
        *(parse_memory, parse_disk, parse_msize, parse_cpus, parse_duration),
        *(parse_limit_memory, parse_rate, parse_percent, parse_pids, parse_weight),
    ):
        try:
            parse(value)
        except ConfigError as error:
            assert error.message.isprintable()


def test_an_endless_number_is_not_printed() -> None:
    with pytest.raises(ConfigError, match="more than 70 digits"):
        parse_cpus(10**5000)
