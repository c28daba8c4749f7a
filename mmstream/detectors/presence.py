r"""Presence: something came in and is still there, whatever it is and however still it keeps.

As `motion` it judges a picture's local contrast, at most 160x90 and five times a second, against
a background that is learnt only where nothing is in front of it: who sits down stays.

    motion    ___/~~~\______________/~~~\___
    presence  ___/~~~~~~~~~~~~~~~~~~~~~~\___
                 comes, sits        goes

What is left for good must become background some day. What keeps still as a whole, 90 % of its
pixels, is absorbed after as long as what was there before it had been seen, but no sooner than
`_LEAST_SECS` (who stands and waits is no furniture) and no later than `absorb_secs`. So is the
ghost of something that was there from the start and leaves. Who moves a hand begins anew.

The score is a / (a + min_area), where a is the largest patch of foreground as a fraction of the
picture: 0.5 at `min_area`. Nothing is scored for the second in which a background is learnt, and
0 at a picture that is another one as a whole. What fills nearly all of the picture at once (a
hand, a face before a webcam) is taken for another picture.
"""

from collections.abc import Sequence
from typing import Final

from pydantic import Field

from mmstream.config import Settings
from mmstream.detectors.background import Habits
from mmstream.detectors.foreground import Cadence, Look, View, Watch, judge, told
from mmstream.detectors.masks import Masks, MasksBySource, Polygon
from mmstream.media import Hop, Label, Scores, VideoFrame
from mmstream.stages import Load

PRESENCE: Final = Label("presence", "video", "presence")

_VIEW: Final = View(max_width=160, max_height=90, window=15)
_LEAST_SECS: Final = 60.0


class PresenceSettings(Settings):
    """How closely to look; the spec of `PresenceScorer` (`ScorerSpec`)."""

    max_fps: float = Field(5.0, gt=0, le=60)
    """Pictures looked at per second; fewer than 2 leave gaps between the scores."""
    min_area: float = Field(0.003, gt=0, lt=1)
    """What covers this fraction of the picture scores 0.5."""
    absorb_secs: float = Field(300.0, ge=_LEAST_SECS, le=86_400)
    """What has not changed for so long is background in any case."""
    masks: Masks = Field(default_factory=MasksBySource)
    """What to ignore: by source, polygons of [x, y] as fractions of the picture."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """`presence`."""
        return (PRESENCE,)

    def build(self, device: str) -> "PresenceScorer":  # noqa: ARG002 - always on the CPU
        """Make it."""
        return PresenceScorer(self)


class PresenceScorer:
    """Scores `presence` at each picture it looks at, with the places (`Scorer`).

    `Load.STRETCHED` changes nothing: this costs half a percent of a core. Under `Load.INGEST`
    only the background is kept up.
    """

    def __init__(self, settings: PresenceSettings) -> None:
        """Nothing has been seen."""
        self._settings = settings
        self._lookouts: dict[str, _Lookout] = {}

    def score(
        self,
        hops: Sequence[Hop],
        so_far: Sequence[Scores],  # noqa: ARG002 - rests on no other scorer
        load: Load,
    ) -> Sequence[Scores]:
        """[t] scores at frame instants; no output: no picture was due, or it is still learning."""
        return [self._score(hop, load) for hop in hops]

    def forget(self, source: str) -> None:
        """Learn the source's background anew."""
        self._lookouts.pop(source, None)

    def _score(self, hop: Hop, load: Load) -> Scores:
        lookout = self._lookouts.get(hop.source)
        if lookout is None:
            masks = self._settings.masks.get(hop.source, ())
            lookout = self._lookouts[hop.source] = _Lookout(self._settings, masks)
        looks = lookout.see(hop)
        return told(hop, PRESENCE, [] if load is Load.INGEST else looks)


class _Lookout:
    """One source: which pictures to look at, and what against."""

    def __init__(self, settings: PresenceSettings, masks: tuple[Polygon, ...]) -> None:
        self._min_area = settings.min_area
        self._masks = masks
        self._cadence = Cadence(settings.max_fps)
        self._watch = Watch(Habits(_LEAST_SECS, settings.absorb_secs, guard=_VIEW.window), masks)

    def see(self, hop: Hop) -> list[Look]:
        """Look at the pictures of a hop that are due."""
        due = [frame for frame in hop.frames if self._cadence.is_due(frame.start_ns)]
        looks = [self._look(frame) for frame in due]
        return [look for look in looks if look is not None]

    def _look(self, frame: VideoFrame) -> Look | None:
        picture = self._watch.see(frame.start_ns, _VIEW.contrast(frame, self._masks))
        if picture is None:
            return None
        foreground = self._watch.foreground(picture)
        return judge(frame.start_ns, foreground, min_area=self._min_area, halved=False)
