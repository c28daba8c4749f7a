"""What was measured of a checkpoint of AVP, for its card and for a terminal."""

from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

from mmstream.benchmarks.avp_choice import (
    ESC10,
    LEAST_PRECISION,
    LEAST_RECALL,
    MOST_FALSE_PER_HOUR,
    Choice,
    Figures,
    Thresholds,
)
from mmstream.pipelines.tally import SECS_PER_HOUR
from mmstream.training.results import aligned, as_markdown

BEGIN: Final = "<!-- measured by benchmarks/avp_thresholds.py -->"
END: Final = "<!-- up to here -->"
CLASSES: Final = (
    "dog_bark",
    "rain",
    "sea_waves",
    "baby_cry",
    "clock_tick",
    "person_sneeze",
    "helicopter",
    "chainsaw",
    "rooster",
    "fire_crackling",
)
"""Of ESC-10, by the number with which the names of its clips end."""
HEADER: Final = (
    "event",
    "told",
    "from",
    "found",
    "ESC-10",
    "false",
    "ESC-10 false",
    "precision",
    "recall",
    "false/h",
    "start",
    "left out",
)


def card_table(found: Thresholds) -> str:
    """The section of the card on events, in Markdown."""
    told = ", ".join(f"`{one.label}`" for one in found.choices if one.told) or "none"
    lines = [
        f"Told by default: {told}.",
        "",
        *as_markdown([HEADER, *(_row(one) for one in found.choices)]),
        "",
        *_legend(found),
        "",
        *(f"* {line}" for line in _details(found)),
    ]
    return "\n".join(lines)


def table(found: Thresholds) -> str:
    """The same for a terminal, with what else was tried."""
    tried = "; ".join(
        f"{one.for_secs:g} s in {one.within_secs:g} s: {one.mean_left_out_f1:.3f}"
        for one in found.timings
    )
    rows = aligned([HEADER, *(_row(one) for one in found.choices)])
    return "\n".join([*rows, "", *_details(found), f"mean left-out F1, starts when on for {tried}"])


def with_table(card: str, section: str) -> str:
    """A card with its measured section replaced; put at the end where it had none."""
    marked = f"{BEGIN}\n{section}\n{END}"
    before, begin, rest = card.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return f"{card.rstrip()}\n\n{marked}\n".lstrip()
    return f"{before}{marked}{after}"


def _row(one: Choice) -> tuple[str, ...]:
    everywhere, start = one.everywhere, one.everywhere.start_error
    return (
        one.label,
        "yes" if one.told else "no",
        f"{one.threshold:g}",
        _found(one.others),
        _found(one.esc10),
        str(one.others.n_false_alarms),
        str(one.esc10.n_false_alarms),
        _share(everywhere.precision),
        _share(everywhere.recall),
        f"{everywhere.false_alarms_per_hour:.1f}",
        "-" if start is None else f"{start.median_s:+.2f} ({start.abs_p95_s:.2f})",
        f"{_share(one.left_out.precision)} / {_share(one.left_out.recall)}",
    )


def _found(score: Figures) -> str:
    return f"{score.n_hits}/{score.n_true}" if score.n_true else "-"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.2f}"


def _legend(found: Thresholds) -> Iterator[str]:
    hours = max(one.everywhere.judged_s for one in found.choices) / SECS_PER_HOUR
    timing = found.timing
    yield (
        f"Measured on {found.n_esc10 + found.n_others} recordings that it never heard in training: "
        f"{found.n_esc10} clips of ESC-10's fold 5 and {found.n_others} others (music, crowds, "
        "engines, films, rooms). *From*: the probability at which an event is decided; it starts "
        f"when held for {timing.for_secs:g} s of {timing.within_secs:g} s. *Found*, *false*: "
        "on the others; *ESC-10*: on its clips, where a false alarm is a confusion. *Precision*, "
        "*recall*, *false/h*: on all of them. *Start*: seconds of the event after the truth, "
        "median (95 % of sizes)."
    )
    yield ""
    yield (
        "An event is told by default if, by the best threshold, there are at most "
        f"{MOST_FALSE_PER_HOUR:g} false alarms per hour, precision is >= {LEAST_PRECISION:g} and "
        f"recall >= {LEAST_RECALL:g}, and both still are when *left out* (precision / recall): "
        "each recording judged by a threshold that was chosen without it. The other columns are "
        "of thresholds chosen on the very recordings that they are measured on, hence "
        f"**optimistic**. All of it is {hours:.2f} hours: one false alarm is "
        f"{1 / hours:.1f} per hour, and one miss of eight is 0.12 of recall. The recordings are "
        "full of sounds; in a quiet room there are fewer false alarms, beside a road there may be "
        "more."
    )


def _details(found: Thresholds) -> Iterator[str]:
    for one in found.choices:
        parts = [part for part in (one.reason, _false_on(one), _missed(one)) if part]
        if parts:
            yield f"{one.label}: {'; '.join(parts)}"


def _false_on(one: Choice) -> str:
    places = Counter(alarm.file for alarm in one.everywhere.false_alarms)
    return _listed("false on", places)


def _missed(one: Choice) -> str:
    return _listed("missed", Counter(miss.file for miss in one.everywhere.misses))


def _listed(what: str, places: Counter[str]) -> str:
    """Recordings by name, with how often and, of ESC-10, which class."""
    names = [f"{_name(file)} x{n}" if n > 1 else _name(file) for file, n in places.items()]
    return f"{what} {', '.join(names)}" if names else ""


def _name(file: str) -> str:
    path = PurePosixPath(file)
    if not file.startswith(ESC10):
        return path.name
    return f"{path.stem} ({CLASSES[int(path.stem.rpartition('-')[2])]})"
