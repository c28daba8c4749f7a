"""What every streaming recipe is made of: a configuration's sources, detectors, heads, sinks."""

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Literal

from mmstream.clock import Clock
from mmstream.detectors.masks import MasksBySource
from mmstream.errors import ConfigError, StoreError
from mmstream.heads.caption_draft import CaptionPart
from mmstream.heads.caption_settings import SoundCaptions
from mmstream.heads.captions import CaptioningHead
from mmstream.heads.events import EventHead
from mmstream.heads.scene_captions import SceneCaptionPart
from mmstream.heads.sound_captions import SoundCaptionPart
from mmstream.heads.speech_captions import SpeechCaptions as SpeechCaptionPart
from mmstream.media import Label, secs_to_ns
from mmstream.messages import ModelInfo
from mmstream.models.avp_spec import AvpSpec
from mmstream.models.content import id_of
from mmstream.models.mmt_spec import MmtSpec
from mmstream.pipelines.configuration import (
    Configuration,
    DeskSettings,
    DetectorSettings,
    SourceSettings,
)
from mmstream.pipelines.thresholds import SoundEvents
from mmstream.recognition.describer import SceneCaptioner
from mmstream.recognition.spec import SpeechCaptions
from mmstream.recognition.sphinx_settings import PocketsphinxSettings
from mmstream.runtime.capture import ThreadedSource
from mmstream.runtime.chain import Chain
from mmstream.runtime.features import features_of
from mmstream.runtime.graph import Graph
from mmstream.runtime.joined import JoinedSource
from mmstream.runtime.snapshots import Masks, Snapshots
from mmstream.sinks.jsonl import JsonlSink
from mmstream.sinks.log import LogSink
from mmstream.sinks.mqtt import MqttSink
from mmstream.sinks.spool import Spool, StoreSettings
from mmstream.sinks.subtitles import SubtitlesSink
from mmstream.sources.media import MediaFile, MediaSettings
from mmstream.sources.microphone import MicrophoneSettings, MicrophoneSource
from mmstream.sources.network import NetworkSettings, NetworkSource
from mmstream.sources.synthetic import SyntheticSettings, SyntheticSource
from mmstream.sources.webcam import WebcamSource
from mmstream.stages import ScorerSpec, Sink, Source
from mmstream.web.server import WebServer
from mmstream.windows import HopCutter
from mmstream.worker import WorkerSettings

SHOWN_SECS: Final = 8.0
"""How long a file keeps its pictures for snapshots: it is cut up to 4 s ahead of what is said."""

_log = logging.getLogger(__name__)


def build(
    settings: Configuration, clock: Clock, to: Sequence[Sink], *, reports: bool = True
) -> Graph:
    """The graph of a configuration, ending in the sinks given.

    Raises:
        ScorerError: the model is not there.
    """
    chains = tuple(chain(name, settings, clock) for name in settings.sources)
    return Graph(
        settings.node,
        chains,
        _scorers(settings),
        _worker(settings),
        tuple(to),
        reports=reports,
        captions=settings.captions is not False,
        models=_models(settings.detectors) if reports else (),
    )


def chain(name: str, settings: Configuration, clock: Clock) -> Chain:
    """The parts that belong to one source of a configuration alone."""
    source = source_of(name, settings.sources[name], clock, settings.hops.rate_hz)
    told = labels(settings.detectors, settings.node)
    events = settings.events.by_label(label.name for label in told)
    head = EventHead(
        node=settings.node, source=name, labels=told, settings=events, otherwise=SoundEvents()
    )
    words = _caption_parts(name, settings)
    hops = settings.hops
    if settings.snapshots is not False and not source.live:
        hops = hops.model_copy(update={"keep_secs": max(hops.keep_secs, SHOWN_SECS)})
    cutter = HopCutter(name, hops, live=source.live)
    telling = CaptioningHead(head, words) if words else head
    return Chain(source, cutter, telling, features_of(told, events))


def _caption_parts(name: str, settings: Configuration) -> tuple[CaptionPart, ...]:
    """What makes captions of a source, one for each kind that is wanted."""
    node, captions = settings.node, settings.captions
    if captions is False:
        return ()
    parts: list[CaptionPart] = []
    if captions.speech is not False:
        parts.append(SpeechCaptionPart(node=node, source=name))
    if captions.sounds is not False:
        sounds = _sounds_only(captions.sounds, settings.detectors)
        parts.append(SoundCaptionPart(sounds, node=node, source=name))
    if captions.scene is not False:
        parts.append(SceneCaptionPart(captions.scene, node=node, source=name))
    return tuple(parts)


def _sounds_only(sounds: SoundCaptions, detectors: DetectorSettings) -> SoundCaptions:
    """What a trained model tells may be anything; it has a caption where a text is given for it."""
    if detectors.mmt is False:
        return sounds
    told = (label.name for label in detectors.mmt.labels)
    return sounds.model_copy(update={"left_out": (*sounds.left_out, *told)})


def source_of(name: str, settings: SourceSettings, clock: Clock, rate_hz: int) -> Source:
    """The source that its settings ask for."""
    match settings:
        case SyntheticSettings():
            return ThreadedSource(SyntheticSource(name, settings, clock, rate_hz=rate_hz))
        case MediaSettings():
            return ThreadedSource(MediaFile(name, settings, clock, rate_hz=rate_hz))
        case NetworkSettings():
            return ThreadedSource(NetworkSource(name, settings, clock, rate_hz=rate_hz))
        case MicrophoneSettings():
            return ThreadedSource(MicrophoneSource(name, settings, clock, rate_hz=rate_hz))
        case DeskSettings():
            camera = ThreadedSource(WebcamSource(name, settings, clock))
            if settings.microphone is False:
                return camera
            ears = MicrophoneSource(name, settings.microphone, clock, rate_hz=rate_hz)
            return JoinedSource(name, (camera, ThreadedSource(ears)))


def specs(settings: DetectorSettings, node: str | None = None) -> tuple[ScorerSpec, ...]:
    """The detectors that are on, in the order of the settings: each sees what those before said.

    `person_speaking` is off where those are that it rests on: it could not tell that nobody is
    there from that nobody looks. What the model was taught is looked for where `node` keeps it.
    """
    if node is not None and settings.avp is not False:
        settings = settings.model_copy(update={"avp": settings.avp.of_node(node)})
    off = {name for name in DetectorSettings.model_fields if getattr(settings, name) is False}
    if "speech" in off or {"person", "face"} <= off:
        off.add("person_speaking")
    return tuple(
        getattr(settings, name) for name in DetectorSettings.model_fields if name not in off
    )


def _scorers(settings: Configuration) -> tuple[ScorerSpec, ...]:
    """The detectors, then what finds words; what reads words comes last."""
    found = specs(settings.detectors, settings.node)
    watching = tuple(spec for spec in found if not isinstance(spec, MmtSpec))
    return (*watching, *_captioners(settings), *found[len(watching) :])


def _captioners(settings: Configuration) -> Iterator[ScorerSpec]:
    captions = settings.captions
    if captions is False:
        return
    if captions.speech is not False:
        yield captions.speech
    if captions.descriptions is not False:
        yield _masked(captions.descriptions, settings.detectors)


def _masked(describing: SceneCaptioner, detectors: DetectorSettings) -> SceneCaptioner:
    """What detectors ignore is not described either."""
    own = describing.masks
    masks = {
        name: (*own.get(name, ()), *detectors.masks(name))
        for name in {*own, *detectors.masked_sources}
    }
    return describing.model_copy(update={"masks": MasksBySource(masks)})


@asynccontextmanager
async def spooling(
    settings: StoreSettings | Literal[False], clock: Clock, *, node: str
) -> AsyncIterator[Spool | None]:
    """The event log that is asked for, open; None: none is.

    Raises:
        ConfigError: it cannot be used; the text names the key and the file.
    """
    if settings is False:
        yield None
        return
    try:
        spool = Spool(settings.file(node), settings.limits(), clock)
        await spool.open()
    except StoreError as error:
        msg = f"store.path: {error}; allowed also: `store: false`, for no event log"
        raise ConfigError(msg) from None
    try:
        yield spool
    finally:
        await spool.close()


def labels(settings: DetectorSettings, node: str | None = None) -> tuple[Label, ...]:
    """All that those detectors may say.

    Raises:
        ScorerError: the model is not there.
    """
    return tuple(label for spec in specs(settings, node) for label in spec.labels)


def _models(settings: DetectorSettings) -> tuple[ModelInfo, ...]:
    """The trained models among them, by what is in their files."""
    models = [spec for spec in (settings.avp, settings.mmt) if spec is not False]
    return tuple(ModelInfo(name=spec.name, id=id_of(spec.folder)) for spec in models)


def _worker(settings: Configuration) -> WorkerSettings:
    """Detectors compute on the processor: without a model nobody has to look for more."""
    has_model = any(_is_model(spec) for spec in _scorers(settings))
    if not has_model and settings.worker.device == "auto":
        return settings.worker.model_copy(update={"device": "cpu"})
    return settings.worker


def _is_model(spec: ScorerSpec) -> bool:
    if isinstance(spec, SpeechCaptions):
        return not isinstance(spec.recogniser, PocketsphinxSettings)
    return isinstance(spec, AvpSpec | MmtSpec | SceneCaptioner)


def sinks(
    settings: Configuration, clock: Clock, *, boot_id: str, spool: Spool | None
) -> tuple[Sink, ...]:
    """The sinks that are asked for; without a broker the event log is one of its own."""
    made: list[Sink] = []
    to, node = settings.sinks, settings.node
    if to.mqtt is not None:
        made.append(MqttSink(to.mqtt, node=node, boot_id=boot_id, spool=spool))
    elif spool is not None:
        made.append(LogSink(spool))
    if to.jsonl is not None:
        made.append(JsonlSink(to.jsonl))
    if to.subtitles is not None:
        voices, zero = len(settings.sources) > 1, zero_utc_ns(settings, clock)
        made.append(SubtitlesSink(to.subtitles, zero_utc_ns=zero, voices=voices))
    return tuple(made)


def zero_utc_ns(settings: Configuration, clock: Clock) -> int:
    """When subtitles begin: with the recording, if there is nothing else, or now."""
    epochs = [one.epoch for one in settings.sources.values() if isinstance(one, MediaSettings)]
    if len(epochs) < len(settings.sources):
        return clock.utc_ns()
    return secs_to_ns(min(epochs).timestamp())


def snapshots(
    settings: Configuration, brokers: Sequence[MqttSink], masks: Masks
) -> Snapshots | None:
    """What takes pictures for these brokers; None: it is not asked for.

    Then what an earlier boot has shown is taken back.
    """
    if settings.snapshots is False:
        for broker in brokers:
            for name in settings.sources:
                broker.show(name, b"")
        return None
    return Snapshots(settings.snapshots, brokers, masks)


def web(settings: Configuration) -> WebServer | None:
    """What serves metrics and health; None: nothing does.

    Raises:
        ConfigError: it cannot listen where the configuration says. Where it says nothing, that is
            logged, and the run does without: two may run on one machine.
    """
    if settings.web is False:
        return None
    try:
        return WebServer(settings.web)
    except ConfigError as error:
        if "web" in settings.model_fields_set:
            raise
        _log.warning("no metrics are served: %s", error)
        return None
