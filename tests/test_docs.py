"""The documentation is true: its code runs, its links lead somewhere, its notebooks are in step."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_code_blocks_run(page, capsys):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    namespace = {"__name__": page.stem}
    for block in blocks:
        exec(compile(block, str(page), "exec"), namespace)
    assert "FAIL" not in capsys.readouterr().out


@pytest.mark.parametrize("page", ["convolution", "gates", "bptt"])
def test_quoted_lines_are_the_librarys(page):
    sources = "\n".join(path.read_text() for path in sorted((ROOT / "tinyconvlstm").rglob("*.py")))
    blocks = re.findall(r"```text\n(.*?)```", (ROOT / f"docs/{page}.md").read_text(), re.S)
    lines = [line.partition(" # ")[0].strip() for block in blocks for line in block.splitlines()]
    assert len(lines) > 5
    assert [line for line in lines if line not in sources] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_index_lists_every_page():
    text = (ROOT / "docs/index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in text, page.name


def test_readme_shows_its_two_commands():
    text = (ROOT / "README.md").read_text()
    assert "pip install -e . && tinyconvlstm demo" in text
    assert 'pip install -e ".[test]" && pytest' in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_executed_and_equal_their_text(path):
    jupytext = pytest.importorskip("jupytext", reason="jupytext is not installed")
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert not re.search(r"/(home|root|Users|tmp)/", json.dumps(outputs))
    text = jupytext.read(path.with_suffix(".py"))
    sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    assert sources == [cell["source"] for cell in text.cells]


def test_there_are_three_notebooks():
    assert [p.stem for p in NOTEBOOKS] == ["01_im2col", "02_lstm_step", "03_convlstm_forecast"]
