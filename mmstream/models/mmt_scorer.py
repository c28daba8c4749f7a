r"""The three-modality Transformer in the stream: scores of its classes for the window a hop ends.

p         how likely the class is: softmax or sigmoid of its task's logits
score     sigmoid(logit(p) - logit(threshold)): 0.5 is the point of decision
`Fused`   the share of p that is gone without one of the modalities that are there, 0..1; only for
          scores that are not far below the point of decision

A window without words, sound or pictures lacks that modality, as an example of training may; one
without anything has no score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

from mmstream.errors import ScorerError
from mmstream.media import Floats, Fused, Hop, Modality, Scores, Series, secs_to_ns
from mmstream.metrics import StageMetrics
from mmstream.models import checkpoint
from mmstream.models.avp_batches import Batches
from mmstream.models.content import read_bytes
from mmstream.models.mmt import Inputs, Mmt, MmtSettings, rebuilt
from mmstream.models.mmt_shapes import sight_of, sound_of
from mmstream.models.mmt_spec import Column, MmtSpec
from mmstream.models.mmt_windows import MmtStream, MmtWindow
from mmstream.models.pretrained import PretrainedText
from mmstream.models.text import WordPieces
from mmstream.models.tokens import Tokens
from mmstream.stages import Load

if TYPE_CHECKING:
    from mmstream.models.pretrained_text import PretrainedPieces

_VOCABULARY: Final = "vocabulary.json"  # as mmstream.training.predict, where it is written
_USUAL_THRESHOLD: Final = 0.5
_NEAR: Final = 0.1
"""A score from here on is told with what each modality had in it."""


def mmt_scorer(spec: MmtSpec, device: str) -> "MmtScorer":
    """One with the weights of the spec, warmed up.

    Raises:
        ScorerError: see `MmtSpec.build`.
    """
    if device == "cpu":
        torch.set_num_threads(1)
    kept = checkpoint.read(
        spec.folder, MmtSettings, task=spec.task, rate_hz=spec.rate_hz, untrained=spec.untrained
    )
    model = rebuilt(kept.settings)
    kept.fill(model)
    pieces = _pieces(spec.folder, model.settings)
    scorer = MmtScorer(model.to(device), pieces, spec)
    scorer.warm_up()
    return scorer


class MmtScorer:
    """Scores the classes of a model (`Scorer`).

    Under any load windows are kept, so that the state stays in step; with `Load.INGEST` none is
    scored.
    """

    def __init__(
        self, model: Mmt, pieces: "WordPieces | PretrainedPieces | None", spec: MmtSpec
    ) -> None:
        """Nothing came yet. `pieces`: what the model reads with; None: it does not read."""
        self.metrics = StageMetrics("mmt")
        """Of hops, and windows told. Dropped: `batch_halved`, by which nothing is lost."""
        self._spec = spec
        self._columns = spec.columns
        self._thresholds = [
            spec.thresholds.get(column.label, _USUAL_THRESHOLD) for column in self._columns
        ]
        self._modalities = model.settings.fusion.modalities
        self._rate_hz = model.settings.audio.front_end.rate_hz if model.settings.audio else None
        self._judge = _Judge(model.eval(), pieces, self._columns, self._thresholds, self.metrics)
        self._streams: dict[str, MmtStream] = {}

    def score(self, hops: Sequence[Hop], so_far: Sequence[Scores], load: Load) -> Sequence[Scores]:
        """One value of each label at the start of the hop, for the window that the hop ends.

        Raises:
            ScorerError: the sound is of another rate, or a single window does not fit into memory.
        """
        scores = [Scores(hop.source, hop.index, hop.span) for hop in hops]
        rows, windows = [], []
        for row, (hop, said) in enumerate(zip(hops, so_far, strict=True)):
            stream = self._stream(hop)
            stream.take(hop, said.texts)
            if load is not Load.INGEST and self._is_due(hop):
                window = stream.window()
                if window.is_any:
                    rows.append(row)
                    windows.append(window)
        self.metrics.n_in += len(hops)
        for row, opinion in zip(rows, self._judge.judge(windows), strict=True):
            if opinion.there:
                self.metrics.n_out += 1
                scores[row] = self._told(scores[row], opinion)
        return scores

    def forget(self, source: str) -> None:
        """Hear, see and read the source afresh."""
        self._streams.pop(source, None)

    def warm_up(self) -> None:
        """Judge a window of silence and grey: what is set up at first use is set up then."""
        seen = self._spec.pictures
        has = {name: name in self._modalities for name in ("audio", "video", "text")}
        n_samples = round(self._spec.window_secs * (self._rate_hz or 0))
        n_pictures = round(self._spec.window_secs * seen.fps) if has["video"] else 0
        n_channels = 3 if seen.colour == "rgb" else 1
        grey = np.full((n_pictures, seen.height, seen.width, n_channels), 128, np.uint8)
        at_secs = (np.arange(n_pictures) / seen.fps).astype(np.float32)
        silence, heard = np.zeros(n_samples, np.float32), np.ones(n_samples, np.bool_)
        self._judge.judge([MmtWindow(silence, heard, grey, at_secs, "a" if has["text"] else "")])

    def _stream(self, hop: Hop) -> MmtStream:
        rate_hz = self._rate_hz
        if rate_hz is not None and hop.samples.size and hop.rate_hz != rate_hz:
            msg = (
                f"{self._spec.name} hears {rate_hz} Hz only: got {hop.rate_hz} Hz from "
                f"{hop.source}; set hops.rate_hz to {rate_hz} or leave it out"
            )
            raise ScorerError(msg)
        stream = self._streams.get(hop.source)
        if stream is None:
            window_ns = secs_to_ns(self._spec.window_secs)
            stream = MmtStream(self._modalities, self._spec.pictures, window_ns=window_ns)
            self._streams[hop.source] = stream
        return stream

    def _is_due(self, hop: Hop) -> bool:
        """Whether a multiple of `every_secs` is in the hop, by the source's own clock."""
        every_ns = secs_to_ns(self._spec.every_secs)
        return not every_ns or hop.span.end_ns // every_ns > hop.span.start_ns // every_ns

    def _told(self, hop: Scores, opinion: "_Opinion") -> Scores:
        at_ns = np.array([hop.span.start_ns], np.int64)
        outputs, fused = {}, {}
        for n, (column, threshold) in enumerate(zip(self._columns, self._thresholds, strict=True)):
            score = _score_of(float(opinion.likely[n]), threshold)
            outputs[column.label] = Series(at_ns, np.array([score], np.float32))
            if score >= _NEAR and len(self._modalities) > 1:
                fused[column.label] = Fused(
                    audio=opinion.share("audio", n),
                    video=opinion.share("video", n),
                    text=opinion.share("text", n),
                )
        return replace(hop, outputs=outputs, fused=fused)


@dataclass(frozen=True, slots=True, eq=False)
class _Opinion:
    """What is said of one window."""

    likely: Floats
    """[n_labels] in 0..1."""
    there: frozenset[Modality]
    """What the window has a token of."""
    without: Mapping[Modality, Floats]
    """[n_labels]: how likely each is if one of several modalities is left out."""

    def share(self, modality: Modality, n: int) -> float:
        """How much of label `n` is gone without it, 0..1."""
        if modality not in self.there:
            return 0.0
        if len(self.there) == 1:
            return 1.0
        likely = float(self.likely[n])
        return max(0.0, 1 - float(self.without[modality][n]) / likely) if likely > 0 else 0.0


class _Judge:
    """Windows -> what the model says of them, and of them without each modality."""

    def __init__(
        self,
        model: Mmt,
        pieces: "WordPieces | PretrainedPieces | None",
        columns: Sequence[Column],
        thresholds: Sequence[float],
        metrics: StageMetrics,
    ) -> None:
        """The model is in eval mode; halved batches are counted."""
        self._model = model
        self._pieces = pieces
        self._columns = columns
        self._thresholds = thresholds
        self._modalities = model.settings.fusion.modalities
        audio = model.settings.audio
        self._feature = audio.front_end.build() if audio else None
        self._device = model.fusion.modality.device
        self._batches = Batches("mmt, windows", metrics)

    @torch.inference_mode()
    def judge(self, windows: Sequence[MmtWindow]) -> list[_Opinion]:
        """One for each; each has something.

        Raises:
            ScorerError: there is not memory enough for one window.
        """
        if not windows:
            return []
        likely, there, without = (
            part.cpu().numpy()
            for part in self._batches.run(lambda rows: self._say(windows[rows]), len(windows))
        )
        return [
            _Opinion(
                row,
                frozenset(
                    name for name, is_there in zip(self._modalities, has, strict=True) if is_there
                ),
                dict(zip(self._modalities, rest, strict=True)),
            )
            for row, has, rest in zip(likely, there, without, strict=True)
        ]

    def _say(self, windows: Sequence[MmtWindow]) -> tuple[Tensor, Tensor, Tensor]:
        """Of b windows: [b, n_labels], [b, m] bool, [b, m, n_labels]; see `_Opinion`."""
        tokens = self._model.encode(self._inputs(windows).to(self._device))
        there = torch.stack([tokens[name].some for name in self._modalities], dim=1)
        likely = self._likely(tokens)
        without = likely[:, None].repeat(1, len(self._modalities), 1)
        scores = likely.cpu().numpy()
        near = [
            any(_score_of(p, at) >= _NEAR for p, at in zip(row, self._thresholds, strict=True))
            for row in scores.tolist()
        ]
        asked = torch.tensor(near, device=self._device) & (there.sum(dim=1) > 1)
        for nth, name in enumerate(self._modalities):
            rows = torch.nonzero(asked & there[:, nth]).flatten()
            if len(rows):
                rest = {other: _some(tokens[other], rows) for other in tokens if other != name}
                without[rows, nth] = self._likely(rest)
        return likely, there, without

    def _likely(self, tokens: Mapping[Modality, Tokens]) -> Tensor:
        """[b, n_labels] in 0..1."""
        logits = self._model.decide(tokens).logits
        by_task = {
            task: logits[task].float().softmax(dim=1)
            if head.kind == "one"
            else logits[task].float().sigmoid()
            for task, head in self._model.settings.heads.items()
        }
        return torch.stack([by_task[one.task][:, one.place] for one in self._columns], dim=1)

    def _inputs(self, windows: Sequence[MmtWindow]) -> Inputs:
        frames, frames_present = None, None
        if self._feature is not None:
            sounds, heard = [one.samples for one in windows], [one.heard for one in windows]
            frames, frames_present = sound_of(sounds, heard, self._feature)
        images, images_present, at_secs = sight_of(
            [one.pictures for one in windows], [one.at_secs for one in windows]
        )
        texts, words = [window.text for window in windows], None
        if self._pieces is not None and self._model.settings.text is not None and any(texts):
            words = self._pieces.encode(texts, n_longest=self._model.settings.text.n_longest)
        return Inputs(
            frames=frames,
            frames_present=frames_present,
            images=images,
            images_present=images_present,
            images_at_secs=at_secs,
            words=words,
        )


def _some(tokens: Tokens, rows: Tensor) -> Tokens:
    """Those of some windows."""
    return Tokens(tokens.values[rows], tokens.present[rows], tokens.at_secs[rows])


def _score_of(likely: float, threshold: float) -> float:
    """sigmoid(logit(likely) - logit(threshold)), for 0 and 1 too."""
    yes, no = likely * (1 - threshold), (1 - likely) * threshold
    return yes / (yes + no)


def _pieces(folder: Path, model: MmtSettings) -> "WordPieces | PretrainedPieces | None":
    """What the words of windows are read with; None: the model does not read."""
    if model.text is None:
        return None
    if isinstance(model.text, PretrainedText):
        from mmstream.models.pretrained_text import PretrainedPieces  # noqa: PLC0415 - slow

        return PretrainedPieces(model.text)
    path = folder / _VOCABULARY
    try:
        found = WordPieces.from_json(read_bytes(path).decode())
    except UnicodeDecodeError:
        msg = f"{path}: not a text in UTF-8"
        raise ScorerError(msg) from None
    if found.n_words > model.text.n_words:
        msg = f"{path}: has {found.n_words} pieces, the model knows {model.text.n_words}"
        raise ScorerError(msg)
    return found
