"""Small pictures of numbers."""

import pytest

from cortex_cli.plots import bar, milliseconds, short, thinned


@pytest.mark.parametrize(
    ("value", "most", "drawn"),
    [(0, 10, ""), (10, 10, "████"), (5, 10, "██"), (0.001, 10, "▏"), (20, 10, "████"), (5, 0, ""), (4, 10, "█▋")],
)
def test_a_bar_is_as_long_as_its_share_and_never_invisible(value: float, most: float, drawn: str) -> None:
    assert bar(value, most, 4) == drawn


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (9999, "9999"), (12_345, "12.3k"), (999_999, "1000k"), (4_567_000, "4.57M"), (2e12, "2T")],
)
def test_a_number_is_short(value: float | None, text: str) -> None:
    assert short(value) == text
    assert len(text) <= 6


def test_a_duration_has_the_unit_people_use() -> None:
    assert [milliseconds(value) for value in (None, 0.4, 999, 1500, 90_000)] == [
        "-",
        "0 ms",
        "999 ms",
        "1.5 s",
        "1.5 min",
    ]


def test_neighbours_are_summed_until_they_fit_and_nothing_is_lost() -> None:
    assert thinned([1, 2, 3, 4, 5], 2) == ([6, 9], 3)
    assert thinned([1, 2], 48) == ([1, 2], 1)
    assert thinned([], 48) == ([], 1)
