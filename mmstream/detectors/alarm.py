r"""Alarm: a smoke or carbon monoxide alarm, known by its tone and its rhythm.

    smoke  (temporal-three: ISO 8201, NFPA 72)       ==  ==  ==          ==  ==  ==
           0.5 s on, 0.5 s off, three times, then 1.5 s off: once in 4 s
    CO     (temporal-four: NFPA 720, UL 2034)        =-=-=-=                   =-=-=-=
           0.1 s on, 0.1 s off, four times, then 5 s off: once in 5.8 s

Nearly all of them beep at one frequency near 3.1 kHz, those for people who do not hear high tones
at 520 Hz. Each band of three bins is compared with the bins around it, in dB: noise is near 0
however loud it is, a steady tone is far above. Then, in one band,

    group    its weakest beep is `_LEAST_DB`, and is `_CONTRAST_DB` over its strongest pause; the
             pauses are those between the beeps and what comes before and after them
    alarm    two groups of one rhythm that begin a cycle apart, +-10 %

The score is 0, and rises in both groups at once when the second is known: it goes back in time to
the first beep (the events head takes what is newer). That is 9 to 10 s after a smoke alarm begins,
8 to 9 s after a CO alarm does. Between groups it is 0: give the head `min_off_secs` of 10.

Steps and blocks are counted from capture time 0, so how the sound is cut into hops changes nothing.
Lost sound counts as silence: a group that lost a beep is not found, those around it are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmstream.config import Settings
from mmstream.errors import ScorerError
from mmstream.media import (
    Detection,
    Floats,
    Hop,
    Label,
    Scores,
    Series,
    ns_to_samples,
    samples_to_ns,
)
from mmstream.stages import Load

ALARM: Final = Label("alarm", "audio", "alarm")

_STEPS_PER_SEC: Final = 50
_STEPS_PER_BLOCK: Final = 25
_WINDOW_SECS: Final = 0.032
_LEAST_RATE_HZ: Final = 8000
_RANGES_HZ: Final = ((470.0, 570.0), (2750.0, 3750.0))
"""Where alarms beep."""
_NEAR, _FAR = 4, 10
"""The bins around a band are so many away, on both sides."""
_SILENCE: Final = 1e-11
"""Power below which a bin holds nothing; a tone of full scale has 1."""
_LEAST_DB: Final = 8.0
_CONTRAST_DB: Final = 6.0
_SLOPE_DB: Final = 3.0
_TEMPI: Final = (0.88, 0.92, 0.96, 1.0, 1.04, 1.08, 1.12)
_ON_PART: Final = (0.2, 0.8)
_OFF_PART: Final = (0.5, 0.9)
"""What is looked at of a beep and of a pause: the rest is left to echoes and to tempo."""
_CYCLE_DRIFT: Final = 0.1
_START_DRIFT: Final = 0.3
"""The start of a group is found this well, in lengths of a beep."""
_TEMPO_DRIFT: Final = 0.16
"""Two groups of an alarm last equally long, but for what noise makes of it."""
_NEXT_BANDS: Final = 3
"""Two groups of an alarm lie no further apart: a tone stands out in several bands."""
_SAME_BANDS: Final = 4
_SAME_STEPS: Final = 25
"""Groups that lie and begin no further apart are one: a tone shows in the bands beside its own."""
_MAX_LOST_SECS: Final = 10
_POINT_STEPS: Final = 10
"""A score for every so many steps of a group."""

_Steps = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Rhythm:
    """One kind of alarm."""

    name: str
    beep_secs: float
    """As long as a pause within a group."""
    n_beeps: int
    n_quiet: int
    """So many beeps' time before and after a group must be quiet too."""
    cycle_secs: float
    echo_db: float
    """A pause right after a beep may be louder by this: in 0.1 s an echo has hardly died away."""

    def n_steps(self, n_beeps: int, tempo: float = _TEMPI[-1]) -> int:
        """So many steps hold what lasts as long as so many beeps."""
        return int(n_beeps * self.beep_secs * tempo * _STEPS_PER_SEC) + 1

    @property
    def n_long(self) -> int:
        """As long as so many beeps is a group."""
        return 2 * self.n_beeps - 1

    @property
    def n_before(self) -> int:
        """So many steps before a group are needed."""
        return self.n_steps(self.n_quiet)

    @property
    def n_after(self) -> int:
        """So many steps from the start of a group on are needed."""
        return self.n_steps(self.n_long + self.n_quiet)

    def parts(self) -> tuple[_Steps, NDArray[np.bool_]]:
        """[tempo, part, 2] steps from the group's start, half-open; [part]: whether it is a beep.

        A step belongs to the part that holds the middle of its window.
        """
        numbers = np.arange(-self.n_quiet, self.n_long + self.n_quiet)
        is_beep = (numbers % 2 == 0) & (numbers >= 0) & (numbers < self.n_long)
        looked_at = np.where(is_beep[:, None], _ON_PART, _OFF_PART)
        secs = (numbers[:, None] + looked_at) * self.beep_secs * np.array(_TEMPI)[:, None, None]
        steps = np.ceil((secs - _WINDOW_SECS / 2) * _STEPS_PER_SEC).astype(np.int64)
        steps[..., 1] = np.maximum(steps[..., 1], steps[..., 0] + 1)
        return steps, is_beep


_RHYTHMS: Final = (
    _Rhythm("smoke", beep_secs=0.5, n_beeps=3, n_quiet=2, cycle_secs=4.0, echo_db=0.0),
    _Rhythm("carbon monoxide", beep_secs=0.1, n_beeps=4, n_quiet=4, cycle_secs=5.8, echo_db=4.0),
)
_N_KEPT: Final = max(one.n_before + one.n_after for one in _RHYTHMS) + 3 * _STEPS_PER_BLOCK
"""Steps that a group, its surroundings and the block in which it begins may take."""


class AlarmSettings(Settings):
    """The spec of `AlarmScorer` (`ScorerSpec`); there is nothing to set."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """`alarm`."""
        return (ALARM,)

    def build(self, device: str) -> "AlarmScorer":  # noqa: ARG002 - always on the CPU
        """Make it."""
        return AlarmScorer()


class AlarmScorer:
    """Scores `alarm` (`Scorer`). All loads are alike: it costs 0.3 % of a core."""

    def __init__(self) -> None:
        """Nothing has been heard."""
        self._ears: dict[str, _Ear] = {}

    def score(
        self,
        hops: Sequence[Hop],
        so_far: Sequence[Scores],  # noqa: ARG002 - rests on no other scorer
        load: Load,  # noqa: ARG002 - who sheds load does not shed this
    ) -> Sequence[Scores]:
        """[t] scores and, at the start of each group, what it is and at which frequency.

        They are at least every 0.5 s, rising within a hop; when an alarm is recognised they go
        back to its first beep. No output: no sound, or no block of 0.5 s was completed.

        Raises:
            ScorerError: the pipeline runs below 8 kHz.
        """
        return [self._score(hop) for hop in hops]

    def forget(self, source: str) -> None:
        """Hear the source afresh."""
        self._ears.pop(source, None)

    def _score(self, hop: Hop) -> Scores:
        if hop.samples.size and hop.rate_hz < _LEAST_RATE_HZ:
            msg = f"alarms need hops.rate_hz of at least {_LEAST_RATE_HZ}: got {hop.rate_hz}"
            raise ScorerError(msg)
        ear = self._ears.get(hop.source)
        if ear is None or ear.rate_hz != hop.rate_hz:
            ear = self._ears[hop.source] = _Ear(hop.rate_hz)
        points: dict[int, float] = {}
        told: list[_Group] = []
        for block, groups in ear.hear(hop):
            told += groups
            _add_points(points, groups, block * _STEPS_PER_BLOCK)
        if not points:
            return Scores(hop.source, hop.index, hop.span)
        steps = sorted(points)
        at_ns = np.array([ear.at_ns(step) for step in steps], np.int64)
        values = np.array([points[step] for step in steps], np.float32)
        found = [group.detection(ear.at_ns(group.first)) for group in told]
        outputs = {ALARM.name: Series(at_ns, values)}
        return Scores(hop.source, hop.index, hop.span, outputs, tuple(found))


@dataclass(frozen=True, slots=True)
class _Group:
    """Beeps in the right rhythm."""

    rhythm: _Rhythm
    first: int
    """The step at which it begins."""
    n_steps: int
    band: int
    hz: float
    over_db: float
    """How much more than enough it stands out."""

    @property
    def score(self) -> float:
        """0.5 to 1."""
        return float(1 / (1 + np.exp(-self.over_db / _SLOPE_DB)))

    def detection(self, at_ns: int) -> Detection:
        """What it is."""
        note = f"{self.rhythm.name} alarm at about {round(self.hz, -1):.0f} Hz"
        return Detection(ALARM.name, at_ns, "audio", ALARM.detector, self.score, note=note)

    def is_same(self, other: "_Group") -> bool:
        """Whether both are one group, seen twice."""
        is_near = abs(self.first - other.first) <= _SAME_STEPS
        return is_near and self._is_within(_SAME_BANDS, other)

    def follows(self, other: "_Group") -> bool:
        """Whether the other is the group before this one in one alarm."""
        cycle_secs, beep_secs = self.rhythm.cycle_secs, self.rhythm.beep_secs
        late_secs = (self.first - other.first) / _STEPS_PER_SEC - cycle_secs
        is_in_time = abs(late_secs) <= _CYCLE_DRIFT * cycle_secs + _START_DRIFT * beep_secs
        is_even = abs(self.n_steps / other.n_steps - 1) <= _TEMPO_DRIFT
        return is_in_time and is_even and self._is_within(_NEXT_BANDS, other)

    def _is_within(self, n_bands: int, other: "_Group") -> bool:
        return self.rhythm is other.rhythm and abs(self.band - other.band) <= n_bands


def _add_points(points: dict[int, float], groups: Sequence[_Group], now: int) -> None:
    """Scores up to the step `now`: those of the groups, 0 after each."""
    for group in groups:
        end = group.first + group.n_steps
        for step in [step for step in points if step >= group.first]:
            del points[step]
        points.update(dict.fromkeys(range(group.first, end, _POINT_STEPS), group.score))
        points.update(dict.fromkeys(range(end, now, _STEPS_PER_BLOCK), 0.0))
    points[now] = 0.0


class _Ear:
    """The tones that one source had lately, and the groups of beeps among them."""

    def __init__(self, rate_hz: int) -> None:
        """Nothing has been heard."""
        self.rate_hz = rate_hz
        self._bands = _Bands(rate_hz)
        self._n_step = round(rate_hz / _STEPS_PER_SEC)
        self._step = 0  # counted from capture time 0
        self._samples: Floats = np.zeros(0, np.float32)  # from the first of `_step` on
        self._tones_db: Floats = np.zeros((0, self._bands.hz.size), np.float32)  # before `_step`
        self._pending: list[_Group] = []  # those that the next block may show better
        self._groups: list[_Group] = []
        self._told: list[_Group] = []

    def at_ns(self, step: int) -> int:
        """When a step begins."""
        return samples_to_ns(step * self._n_step, self.rate_hz)

    def hear(self, hop: Hop) -> list[tuple[int, list[_Group]]]:
        """The blocks that are complete now, and the groups of alarms that are known by then."""
        if not hop.samples.size:
            return []
        self._append(hop)
        blocks = []
        n_block = _STEPS_PER_BLOCK * self._n_step
        while self._samples.size >= n_block + self._bands.n_window:
            tones_db = self._bands.tones_db(self._samples, self._n_step)
            self._samples = self._samples[n_block:]
            self._tones_db = np.concatenate((self._tones_db, tones_db))[-_N_KEPT:]
            self._step += _STEPS_PER_BLOCK
            found = [group for rhythm in _RHYTHMS for group in self._find(rhythm)]
            blocks.append((self._step // _STEPS_PER_BLOCK - 1, self._alarms(found)))
        return blocks

    def _append(self, hop: Hop) -> None:
        start = ns_to_samples(hop.span.start_ns, self.rate_hz)
        n_missing = start - self._step * self._n_step - self._samples.size
        if not 0 <= n_missing <= _MAX_LOST_SECS * self.rate_hz:
            n_block = _STEPS_PER_BLOCK * self._n_step
            self._step = start // n_block * _STEPS_PER_BLOCK
            self._samples = np.zeros(0, np.float32)
            self._tones_db = self._tones_db[:0]
            self._pending, self._groups, self._told = [], [], []
            n_missing = start % n_block
        lost = np.zeros(n_missing, np.float32)
        self._samples = np.concatenate((self._samples, lost, hop.samples))

    def _find(self, rhythm: _Rhythm) -> list[_Group]:
        """The groups that begin in the newest block of which enough is known; the best first."""
        first = self._step - rhythm.n_after - _STEPS_PER_BLOCK
        first -= first % _STEPS_PER_BLOCK
        origin = first - (self._step - len(self._tones_db))
        if origin < rhythm.n_before:
            return []
        beep_db = self._tones_db[origin : origin + _STEPS_PER_BLOCK + rhythm.n_steps(1)]
        bands = np.flatnonzero((beep_db >= _LEAST_DB).any(axis=0))
        if not bands.size:
            return []
        over_db = _over_db(rhythm, self._tones_db[:, bands], origin)
        found: list[_Group] = []
        for column in np.argsort(-over_db.max(axis=(0, 1))).tolist():
            at, tempo = np.unravel_index(over_db[..., column].argmax(), over_db.shape[:2])
            best = float(over_db[at, tempo, column])
            n_steps, band = rhythm.n_steps(rhythm.n_long, _TEMPI[tempo]), int(bands[column])
            hz = float(self._bands.hz[band])
            group = _Group(rhythm, first + int(at), n_steps, band, hz, best)
            if best >= 0 and not any(group.is_same(other) for other in found):
                found.append(group)
        return found

    def _alarms(self, found: Sequence[_Group]) -> list[_Group]:
        """Groups of alarms that are not told yet, in order."""
        improved, settled = [], []
        fresh = list(found)
        for group in self._pending:
            same = next((other for other in fresh if group.is_same(other)), None)
            if same is None:
                settled.append(group)
            else:
                fresh.remove(same)
                improved.append(max(group, same, key=lambda one: one.over_db))
        self._pending = improved + fresh
        told: list[_Group] = []
        for group in settled:
            before = [other for other in self._groups if group.follows(other)]
            if before:
                told += [one for one in (before[-1], group) if one not in self._told]
                self._told += told
            self._groups.append(group)
        oldest = self._step - 20 * _STEPS_PER_SEC
        self._groups = [group for group in self._groups if group.first >= oldest]
        self._told = [group for group in self._told if group.first >= oldest]
        return sorted(told, key=lambda group: group.first)


class _Bands:
    """How much stands out in each band where alarms beep."""

    def __init__(self, rate_hz: int) -> None:
        """Lay out the bands for sound of that rate."""
        self.n_window = round(rate_hz * _WINDOW_SECS)
        bin_hz = rate_hz / self.n_window
        centres = np.concatenate(
            [np.arange(np.ceil(low / bin_hz), high // bin_hz + 1) for low, high in _RANGES_HZ]
        )
        self.hz = centres * bin_hz
        """[bands], Hz: their middles."""
        away = np.abs(np.arange(self.n_window // 2 + 1)[:, None] - centres)
        around = (away >= _NEAR) & (away <= _FAR)
        self._inside = (away <= 1).astype(np.float32)
        self._around = (around / around.sum(axis=0) * 3).astype(np.float32)
        window = np.hanning(self.n_window + 1)[:-1]
        self._window = (window * 2 / window.sum()).astype(np.float32)

    def tones_db(self, samples: Floats, n_step: int) -> Floats:
        """[n] -> [`_STEPS_PER_BLOCK`, bands]: each band over its surroundings."""
        windows = np.lib.stride_tricks.sliding_window_view(samples, self.n_window)
        steps = windows[: _STEPS_PER_BLOCK * n_step : n_step]
        spectra = np.fft.rfft(steps * self._window)
        power = (spectra.real**2 + spectra.imag**2).astype(np.float32)
        inside, around = power @ self._inside, power @ self._around
        tones: Floats = 10 * np.log10((inside + 3 * _SILENCE) / (around + 3 * _SILENCE))
        return tones


def _over_db(rhythm: _Rhythm, tones_db: Floats, origin: int) -> Floats:
    """[start, tempo, band]: how much a group stands out that begins `start` steps after `origin`.

    0 is just enough.
    """
    parts, is_beep = rhythm.parts()
    beeps_db = _means(tones_db, origin, parts[:, is_beep])
    # A pause is as loud as what is loud in it, so that half a beep is none.
    pauses = _means(10 ** (tones_db / 10), origin, parts[:, ~is_beep])
    pauses_db = 10 * np.log10(np.maximum(pauses, _SILENCE))
    after_beep = is_beep[np.flatnonzero(~is_beep) - 1]
    pauses_db[:, :, after_beep] -= rhythm.echo_db
    weakest, strongest = beeps_db.min(axis=2), pauses_db.max(axis=2)
    over: Floats = np.minimum(weakest - strongest - _CONTRAST_DB, weakest - _LEAST_DB)
    return over


def _means(values: NDArray[np.floating], origin: int, parts: _Steps) -> NDArray[np.float64]:
    """[step, band] and [tempo, part, 2] -> [start, tempo, part, band]: means of those parts."""
    sums = np.concatenate((np.zeros_like(values[:1]), values.cumsum(axis=0, dtype=np.float64)))
    starts = origin + np.arange(_STEPS_PER_BLOCK)
    edges = sums[starts[:, None, None, None] + parts]
    means: NDArray[np.float64] = edges[..., 1, :] - edges[..., 0, :]
    return means / (parts[..., 1] - parts[..., 0])[..., None]
