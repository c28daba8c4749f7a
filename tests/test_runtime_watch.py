"""Which streams send nothing, and for how long."""

from streams import chunk_ms, frame

from mmstream.media import StreamKind, secs_to_ns
from mmstream.runtime.watch import REOPEN_SECS, STALL_SECS, Watch, lacking

AUDIO: frozenset[StreamKind] = frozenset(("audio",))
BOTH: frozenset[StreamKind] = frozenset(("audio", "video"))


def test_before_anything_is_announced_it_counts_from_the_opening() -> None:
    watch = Watch()
    watch.start(frozenset(), secs_to_ns(10))
    assert watch.quiet_secs(secs_to_ns(13)) == 3
    assert watch.quiet(secs_to_ns(100)) == frozenset()


def test_the_stream_that_stops_is_quiet_and_the_source_is_not() -> None:
    watch = Watch()
    watch.start(BOTH, secs_to_ns(1))
    watch.see(frame(0), secs_to_ns(4))
    watch.see(chunk_ms(0, 20), secs_to_ns(8))
    assert watch.quiet(secs_to_ns(9) - 1) == frozenset()
    assert watch.quiet(secs_to_ns(4 + STALL_SECS)) == {"video"}
    assert watch.quiet_secs(secs_to_ns(9)) == 1
    assert watch.quiet(secs_to_ns(13)) == BOTH
    assert watch.quiet_secs(secs_to_ns(13)) == STALL_SECS
    watch.see(frame(0), secs_to_ns(13))
    assert watch.quiet(secs_to_ns(13)) == {"audio"}


def test_a_new_start_counts_anew() -> None:
    watch = Watch()
    watch.start(BOTH, 0)
    watch.start(AUDIO, secs_to_ns(20))
    assert watch.streams == {"audio"}
    assert watch.quiet(secs_to_ns(21)) == frozenset()
    assert watch.quiet_secs(secs_to_ns(21)) == 1


def test_it_is_told_in_words() -> None:
    assert lacking(frozenset(("video", "audio")), 5) == ["no audio for 5 s", "no video for 5 s"]


def test_a_stream_that_sent_and_stays_away_is_lost() -> None:
    watch = Watch()
    watch.start(BOTH, 0)
    watch.see(frame(0), secs_to_ns(1))
    assert watch.lost(secs_to_ns(1 + REOPEN_SECS) - 1) == frozenset()
    assert watch.lost(secs_to_ns(1 + REOPEN_SECS)) == {"video"}
    watch.resume(secs_to_ns(20))
    assert watch.lost(secs_to_ns(20)) == frozenset()
    assert watch.lost(secs_to_ns(20 + REOPEN_SECS)) == {"video"}
    watch.see(frame(0), secs_to_ns(40))
    assert watch.lost(secs_to_ns(40)) == frozenset()


def test_a_stream_that_never_sent_is_not_lost() -> None:
    watch = Watch()
    watch.start(BOTH, 0)
    watch.see(frame(0), 0)
    watch.start(AUDIO, 0)
    assert watch.lost(secs_to_ns(1000)) == frozenset()
