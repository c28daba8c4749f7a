"""Word errors as text: aligned for a terminal, or Markdown for a document."""

from collections.abc import Iterator, Sequence
from typing import Final

from mmstream.pipelines.evaluate_words import Recording, Report
from mmstream.pipelines.word_errors import WordErrors

COLUMNS: Final = ("recording", "words", "subst", "del", "ins", "WER", "raw WER")
LEGEND: Final = """\
WER: words substituted, deleted and inserted, of all that were said; by the words of the captions.
raw: the same recogniser given each whole recording as one utterance.
Mean: of the rates of the recordings, each counting the same."""


def plain(report: Report) -> str:
    """For a terminal: columns aligned, then what was heard instead."""
    rows = [COLUMNS, *_rows(report)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(
            [first.ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        )
        for first, *rest in rows
    ]
    return "\n".join([*table, "", LEGEND, "", *_heard(report, mark="  "), *_not_judged(report)])


def markdown(report: Report) -> str:
    """For a document: the same as a Markdown table and lists."""
    rules = ("---", *["---:"] * (len(COLUMNS) - 1))
    table = [f"| {' | '.join(row)} |" for row in (COLUMNS, rules, *_rows(report))]
    return "\n".join([*table, "", LEGEND, "", *_heard(report, mark="* "), *_not_judged(report)])


def _rows(report: Report) -> Iterator[Sequence[str]]:
    for one in report.recordings:
        yield (one.file, *_counts(one.live.errors), _rate(one.raw.errors.wer))
    yield ("all words", *_counts(report.live.errors), _rate(report.raw.errors.wer))
    n_recordings = f"mean of {len(report.recordings)}"
    yield (n_recordings, *[""] * 4, _rate(report.live.mean_wer), _rate(report.raw.mean_wer))


def _counts(errors: WordErrors) -> Sequence[str]:
    counts = (
        errors.n_words,
        errors.n_substitutions,
        errors.n_deletions,
        errors.n_insertions,
    )
    return (*map(str, counts), _rate(errors.wer))


def _rate(rate: float) -> str:
    return f"{rate:.1%}".replace("%", " %")


def _heard(report: Report, *, mark: str) -> Iterator[str]:
    wrong = [one for one in report.recordings if one.live.errors.wer > 0]
    yield "Heard otherwise:" if wrong else "Heard otherwise: none"
    if wrong and mark == "* ":
        yield ""
    for one in wrong:
        yield f"{mark}{one.file}: {_quoted(one)}"


def _quoted(one: Recording) -> str:
    return f'"{one.live.text}" for "{one.transcript}"'


def _not_judged(report: Report) -> Iterator[str]:
    if report.not_judged:
        yield ""
        files = ", ".join(f"{one.file} ({one.language})" for one in report.not_judged)
        yield f"Not judged: {report.recogniser} understands {report.language} only: {files}"
