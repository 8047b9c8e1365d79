"""A report in one HTML file: facts, tables and pictures, readable offline and years later."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from .files import write_atomically

KINDS = {".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #fdfdfb; --line: #d6d6d0; --soft: #6a6a66; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e4; --paper: #171716; --line: #3a3a37; --soft: #a2a29c; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 62rem; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
th { font-weight: 600; color: var(--soft); }
figure { margin: .6rem 0; overflow-x: auto; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; }
dt { color: var(--soft); } dd { margin: 0; }
"""


def write_report(
    path: Path,
    *,
    title: str,
    facts: dict[str, str],
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]],
    pictures: Sequence[tuple[str, Path]],
    text: Sequence[str] = (),
) -> None:
    """Write a self-contained page, all or nothing.

    Args:
        path: the HTML file.
        title: its heading.
        facts: short statements by name.
        tables: (caption, head, rows) each, as text.
        pictures: (caption, file) each; PNG, GIF, JPEG or SVG. They become part of the page.
        text: paragraphs after the tables.
    Raises:
        ValueError: a row has another length than its head, or a picture is of an unknown kind.
        OSError: a picture cannot be read, or the page not written.
    """
    parts = [f"<h1>{escape(title)}</h1>", "<dl>"]
    parts += [f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items()]
    parts.append("</dl>")
    parts += [table_html(*table) for table in tables]
    parts += [f"<p>{escape(paragraph)}</p>" for paragraph in text]
    parts += [picture_html(caption, Path(file)) for caption, file in pictures]
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        "<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
    write_atomically(path, page.encode())


def table_html(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A heading and its table."""
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"a row of {caption!r} has {len(row)} cells, its head has {len(head)}")
    lines = [f"<h2>{escape(caption)}</h2>", "<table><thead><tr>"]
    lines += [f"<th>{escape(name)}</th>" for name in head]
    lines.append("</tr></thead><tbody>")
    lines += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "\n".join([*lines, "</tbody></table>"])


def picture_html(caption: str, file: Path) -> str:
    """A heading and a picture, its bytes inside the page."""
    kind = KINDS.get(file.suffix.lower())
    if kind is None:
        raise ValueError(f"{file}: a picture must end in one of {sorted(KINDS)}")
    data = base64.b64encode(file.read_bytes()).decode()
    source = f'<img alt="{escape(caption)}" src="data:{kind};base64,{data}">'
    return f"<h2>{escape(caption)}</h2>\n<figure>{source}</figure>"
