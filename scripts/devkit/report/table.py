"""Tables that are whole at every width: they fold before they drop a column, and cut nothing."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Generic, TypeVar

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

GAP = 2  # between columns
ENOUGH = 24  # for a sentence, while a name would be broken
Row = TypeVar("Row")


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column, and what it shows of a row.

    Words stay in one piece, to be copied or clicked, unless it `breaks` those that are longer than so many characters;
    of a `whole` column, even the lines do.
    """

    heading: str
    cell: Callable[[Row], Text]
    breaks: int | None = None
    whole: bool = False


@dataclass(frozen=True)
class Section(Generic[Row]):
    """Rows that belong together, below a heading of their own, if any."""

    heading: str
    rows: Sequence[Row]


class Fitting(Generic[Row]):
    """The first of several layouts of a table that is not wider than the terminal, or else the last, however wide."""

    def __init__(self, layouts: Sequence[Sequence[Column[Row]]], sections: Sequence[Section[Row]]) -> None:
        self._layouts = layouts
        self._sections = sections

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = [row for section in self._sections for row in section.rows]
        for columns in self._layouts:
            widths = _widths(columns, rows, options.max_width)
            if columns is self._layouts[-1] or _total(widths) <= options.max_width:
                yield from self._lines(console, columns, widths)
                return

    def _lines(self, console: Console, columns: Sequence[Column[Row]], widths: Sequence[int]) -> Iterator[Text]:
        yield from _beside([Text(column.heading, style="bold") for column in columns], widths, console)
        for number, section in enumerate(self._sections):
            if section.heading:
                yield Text("\n" * (number > 0) + section.heading, style="bold cyan")
            for row in section.rows:
                yield from _beside([column.cell(row) for column in columns], widths, console)


def natural(name: str) -> tuple[str | int, ...]:
    """A key that sorts web-2 before web-10."""
    parts = re.split("0*([0-9]+)", name.casefold())  # every second one is a number, of which the longer is greater
    return tuple(each for number, part in enumerate(parts) for each in ((len(part), part) if number % 2 else (part,)))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _widths(columns: Sequence[Column[Row]], rows: Sequence[Row], available: int) -> list[int]:
    """At least what each column needs, and then as much of what it wants as is there."""
    texts = [[column.heading, *(column.cell(row).plain for row in rows)] for column in columns]
    wanted = [_longest(text.split("\n") for text in column) for column in texts]
    words = [_longest(text.split() for text in column) for column in texts]
    widths = [
        line if column.whole else min(word, column.breaks or word)
        for column, line, word in zip(columns, wanted, words, strict=True)
    ]
    # Long names may have more than long sentences, which fold well; and what wants little has all of it.
    enough = [want if column.breaks else min(want, ENOUGH) for column, want in zip(columns, wanted, strict=True)]
    for goals in (enough, wanted):
        while _total(widths) < available and (wanting := [one for one, goal in enumerate(goals) if widths[one] < goal]):
            widths[min(wanting, key=widths.__getitem__)] += 1
    return widths


def _longest(parts: Iterable[list[str]]) -> int:
    return max(cell_len(part) for some in parts for part in [*some, ""])


def _beside(cells: Sequence[Text], widths: Sequence[int], console: Console) -> Iterator[Text]:
    """The lines of a row: its cells folded to their widths, side by side."""
    folded = [cell.wrap(console, width, overflow="fold") for cell, width in zip(cells, widths, strict=True)]
    for parts in zip_longest(*folded, fillvalue=Text()):
        line, end = Text(no_wrap=True, overflow="ignore"), 0
        for part, width in zip(parts, widths, strict=True):
            line.append(" " * (end - line.cell_len)).append_text(part)
            end += width + GAP
        yield line
