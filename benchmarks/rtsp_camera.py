"""A network camera that knows when everything was true: RTSP by GStreamer's own server.

Each picture carries its number in large black and white blocks, each second begins with a beep,
and a table gives the monotonic instant at which either was captured, so that whoever receives
them on the same machine can tell how old they are and whether sound and sight still agree:

    frame 17 81234567890123
    beep 3 81234600000000

Needs Debian's python3-gi, gir1.2-gst-rtsp-server-1.0 and gstreamer1.0-plugins-{base,good,bad,ugly}
(gstreamer1.0-libav for AAC), and runs in the system's Python, which has no numpy. It prints
`ready rtsp://…` when it listens and ends on SIGTERM.
"""

import argparse
import math
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402 - versions come first

NS_PER_SEC: Final = 1_000_000_000
HOST: Final = "127.0.0.1"

BLOCK: Final = 16
"""Side of a block in pixels; `camera.read_counter` reads them."""
COLUMNS: Final = 8
"""Blocks in a row: one byte, most significant bit first. Three rows of number, one of check."""
CHECK: Final = 0xA5
"""The three bytes, summed, exclusive-or this, is the fourth: neither black nor white passes."""
BLACK, WHITE = 16, 235

BEEP_HZ: Final = 1000
BEEP_SECS: Final = 0.1
CHUNK_SECS: Final = 0.02
"""How much sound is handed over at a time: as late as it takes to be heard."""
RTCP_INTERVAL_NS: Final = NS_PER_SEC // 2
RTP_LEAD_NS: Final = 3600 * NS_PER_SEC
"""How far RTP timestamps fall back on a reset."""

# One slice per picture (threads=1): of several, FFmpeg tears the first pictures over RTP.
ENCODERS: Final = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast threads=1 bitrate=2000 "
    "key-int-max={gop} ! video/x-h264,profile=constrained-baseline ! rtph264pay config-interval=-1",
    "h265": "x265enc tune=zerolatency speed-preset=ultrafast bitrate=2000 key-int-max={gop} "
    "! rtph265pay config-interval=-1",
    "mjpeg": "jpegenc quality=85 ! rtpjpegpay",
    "pcmu": "mulawenc ! rtppcmupay",
    "aac": "audioconvert ! avenc_aac bitrate=64000 ! aacparse ! rtpmp4gpay",
    "opus": "opusenc frame-size=20 audio-type=restricted-lowdelay ! rtpopuspay",
}
# Encoders begin with silence, of which RTP cannot tell: to FFmpeg's clients AAC is 43 ms late, Opus
# 2.5 ms and PCMU not at all. Whoever measures sound against sight takes PCMU.
RATES_HZ: Final = {"pcmu": 8_000, "aac": 48_000, "opus": 48_000}


class Table:
    """Appends what is true to a file, a line at a time."""

    def __init__(self, path: Path) -> None:
        """Numbers go on where an earlier run left off."""
        lines = path.read_text("ascii").splitlines() if path.exists() else []
        numbers = [int(line.split()[1]) for line in lines if line.startswith("frame ")]
        self.n_frames = max(numbers, default=-1) + 1
        self.n_beeps = sum(line.startswith("beep ") for line in lines)
        self._file = path.open("a", buffering=1, encoding="ascii")

    def frame(self, at_ns: int) -> int:
        """Number a picture that was captured then."""
        number, self.n_frames = self.n_frames, self.n_frames + 1
        self._file.write(f"frame {number} {at_ns}\n")
        return number

    def beep(self, at_ns: int) -> None:
        """A beep began then."""
        self._file.write(f"beep {self.n_beeps} {at_ns}\n")
        self.n_beeps += 1


class Outlet:
    """The `appsrc` of the media that clients see just now, if any does."""

    def __init__(self) -> None:
        """Nobody looks."""
        self._appsrc: Gst.Element | None = None

    def connect(self, appsrc: Gst.Element) -> None:
        """From now on push there."""
        # FFmpeg asks for `Range: npt=0-`: what cannot be sought is refused with 503.
        appsrc.connect("seek-data", lambda *_: True)
        self._appsrc = appsrc

    def disconnect(self, appsrc: Gst.Element) -> None:
        """The media is gone; nothing happens if another has come meanwhile."""
        if self._appsrc is appsrc:
            self._appsrc = None

    def push(self, data: bytes, at_ns: int, duration_ns: int) -> None:
        """Hand on what was captured then; forgotten if nobody looks."""
        appsrc = self._appsrc
        if appsrc is None or appsrc.get_state(0).state != Gst.State.PLAYING:
            return
        pts_ns = at_ns - appsrc.get_base_time()
        if pts_ns < 0:
            return
        buffer = Gst.Buffer.new_wrapped(data)
        buffer.pts = pts_ns
        buffer.duration = duration_ns
        appsrc.emit("push-buffer", buffer)


class Picture:
    """Stripes that move, with a number in the corner."""

    def __init__(self, width: int, height: int) -> None:
        """Of that many pixels."""
        self._width, self._height = width, height
        self._row = bytes(
            round(125 + 60 * math.sin(x * 2 * math.pi * 3 / width) + 25 * math.sin(x / 5))
            for x in range(width)
        )
        self._colour = bytes([128]) * (((width + 1) // 2) * ((height + 1) // 2) * 2)

    def draw(self, number: int) -> bytes:
        """I420, with `number` modulo 2^24 burned in."""
        row, width = self._row * 3, self._width
        starts = ((y + 2 * number) % width for y in range(self._height))
        luma = bytearray().join(row[start : start + width] for start in starts)
        value = number % (1 << 24)
        code = value.to_bytes(3, "big")
        for i, byte in enumerate((*code, (sum(code) & 0xFF) ^ CHECK)):
            bits = (byte >> (COLUMNS - 1 - column) & 1 for column in range(COLUMNS))
            strip = b"".join(bytes([WHITE if bit else BLACK]) * BLOCK for bit in bits)
            for y in range(i * BLOCK, (i + 1) * BLOCK):
                luma[y * width : y * width + len(strip)] = strip
        return bytes(luma + self._colour)


def capture(clock: Gst.Clock, step_ns: int, take: Callable[[int], None]) -> None:
    """Call `take` with the instant that is due, every `step_ns`, for ever; leaves out missed ones.

    What is missed while the process is stopped (SIGSTOP) was never captured.
    """
    due_ns = clock.get_time()
    while True:
        Gst.Clock.id_wait(clock.new_single_shot_id(due_ns))
        late_ns = clock.get_time() - due_ns
        if late_ns > NS_PER_SEC // 2:
            due_ns += late_ns // step_ns * step_ns
        take(due_ns)
        due_ns += step_ns


def film(clock: Gst.Clock, outlet: Outlet, table: Table, picture: Picture, fps: int) -> None:
    """Capture pictures for ever."""
    step_ns = NS_PER_SEC // fps

    def take(_due_ns: int) -> None:
        at_ns = clock.get_time()
        outlet.push(picture.draw(table.frame(at_ns)), at_ns, step_ns)

    capture(clock, step_ns, take)


def listen(clock: Gst.Clock, outlet: Outlet, table: Table, rate_hz: int) -> None:
    """Capture sound for ever: silence, and a beep at the start of each second."""
    step_ns = round(CHUNK_SECS * NS_PER_SEC)
    n_chunk, n_per_sec = round(CHUNK_SECS * rate_hz), round(1 / CHUNK_SECS)
    n_beep = round(BEEP_SECS / CHUNK_SECS)
    wave = (
        round(16_000 * math.sin(2 * math.pi * BEEP_HZ * i / rate_hz + math.pi / 2))
        for i in range(n_chunk)  # a whole number of periods: chunks join without a click
    )
    beep = b"".join(value.to_bytes(2, "little", signed=True) for value in wave)
    silence = bytes(2 * n_chunk)

    def take(due_ns: int) -> None:
        start_ns = due_ns - step_ns  # its last sample has only just been taken
        place = start_ns // step_ns % n_per_sec
        if place == 0:
            table.beep(start_ns)
        outlet.push(beep if place < n_beep else silence, start_ns, step_ns)

    capture(clock, step_ns, take)


def launch(options: argparse.Namespace) -> str:
    """The pipeline of one media, in gst-launch's words."""
    source = "appsrc name={name} is-live=true format=time stream-type=seekable max-buffers=8 "
    source += "leaky-type=downstream min-latency=0 caps={caps} ! "
    # The server takes whatever is called `pay` and a number for the payloader.
    lossy = " name=rtp{i} ! identity name=pay{i} drop-probability={loss}"
    sender = lossy if options.loss else " name=pay{i}"
    kinds = []
    if options.video:
        width, height = options.size
        form = f"video/x-raw,format=I420,width={width},height={height},framerate={options.fps}/1"
        kinds.append(("video", form, ENCODERS[options.codec].format(gop=options.fps)))
    if options.audio != "none":
        rate_hz = RATES_HZ[options.audio]
        form = f"audio/x-raw,format=S16LE,layout=interleaved,channels=1,rate={rate_hz}"
        kinds.append(("audio", form, ENCODERS[options.audio]))
    chains = (
        source.format(name=name, caps=form) + encoder + sender.format(i=i, loss=options.loss)
        for i, (name, form, encoder) in enumerate(kinds)
    )
    return f"( {' '.join(chains)} )"


def shift_rtp(media: GstRtspServer.RTSPMedia, shift_ns: int) -> None:
    """Move the RTP timestamps, and nothing else, by that much against the clock."""
    bin_ = media.get_element()
    for i in range(media.n_streams()):
        payloader = bin_.get_by_name(f"rtp{i}") or bin_.get_by_name(f"pay{i}")
        out = payloader.get_static_pad("src")
        # At the source pad before it: offsets of sink pads do not change while media flows. Both
        # while nothing passes: what has had one of them alone would be sent in an hour.
        before = payloader.get_static_pad("sink").get_peer()
        before.add_probe(Gst.PadProbeType.IDLE, partial(_shifted, out, shift_ns))


def _shifted(
    out: Gst.Pad, shift_ns: int, before: Gst.Pad, _info: Gst.PadProbeInfo
) -> Gst.PadProbeReturn:
    before.set_offset(shift_ns)
    out.set_offset(-shift_ns)
    return Gst.PadProbeReturn.REMOVE


class Camera:
    """The server, with one media that all clients share."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Nothing listens yet."""
        self._options = options
        self._outlets = {"video": Outlet(), "audio": Outlet()}
        self._clock = Gst.SystemClock.obtain()  # CLOCK_MONOTONIC, as all processes here have it
        self._is_reset = False
        self._medias: list[GstRtspServer.RTSPMedia] = []
        self._server = GstRtspServer.RTSPServer()
        self._server.set_address(HOST)
        self._server.set_service(str(options.port))
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(launch(options))
        factory.set_shared(True)
        factory.set_latency(0)
        factory.set_clock(self._clock)
        factory.connect("media-configure", self._configure)
        if options.user:
            self._guard(factory)
        self._server.get_mount_points().add_factory("/camera", factory)

    def run(self) -> None:
        """Serve until SIGTERM."""
        loop = GLib.MainLoop()
        GLib.unix_signal_add(GLib.PRIORITY_HIGH, signal.SIGTERM, loop.quit)
        if not self._server.attach(None):
            msg = f"port {self._options.port} of {HOST} cannot be had"
            raise SystemExit(msg)
        self._capture()
        if self._options.pts_reset_after is not None:
            GLib.timeout_add(round(self._options.pts_reset_after * 1000), self._reset)
        print(f"ready rtsp://{HOST}:{self._server.get_bound_port()}/camera", flush=True)
        loop.run()

    def _capture(self) -> None:
        options, clock = self._options, self._clock
        table = Table(options.table)
        picture = Picture(*options.size)
        jobs: list[Callable[[], None]] = []
        if options.video:
            jobs.append(lambda: film(clock, self._outlets["video"], table, picture, options.fps))
        if options.audio != "none":
            rate_hz = RATES_HZ[options.audio]
            jobs.append(lambda: listen(clock, self._outlets["audio"], table, rate_hz))
        for job in jobs:
            threading.Thread(target=job, daemon=True).start()

    def _configure(
        self, _factory: GstRtspServer.RTSPMediaFactory, media: GstRtspServer.RTSPMedia
    ) -> None:
        """A first client has come: a media has been made, and goes when the last has left."""
        for name, outlet in self._outlets.items():
            appsrc = media.get_element().get_by_name(name)
            if appsrc is not None:
                outlet.connect(appsrc)
                media.connect("unprepared", lambda _, o=outlet, a=appsrc: o.disconnect(a))
        media.get_element().get_parent().set_latency(0)  # sinks would hold all back for 20 ms
        media.connect("prepared", self._report_often)
        # A reset takes this lead away: timestamps fall back, and no running time is negative.
        if self._options.pts_reset_after is not None and not self._is_reset:
            shift_rtp(media, RTP_LEAD_NS)
            self._medias.append(media)

    def _reset(self) -> bool:
        self._is_reset = True
        for media in self._medias:
            shift_rtp(media, 0)
        self._medias.clear()
        return False  # once

    def _report_often(self, media: GstRtspServer.RTSPMedia) -> None:
        for i in range(media.n_streams()):
            session = media.get_stream(i).get_rtpsession()
            session.set_property("rtcp-min-interval", RTCP_INTERVAL_NS)

    def _guard(self, factory: GstRtspServer.RTSPMediaFactory) -> None:
        """Let in only whoever knows the password."""
        options = self._options
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        if options.auth == "digest":
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
            auth.add_digest(options.user, options.password, token)
        else:
            basic = GstRtspServer.RTSPAuth.make_basic(options.user, options.password)
            auth.add_basic(basic, token)
        self._server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions()
        for permission in ("media.factory.access", "media.factory.construct"):
            permissions.add_permission_for_role("viewer", permission, True)  # noqa: FBT003 - theirs
        factory.set_permissions(permissions)


def size(text: str) -> tuple[int, int]:
    """`640x480` as width and height; the number needs 128x64."""
    width, height = (int(side) for side in text.split("x"))
    if width < COLUMNS * BLOCK or height < 4 * BLOCK or width % 8 or height % 8:
        msg = f"at least {COLUMNS * BLOCK}x{4 * BLOCK}, in steps of 8: got {text}"
        raise argparse.ArgumentTypeError(msg)
    return width, height


def main() -> None:
    """Serve as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--table", type=Path, required=True, help="file to append instants to")
    parser.add_argument("--size", type=size, default=(640, 480), metavar="WxH")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--codec", choices=["h264", "h265", "mjpeg"], default="h264")
    parser.add_argument("--audio", choices=[*RATES_HZ, "none"], default="pcmu")
    parser.add_argument("--no-video", action="store_false", dest="video")
    parser.add_argument("--user", help="whom to let in; without it anybody")
    parser.add_argument("--password", default="")
    parser.add_argument("--auth", choices=["digest", "basic"], default="digest")
    parser.add_argument("--loss", type=float, default=0.0, help="share of RTP packets to lose")
    parser.add_argument(
        "--pts-reset-after",
        type=float,
        metavar="SECS",
        help="that long after the start, RTP timestamps fall back by an hour",
    )
    options = parser.parse_args()
    if not options.video and options.audio == "none":
        parser.error("nothing to send: --no-video and --audio none")
    Gst.init(None)
    Camera(options).run()


if __name__ == "__main__":
    main()
