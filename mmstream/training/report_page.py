"""A report as one HTML file: tables and pictures in it, nothing loaded, no script.

Whatever comes from a configuration or from data is escaped, and the page forbids itself to load
or run anything.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

import yaml
from pydantic import JsonValue

from mmstream.training.results import (
    LEGEND,
    PoolResult,
    RowResult,
    TableResult,
    Tested,
    all_cells,
)

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE: Final = """\
body { font: 14px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto;
  max-width: 84rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; } h3 { font-size: 1.05rem; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right;
  white-space: nowrap; }
th { border-bottom-color: #888; font-weight: 600; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; }
img { max-width: 100%; height: auto; display: block; margin: .8rem 0; }
code, pre { font: 13px/1.45 ui-monospace, monospace; background: #f4f4f4; }
code { padding: .1rem .3rem; } pre { padding: .7rem; overflow-x: auto; }
summary { cursor: pointer; } .quiet { color: #666; }"""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A PNG in the page."""

    name: str
    """Of its file, beside the page."""
    text: str
    """What it shows, for those who cannot see it."""
    png: bytes


def page(
    table: TableResult,
    pictures: Mapping[str, Sequence[Picture]],
    made: Mapping[str, JsonValue],
) -> str:
    """The whole file.

    Args:
        table: all figures.
        pictures: of each row and pool, by its name.
        made: when, where and of what: `mmstream.benchmarks.machine`.
    """
    body = [f"<h1>{escape(table.title)}</h1>", f"<p><code>{escape(table.command)}</code></p>"]
    body.append(f"<p class=quiet>{_made(made)}</p>")
    links = (f'<a href="#row-{nth}">{escape(row.name)}</a>' for nth, row in enumerate(table.tested))
    body.append(f"<p>Curves and confusion of {', '.join(links)}</p>")
    for task in table.tasks:
        body += [f"<h2>{escape(task)}</h2>", *map(_table, all_cells(table, task))]
    body.append(f"<p class=quiet>{escape(LEGEND)}</p>")
    for nth, one in enumerate(table.tested):
        body += [f'<h2 id="row-{nth}">{escape(one.name)}</h2>', *_facts(one)]
        body += map(_picture, pictures[one.name])
        body += _settings(one)
    return _DOCUMENT.format(
        policy=_POLICY, title=escape(table.title), style=_STYLE, body="\n".join(body)
    )


_DOCUMENT: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def _facts(one: Tested) -> Iterator[str]:
    if isinstance(one, PoolResult):
        yield f"<p>{escape(', '.join(one.rows))} as one</p>"
    if isinstance(one, RowResult):
        yield (
            f"<p>checkpoint <code>{escape(one.checkpoint)}</code>, {one.n_parameters:,} "
            f"parameters, epoch {one.best_epoch} of {one.n_epochs} in {one.minutes:.1f} minutes, "
            f"seed {one.seed}, tested on {escape(one.device)}</p>"
        )


def _settings(one: Tested) -> Iterator[str]:
    if isinstance(one, RowResult):
        text = yaml.safe_dump(one.settings, sort_keys=False, allow_unicode=True)
        yield f"<details><summary>All settings</summary><pre>{escape(text)}</pre></details>"


def _table(cells: Sequence[Sequence[str]]) -> str:
    header, *rows = cells
    heads = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>\n{body}\n'
        "</tbody></table></div>"
    )


def _picture(one: Picture) -> str:
    data = b64encode(one.png).decode("ascii")
    return f'<img alt="{escape(one.text)}" src="data:image/png;base64,{data}">'


def _made(made: Mapping[str, JsonValue]) -> str:
    """One line of what is known of the machine."""
    facts = [f"{key} {_shown(value)}" for key, value in made.items() if value]
    return escape("; ".join(facts))


def _shown(value: JsonValue) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(inner)}" for key, inner in value.items())
    return str(value)
