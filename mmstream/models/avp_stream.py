"""The streams of AVP: each hop of each source is encoded once, a window is the tokens it left.

    hop -> Ear, Eye -> [chunks, pictures of all sources together] -> encoders -> tokens
                                                                                   |
    window = the tokens of the last `window_secs` that are settled by its end  <---'

A chunk of sound is settled once its last sample is there, a picture when its hop is. What a window
holds does not depend on how time was cut, nor on what other sources are encoded with it: it is what
`mmstream.models.avp_whole` makes of the whole recording.

**Where time breaks off** (`gap_before`, a hop that does not begin where the one before ended, sound
that ceases) the encoders start anew: no token knows of both sides. Tokens from before stay in the
window as long as they lie in it: they say when they were, and still are true. Only where the clock
goes back nothing is kept, as what was said belongs to another time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmstream.features.audio import Feature
from mmstream.media import Hop, Span, secs_to_ns
from mmstream.metrics import StageMetrics
from mmstream.models.avp import Avp, AvpSettings
from mmstream.models.avp_batches import Batches
from mmstream.models.avp_flat import FlatStep
from mmstream.models.avp_senses import Ear, Eye, Sight, Sound
from mmstream.models.avp_windows import Held, Window
from mmstream.models.recurrent import ChunkTransformer, StreamState


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What a hop adds to what is known of its source, not encoded yet."""

    stream: "AvpStream"
    span: Span
    sound: Sound | None
    sight: Sight
    is_fresh: bool
    """The sound before the first chunk is not to be known."""
    is_earlier: bool
    """The clock went back: nothing that was said before counts."""
    is_whole: bool
    """There was nothing but this for the length of a window: time has not broken off."""


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """The tokens of a hop."""

    audio: Held
    video: Held


class AvpStream:
    """One source: its ear and eye, and the tokens of the last window."""

    def __init__(self, settings: AvpSettings, feature: Feature, device: torch.device) -> None:
        """Nothing came yet; the feature may be shared."""
        self._settings = settings
        self._feature = feature
        self._device = device
        self._window_ns = secs_to_ns(settings.window_secs)
        self._ear: Ear | None = None
        self._eye = self._new_eye()
        self._is_fresh = True
        self._begin_ns = 0
        """Since when time has not broken off."""
        self._end_ns: int | None = None
        nothing = Held.nothing(n_dims=settings.fusion.n_dims, device=device)
        self._nothing = self._audio = self._video = nothing
        self.state: StreamState | None = None
        """What the encoder of sound remembers; its own."""

    def take(self, hop: Hop) -> Taken:
        """Hear and see the hop; those of a source are taken in order, then encoded and kept."""
        start_ns = hop.span.start_ns
        is_earlier = self._end_ns is not None and start_ns < self._end_ns
        if hop.gap_before or start_ns != self._end_ns:
            self._ear = None
            self._eye = self._new_eye()
            self._begin_ns = start_ns
        self._end_ns = hop.span.end_ns
        sight = self._eye.see(hop.frames)
        sound = self._hear(hop)
        is_fresh = self._is_fresh
        if sound is not None and len(sound.frames):
            self._is_fresh = False
        is_whole = hop.span.end_ns - self._begin_ns >= self._window_ns
        return Taken(
            self,
            hop.span,
            sound,
            sight,
            is_fresh=is_fresh,
            is_earlier=is_earlier,
            is_whole=is_whole,
        )

    def keep(self, taken: Taken, encoded: Encoded) -> Window:
        """Keep the tokens of the hop; give the window that ends with it."""
        if taken.is_earlier:
            self._audio = self._video = self._nothing
        first_ns = taken.span.end_ns - self._window_ns
        self._audio = self._audio.followed_by(encoded.audio).since(first_ns)
        self._video = self._video.followed_by(encoded.video).since(first_ns)
        return Window(taken.span.end_ns, self._audio, self._video, is_whole=taken.is_whole)

    def _hear(self, hop: Hop) -> Sound | None:
        if not hop.samples.size:
            self._ear = None
            return None
        if self._ear is None:
            self._ear = Ear(self._settings.audio, self._feature, hop.span.start_ns)
            self._is_fresh = True
        return self._ear.hear(hop.samples, hop.heard)

    def _new_eye(self) -> Eye:
        settings = self._settings
        return Eye(settings.seen, n_seen=settings.video.n_seen, device=self._device)


class Encoders:
    """Encode what is new of all sources together."""

    def __init__(self, model: Avp, metrics: StageMetrics) -> None:
        """The model is in eval mode; halved batches are counted."""
        self._model = model
        self._device = model.background.device
        self._steps = Batches("avp, sound", metrics)
        self._pictures = Batches("avp, pictures", metrics)
        # Elsewhere to ask whether all is present costs more than the masks do.
        is_flat = self._device.type == "cpu" and isinstance(model.audio.body, ChunkTransformer)
        self._flat = FlatStep(model.audio) if is_flat else None

    @torch.inference_mode()
    def encode(self, taken: Sequence[Taken]) -> list[Encoded]:
        """The tokens of each; one source's are in order.

        Raises:
            ScorerError: there is not memory enough for one chunk or picture.
        """
        seen = self._see([one.sight for one in taken])
        heard = self._hear(taken)
        return [Encoded(*both) for both in zip(heard, seen, strict=True)]

    def _see(self, sights: Sequence[Sight]) -> list[Held]:
        stacks = torch.cat([sight.stacks for sight in sights])
        if len(stacks):

            def work(rows: slice) -> tuple[Tensor]:
                return (self._model.video.stages(stacks[rows]),)

            (values,) = self._pictures.run(work, len(stacks))
        else:
            values = stacks.new_zeros(0, self._model.settings.video.n_dims)
        pieces = torch.split(values, [len(sight.at_ns) for sight in sights])
        return [Held(*both) for both in zip(pieces, (s.at_ns for s in sights), strict=True)]

    def _hear(self, taken: Sequence[Taken]) -> list[Held]:
        """The first chunks of all sources at once, then their second, and so on."""
        values: list[list[Tensor]] = [[] for _ in taken]
        queues: dict[AvpStream, list[_Turn]] = {}
        for nth, one in enumerate(taken):
            turns = queues.setdefault(one.stream, [])
            if one.sound is not None:
                turns += [
                    _Turn(nth, frames, present, is_fresh=one.is_fresh and n_chunk == 0)
                    for n_chunk, (frames, present) in enumerate(
                        zip(one.sound.frames, one.sound.present, strict=True)
                    )
                ]
        for n_round in range(max(map(len, queues.values()))):
            streams = [stream for stream, turns in queues.items() if n_round < len(turns)]
            turns = [queues[stream][n_round] for stream in streams]
            for turn, tokens in zip(turns, self._step(streams, turns), strict=True):
                values[turn.nth].append(tokens)
        return [self._held(one.sound, its) for one, its in zip(taken, values, strict=True)]

    def _step(self, streams: Sequence[AvpStream], turns: Sequence["_Turn"]) -> Tensor:
        """[n, n_chunk, d]; the states of the streams go on."""
        encoder = self._model.audio
        empty = encoder.empty_state(1)
        before = StreamState.batched(
            [
                empty if turn.is_fresh or stream.state is None else stream.state
                for stream, turn in zip(streams, turns, strict=True)
            ]
        )
        frames = torch.stack([turn.frames for turn in turns]).to(self._device, non_blocking=True)
        present = torch.stack([turn.present for turn in turns]).to(self._device, non_blocking=True)

        flat = self._flat if present.all() and before.present.all() else None

        def work(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
            if flat is not None:
                return *flat(frames[rows], before.memory[rows]), before.present[rows]
            state = StreamState(before.memory[rows], before.present[rows])
            step = encoder.step(frames[rows], present[rows], state)
            return step.tokens.values, step.state.memory, step.state.present

        values, memory, there = self._steps.run(work, len(turns))
        for stream, state in zip(streams, StreamState(memory, there).split(), strict=True):
            stream.state = state
        return values

    def _held(self, sound: Sound | None, values: Sequence[Tensor]) -> Held:
        """Those tokens that are there."""
        if sound is None or not values:
            return Held.nothing(n_dims=self._model.settings.audio.n_dims, device=self._device)
        is_there = sound.is_there.ravel()
        tokens, at_ns = torch.cat(list(values)), sound.at_ns.ravel()
        if is_there.all():
            return Held(tokens, at_ns)
        return Held(tokens[torch.from_numpy(is_there)], at_ns[is_there])


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    """A chunk that waits for the one before."""

    nth: int
    """Whose it is."""
    frames: Tensor
    present: Tensor
    is_fresh: bool
