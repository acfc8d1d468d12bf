"""What the doctor says."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from devkit.checks import Check

STYLES = {"passed": "green", "failed": "red", "not checked": "dim"}
WORDS = {"passed": "pass", "failed": "FAIL", "not checked": "-"}


def as_text(found: Sequence[Check]) -> RenderableType:
    """Each layer with what was seen, and what is to be mended."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for one in found:
        looked = one.verdict != "not checked"
        said = Text(one.evidence) if looked else Text(f"not checked: {one.evidence}", style="dim")
        table.add_row(Text(WORDS[one.verdict], style=STYLES[one.verdict]), one.name, said)
    failed = [one for one in found if one.verdict == "failed"]
    if not failed:
        return Group(table, "", Text("Nothing is in the way.", style="green"))
    return Group(table, "", *(Text(one.sentence, style="red") for one in failed))
