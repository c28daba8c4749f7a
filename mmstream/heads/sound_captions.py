"""What is heard -> captions in brackets, as subtitles for the deaf and hard of hearing have them.

A final at once when an event with sound starts; the same sound is not told again until it has been
over for `repeat_secs`, however often it comes back in between.
"""

from collections.abc import Sequence
from typing import Final

from mmstream.errors import StateError
from mmstream.heads.caption_draft import Draft, caption_id
from mmstream.heads.caption_settings import SoundCaptions
from mmstream.heads.events import HeadItem
from mmstream.media import NS_PER_SEC, SourceStarted, Span
from mmstream.messages import Decided, Event, utc_ns

_TEXTS: Final = {
    "air_conditioner": "air conditioner humming",
    "baby_cry": "baby crying",
    "car_engine": "engine running",
    "car_horn": "car horn",
    "cat": "cat meowing",
    "chirping_birds": "birds chirping",
    "clapping": "applause",
    "clock_tick": "clock ticking",
    "coughing": "coughing",
    "cow": "cow mooing",
    "crackling_fire": "fire crackling",
    "crow": "crow cawing",
    "crying_baby": "baby crying",
    "dog": "dog barking",
    "dog_bark": "dog barking",
    "door_knock": "knocking at the door",
    "doorbell": "doorbell",
    "engine": "engine running",
    "engine_idling": "engine idling",
    "fire_crackling": "fire crackling",
    "footsteps": "footsteps",
    "glass": "glass breaking",
    "glass_breaking": "glass breaking",
    "gun_shot": "gunshot",
    "hen": "hen clucking",
    "impact": "thud",
    "keyboard_typing": "typing",
    "knock": "knocking",
    "laughing": "laughter",
    "mouse_click": "mouse clicking",
    "person_sneeze": "sneeze",
    "pig": "pig grunting",
    "rooster": "rooster crowing",
    "sheep": "sheep bleating",
    "sneezing": "sneeze",
    "thunderstorm": "thunder",
    "vacuum_cleaner": "vacuum cleaner running",
    "washing_machine": "washing machine running",
}
"""What is said of labels (ours, of ESC-50, UrbanSound8K and AudioSet) but their own words."""


def sound_text(label: str, settings: SoundCaptions) -> str | None:
    """What is said of a label, in brackets; None: nothing."""
    if label in settings.texts:
        return f"[{settings.texts[label]}]"
    if label in settings.left_out:
        return None
    level = "_".join(label.lower().replace("-", "_").split())
    return f"[{_TEXTS.get(level, level.replace('_', ' '))}]"


class SoundCaptionPart:
    """Captions of what is heard at one source (`CaptionPart`)."""

    def __init__(self, settings: SoundCaptions, *, node: str, source: str) -> None:
        """Nothing has been heard."""
        self._settings = settings
        self._node = node
        self._source = source
        self._utc_offset_ns: int | None = None
        self._open: dict[str, set[str]] = {}
        """Ids of open events by text."""
        self._last_utc_ns: dict[str, int] = {}
        """When each text was last heard."""

    def push(self, item: HeadItem, events: Sequence[Decided]) -> Sequence[Decided]:
        """Give a caption for each sound that starts.

        Raises:
            StateError: events came before `SourceStarted`.
        """
        if isinstance(item, SourceStarted):
            self._utc_offset_ns = item.utc_offset_ns
            self._open, self._last_utc_ns = {}, {}
            return []
        return [
            said
            for one in events
            if isinstance(one.content, Event) and one.content.kind != "video"
            for said in self._hear(one.content, one.at_ns)
        ]

    def flush(self) -> Sequence[Decided]:
        """Nothing is left to say."""
        return []

    def _hear(self, event: Event, at_ns: int) -> list[Decided]:
        text = sound_text(event.label, self._settings)
        if text is None:
            return []
        still = self._open.setdefault(text, set())
        if event.ts_end is not None:
            still.discard(event.id)
            self._last_utc_ns[text] = utc_ns(event.ts_end)
        if event.type != "start":
            return []
        is_known = bool(still) or self._is_repeated(text, utc_ns(event.ts_start))
        still.add(event.id)
        return [] if is_known else [self._caption(text, event, at_ns)]

    def _is_repeated(self, text: str, start_utc_ns: int) -> bool:
        last_ns = self._last_utc_ns.get(text)
        if last_ns is None:
            return False
        return start_utc_ns - last_ns < self._settings.repeat_secs * NS_PER_SEC

    def _caption(self, text: str, event: Event, at_ns: int) -> Decided:
        offset_ns = self._utc_offset_ns
        if offset_ns is None:
            msg = f"events of {self._source} came before SourceStarted"
            raise StateError(msg)
        start_utc_ns = utc_ns(event.ts_start)
        start_ns = min(start_utc_ns - offset_ns, at_ns)
        draft = Draft(
            id=caption_id(self._node, self._source, "sound", start_utc_ns, what=event.id),
            kind="sound",
            text=text,
            span=Span(start_ns, at_ns),
            confidence=event.score,
        )
        return draft.decided(source=self._source, at_ns=at_ns, utc_offset_ns=offset_ns)
