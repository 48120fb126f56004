"""Tables for people: every column as wide as it needs, never wider than it may be."""

from __future__ import annotations

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.table import Column, amount, table_lines

COLUMNS = (Column("name", 8), Column("n", 3))


def test_cell_that_is_too_long_ends_in_an_ellipsis() -> None:
    assert table_lines(COLUMNS, [["short", "1"], ["much too long", "22"]]) == [
        "name      n",
        "--------  --",
        "short     1",
        "much to…  22",
    ]


def test_table_without_rows_has_its_head() -> None:
    assert table_lines(COLUMNS, []) == ["name  n", "----  -"]


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_960, "1.0 MB"),
        (36_236_212, "36.2 MB"),
        (4_000_000_000_000, "4000.0 GB"),
    ],
)
def test_amount_has_the_unit_that_people_read(size: int, shown: str) -> None:
    assert amount(size) == shown
