"""Lines of subtitles: all of the text, no wider than the screen, broken where readers expect it."""

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmstream.sinks.line_breaks import LINE_COLUMNS, columns, lines_of, one_line

LATIN = st.lists(st.text("abcé-'", min_size=1, max_size=50), max_size=20).map(" ".join)
MIXED = st.text(st.sampled_from("ab 中文。」「한글 が\u3099ー\u200d👩é"), max_size=120).map(
    one_line
)


@given(LATIN)
def test_words_with_blanks_are_broken_as_the_standard_library_does(text: str) -> None:
    expected = textwrap.wrap(text, LINE_COLUMNS, break_long_words=False, break_on_hyphens=False)
    assert [line.rstrip() for line in lines_of(text)] == expected


@given(MIXED)
def test_lines_are_all_of_the_text_and_no_wider_than_allowed(text: str) -> None:
    lines = lines_of(text)
    assert "".join(lines) == text
    for line in lines:
        shown = line.rstrip()
        assert shown
        assert columns(shown) <= LINE_COLUMNS or " " not in shown
        assert list(lines_of(line)) == [line]
        assert line[0] not in "。」ー\u3099\u200d" or line is lines[0] or " " in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("中" * 43, ["中" * 21, "中" * 21, "中"]),
        ("中" * 21 + "。" + "文", ["中" * 20, "中。文"]),
        ("中" * 20 + "「文」", ["中" * 20, "「文」"]),
        ("が" * 20 + "か\u3099は", ["が" * 20 + "か\u3099", "は"]),
        ("한글" * 10 + " " + "한글" * 3, ["한글" * 10, "한글" * 3]),
        ("한글" * 20, ["한글" * 20]),
        ("a" * 41 + "中b", ["a" * 41, "中b"]),
        ("x" * 41 + " 👩\u200d👩\u200d👧 y", ["x" * 41, "👩\u200d👩\u200d👧 y"]),
        ("", []),
    ],
)
def test_where_lines_end(text: str, expected: list[str]) -> None:
    assert [line.rstrip() for line in lines_of(text)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" a\n\tb\u2028c ", "a b c"),
        ("a\x00b", "a b"),
        ("a\u200cb", "a\u200cb"),
        ("\ud800x", "x"),
    ],
)
def test_one_line_keeps_what_belongs_to_words(text: str, expected: str) -> None:
    assert one_line(text) == expected
