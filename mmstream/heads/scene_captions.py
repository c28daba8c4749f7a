"""What is seen -> a short true sentence when it changes; a captioner's sentences where one looks.

Detectors' words are few, so the sentences are, too (`mmstream.heads.scene_state`). As soon as a
captioner has said something of the source, only a blocked camera is told of besides; what it makes
of a blocked one is not told.
"""

from collections.abc import Sequence

from mmstream.errors import StateError
from mmstream.heads.caption_draft import Draft, caption_id
from mmstream.heads.caption_settings import SceneCaptions
from mmstream.heads.events import HeadItem
from mmstream.heads.scene_state import BLOCKED, SceneState, Sentence
from mmstream.media import (
    Description,
    Scores,
    SourceEnded,
    SourceStalled,
    SourceStarted,
    Span,
    secs_to_ns,
)
from mmstream.messages import Decided, Event


class SceneCaptionPart:
    """Captions of what is seen at one source (`CaptionPart`)."""

    def __init__(self, settings: SceneCaptions, *, node: str, source: str) -> None:
        """Nothing has been seen."""
        self._settings = settings
        self._node = node
        self._source = source
        self._utc_offset_ns: int | None = None
        self._state = SceneState(settings)
        self._said_ns: int | None = None
        self._described: str | None = None
        """What a captioner said last; empty: that is no longer what is shown."""

    def push(self, item: HeadItem, events: Sequence[Decided]) -> Sequence[Decided]:
        """Take what is seen; give the sentence that follows, if any.

        Raises:
            StateError: scores came before `SourceStarted`.
        """
        if isinstance(item, SourceStarted):
            self._utc_offset_ns = item.utc_offset_ns
        if isinstance(item, SourceStarted | SourceStalled | SourceEnded):
            self._state = SceneState(self._settings)
            self._said_ns = self._described = None
            return []
        for one in events:
            if isinstance(one.content, Event):
                self._state.take(one.content)
        if not isinstance(item, Scores):
            return []
        told = [said for one in item.descriptions for said in self._describe(one)]
        return told + self._look(item.span.end_ns)

    def flush(self) -> Sequence[Decided]:
        """Nothing is left to say."""
        return []

    def _look(self, now_ns: int) -> list[Decided]:
        self._state.look(now_ns)
        every_ns = secs_to_ns(self._settings.every_secs)
        if self._said_ns is not None and now_ns - self._said_ns < every_ns:
            return []
        said = self._state.sentence(now_ns)
        if said is None or (self._described is not None and said.text != BLOCKED):
            return []
        self._said_ns = now_ns
        if self._described is not None:
            self._described = ""
        return [self._caption(said, now_ns)]

    def _describe(self, one: Description) -> list[Decided]:
        text = " ".join(one.text.split())
        if not text or text == self._described or self._state.is_blocked:
            return []
        self._described = text
        return [self._caption(Sentence(text, one.at_ns, 0.0), one.at_ns, by=one.detector)]

    def _caption(self, said: Sentence, at_ns: int, *, by: str = "") -> Decided:
        offset_ns = self._utc_offset_ns
        if offset_ns is None:
            msg = f"scores of {self._source} came before SourceStarted"
            raise StateError(msg)
        draft = Draft(
            id=caption_id(self._node, self._source, "scene", offset_ns + at_ns, what=by),
            kind="scene",
            text=said.text,
            span=Span(min(said.since_ns, at_ns), at_ns),
            confidence=said.confidence,
        )
        return draft.decided(source=self._source, at_ns=at_ns, utc_offset_ns=offset_ns)
