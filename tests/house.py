"""Draws the house: the rooms of the scripts' library, each on a floor above all that it imports."""

import ast
from pathlib import Path

import grimp

from tests.conftest import REPOSITORY

LIBRARY = REPOSITORY / "scripts/devkit"


def rooms() -> dict[str, set[str]]:
    """Each room, a module or a folder of them, and the rooms that it imports."""
    graph = grimp.build_graph("devkit", cache_dir=None)
    imports: dict[str, set[str]] = {path.stem: set() for path in LIBRARY.iterdir() if not path.name.startswith("__")}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            room, other = (name.split(".")[1] for name in (f"{module}.", f"{imported}."))
            if room and other and room != other:
                imports[room].add(other)
    return imports


def floors(imports: dict[str, set[str]]) -> list[list[str]]:
    """The rooms of each floor, the highest first. Raises ValueError when there is a circle."""
    built: list[list[str]] = []
    below: set[str] = set()
    while len(below) < len(imports):
        floor = sorted(room for room, others in imports.items() if room not in below and others <= below)
        if not floor:
            raise ValueError(f"these import each other: {sorted(imports.keys() - below)}")
        built.append(floor)
        below.update(floor)
    return built[::-1]


def picture() -> str:
    """The house as a text: a line for each room, and what it is."""
    lines = []
    for floor in floors(rooms()):
        lines += [f"{room:<14}{_purpose(room)}" for room in floor]
        lines.append("")
    return "\n".join(lines).strip()


def _purpose(room: str) -> str:
    path = LIBRARY / room / "__init__.py" if (LIBRARY / room).is_dir() else LIBRARY / f"{room}.py"
    return str(ast.get_docstring(ast.parse(Path(path).read_text()))).splitlines()[0]


if __name__ == "__main__":
    print(picture())
