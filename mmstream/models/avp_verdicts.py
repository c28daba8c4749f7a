r"""Windows -> scores of labels, and what each sense had in them.

p         how likely the event is, from sound and sight together
score     sigmoid(logit(p) - logit(threshold)): 0.5 is the point of decision
`Fused`   the share of p that is gone without that sense, 0..1: each is left out once more, where
          there are both; of what was taught, its half of the gist. Of a sense that is not there
          it is 0, and 1 of the other. `unusual` has
          none where there are both: no window without one of them was ever normal
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from mmstream.media import Floats, Fused, Label, Modality
from mmstream.metrics import StageMetrics
from mmstream.models.avp import Avp
from mmstream.models.avp_learned import Learned
from mmstream.models.avp_moments import gists, moments, only
from mmstream.models.avp_windows import Fuser, Window

_USUAL_THRESHOLD: Final = 0.5
_CERTAIN: Final = 60.0
"""Logits beyond are as good as it: e to the power of much more is no number."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A window and whose it is."""

    source: str
    window: Window


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What is said of a window."""

    scores: Mapping[str, float]
    """By label, 0..1."""
    fused: Mapping[str, Fused]
    """By label; not of `unusual`, where there are sound and sight."""
    embedding: Floats
    """[d], of length 1."""
    moment: Floats | None
    """[2d], of length 1; None: the window is not whole, and nobody knows whether it is unusual."""
    gist: Floats
    """[4d], each half of length 1, or 0."""
    learned: tuple[Label, ...]
    """Those of the labels that are no events of the model."""


class Judge:
    """Says what windows hold: events that the model knows, and what it was taught."""

    def __init__(
        self, model: Avp, told: Sequence[str], learned: Learned, metrics: StageMetrics
    ) -> None:
        """`told` are events of the model; what was taught under such a name takes its place."""
        settings = model.settings
        self._fuser = Fuser(model, metrics)
        self._learned = learned
        self._columns = [settings.events.labels.index(name) for name in told]
        self._thresholds = {name: settings.thresholds.get(name, _USUAL_THRESHOLD) for name in told}

    def judge(self, views: Sequence[View]) -> list[Verdict]:
        """One for each; each window has some token.

        Raises:
            ScorerError: there is not memory enough for one window.
        """
        self._learned.refresh()
        if not views:
            return []
        every = gists([view.window for view in views])
        both = [n for n, view in enumerate(views) if view.window.is_both]
        rest, some = [views[n] for n in both], every[both]
        by_ear = self._opinions(rest, only(some, "audio"), ("audio",))
        by_eye = self._opinions(rest, only(some, "video"), ("video",))
        heard, seen = (dict(zip(both, one, strict=True)) for one in (by_ear, by_eye))
        wholes = self._opinions(views, every, ("audio", "video"))
        verdicts = []
        for n, (view, whole, moment) in enumerate(
            zip(views, wholes, _moments(views, wholes), strict=True)
        ):
            unusual: Mapping[str, float] = {}
            if moment is not None:
                unusual = self._learned.unusual(view.source, moment)
            if n in heard:  # of `unusual` nobody can say: a window without a sense is unusual
                fused = _shares(whole.strengths, heard[n].strengths, seen[n].strengths)
            else:
                alone = Fused(float(view.window.has("audio")), float(view.window.has("video")))
                fused = dict.fromkeys((*whole.strengths, *unusual), alone)
            learned = tuple(self._learned.label(name) for name in (*whole.learned, *unusual))
            scores = {**self._decided(whole), **unusual}
            verdicts.append(Verdict(scores, fused, whole.embedding, moment, every[n], learned))
        return verdicts

    def _opinions(
        self, views: Sequence[View], of_gists: Floats, modalities: Sequence[Modality]
    ) -> list["_Opinion"]:
        """What is said if there is nothing else than `modalities`, and gists [n, 4d] are these."""
        if not views:
            return []
        said = self._fuser.say([view.window for view in views], modalities)
        likely = _sigmoid(said.logits[:, self._columns]).tolist()
        return [
            _Opinion(
                dict(zip(self._thresholds, row, strict=True)),
                self._learned.scores(gist),
                embedding,
            )
            for row, gist, embedding in zip(likely, of_gists, said.embedding, strict=True)
        ]

    def _decided(self, opinion: "_Opinion") -> Mapping[str, float]:
        events = opinion.events.items()
        scores = {name: score_of(likely, self._thresholds[name]) for name, likely in events}
        return {**scores, **opinion.learned}


@dataclass(frozen=True, slots=True, eq=False)
class _Opinion:
    """What is said of one window, by some senses."""

    events: Mapping[str, float]
    """How likely each is."""
    learned: Mapping[str, float]
    """The scores of what was taught."""
    embedding: Floats
    """[d], of length 1."""

    @property
    def strengths(self) -> Mapping[str, float]:
        """Of all labels, 0..1."""
        return {**self.events, **self.learned}


def _moments(views: Sequence[View], opinions: Sequence["_Opinion"]) -> list[Floats | None]:
    """Of each window that is whole."""
    rows = [n for n, view in enumerate(views) if view.window.is_whole]
    found: list[Floats | None] = [None for _ in views]
    if rows:
        embeddings = [opinions[n].embedding for n in rows]
        for n, one in zip(rows, moments([views[n].window for n in rows], embeddings), strict=True):
            found[n] = one
    return found


def _shares(
    whole: Mapping[str, float], heard: Mapping[str, float], seen: Mapping[str, float]
) -> Mapping[str, Fused]:
    """What each sense has in `whole`, by what is said of sound alone and of sight alone."""
    return {
        name: Fused(audio=_gone(strength, seen[name]), video=_gone(strength, heard[name]))
        for name, strength in whole.items()
    }


def _gone(whole: float, rest: float) -> float:
    """Which share of `whole` is not in `rest`."""
    return max(0.0, 1 - rest / whole) if whole > 0 else 0.0


def score_of(likely: float, threshold: float) -> float:
    """sigmoid(logit(likely) - logit(threshold)), for 0 and 1 too."""
    yes, no = likely * (1 - threshold), (1 - likely) * threshold
    return yes / (yes + no)


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logits.clip(-_CERTAIN, _CERTAIN))), np.float32)
