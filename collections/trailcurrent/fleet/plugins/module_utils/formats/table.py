"""Rows for people: columns as wide as they need, and no wider than their limit."""

from __future__ import annotations

import collections.abc
import dataclasses

Cells = collections.abc.Sequence[str]


@dataclasses.dataclass(frozen=True)
class Column:
    """One column: its head, and the most characters that it takes."""

    head: str
    limit: int


class Table:
    """The widths that a set of rows needs, and each row at these widths."""

    def __init__(self, columns: collections.abc.Sequence[Column], rows: collections.abc.Sequence[Cells]) -> None:
        self._heads = [column.head for column in columns]
        self._widths = [_width(column, [row[i] for row in rows]) for i, column in enumerate(columns)]

    def head(self) -> list[str]:
        """The heads, and the rule below them."""
        return [self.line(self._heads), self.line(["-" * size for size in self._widths])]

    def line(self, cells: Cells) -> str:
        """One row; a cell that is too long ends in an ellipsis."""
        pairs = zip(cells, self._widths, strict=True)
        shown = (cell if len(cell) <= size else cell[: size - 1] + "…" for cell, size in pairs)
        return "  ".join(cell.ljust(size) for cell, size in zip(shown, self._widths, strict=True)).rstrip()


def _width(column: Column, cells: Cells) -> int:
    return min(column.limit, max([len(column.head), *map(len, cells)]))


def table_lines(columns: collections.abc.Sequence[Column], rows: collections.abc.Sequence[Cells]) -> list[str]:
    """Head, rule and rows."""
    table = Table(columns, rows)
    return [*table.head(), *(table.line(row) for row in rows)]


def amount(size: float) -> str:
    """A number of bytes for people: ``12 B``, ``3.4 MB``; decimal units, as disks and links are sold."""
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95 or unit == "GB":
            break
    return f"{size:.1f} {unit}"
