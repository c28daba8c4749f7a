"""The one home of libav (PyAV): what leaves it are pictures, samples and their instants.

pictures  a decoded frame as an `Image`; pictures from arrays
sound     resampling and downmixing by capture time, once
streams   which streams of a container are wanted, and what their ticks mean
opening   a live URL opened quickly; why it cannot be, in words
rtp       the clock of an RTP stream, out of the stamps that FFmpeg makes of it
live      a live URL read, its packets decoded as they arrive
demux     a file or URL opened, its packets put in order of time and decoded
"""

from mmstream.codecs.demux import MediaInput, read_audio
from mmstream.codecs.live import Arrival, LiveInput, Stamping
from mmstream.codecs.opening import Decoder, Transport
from mmstream.codecs.pictures import CodedImage, PixelFormat, image_from_array
from mmstream.codecs.sound import CaptureResampler, sound_from_array
from mmstream.codecs.streams import Decoded, Picture, Sound

__all__ = [
    "Arrival",
    "CaptureResampler",
    "CodedImage",
    "Decoded",
    "Decoder",
    "LiveInput",
    "MediaInput",
    "Picture",
    "PixelFormat",
    "Sound",
    "Stamping",
    "Transport",
    "image_from_array",
    "read_audio",
    "sound_from_array",
]
