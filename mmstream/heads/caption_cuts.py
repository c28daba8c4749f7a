"""Where speech is cut into captions: at most two lines of 42 characters and 7 s each.

These are the usual limits of subtitles (Netflix, Timed Text Style Guide: English; BBC, Subtitle
Guidelines). Within them a caption ends with its sentence, or where the speaker pauses, once it is
long enough to be worth one of its own.
"""

import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from mmstream.media import NS_PER_SEC, SpokenWord

LINE_CHARS: Final = 42
MAX_LINES: Final = 2
MAX_CAPTION_NS: Final = 7 * NS_PER_SEC

_LEAST_CHARS: Final = 20
"""A shorter caption does not end at a pause or with a sentence."""
_PAUSE_NS: Final = NS_PER_SEC * 2 // 5
_SENTENCE_ENDS: Final = (".", "?", "!", "…")
_CLOSING: Final = "\"')]\u201d\u2019\u00bb"
_ABBREVIATIONS: Final = frozenset({"dr.", "mr.", "mrs.", "ms.", "prof.", "st.", "vs."})


def first_cut(words: Sequence[SpokenWord]) -> int | None:
    """How many of the words, from the first on, are a caption for good; None: more may join them.

    It depends on these and the word after them alone: more words change nothing.
    """
    for count, (word, following) in enumerate(pairwise(words), start=1):
        if _ends_here(words[:count]) or not fits(words[: count + 1]):
            return count
        pause_ns = following.span.start_ns - word.span.end_ns
        if pause_ns >= _PAUSE_NS and _is_long(words[:count]):
            return count
    return len(words) if words and _ends_here(words) else None


def fits(words: Sequence[SpokenWord]) -> bool:
    """Whether they make one caption."""
    if words[-1].span.end_ns - words[0].span.start_ns > MAX_CAPTION_NS:
        return False
    lines = textwrap.wrap(joined(words), LINE_CHARS, break_on_hyphens=False)
    return len(lines) <= MAX_LINES


def joined(words: Sequence[SpokenWord]) -> str:
    """Their text."""
    return " ".join(word.text for word in words)


def _is_long(words: Sequence[SpokenWord]) -> bool:
    return len(joined(words)) >= _LEAST_CHARS


def _ends_here(words: Sequence[SpokenWord]) -> bool:
    last = words[-1].text.rstrip(_CLOSING)
    is_initial = len(last) == 2 and last[0].isupper()  # noqa: PLR2004 - a letter and its point
    is_end = last.endswith(_SENTENCE_ENDS) and not is_initial and last.lower() not in _ABBREVIATIONS
    return is_end and _is_long(words)
