"""Lines of subtitles, as wide as they are on a screen; no more of Unicode than they need.

A character of Chinese or Japanese is as wide as two letters (Unicode Standard Annex 11), and a line
may end after any of them but before a closing mark and after an opening one (Annex 14). Korean has
blanks between its words, and its lines end there.
"""

import unicodedata
from collections.abc import Sequence
from typing import Final

LINE_COLUMNS: Final = 42
"""Latin letters in a line, or twice the characters of Chinese."""
_WIDE: Final = ("W", "F")
_JOINERS: Final = "\u200c\u200d"
"""Parts of words and of emoji that are not seen themselves."""
_CLOSING: Final = ("Pe", "Pf", "Po", "Lm")
_OPENING: Final = ("Ps", "Pi")


def one_line(text: str) -> str:
    """Runs of white space and characters that are not seen become a blank each."""
    shown = "".join(c if c.isprintable() or c in _JOINERS else " " for c in text)
    return " ".join(shown.split())


def columns(text: str) -> int:
    """How wide it is: 2 for a wide character, 0 for what is drawn on the one before it."""
    return sum(map(_columns, text))


def lines_of(text: str) -> Sequence[str]:
    """What `one_line` gives as lines of at most `LINE_COLUMNS`, or of a single longer word.

    Joined they are the text: a blank at which a line was broken is at its end.
    """
    lines: list[str] = []
    line = ""
    for piece in _pieces(text):
        if line and columns(line) + columns(piece.rstrip()) > LINE_COLUMNS:
            lines.append(line)
            line = ""
        line += piece
    return [*lines, line] if line else lines


def _columns(char: str) -> int:
    if char in _JOINERS or unicodedata.category(char) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in _WIDE else 1


def _pieces(text: str) -> Sequence[str]:
    """What is never broken: words, each with its blank, and characters of scripts without any."""
    pieces: list[str] = []
    before = " "
    for char in text:
        if not pieces or (_may_break(before, char) and char != " "):
            pieces.append(char)
        else:
            pieces[-1] += char
        before = char
    return pieces


def _may_break(before: str, after: str) -> bool:
    if before == " ":
        return True
    if not (_is_of_its_own(before) or _is_of_its_own(after)) or not _columns(after):
        return False
    is_joined = before in _JOINERS or unicodedata.category(after) in _CLOSING
    return not is_joined and unicodedata.category(before) not in _OPENING


def _is_of_its_own(char: str) -> bool:
    """Whether a line may end beside it though there is no blank."""
    return _columns(char) == 2 and not unicodedata.name(char, "").startswith("HANGUL")  # noqa: PLR2004 - columns
