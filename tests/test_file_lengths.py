"""Files of the package and its programs have at most 200 lines, or state the reason for more in their docstring."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONG = {"layers", "text.py"}  # a layer has its kernel and its manual backward pass in one file


def test_long_files_state_the_reason() -> None:
    paths = [path for folder in ("src", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > 100
    without = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        docstring = ast.get_docstring(ast.parse(text)) or ""
        if len(text.splitlines()) > 200 and "Longer than 200 lines: " not in docstring and not LONG & set(path.parts):
            without.append(str(path.relative_to(ROOT)))
    assert without == []
