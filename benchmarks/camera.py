"""Runs `rtsp_camera.py` in the system's Python, and reads what it says: its table, its pictures."""

import select
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from mmstream.errors import SourceError
from mmstream.media import Bytes

PYTHON: Final = "/usr/bin/python3"
"""Debian's python3-gi serves this one only."""
NEEDS: Final = (
    "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-bad "
    "gstreamer1.0-plugins-ugly gstreamer1.0-libav"
)
"""Debian's packages."""
START_SECS: Final = 15.0
"""How long a start may take; it takes 0.3 s."""

_NO_START: Final = f"the RTSP camera does not start (it needs {NEEDS}): "

BLOCK, COLUMNS, CHECK = 16, 8, 0xA5
"""As in `rtsp_camera.py`, which nobody without `gi` can import."""
CLEAR: Final = 40
"""How far a block must be from grey, of 255; black and white are 110 away."""


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """What the camera sends, to whom, and what is wrong with it."""

    size: tuple[int, int] = (640, 480)
    """Width and height in pixels, multiples of 8, at least 128x64."""
    fps: int = 25
    codec: Literal["h264", "h265", "mjpeg", "none"] = "h264"
    """`none`: audio only."""
    audio: Literal["pcmu", "aac", "opus", "none"] = "pcmu"
    user: str = ""
    """Whom alone to let in; empty: anybody."""
    password: str = ""
    auth: Literal["digest", "basic"] = "digest"
    loss: float = 0.0
    """Share of the RTP packets that get lost, 0..1."""
    pts_reset_after_secs: float | None = None
    """That long after the start, RTP timestamps fall back by an hour."""

    def arguments(self) -> list[str]:
        """As the program takes them."""
        width, height = self.size
        arguments = ["--size", f"{width}x{height}", "--fps", str(self.fps), "--audio", self.audio]
        arguments += ["--no-video"] if self.codec == "none" else ["--codec", self.codec]
        if self.user:
            arguments += ["--user", self.user, "--password", self.password, "--auth", self.auth]
        if self.loss:
            arguments += ["--loss", str(self.loss)]
        if self.pts_reset_after_secs is not None:
            arguments += ["--pts-reset-after", str(self.pts_reset_after_secs)]
        return arguments


DEFAULTS: Final = CameraOptions()


class RtspCamera:
    """A real RTSP server of which all is known; started again it keeps its port and numbering."""

    def __init__(self, folder: Path) -> None:
        """Nothing runs yet; table and log go into `folder`."""
        self.url = ""
        """Where it can be reached, without credentials; empty before the first start."""
        self._table = folder / "table.txt"
        self._log = folder / "camera.log"
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._n_read = 0
        self._frames: dict[int, int] = {}
        self._beeps: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def log(self) -> str:
        """What it has complained of."""
        return self._log.read_text("utf-8") if self._log.exists() else ""

    @property
    def frames_ns(self) -> list[int]:
        """The monotonic instants at which pictures were captured so far, by number."""
        self._read_table()
        return list(self._frames.values())

    @property
    def beeps_ns(self) -> list[int]:
        """The monotonic instants at which beeps of 0.1 s and 1 kHz began, so far."""
        self._read_table()
        return list(self._beeps)

    def true_ns(self, number: int) -> int:
        """The monotonic instant at which the picture with that number was captured.

        Raises:
            KeyError: there was none.
        """
        if number not in self._frames:
            self._read_table()
        return self._frames[number]

    def start(self, options: CameraOptions = DEFAULTS) -> None:
        """Start it, again after `kill` or `stop`, and wait until it listens.

        Raises:
            SourceError: it does not start; the text says why.
        """
        program = Path(__file__).with_name("rtsp_camera.py")
        command = [PYTHON, str(program), "--port", str(self._port), "--table", str(self._table)]
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603 - our own program
                    [*command, *options.arguments()], stdout=subprocess.PIPE, stderr=log
                )
        except OSError as error:
            raise SourceError(_NO_START + str(error)) from None
        line = self._first_line()
        if not line.startswith("ready "):
            self.kill()
            raise SourceError(_NO_START + (self.log or "no answer"))
        self.url = line.split()[1]
        self._port = int(self.url.rpartition(":")[2].partition("/")[0])

    def stop(self) -> int:
        """Ask it to end (SIGTERM); its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it without a warning (SIGKILL), if it runs, frozen or not."""
        if self._process is not None:
            self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it in its tracks (SIGSTOP): connections stay, and nothing is sent or answered."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on; what it did not see meanwhile was never captured."""
        self._running().send_signal(signal.SIGCONT)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            msg = "the RTSP camera does not run"
            raise SourceError(msg)
        return self._process

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._running(), None
        process.send_signal(how)
        with process:
            return process.wait()

    def _first_line(self) -> str:
        pipe = self._running().stdout
        if pipe is None or not select.select([pipe], [], [], START_SECS)[0]:
            return ""
        return pipe.readline().decode()

    def _read_table(self) -> None:
        with self._table.open("rb") as file:
            file.seek(self._n_read)
            whole, newline, _ = file.read().rpartition(b"\n")  # the last line may be half written
        self._n_read += len(whole) + len(newline)
        for line in whole.decode("ascii").splitlines():
            kind, number, at_ns = line.split()
            if kind == "frame":
                self._frames[int(number)] = int(at_ns)
            else:
                self._beeps.append(int(at_ns))


def read_counter(luma: Bytes) -> int | None:
    """The number (below 2^24) in the corner of a picture's luma, [h, w]; None if unreadable."""
    corner = luma[: 4 * BLOCK, : COLUMNS * BLOCK]
    if corner.shape != (4 * BLOCK, COLUMNS * BLOCK):
        return None
    blocks = corner.reshape(4, BLOCK, COLUMNS, BLOCK)
    inner = blocks[:, BLOCK // 4 : -BLOCK // 4, :, BLOCK // 4 : -BLOCK // 4]
    above_grey = inner.mean(axis=(1, 3)) - 125.5
    if abs(above_grey).min() < CLEAR:
        return None
    rows = [int("".join("1" if bit > 0 else "0" for bit in row), 2) for row in above_grey]
    if (sum(rows[:3]) & 0xFF) ^ CHECK != rows[3]:
        return None
    return int.from_bytes(bytes(rows[:3]), "big")


def missing() -> str | None:
    """Why no camera can be started here; None if one can."""
    lines = "import gi; gi.require_version('GstRtspServer', '1.0')"
    try:
        subprocess.run([PYTHON, "-c", lines], check=True, capture_output=True)  # noqa: S603 - fixed
    except (OSError, subprocess.CalledProcessError):
        return f"no RTSP server: it needs {NEEDS}"
    return None
