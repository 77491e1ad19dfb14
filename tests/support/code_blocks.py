"""Code blocks of Markdown pages, run as a reader would run them."""

import re
from pathlib import Path
from typing import Any, NamedTuple


class CodeBlock(NamedTuple):
    """The text of a fenced block, and the number of its first line."""

    text: str
    line: int


def code_blocks(page: Path, language: str) -> list[CodeBlock]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [CodeBlock(each[1], text[: each.start(1)].count("\n") + 1) for each in found]


def run_blocks(page: Path, names: dict[str, Any]) -> None:
    """Run all Python blocks one after another in one namespace; tracebacks show the lines of the page."""
    blocks = code_blocks(page, "python")
    assert blocks
    for block in blocks:
        exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
