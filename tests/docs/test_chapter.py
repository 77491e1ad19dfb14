"""The chapter runs from its first block to its last, and makes the pictures it shows."""

import json
import re
import runpy
from pathlib import Path

import pytest
from support.code_blocks import code_blocks, run_blocks

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "chapter.md"


@pytest.mark.usefixtures("float64")
def test_all_blocks_run_and_make_the_pictures_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_blocks(PAGE, {})
    shown = set(re.findall(r"\]\((chapter/\w+\.png)\)", PAGE.read_text(encoding="utf-8")))
    assert {f"chapter/{path.name}" for path in (tmp_path / "chapter").iterdir()} == shown
    assert {f"chapter/{path.name}" for path in (DOCS / "chapter").iterdir()} == shown


def test_every_part_has_a_block_a_picture_and_an_exercise() -> None:
    parts = PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
    assert len(parts) == 13
    for part in parts:
        assert part.count("```python") == part.count("![") == part.count("*Exercise.*") == 1, part.splitlines()[0]


def test_the_notebook_is_in_step_with_the_page() -> None:
    written = (DOCS / "chapter.ipynb").read_text(encoding="utf-8")
    notebook = runpy.run_path(str(DOCS / "chapter_notebook.py"))["notebook"]
    assert written == notebook(PAGE.read_text(encoding="utf-8")), "python docs/chapter_notebook.py writes it again"
    cells = json.loads(written)["cells"]
    code = ["".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code"]
    assert code == [block.text for block in code_blocks(PAGE, "python")]
