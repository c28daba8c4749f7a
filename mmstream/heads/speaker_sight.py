"""Whether whoever speaks is seen: what `person_speaking` said lately, asked of a span."""

from collections import deque
from typing import Final

from mmstream.media import NS_PER_SEC, Scores, Span

_SPEECH: Final = "speech"
_PERSON_SPEAKING: Final = "person_speaking"
_OFF_SCREEN: Final = "off screen"
"""How the notes begin that tell so (`mmstream.detectors.speaking`)."""
_DECISION: Final = 0.5
_KEPT_NS: Final = 60 * NS_PER_SEC


class SpeakerSight:
    """The instants of one source at which the speaker was seen, and was known not to be."""

    def __init__(self) -> None:
        """Nobody has looked."""
        self._seen_ns: deque[int] = deque()
        self._unseen_ns: deque[int] = deque()

    def take(self, scores: Scores) -> None:
        """What was found in a hop; some of it may be of the second before."""
        series = scores.outputs.get(_PERSON_SPEAKING)
        if series is not None:
            self._seen_ns.extend(series.at_ns[series.values >= _DECISION].tolist())
        self._unseen_ns.extend(
            one.at_ns
            for one in scores.detections
            if one.label == _SPEECH and (one.note or "").startswith(_OFF_SCREEN)
        )
        oldest_ns = scores.span.end_ns - _KEPT_NS
        for instants in (self._seen_ns, self._unseen_ns):
            while instants and instants[0] < oldest_ns:
                instants.popleft()

    def on_screen(self, span: Span) -> bool | None:
        """Which of both there was more of; None: nothing is known of it."""
        n_seen = sum(span.contains(at_ns) for at_ns in self._seen_ns)
        n_unseen = sum(span.contains(at_ns) for at_ns in self._unseen_ns)
        return n_seen >= n_unseen if n_seen or n_unseen else None
