"""Evaluate words: recordings through the live path of a configuration, beside their transcripts.

    media -> hops -> worker -> captions -> words -+
    media -> recogniser, all at once -> words ----+-> word errors <- transcripts

The second line is the baseline of the same run: the same recogniser with each whole recording as
one utterance, as nobody has it who listens live. What lies between the two is what cutting,
beginning early, guarding and committing cost.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from mmstream.clock import Clock
from mmstream.codecs import read_audio
from mmstream.detectors.speech import SPEECH_RATE_HZ
from mmstream.errors import ConfigError, SourceError
from mmstream.media import Floats, Take, samples_to_ns
from mmstream.messages import Caption
from mmstream.pipelines import caption, graph, transcripts
from mmstream.pipelines.configuration import Configuration
from mmstream.pipelines.evaluate import progress_of, run_through
from mmstream.pipelines.replay import source_id
from mmstream.pipelines.tally import secs
from mmstream.pipelines.transcripts import Transcript
from mmstream.pipelines.word_errors import WordErrors, mean_wer, total, word_errors
from mmstream.recognition.spec import SpeechCaptions
from mmstream.sinks.memory import MemorySink
from mmstream.sinks.subtitle_formats import SubtitleFormat
from mmstream.sources.media import MediaFile, MediaSettings
from mmstream.stages import Recogniser

_ANY_LANGUAGE: Final = "auto"
_WORDS: Final = caption.Asked(caption.STDOUT, SubtitleFormat.TRANSCRIPT, sounds=False, scene=False)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Heard(_Record):
    """What was understood of a recording."""

    text: str
    errors: WordErrors


class Recording(_Record):
    """One recording: what is said in it, and what was heard."""

    file: str
    duration_s: float
    transcript: str
    live: Heard
    """The words of the final captions, in their order."""
    raw: Heard
    """The words of the recogniser that is given all of it as one utterance."""


class Overall(_Record):
    """All recordings."""

    errors: WordErrors
    """Over all words: long recordings count more."""
    mean_wer: float
    """The mean of the recordings' rates: each counts the same."""


class NotJudged(_Record):
    """A recording in a language that the recogniser does not understand."""

    file: str
    language: str


class Report(_Record):
    """What a configuration understands."""

    recogniser: str
    language: str
    """What it understands, BCP 47, or `auto`."""
    media_s: float
    live: Overall
    raw: Overall
    recordings: tuple[Recording, ...]
    """In the order of the truth."""
    not_judged: tuple[NotJudged, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """What there is to do."""

    recipe: Configuration
    """With no more detectors than words need."""
    speech: SpeechCaptions
    transcripts: tuple[Transcript, ...]
    """At least one."""
    not_judged: tuple[Transcript, ...]


def check(recipe: Configuration, truth: Path, media: Path, clock: Clock) -> Judged:
    """The transcripts of recordings below `media`, where there is a recogniser and they open.

    Raises:
        ConfigError: the truth is wrong, or nothing in it can be judged; one line for each problem.
        SourceError: recordings cannot be opened; one line for each.
    """
    narrow, speech = _for_words(recipe)
    all_of_them = transcripts.read(truth, media)
    judged = tuple(one for one in all_of_them if _understands(speech, one.language))
    if not judged:
        known = speech.recogniser
        msg = f"{truth}: no row in a language of {known.name}; allowed: {known.language}"
        raise ConfigError(msg)
    problems = []
    for one in judged:
        try:
            with _file(media / one.file, clock).read():
                pass
        except SourceError as error:
            problems.append(str(error))
    if problems:
        raise SourceError("\n".join(problems))
    return Judged(narrow, speech, judged, tuple(one for one in all_of_them if one not in judged))


def run(judged: Judged, media: Path, clock: Clock) -> Report:
    """Understand every recording, one after the other, live and as a whole.

    Raises:
        SourceError: a recording cannot be read, or there is no sound in it.
        ScorerError: the recogniser cannot be built or run.
        KeyboardInterrupt: a signal came first.
    """
    recordings = []
    with _raw(judged) as recogniser, progress_of(len(judged.transcripts)) as progress:
        for one in judged.transcripts:
            progress.update(progress.task_ids[0], clip=one.file)
            recordings.append(_understand(judged.recipe, recogniser, one, media, clock))
            progress.advance(progress.task_ids[0])
    return Report(
        recogniser=judged.speech.recogniser.name,
        language=judged.speech.recogniser.language,
        media_s=sum(one.duration_s for one in recordings),
        live=_overall([one.live.errors for one in recordings]),
        raw=_overall([one.raw.errors for one in recordings]),
        recordings=tuple(recordings),
        not_judged=tuple(
            NotJudged(file=one.file, language=one.language) for one in judged.not_judged
        ),
    )


def _for_words(recipe: Configuration) -> tuple[Configuration, SpeechCaptions]:
    """The recipe with what words rest on and no more, and how it understands them.

    Raises:
        ConfigError: it has no captions of speech.
    """
    if recipe.captions is False or recipe.captions.speech is False:
        key = "captions" if recipe.captions is False else "captions.speech"
        msg = (
            f"{key} is false, and this truth is about words; "
            f"allowed: --recipe captioning, or --set '{key}={{}}'"
        )
        raise ConfigError(msg)
    speech = recipe.captions.speech
    narrow = caption.narrowed(recipe, _WORDS)
    detectors = narrow.detectors.model_copy(update={"mmt": False})  # reads words, says none
    return narrow.model_copy(update={"detectors": detectors}), speech


def _understands(speech: SpeechCaptions, language: str) -> bool:
    """By the language alone: British English is English."""
    known = speech.recogniser.language
    return not language or known == _ANY_LANGUAGE or _primary(known) == _primary(language)


def _primary(language: str) -> str:
    return language.partition("-")[0].lower()


@contextmanager
def _raw(judged: Judged) -> Iterator[Recogniser]:
    """The recogniser without all that is around it."""
    device = judged.recipe.worker.device
    recogniser = judged.speech.recogniser.build("cpu" if device == "auto" else device)
    try:
        yield recogniser
    finally:
        recogniser.close()


def _understand(
    recipe: Configuration, recogniser: Recogniser, one: Transcript, media: Path, clock: Clock
) -> Recording:
    path = media / one.file
    samples = read_audio(path, SPEECH_RATE_HZ)
    live, raw = _live(recipe, path, clock), _whole(recogniser, one.file, samples)
    return Recording(
        file=one.file,
        duration_s=secs(samples_to_ns(samples.size, SPEECH_RATE_HZ)),
        transcript=one.text,
        live=Heard(text=live, errors=word_errors(one.text, live)),
        raw=Heard(text=raw, errors=word_errors(one.text, raw)),
    )


def _settings(path: Path) -> MediaSettings:
    return MediaSettings(url=str(path), pace="max")


def _file(path: Path, clock: Clock) -> MediaFile:
    return MediaFile(source_id(str(path)), _settings(path), clock, rate_hz=SPEECH_RATE_HZ)


def _live(recipe: Configuration, path: Path, clock: Clock) -> str:
    """The words of the captions of a recording."""
    source = _settings(path)
    settings = recipe.model_copy(update={"sources": {source_id(source.url): source}})
    sink = MemorySink(caption.N_CAPTIONS)
    built = graph.build(settings, clock, [sink], reports=False)
    run_through(built, clock)
    said = [one for one in sink.contents(Caption) if one.kind == "speech" and one.state == "final"]
    return " ".join(one.text for one in said if one.text)


def _whole(recogniser: Recogniser, name: str, samples: Floats) -> str:
    """The words of a recording that is one utterance."""
    (hypothesis,) = recogniser.recognise([Take(name, 0, 0, SPEECH_RATE_HZ, samples, is_last=True)])
    recogniser.forget(name)
    return " ".join(word.text for word in hypothesis.words)


def _overall(errors: Sequence[WordErrors]) -> Overall:
    return Overall(errors=total(errors), mean_wer=mean_wer(errors))
