"""Which events a checkpoint of AVP tells by default, and from which probability on.

    mmstream bench avp                                           the model of the wheel
    python -m mmstream.benchmarks.avp_thresholds FOLDER --write  decide for a new checkpoint

Every recording of benchmarks/truth/avp.tsv, none of which it was trained on, is heard once. Then
each threshold is tried on what was heard, by the head that tells events live. The rule:

* Good enough: at most 8 false alarms per hour, precision >= 0.8 and recall >= 0.6, over all
  recordings on which the event is judged.
* Of the thresholds that are, the event gets one with the fewest misses; of those, with the fewest
  false alarms; of those, the middle of the longest run, so that it stands far from either edge.
  Where none is, the one of the best F1, the highest if there are several.
* Told by default, if it is good enough, and precision and recall still are when each recording is
  judged by a threshold chosen without it ("left out"). What was cut from one take is one recording
  here. `speech` is not told: Silero tells it better.
* When scores become an event is the same for all: of `TIMINGS`, that of the best mean left-out F1.

A quarter of an hour, much of it chosen to sound alike: false alarms per hour are coarse (one is
four), and those of a quiet room are fewer. Figures of the chosen thresholds on the recordings that
chose them are optimistic; those left out are less so, though `TIMINGS` and the rule itself saw all
of them, and who trains the next checkpoint has seen what this one got wrong.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from mmstream.benchmarks import machine
from mmstream.benchmarks.avp_card import card_table, table, with_table
from mmstream.benchmarks.avp_choice import Thresholds, decide
from mmstream.benchmarks.avp_listening import listen
from mmstream.benchmarks.senses import recordings
from mmstream.errors import ConfigError, MmstreamError
from mmstream.media import DEFAULT_RATE_HZ
from mmstream.models import checkpoint
from mmstream.models.avp import TASK, Avp, AvpSettings
from mmstream.models.avp_spec import AvpSpec
from mmstream.pipelines.truth import read

HEARD: Final = (
    "baby_cry",
    "chainsaw",
    "clock_tick",
    "dog_bark",
    "fire_crackling",
    "helicopter",
    "person_sneeze",
    "rain",
    "rooster",
    "sea_waves",
    "speech",
)
"""The events that the truth is about."""
TRUTH: Final = Path(__file__).resolve().parent / "truth" / "avp.tsv"


def measure(spec: AvpSpec | None = None) -> Thresholds:
    """Hear every recording and decide; by default for the model of the wheel.

    Raises:
        ConfigError: recordings or their truth are not there, or the checkpoint hears none of it.
        ScorerError: the checkpoint cannot be used.
        SourceError: a recording cannot be read.
    """
    spec = spec or AvpSpec()
    found = checkpoint.read(
        spec.folder, AvpSettings, task=TASK, rate_hz=DEFAULT_RATE_HZ, untrained=spec.untrained
    )
    own = found.settings.thresholds
    asked = {name: own.get(name, 0.5) for name in found.settings.events.labels if name in HEARD}
    if not asked:
        msg = f"{spec.folder}: hears none of {', '.join(HEARD)}"
        raise ConfigError(msg)
    media = recordings()
    judged = read(TRUTH, media, HEARD, tuple(asked))
    files = tuple(dict.fromkeys(one.file for one in judged))
    return decide(found.id, listen(spec, asked, media, files), judged)


def write(folder: Path, found: Thresholds) -> str:
    """Put what was decided into a checkpoint's config.json and card.md; give its new id.

    Raises:
        ScorerError: it is no checkpoint of AVP, or cannot be written to.
        ConfigError: its card cannot be read.
    """
    kept = checkpoint.read(
        folder, AvpSettings, task=TASK, rate_hz=DEFAULT_RATE_HZ, untrained="allow"
    )
    decided = {one.label: one.threshold for one in found.choices}
    changes = {
        "thresholds": {**kept.settings.thresholds, **decided},
        "told": [one.label for one in found.choices if one.told],
    }
    settings = AvpSettings.model_validate({**kept.settings.model_dump(), **changes})
    model = Avp(settings)
    model.load_state_dict(kept.weights, assign=True)  # in as many bits as they were
    card = with_table(_card(folder / checkpoint.CARD), card_table(found))
    return checkpoint.save(folder, model, settings, kept.identity, card)


def _card(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise ConfigError(msg) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Decide for the checkpoint in a folder; give the exit status."""
    parser = argparse.ArgumentParser(description="Thresholds of a checkpoint of AVP")
    parser.add_argument("folder", type=Path, help="the checkpoint")
    parser.add_argument("--write", action="store_true", help="into its config.json and card.md")
    parser.add_argument("--json", type=Path, help="all figures, with machine and commit")
    asked = parser.parse_args(arguments)
    try:
        found = measure(AvpSpec(weights=str(asked.folder)))
        print(table(found))
        if asked.write:
            print(f"{asked.folder}: now {write(asked.folder, found)}")
    except ValidationError as error:  # what the spec says of a folder without a checkpoint
        print(error.errors()[0]["msg"], file=sys.stderr)
        return 1
    except MmstreamError as error:
        print(error, file=sys.stderr)
        return 1
    if asked.json is not None:
        record = {"benchmark": "avp", **machine.describe(), "figures": found.model_dump()}
        asked.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
