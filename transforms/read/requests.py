"""What a window wants of a media file, and what it gets."""

from __future__ import annotations

from dataclasses import dataclass

from av.audio.stream import AudioStream
from av.packet import Packet

from align.schemas.time import TimeSpan
from align.transforms.read.frames import DecodedFrame


@dataclass(frozen=True, slots=True)
class WindowRequest:
    """What a window wants of a file.

    Attributes:
        window: the window, recording clock.
        targets_ns: instants whose frames are wanted, recording clock.
        audio: the span of audio wanted, margins included; None without audio.
    """

    window: TimeSpan
    targets_ns: tuple[int, ...] = ()
    audio: TimeSpan | None = None


@dataclass(frozen=True, slots=True)
class AudioPiece:
    """What a stretch of an edit list gives a window.

    Attributes:
        span: the part of the audio asked for that lies in the stretch, recording clock.
        offset_ns: subtracted from media times to give recording times.
        packets: around the span.
    """

    span: TimeSpan
    offset_ns: int
    packets: tuple[Packet[AudioStream], ...]


@dataclass(frozen=True, slots=True)
class WindowMedia:
    """What a file holds for a window.

    Attributes:
        frames: one for each target; None where none could be had.
        audio_packets: what covers the audio asked for, one packet more, and a pre-roll before it. The first
            packet depends on the stream and the window alone.
        audio_stream: the stream of the packets.
        frame_error: why a frame that the header promises is None or replaced by the one before it, else "".
        audio_pieces: where an edit list has several stretches, their packets take the place of
            ``audio_packets``; None elsewhere.
    """

    request: WindowRequest
    frames: tuple[DecodedFrame | None, ...]
    audio_packets: tuple[Packet[AudioStream], ...] = ()
    audio_stream: AudioStream | None = None
    frame_error: str = ""
    audio_pieces: tuple[AudioPiece, ...] | None = None
