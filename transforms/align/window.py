"""One window's sample: collects what the window has and, for what it lacks, why."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from align.schemas.errors import AlignError, Reason
from align.schemas.media import AudioInfo, ImuTrack
from align.schemas.options import AlignOptions
from align.schemas.plan import Segment
from align.schemas.recording import Narration
from align.schemas.sample import EncodedAudio, EncodedImage, ImuWindow, Quality, Sample
from align.schemas.time import ClockMap, TimeSpan, round_ties_up
from align.transforms.align.audio import encode_flac
from align.transforms.align.audio_clock import window_audio_on
from align.transforms.align.identity import provenance
from align.transforms.align.image import encode_jpeg, upright_picture
from align.transforms.align.imu import window_imu
from align.transforms.align.text import narrations_in, strip_tags
from align.transforms.plan.windows import sample_key
from align.transforms.read.demux import WindowMedia
from align.transforms.read.edited import decode_sound
from align.transforms.read.frames import DecodedFrame
from align.transforms.stages import count, stage


def anchor_time(window: TimeSpan) -> int:
    """The instant whose frame stands for the window: its centre."""
    return window.center_ns


def frame_times(window: TimeSpan, frames: int) -> tuple[int, ...]:
    """The centres of ``frames`` equal parts of the window; none for one frame, which is the anchor."""
    shares = [Fraction(2 * i + 1, 2 * frames) for i in range(frames)] if frames > 1 else []
    return tuple(window.start_ns + round_ties_up(window.length_ns * share) for share in shares)


@dataclass(frozen=True, slots=True)
class ImuSource:
    """The IMU rows of a segment and the span of all rows, or the reason why there are none."""

    track: ImuTrack | None = None
    span: TimeSpan | None = None
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class WindowSound:
    """The packets of a window's sound, or the reason why there are none.

    Attributes:
        info: the stream, probed.
        found: its packets; the span that is wanted is on the stream's clock.
        clock_offset_ns: subtracted from the container's times to give those of the stream's clock.
        clock: from there to the recording clock.
        missing: a ``Reason`` value.
    """

    info: AudioInfo | None = None
    found: WindowMedia | None = None
    clock_offset_ns: int = 0
    clock: ClockMap = ClockMap()
    missing: str = Reason.NOT_RECORDED


class WindowBuilder:
    """Builds the sample of one window; used once."""

    def __init__(
        self,
        segment: Segment,
        options: AlignOptions,
        media: WindowMedia,
        sound: WindowSound,
        imu: ImuSource,
        config_sha256: str,
    ) -> None:
        self._segment, self._options, self._media, self._imu = segment, options, media, imu
        self._sound = sound
        self._recording = segment.recording
        self._window = media.request.window
        self._config_sha256 = config_sha256
        self._missing: dict[str, str] = {}
        self._quality: dict[str, Any] = {}

    def sample(self) -> Sample:
        """The window's sample.

        Raises:
            AlignError: a picture that decoded cannot be brought into shape.
        """
        self._quality["image_max_age_ns"] = self._max_age_ns
        pictures = self._pictures()
        image, audio, imu, narrations = self._image(pictures), self._audio(), self._imu_window(), self._text()
        recording = self._recording
        return Sample(
            key=sample_key(recording.source, recording.recording_id, self._window.start_ns),
            source=recording.source,
            recording_id=recording.recording_id,
            group_id=recording.group_id,
            split=self._segment.split,
            window=self._window,
            image=image,
            frames=tuple(f for t in frame_times(self._window, self._options.frames) if (f := pictures[t])),
            audio=audio,
            imu=imu,
            text=None if narrations is None else tuple(strip_tags(n.raw) for n in narrations),
            text_raw=None if narrations is None else tuple(n.raw for n in narrations),
            text_times_ns=None if narrations is None else tuple(n.time_ns for n in narrations),
            quality=Quality(**self._quality),
            provenance=provenance(self._segment, self._config_sha256),
            scenarios=recording.scenarios,
            missing=self._missing,
        )

    def _pictures(self) -> dict[int, EncodedImage | None]:
        """Target time -> picture. A frame that several targets share is encoded once."""
        pairs = [*zip(self._media.request.targets_ns, self._media.frames, strict=True)]
        serving = {t: f for t, f in pairs if f is not None and not self._is_stale(f, t)}
        encoded = {
            time_ns: self._encode(f) for time_ns, f in {f.time_ns: f for f in serving.values()}.items()
        }
        return {
            target: encoded[serving[target].time_ns] if target in serving else None for target, _ in pairs
        }

    @property
    def _max_age_ns(self) -> int | None:
        asked, video = self._options.max_image_age_ns, self._segment.media.video
        return video.max_age_ns if asked == 0 and video is not None else asked or None

    def _is_stale(self, frame: DecodedFrame, target: int) -> bool:
        """Whether the frame on screen came too long before the target to show that moment."""
        bound = self._max_age_ns
        return bound is not None and frame.time_ns <= target - bound

    def _encode(self, frame: DecodedFrame) -> EncodedImage | None:
        if self._is_redacted(frame.time_ns):
            return None
        video = self._segment.media.video
        with stage("align"):
            picture = upright_picture(
                frame.frame,
                frame.time_ns,
                size=self._options.image_size,
                stereo_left=self._recording.stereo,
                sample_aspect=video.sample_aspect if video else Fraction(1),
                crop=self._crop(frame),
            )
        self._quality["tone_mapped"] = picture.tone_mapped
        with stage("encode"):
            jpeg = encode_jpeg(picture, self._options.jpeg_quality)
        count("encode", 1, len(jpeg))
        return EncodedImage(jpeg, picture.time_ns)

    def _crop(self, frame: DecodedFrame) -> tuple[int, int, int, int] | None:
        """The part that the container says is to be seen: of pictures as large as its header says."""
        video = self._segment.media.video
        if video is None or (frame.frame.width, frame.frame.height) != (video.width, video.height):
            return None
        return video.crop

    def _image(self, pictures: dict[int, EncodedImage | None]) -> EncodedImage | None:
        target = anchor_time(self._window)
        image = pictures[target]
        if image is not None:
            self._quality["image_offset_ns"] = image.time_ns - target
            video = self._segment.media.video
            self._quality["image_time_quality"] = "nominal" if video and video.is_nominal else None
        else:
            self._missing["image"] = self._image_reason(target)
        return image

    def _image_reason(self, target: int) -> Reason:
        frame = self._media.frames[self._media.request.targets_ns.index(target)]
        if self._is_redacted(target):
            return Reason.REDACTED
        if frame is not None:  # a frame that is there and yet gave no picture is too old, or was blanked
            return Reason.GAP if self._is_stale(frame, target) else Reason.REDACTED
        if self._media.frame_error:
            return Reason.DECODE_ERROR
        video = self._segment.media.video  # inside of it, an edit list may show nothing for a while
        return Reason.GAP if video is not None and video.span.holds(target) else Reason.NO_COVERAGE

    def _is_redacted(self, time_ns: int) -> bool:
        return any(span.holds(time_ns) for span in self._recording.redacted)

    def _audio(self) -> EncodedAudio | None:
        sound, rate = self._sound, self._options.audio_rate
        found = sound.found
        if sound.info is None or found is None or found.audio_stream is None or found.request.audio is None:
            self._missing["audio"] = sound.missing
            return None
        try:
            with stage("decode"):
                track = decode_sound(found, found.audio_stream, sound.info, sound.clock_offset_ns)
        except AlignError:
            self._missing["audio"] = Reason.DECODE_ERROR
            return None
        with stage("align"):
            audio = window_audio_on(track, sound.clock, self._window, rate)
        self._quality["audio_coverage"] = audio.coverage
        if audio.coverage:
            self._quality["audio_rate_hz"] = float(track.rate)
            self._quality["audio_rate_ppm"] = track.rate_ppm
        there = TimeSpan(*(sound.clock.at(t) for t in (sound.info.span.start_ns, sound.info.span.end_ns)))
        if self._too_little("audio", audio.coverage, there):
            return None
        with stage("encode"):
            flac = encode_flac(audio.samples, rate)
        count("encode", 1, len(flac))
        return EncodedAudio(flac, audio.gaps, audio.samples, rate)

    def _imu_window(self) -> ImuWindow | None:
        track = self._imu.track
        if track is None:
            self._missing["imu"] = self._imu.missing or Reason.NOT_RECORDED
            return None
        if self._is_refuted():
            self._missing["imu"] = Reason.SYNC_REFUTED
            return None
        with stage("align"):
            result = window_imu(track, self._window, self._options.imu_rate)
        self._quality["imu_coverage"] = result.coverage
        self._quality["imu_max_gap_ns"] = result.max_gap_ns
        self._quality["imu_rate_hz"] = track.gyro_rate_hz or None
        self._quality["imu_time_quality"] = "spread" if track.is_spread else "measured"
        return None if self._too_little("imu", result.coverage, self._imu.span) else result.imu

    def _is_refuted(self) -> bool:
        """Whether the IMU must not be used; notes what is known of its clock at the window's centre."""
        centre = self._window.center_ns
        piece = self._recording.imu_sync_at(centre)
        if piece is None:
            return False
        self._quality["sync_status"] = piece.status
        self._quality["sync_offset_ns"] = piece.offset_at(centre)
        self._quality["sync_sigma_ns"] = piece.sigma_ns
        return piece.status == "refuted" and self._options.unsynced != "keep"

    def _too_little(self, modality: str, coverage: float, span: TimeSpan | None) -> bool:
        """Whether the modality is to be null; notes why: beyond the stream's ends, or a hole in it."""
        if coverage > 0 and coverage >= self._options.min_coverage:
            return False
        inside = self._window.cut_to(span) if span else None
        outside = 1 - (inside.length_ns / self._window.length_ns if inside else 0)
        beyond = outside >= (1 - coverage) / 2
        self._missing[modality] = Reason.NO_COVERAGE if beyond else Reason.GAP
        return True

    def _text(self) -> tuple[Narration, ...] | None:
        narrations = self._recording.narrations
        if narrations is None:
            self._missing["text"] = Reason.NOT_RECORDED
            return None
        return narrations_in(narrations, self._window)

    @property
    def _clock_offset_ns(self) -> int:
        video = self._segment.media.video
        return video.clock_offset_ns if video else 0
