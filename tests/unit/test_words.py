"""What is printed and documented is understood, and works, where nothing but the README's table was installed."""

import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

CODE = re.compile(r"```.*?```", re.DOTALL)
TOLD = [
    path
    for place in ("README.md", "CONTRIBUTING.md", "docs/*.md", "scripts/**/*.py", "template/**/*")
    for path in REPOSITORY.glob(place)
    if path.is_file() and "__pycache__" not in path.parts
]
# `python` is on no stock Mac or Debian; `copier` is where uv has been told to install it, and `uvx copier` where uv is.
NOWHERE = re.compile(r"(?<!uvx )\bcopier (copy|update|recopy) -|\bpython (-m|scripts/)|(?<!-m )\bpip3? install")


@pytest.mark.parametrize("path", TOLD, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_command_needs_what_a_stock_mac_or_debian_has_not(path: Path) -> None:
    assert not [line for line in path.read_text().splitlines() if NOWHERE.search(line)]


@pytest.mark.parametrize("word", ["project", "client", "profile", "routes"])
def test_word_is_explained_where_the_readme_has_it_first(word: str) -> None:
    prose = CODE.sub("", (REPOSITORY / "README.md").read_text()).casefold()
    assert prose.index(word) == prose.index(f"**{word}**") + 2
