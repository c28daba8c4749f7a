"""Scores -> events and captions: what is said, heard and seen at one source, in words.

item --+--> EventHead --> events --+--> events, then captions
       +---------------------------+--> speech, sound, scene
"""

from collections.abc import Sequence

from mmstream.heads.caption_draft import CaptionPart
from mmstream.heads.events import EventHead, HeadItem
from mmstream.messages import Decided


class CaptioningHead:
    """Scores of one source in, its events and captions out (`Stage[HeadItem, Decided]`)."""

    def __init__(self, events: EventHead, parts: Sequence[CaptionPart]) -> None:
        """Around a head that tells the events; each part makes one kind of captions."""
        self._events = events
        self._parts = parts

    def push(self, item: HeadItem) -> Sequence[Decided]:
        """Take what the worker or the runtime says next; give what follows, events first.

        Raises:
            StateError: scores came before `SourceStarted`.
        """
        events = self._events.push(item)
        return [*events, *(said for part in self._parts for said in part.push(item, events))]

    def flush(self) -> Sequence[Decided]:
        """We are shutting down: end what is open."""
        events = self._events.flush()
        return [*events, *(said for part in self._parts for said in part.flush())]
