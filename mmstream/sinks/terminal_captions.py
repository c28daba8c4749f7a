"""The newest captions of each source, as a person reads them on a terminal."""

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmstream.messages import Caption

N_LINES: Final = 2
"""Of each source."""
NAME_CHARS: Final = 16
"""Room for the name of a source beside its captions."""
MIN_CHARS: Final = 20
_STYLES: Final = {"speech": "bold", "sound": "cyan", "scene": "italic magenta"}


class NewestCaptions:
    """Keeps the last captions of each source; a partial is revised in its place."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self._of_source: dict[str, list[Caption]] = {}

    def put(self, caption: Caption) -> None:
        """Take what is said now; a final without text takes its partial back."""
        kept = self._of_source.setdefault(caption.source, [])
        places = [n for n, one in enumerate(kept) if one.id == caption.id]
        if not caption.text.strip():
            kept[:] = [one for one in kept if one.id != caption.id]
        elif places:
            kept[places[0]] = caption
        else:
            kept.append(caption)
            del kept[:-N_LINES]

    def table(self, console: Console) -> Table:
        """A row for each source: its last `N_LINES` lines at the width of the console."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True, max_width=NAME_CHARS)
        table.add_column()
        width = max(MIN_CHARS, console.width - NAME_CHARS - 2)
        for source, captions in self._of_source.items():
            if captions:
                table.add_row(source, _last_lines(captions, console, width))
        return table


def styled(caption: Caption) -> Text:
    """Committed words bold, those that may change dim; sounds and the scene in their own style."""
    text = Text(caption.text, style=_STYLES[caption.kind])
    if caption.kind == "speech" and caption.state == "partial":
        text.stylize("not bold dim", _n_steady(caption))
    return text


def _n_steady(caption: Caption) -> int:
    """How many characters of the text its steady words take up."""
    end = 0
    for word in caption.words[: caption.steady]:
        found = caption.text.find(word.text, end)
        if found >= 0:
            end = found + len(word.text)
    return end


def _last_lines(captions: Sequence[Caption], console: Console, width: int) -> Text:
    lines = [line for one in captions for line in styled(one).wrap(console, width)]
    return Text("\n").join(lines[-N_LINES:])
