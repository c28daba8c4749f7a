from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from mmstream.codecs import Stamping
from mmstream.media import NS_PER_SEC, StreamKind, secs_to_ns
from mmstream.metrics import StageMetrics
from mmstream.sources.sender_time import SenderTime

MS = 1_000_000
STEP_NS = 40 * MS
SENDER_NS = 1_700_000_000 * NS_PER_SEC
"""What the sender's clock shows at our instant 0."""
KINDS: tuple[StreamKind, ...] = ("audio", "video")


class Camera:
    """Both streams in steps of 40 ms, each with a clock and a way to us of its own."""

    def __init__(self, *, audio_ms: int, video_ms: int, stamping: Stamping = "sender") -> None:
        self.time = SenderTime(KINDS, stamping, StageMetrics("test"))
        self.late_ns = {"audio": audio_ms * MS, "video": video_ms * MS}
        self.zero_ns = {"audio": 7 * NS_PER_SEC, "video": 90 * NS_PER_SEC}
        self.synced_ns: int | None = None

    def run(
        self, secs: float, *, reported_secs: float | None = None, wrong_ns: int = 0
    ) -> Iterator[tuple[StreamKind, int, int]]:
        """Kind, true and mapped instant; `wrong_ns` is how far video's reports are off."""
        for captured_ns in range(0, secs_to_ns(secs), STEP_NS):
            for kind in KINDS:
                seen_ns = captured_ns + self.late_ns[kind]
                stamp_ns = captured_ns + self.zero_ns[kind]
                sender_ns = None
                if reported_secs is not None and captured_ns >= secs_to_ns(reported_secs):
                    sender_ns = captured_ns + SENDER_NS + (wrong_ns if kind == "video" else 0)
                self.time.see(kind, stamp_ns, seen_ns)
                self.time.tie(kind, stamp_ns, sender_ns, seen_ns)
                if self.time.is_synced and self.synced_ns is None:
                    self.synced_ns = captured_ns
                yield kind, captured_ns, self.time.at_ns(kind, stamp_ns, seen_ns)


@given(
    audio_ms=st.integers(0, 300), video_ms=st.integers(0, 300), reported_secs=st.floats(0.1, 9.0)
)
def test_reports_put_both_streams_on_one_clock(
    audio_ms: int, video_ms: int, reported_secs: float
) -> None:
    camera = Camera(audio_ms=audio_ms, video_ms=video_ms)
    off_ms: dict[StreamKind, float] = {}
    for kind, true_ns, at_ns in camera.run(12, reported_secs=reported_secs):
        off_ms[kind] = (at_ns - true_ns) / MS
        if true_ns > secs_to_ns(max(reported_secs, 2.5) + 0.5) and kind == "video":
            assert abs(off_ms["video"] - off_ms["audio"]) < 0.01
    assert off_ms["audio"] == min(audio_ms, video_ms)
    assert camera.synced_ns is not None
    assert camera.synced_ns <= 5 * NS_PER_SEC


def test_without_reports_arrivals_must_do_after_5_s() -> None:
    camera = Camera(audio_ms=10, video_ms=50)
    last = {kind: at_ns - true_ns for kind, true_ns, at_ns in camera.run(6)}
    assert last == {"audio": 10 * MS, "video": 50 * MS}
    assert camera.synced_ns is not None
    assert abs(camera.synced_ns - 5 * NS_PER_SEC) <= STEP_NS


def test_reports_that_cannot_be_true_are_not_believed() -> None:
    camera = Camera(audio_ms=10, video_ms=50)
    run = camera.run(6, reported_secs=1, wrong_ns=3600 * NS_PER_SEC)
    last = {kind: at_ns - true_ns for kind, true_ns, at_ns in run}
    assert last == {"audio": 10 * MS, "video": 50 * MS}


def test_a_report_that_is_suddenly_off_moves_next_to_nothing() -> None:
    camera = Camera(audio_ms=10, video_ms=50)
    for _ in camera.run(8, reported_secs=1):
        pass
    at_ns = 8 * NS_PER_SEC
    stamp_ns = at_ns + camera.zero_ns["video"]
    for _ in range(25):
        camera.time.tie("video", stamp_ns, at_ns + SENDER_NS + NS_PER_SEC // 2, 9 * NS_PER_SEC)
    moved_ns = camera.time.at_ns("video", stamp_ns, 9 * NS_PER_SEC) - at_ns - 10 * MS
    assert abs(moved_ns) <= 2 * MS


def test_one_clock_is_mapped_once_and_known_from_the_start() -> None:
    camera = Camera(audio_ms=10, video_ms=50, stamping="container")
    camera.zero_ns = dict.fromkeys(camera.zero_ns, 3 * NS_PER_SEC)
    assert camera.time.is_synced
    last = {kind: at_ns - true_ns for kind, true_ns, at_ns in camera.run(3)}
    assert last == {"audio": 10 * MS, "video": 10 * MS}


def test_one_stream_alone_has_nothing_to_be_tied_to() -> None:
    assert SenderTime(["video"], "sender", StageMetrics("test")).is_synced


def test_without_stamps_all_is_when_it_came() -> None:
    time = SenderTime(["video"], "arrival", StageMetrics("test"))
    assert time.at_ns("video", 5, 5) == 5
    assert time.drift_ppm("video") is None


def test_drift_is_told_of_each_stream_and_nothing_is_captured_after_it_came() -> None:
    camera = Camera(audio_ms=10, video_ms=50)
    drifts_ppm: dict[StreamKind, int] = {"audio": 300, "video": -100}
    for i in range(25 * 20):
        captured_ns = i * STEP_NS
        for kind, ppm in drifts_ppm.items():
            stamp_ns = captured_ns + captured_ns * ppm // 10**6
            seen_ns = captured_ns + camera.late_ns[kind] + (i * 7 % 13) * MS
            camera.time.see(kind, stamp_ns, seen_ns)
            assert camera.time.at_ns(kind, stamp_ns, seen_ns) <= seen_ns
    assert abs((camera.time.drift_ppm("audio") or 0) - 300) < 30
    assert abs((camera.time.drift_ppm("video") or 0) + 100) < 30
