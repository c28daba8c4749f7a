r"""Motion: something in the picture changes its place, whatever the light does.

Luma, at most 320x180 and ten times a second, is normalised by its local contrast, so that neither
clouds nor exposure nor a night mode change it much, and judged against a `Background`, which also
undoes what a camera shakes.

What stops is motion for `_STILL_SECS` more, and so is the ghost of something that was there from
the start and leaves: then it is background. The score is a / (a + min_area), where a is the largest
patch of foreground as a fraction of the picture: 0.5 at `min_area`.

A picture that is another one as a whole (a cut, a camera turned far) is not motion: it scores 0 and
everything is learnt anew, which takes a second; nothing is scored meanwhile, nor at the start. So
is someone who fills half of what a shaking camera sees: its shift is not found then. A lamp that
lights up a corner is motion until it has become background: it is a local change.

Between samples pictures are only kept. When the score passes 0.5 they are scored as well, so
starts and ends are right to the frame.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

from pydantic import Field

from mmstream.config import Settings
from mmstream.detectors.background import Habits, Mask
from mmstream.detectors.foreground import DECISION, Cadence, Look, View, Watch, judge, told
from mmstream.detectors.masks import Masks, MasksBySource, Polygon
from mmstream.media import Hop, Label, Scores, VideoFrame
from mmstream.stages import Load

MOTION: Final = Label("motion", "video", "motion")

_MAX_SKIPPED: Final = 16
"""Pictures kept between two samples: 16 is 160 per second."""

_VIEW: Final = View(max_width=320, max_height=180, window=31)
_STILL_SECS: Final = 1.5
_HABITS: Final = Habits(_STILL_SECS, _STILL_SECS, guard=0)


class MotionSettings(Settings):
    """How closely to look; the spec of `MotionScorer` (`ScorerSpec`)."""

    max_fps: float = Field(10.0, gt=0, le=60)
    """Pictures looked at per second."""
    min_area: float = Field(0.003, gt=0, lt=1)
    """What covers this fraction of the picture scores 0.5."""
    masks: Masks = Field(default_factory=MasksBySource)
    """What to ignore: by source, polygons of [x, y] as fractions of the picture."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """`motion`."""
        return (MOTION,)

    def build(self, device: str) -> "MotionScorer":  # noqa: ARG002 - always on the CPU
        """Make it."""
        return MotionScorer(self)


class MotionScorer:
    """Scores `motion` at each picture it looks at, with the places (`Scorer`).

    `Load.STRETCHED` changes nothing: this costs about 1 % of a core. Under `Load.INGEST` only the
    background is kept up.
    """

    def __init__(self, settings: MotionSettings) -> None:
        """Nothing has been seen."""
        self._settings = settings
        self._lookouts: dict[str, _Lookout] = {}

    def score(
        self,
        hops: Sequence[Hop],
        so_far: Sequence[Scores],  # noqa: ARG002 - rests on no other scorer
        load: Load,
    ) -> Sequence[Scores]:
        """[t] scores at frame instants, rising within a source; the first may lie before the hop.

        No output: no picture was due, or the background is being learnt.
        """
        return [self._score(hop, load) for hop in hops]

    def forget(self, source: str) -> None:
        """Learn the source's background anew."""
        self._lookouts.pop(source, None)

    def _score(self, hop: Hop, load: Load) -> Scores:
        lookout = self._lookouts.get(hop.source)
        if lookout is None:
            masks = self._settings.masks.get(hop.source, ())
            lookout = self._lookouts[hop.source] = _Lookout(self._settings, masks)
        looks = lookout.see(hop, scoring=load is not Load.INGEST)
        return told(hop, MOTION, looks)


class _Lookout:
    """One source: which pictures to look at, and what against."""

    def __init__(self, settings: MotionSettings, masks: tuple[Polygon, ...]) -> None:
        self._min_area = settings.min_area
        self._masks = masks
        self._cadence = Cadence(settings.max_fps)
        self._watch = Watch(_HABITS, masks)
        self._skipped: deque[VideoFrame] = deque(maxlen=_MAX_SKIPPED)
        self._seen_ns: int | None = None
        self._moving = False

    def see(self, hop: Hop, *, scoring: bool) -> list[Look]:
        """Look at the pictures of a hop that are due."""
        if hop.gap_before:
            self._skipped.clear()
            self._moving = False
        looks = []
        for frame in hop.frames:
            if frame.start_ns == self._seen_ns:
                continue  # told once
            self._seen_ns = frame.start_ns
            if not self._cadence.is_due(frame.start_ns):
                self._skipped.append(frame)
                continue
            looks += self._sample(frame, scoring=scoring)
            self._skipped.clear()
        return looks

    def _sample(self, frame: VideoFrame, *, scoring: bool) -> list[Look]:
        picture = self._watch.see(frame.start_ns, _VIEW.contrast(frame, self._masks))
        if picture is None or picture.is_another or not scoring:
            self._moving = False
            is_cut = picture is not None and scoring
            return [Look(frame.start_ns, 0.0)] if is_cut else []
        look = self._look(frame.start_ns, self._watch.foreground(picture))
        was_moving, self._moving = self._moving, look.score >= DECISION
        return [look] if was_moving == self._moving else [*self._between(), look]

    def _between(self) -> list[Look]:
        """What was skipped since the sample before."""
        looks = []
        for frame in self._skipped:
            mask = self._watch.glance(frame.start_ns, _VIEW.contrast(frame, self._masks))
            if mask is not None:
                looks.append(self._look(frame.start_ns, mask))
        return looks

    def _look(self, at_ns: int, foreground: Mask) -> Look:
        return judge(at_ns, foreground, min_area=self._min_area, halved=True)
