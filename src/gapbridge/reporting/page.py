"""A report: sections of text, tables, pictures, rows and completions; written as Markdown and as one HTML file.

The HTML page needs nothing but itself: pictures are data URIs, and it holds no script. All text of data is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from ..display import printable
from ..errors import ConfigError
from ..files import atomic_file, write_text_atomic
from .plots import to_png
from .tables import Table, markdown


if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_MARK = "<!-- written by gapbridge -->"


@dataclass(frozen=True)
class Picture:
    """A figure, the name of its file beside the page, and a text for those who cannot see it."""

    name: str
    figure: Figure
    alt: str


@dataclass(frozen=True)
class TokenRows:
    """Training rows: as `samples/first_rows.json` holds them for HTML, and as text for Markdown."""

    rows: Sequence[dict[str, Any]]
    text: str


@dataclass(frozen=True)
class Completion:
    """A model's completion, and whether it is right where that was graded."""

    name: str
    text: str
    is_right: bool | None = None

    @property
    def grade(self) -> str:
        return {True: "right", False: "wrong", None: ""}[self.is_right]


@dataclass(frozen=True)
class ShownExample:
    """A held-out prompt with its reference and the models' completions."""

    prompt: str
    reference: str
    completions: list[Completion]


# A paragraph, a table, …; a tuple stands side by side where there is room.
Part = str | Table | Picture | TokenRows | ShownExample | tuple["Part", ...]


@dataclass(frozen=True)
class Section:
    """A part of a report; in HTML those that are folded are closed at first."""

    title: str
    parts: Sequence[Part] = ()
    is_folded: bool = False


@dataclass(frozen=True)
class Page:
    """A report: its title, what it says in a sentence or two, and the rest."""

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]


# As the template calls them.
_KINDS = {"table": Table, "picture": Picture, "rows": TokenRows, "example": ShownExample, "side": tuple}


def write_page(page: Page, directory: Path, stem: str = "report") -> Path:
    """Write `<stem>.md`, `<stem>.html` and the pictures. Returns the path of the Markdown file."""
    parts = (part for section in page.sections for part in _flat(section.parts))
    pictures = {part.name: to_png(part.figure) for part in parts if isinstance(part, Picture)}
    for name, content in pictures.items():
        with atomic_file(directory / name) as temporary:
            temporary.write_bytes(content)
    write_text_atomic(directory / f"{stem}.html", to_html(page, pictures))
    write_text_atomic(directory / f"{stem}.md", to_markdown(page))
    return directory / f"{stem}.md"


def _flat(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts one after the other."""
    for part in parts:
        yield from _flat(part) if isinstance(part, tuple) else (part,)


def check_replaceable(directory: Path, stem: str = "report") -> None:
    """Raise a ConfigError where a page of that name was not written by this package."""
    for path in (directory / f"{stem}.md", directory / f"{stem}.html"):
        if path.exists() and PAGE_MARK not in path.read_text(encoding="utf-8", errors="replace")[:200]:
            got = "another file"
            raise ConfigError(path, got, "a report of gapbridge, which may be replaced", "Choose another --output_dir")


def to_markdown(page: Page) -> str:
    """The report as Markdown; pictures lie beside it."""
    lines = [PAGE_MARK, f"# {page.title}", ""]
    for text in page.lead:
        lines += [text, ""]
    for section in page.sections:
        lines += [f"## {section.title}", ""]
        for part in _flat(section.parts):
            lines += _markdown_part(part)
    return printable("\n".join(lines))


def _markdown_part(part: Part) -> list[str]:
    if isinstance(part, Table):
        return markdown(part)
    if isinstance(part, Picture):
        return [f"![{part.alt}]({part.name})", ""]
    if isinstance(part, TokenRows):
        return fenced(part.text)
    if isinstance(part, ShownExample):
        lines = ["**Prompt**", "", *fenced(part.prompt), "**Reference**", "", *fenced(part.reference)]
        for each in part.completions:
            grade = f" ({each.grade})" if each.grade else ""
            lines += [f"**{each.name}**{grade}", "", *fenced(each.text)]
        return lines
    return [str(part), ""]


def fenced(text: str) -> list[str]:
    """Lines of Markdown that show a text as it is."""
    fence = "```"
    while fence in text:
        fence += "`"
    return [f"{fence}text", text.rstrip(), fence, ""]


def to_html(page: Page, pictures: dict[str, bytes]) -> str:
    """The report as one HTML file; `pictures` are PNG files by name."""
    environment = Environment(
        loader=PackageLoader("gapbridge.reporting"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )  # fmt: skip
    environment.tests |= {name: lambda value, kind=kind: isinstance(value, kind) for name, kind in _KINDS.items()}
    uris = {name: f"data:image/png;base64,{base64.b64encode(data).decode()}" for name, data in pictures.items()}
    return environment.get_template("page.html").render(page=page, uris=uris, mark=Markup(PAGE_MARK))
