"""Write docs/chapter.ipynb from docs/chapter.md: python docs/chapter_notebook.py [pictures]

With `pictures` the blocks are run too, which writes docs/chapter/*.png.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("chapter.md")
NOTEBOOK = PAGE.with_suffix(".ipynb")


def notebook(text: str) -> str:
    """A page as a notebook: every Python block is a code cell, and what is between them is a text cell."""
    cells: list[dict[str, Any]] = []
    for index, part in enumerate(re.split(r"^```python\n(.*?)^```$\n", text, flags=re.MULTILINE | re.DOTALL)):
        if source := part.strip("\n"):
            code: dict[str, Any] = {"execution_count": None, "outputs": []} if index % 2 else {}
            kind = "code" if index % 2 else "markdown"
            lines = source.splitlines(keepends=True)
            cells.append({"cell_type": kind, "id": f"cell-{len(cells)}", "metadata": {}, "source": lines, **code})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    NOTEBOOK.write_text(notebook(text), encoding="utf-8")
    if "pictures" in sys.argv[1:]:
        os.chdir(PAGE.parent)
        names: dict[str, Any] = {}
        for block in re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
            exec(compile(block, str(PAGE), "exec"), names)


if __name__ == "__main__":
    main()
