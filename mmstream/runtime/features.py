"""What can be set of a source while it runs: its name, what it takes, what follows from it. Pure.

    enabled              ON, OFF     the source is open, or closed
    video audio          ON, OFF     the stream is used; OFF: nothing of it is scored, and labels
                                     that need it are silent
    <label>              ON, OFF     the label is told; OFF: it is silent
    <label>_threshold    0.05 .. 1   the score from which on it counts for a start; a configuration
                                     that says less sets the least

A label that is silenced is scored all the same: others may rest on it.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol

import numpy as np
from pydantic import JsonValue

from mmstream.errors import CommandError
from mmstream.heads.events import Tuning
from mmstream.heads.lifecycle import LabelSettings
from mmstream.media import Hop, Label, StreamKind
from mmstream.messages import RESERVED_FEATURES, Features, FeatureState, slug
from mmstream.store.overrides import Acknowledgement, Override

ENABLED: Final = "enabled"
STREAMS: Final[tuple[StreamKind, ...]] = ("video", "audio")
THRESHOLD: Final = "_threshold"
MIN_THRESHOLD: Final = 0.05
MAX_THRESHOLD: Final = 1.0
SWITCH: Final = ("ON", "OFF")

Value = bool | float


class Keeper(Protocol):
    """Keeps what people have set and seen over restarts; `sinks.ledger.Ledger` is one."""

    async def keep(self, override: Override) -> None:
        """Write it down; on disk when it returns.

        Raises:
            StoreError: it could not be written.
        """
        ...

    async def forget(self, source: str, feature: str | None) -> None:
        """Forget what was set of a feature, or of all of a source's.

        Raises:
            StoreError: it could not be written.
        """
        ...

    async def acknowledge(self, event_id: str, by: str) -> Acknowledgement | None:
        """Note that somebody has seen an event; the first time counts. None: no such event.

        Raises:
            StoreError: it could not be written.
        """
        ...


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """The features of one source and how they are set."""

    labels: tuple[Label, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """`LabelSettings.on` by label, as the configuration says."""
    values: Mapping[str, Value] = field(default_factory=dict)
    """By feature, what was set; the rest is as the configuration says."""
    defaults: Mapping[str, Value] = field(init=False, repr=False, compare=False)
    """All features in order, as the configuration says; of two with one name the first."""

    def __post_init__(self) -> None:
        """Names are made once: each value, message and look asks for them."""
        object.__setattr__(self, "defaults", self._as_configured())

    def _as_configured(self) -> Mapping[str, Value]:
        found: dict[str, Value] = dict.fromkeys((ENABLED, *STREAMS), True)
        for label in self.labels:
            found.setdefault(slug(label.name), True)
        for label in self.labels:
            found.setdefault(slug(label.name) + THRESHOLD, self.thresholds[label.name])
        return {name: value for name, value in found.items() if name not in RESERVED_FEATURES}

    @property
    def is_enabled(self) -> bool:
        """Whether the source is to be open."""
        return self._is_on(ENABLED)

    @property
    def ignored(self) -> frozenset[StreamKind]:
        """Streams that are not used."""
        return frozenset(stream for stream in STREAMS if not self._is_on(stream))

    def understood(self, feature: str, said: JsonValue) -> Value | None:
        """The value that is asked for; None: back to what the configuration says.

        Raises:
            CommandError: there is no such feature, or it does not take that; says what is allowed.
        """
        defaults = self.defaults
        if feature not in defaults:
            msg = f"no feature {shown(feature)}; there are: {', '.join(defaults)}"
            raise CommandError(msg)
        text = said.strip() if isinstance(said, str) else said
        if text is None or text == "":
            return None
        least = self._least(feature)
        value = _switch(text) if least is None else _threshold(text, least)
        if value is None:
            msg = f"{feature} cannot be {shown(said)}; allowed: {self._allowed(feature)}"
            raise CommandError(msg)
        return value

    def with_value(self, feature: str, value: Value | None) -> "FeatureSet":
        """The same with a feature set, or back to what the configuration says."""
        values = {name: old for name, old in self.values.items() if name != feature}
        if value is not None:
            values[feature] = value
        return replace(self, values=values)

    def with_labels(self, labels: Sequence[Label]) -> "FeatureSet":
        """The same with labels that came up while it ran; itself, where it has them all."""
        known = {label.name for label in self.labels}
        fresh = tuple(label for label in labels if label.name not in known)
        if not fresh:
            return self
        more = features_of(fresh, {})
        return replace(
            self,
            labels=(*self.labels, *fresh),
            thresholds={**self.thresholds, **more.thresholds},
        )

    def with_overrides(self, overrides: Sequence[Override]) -> "FeatureSet":
        """The same, set as before; what it has no more is passed over.

        Of a detector that is off now something may be kept for when it is on again.
        """
        features = self
        for one in overrides:
            with suppress(CommandError):
                features = features.with_value(one.feature, self.understood(one.feature, one.value))
        return features

    def text(self, feature: str) -> str:
        """How a feature is set, as its topic has it."""
        return self._state(feature, self.defaults[feature]).text()

    def tuning(self, source: str) -> Tuning:
        """What follows for the head."""
        told = self.defaults.keys()
        thresholds: dict[str, float] = {}
        silent: set[str] = set()
        for label in self.labels:
            level = slug(label.name)
            if self._needs(label) & self.ignored or (level in told and not self._is_on(level)):
                silent.add(label.name)
            on = self.values.get(level + THRESHOLD)
            if on is not None and not isinstance(on, bool):  # a label may be called so
                thresholds[label.name] = on
        return Tuning(source, frozenset(silent), thresholds)

    def message(self, source: str) -> Features:
        """What is said of them."""
        states = tuple(self._state(name, default) for name, default in self.defaults.items())
        return Features(source=source, features=states)

    def _state(self, name: str, default: Value) -> FeatureState:
        least = self._least(name)
        return FeatureState(
            name=name,
            value=value_text(self._value(name)),
            default=value_text(default),
            is_set=name in self.values,
            min=least,
            max=None if least is None else MAX_THRESHOLD,
        )

    def _allowed(self, feature: str) -> str:
        least = self._least(feature)
        what = "ON, OFF" if least is None else f"{least:g} to {MAX_THRESHOLD:g}"
        return f"{what}, or nothing for what the configuration says"

    def _least(self, feature: str) -> float | None:
        """The least that a threshold may be; the configuration may say less. None: a switch."""
        default = self.defaults[feature]
        return None if isinstance(default, bool) else min(MIN_THRESHOLD, default)

    def _value(self, feature: str) -> Value:
        return self.values.get(feature, self.defaults[feature])

    def _is_on(self, feature: str) -> bool:
        return bool(self._value(feature))

    @staticmethod
    def _needs(label: Label) -> frozenset[str]:
        return frozenset(STREAMS) if label.modality == "av" else frozenset({label.modality})


def features_of(labels: Sequence[Label], settings: Mapping[str, LabelSettings]) -> FeatureSet:
    """As the configuration says; a label without settings of its own has the defaults."""
    thresholds = {label.name: settings.get(label.name, LabelSettings()).on for label in labels}
    return FeatureSet(tuple(labels), thresholds)


class Filter:
    """Takes out of hops what is not to be used."""

    def __init__(self) -> None:
        """All is used."""
        self.ignored: frozenset[StreamKind] = frozenset()
        self._ignored_before: frozenset[StreamKind] = frozenset()

    def pass_on(self, hops: Sequence[Hop]) -> Sequence[Hop]:
        """The hops without what is ignored; the first that has more than before follows a gap."""
        return [self._filtered(hop) for hop in hops]

    def _filtered(self, hop: Hop) -> Hop:
        if self._ignored_before - self.ignored:
            hop = replace(hop, gap_before=True)
        self._ignored_before = self.ignored
        if "video" in self.ignored and hop.frames:
            hop = replace(hop, frames=())
        if "audio" in self.ignored and hop.samples.size:
            nothing, unheard = np.zeros_like(hop.samples), np.zeros_like(hop.heard)
            hop = replace(hop, samples=nothing, heard=unheard)
        return hop


def value_text(value: Value) -> Literal["ON", "OFF"] | float:
    """A value as messages have it."""
    if isinstance(value, bool):
        return "ON" if value else "OFF"
    return value


def _switch(said: JsonValue) -> bool | None:
    if isinstance(said, bool):
        return said
    if isinstance(said, str) and said.upper() in SWITCH:
        return said.upper() == "ON"
    return None


def shown(said: JsonValue) -> str:
    """What somebody has said, in one short line: for errors and logs."""
    text = repr(said)
    return text if len(text) <= 40 else f"{text[:40]}..."  # noqa: PLR2004 - enough to know it by


def _threshold(said: JsonValue, least: float) -> float | None:
    if isinstance(said, bool) or not isinstance(said, str | int | float):
        return None
    try:
        value = float(said)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(value) or not least <= value <= MAX_THRESHOLD:
        return None
    return max(least, round(value, 4))
