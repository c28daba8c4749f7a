"""The clock of an RTP stream, out of the stamps that FFmpeg makes of it.

FFmpeg (libavformat/rtpdec.c, `finalize_packet`) stamps a stream by its RTP timestamps, from
wherever they start. From the stream's first RTCP sender report on it stamps by the sender's clock
instead, if there is another stream, and moves the stamps again with every report: by what the
stream's clock has drifted, by what the sender's clock was set, and by how carelessly the report was
written (GStreamer's server writes its first 50 ms off). That is taken out here.
"""

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from mmstream.media import NS_PER_SEC

if TYPE_CHECKING:
    from av.packet import Packet  # generic in its stubs only
    from av.stream import Stream

_REPORT: Final = struct.Struct("@I4xQI")
"""AVRTCPSenderReport (libavcodec/defs.h): source, NTP time in 2^-32 s, RTP time."""
_REFERENCE: Final = struct.Struct("@q")
"""AVProducerReferenceTime (libavutil): microseconds since 1970 by the sender."""
_NEAR_HZ: Final = 500
"""2 ms are rounding: nothing has jumped."""
_N_UNSETTLED: Final = 3
"""Packets within which FFmpeg changes from one clock to the other: its parser holds back one."""


@dataclass(frozen=True, slots=True)
class Report:
    """An RTCP sender report (RFC 3550, 6.4.1): what two clocks showed at one instant."""

    ntp: int
    """The sender's, in 2^-32 s."""
    rtp: int
    """The stream's, in ticks, modulo 2^32."""


def sender_clock_ns(packet: "Packet[Stream]") -> int | None:
    """What the sender's clock showed at the packet's stamp, since 1970; None: it has not said."""
    reference = packet.get_sidedata("prft")
    return _REFERENCE.unpack_from(bytes(reference))[0] * 1000 if reference else None


def report_of(packet: "Packet[Stream]") -> Report | None:
    """The report that came since the packet before, or the last one again."""
    data = packet.get_sidedata("rtcp_sr")
    if not data:
        return None
    _, ntp, rtp = _REPORT.unpack_from(bytes(data))
    return Report(ntp, rtp)


class RtpClock:
    """Takes out of stamps what FFmpeg has moved them by for the sake of reports."""

    def __init__(self, base: Fraction) -> None:
        """`base` is the length of a tick in seconds; nothing seen yet."""
        self._rate = 1 / base
        """Ticks per second."""
        self._report: Report | None = None
        self._reported_ns = 0
        self._moved = 0
        """Ticks by which stamps are ahead of the stream's own clock."""
        self._n_unsettled = 0
        self._last: tuple[int, int] | None = None
        """The last packet's stamp as FFmpeg gave it, and when it came."""

    def steady(
        self, ticks: int, report: Report | None, arrived_ns: int, last_duration_ns: int
    ) -> int:
        """The packet's stamp, `ticks` as FFmpeg gives it, by the stream's own clock.

        `last_duration_ns` is how long the packet before lasted; 0 where unknown.
        """
        if report is not None:
            self._see(report, arrived_ns)
        if self._last is not None and self._n_unsettled:
            self._n_unsettled -= 1
            last, last_arrived_ns = self._last
            passed = round(self._ticks(arrived_ns - last_arrived_ns))
            expected = round(self._ticks(last_duration_ns)) or passed
            self._settle(ticks - last, expected, passed)
        self._last = (ticks, arrived_ns)
        return ticks - self._moved

    def _see(self, report: Report, arrived_ns: int) -> None:
        before = self._report
        if report == before:
            return
        if before is None:
            self._n_unsettled = _N_UNSETTLED
        else:
            ran = (report.rtp - before.rtp + (1 << 31)) % (1 << 32) - (1 << 31)
            if abs(ran - self._ticks(arrived_ns - self._reported_ns)) < self._rate:
                # Else the stream's clock began anew, and FFmpeg's stamps go on by the sender's.
                self._moved += round((report.ntp - before.ntp) * self._rate / (1 << 32)) - ran
        self._report, self._reported_ns = report, arrived_ns

    def _settle(self, step: int, expected: int, passed: int) -> None:
        """With the first report the stamps may jump to the other stream's clock: by how much?

        A packet is taken to follow the one before, unless it was as long in coming as it says.
        """
        off = self._rate / _NEAR_HZ
        if abs(step - expected) > off and abs(step - passed) > off:
            self._moved += step - expected
            self._n_unsettled = 0

    def _ticks(self, duration_ns: int) -> Fraction:
        return self._rate * duration_ns / NS_PER_SEC
