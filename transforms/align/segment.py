"""One segment in, its samples out: reads each stream once and builds window after window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from align.transforms.align.audio import AUDIO_MARGIN_NS, encode_flac, window_audio
from align.transforms.align.image import encode_jpeg, upright_picture
from align.transforms.align.imu import IMU_MARGIN_NS, window_imu
from align.transforms.plan.windows import sample_key
from align.transforms.read.audio import decode_audio
from align.transforms.read.demux import DecodedFrame, WindowMedia, WindowRequest, read_media
from align.transforms.read.guard import open_media
from align.transforms.read.imu_csv import read_imu

from align.schemas.errors import AlignError, Fault, Reason
from align.schemas.media import AudioTrack, ImuTrack
from align.schemas.options import AlignOptions
from align.schemas.plan import Segment
from align.schemas.recording import Narration
from align.schemas.sample import EncodedAudio, EncodedImage, ImuWindow, Provenance, Quality, Sample
from align.schemas.time import TimeSpan, round_ties_up
from align.transforms.align.text import narrations_in, strip_tags

Opener = Callable[[str], BinaryIO]

# What a required modality lacks for these reasons was lost to a fault, not left out by a rule.
_FAULTY = (Reason.DECODE_ERROR, Reason.INVALID)


def align_segment(
    segment: Segment, options: AlignOptions, config_sha256: str, opener: Opener | None = None
) -> Iterator[Sample | Fault]:
    """The samples of a segment's windows, in order; a window that gives none gives a fault.

    Every window ends as exactly one sample or one fault that accounts for one window.
    """
    done = 0
    try:
        for item in _samples(segment, options, config_sha256, opener):
            done += 1
            yield item
    except AlignError as error:
        for start in segment.starts_ns[done:]:
            yield _failed(segment, start, error)


def _failed(segment: Segment, start_ns: int, error: AlignError) -> Fault:
    return Fault(segment.recording.recording_id, start_ns, error.stage, error.code, error.detail)


def _samples(
    segment: Segment, options: AlignOptions, config_sha256: str, opener: Opener | None
) -> Iterator[Sample | Fault]:
    recording, media = segment.recording, segment.media
    with_audio = recording.audio is not None and media.audio is not None
    requests = [
        WindowRequest(w, target_times(w, options.frames), w.widened(AUDIO_MARGIN_NS) if with_audio else None)
        for w in segment.windows
    ]
    imu = _ImuSource.of(segment, opener)
    with closing(open_media(recording.video.uri, opener=opener)) as container:
        for window_media in read_media(container, media, requests):
            builder = _Builder(segment, options, window_media, config_sha256)
            try:
                yield _unless_required(builder.sample(imu), options.require)
            except AlignError as error:
                yield _failed(segment, window_media.request.window.start_ns, error)


def target_times(window: TimeSpan, frames: int) -> tuple[int, ...]:
    """The anchor (the window's centre), then, for more than one frame, the centres of equal parts."""
    parts = range(frames) if frames > 1 else range(0)
    return (
        window.center_ns,
        *(
            window.start_ns + round_ties_up(Fraction(window.length_ns * (2 * i + 1), 2 * frames))
            for i in parts
        ),
    )


def _unless_required(sample: Sample, require: tuple[str, ...]) -> Sample | Fault:
    for modality in require:
        reason = sample.missing.get(modality)
        if reason is None and (modality != "text" or sample.text):
            continue
        detail = f"{modality} is required and the window has none ({reason or 'no narration inside'})"
        outcome = "failed" if reason in _FAULTY else "skipped"
        code = f"missing_{modality}" if outcome == "skipped" else str(reason)
        return Fault(sample.recording_id, sample.window.start_ns, "align", code, detail, outcome)
    return sample


@dataclass(frozen=True, slots=True)
class _ImuSource:
    """The rows of a segment, or the reason why there are none."""

    track: ImuTrack | None
    missing: str | None
    span: TimeSpan | None = None

    @classmethod
    def of(cls, segment: Segment, opener: Opener | None) -> _ImuSource:
        stream, where = segment.recording.imu, segment.imu
        if stream is None or where is None:
            return cls(None, Reason.NOT_RECORDED)
        if where.missing is not None:
            return cls(None, where.missing)
        reach = TimeSpan(segment.starts_ns[0], segment.starts_ns[-1] + segment.window_ns)
        try:
            track = read_imu(stream.uri, where, stream.clock, reach.widened(IMU_MARGIN_NS), opener=opener)
        except AlignError:
            return cls(None, Reason.DECODE_ERROR)
        span = where.span and TimeSpan(
            stream.clock.at(where.span.start_ns), stream.clock.at(where.span.end_ns)
        )
        return cls(track, None, span)


class _Builder:
    """Collects what one window has and, for what it lacks, why."""

    def __init__(
        self, segment: Segment, options: AlignOptions, media: WindowMedia, config_sha256: str
    ) -> None:
        self.segment, self.options, self.media = segment, options, media
        self.window = media.request.window
        self.config_sha256 = config_sha256
        self.missing: dict[str, str] = {}

    def sample(self, imu_source: _ImuSource) -> Sample:
        recording = self.segment.recording
        quality: dict[str, object] = {}
        image, *frames = self._images(quality)
        audio = self._audio(quality)
        imu = self._imu(imu_source, quality)
        narrations = self._text()
        return Sample(
            key=sample_key(recording.source, recording.recording_id, self.window.start_ns),
            source=recording.source,
            recording_id=recording.recording_id,
            group_id=recording.group_id,
            split=self.segment.split,
            window=self.window,
            image=image,
            frames=tuple(f for f in frames if f is not None),
            audio=audio,
            imu=imu,
            text=None if narrations is None else tuple(strip_tags(n.raw) for n in narrations),
            text_raw=None if narrations is None else tuple(n.raw for n in narrations),
            text_times_ns=None if narrations is None else tuple(n.time_ns for n in narrations),
            quality=Quality(**quality),  # type: ignore[arg-type]
            provenance=self._provenance(),
            scenarios=recording.scenarios,
            missing=self.missing,
        )

    def _images(self, quality: dict[str, object]) -> list[EncodedImage | None]:
        encoded = [self._encode(frame) for frame in self.media.frames]
        anchor, target = encoded[0], self.media.request.targets_ns[0]
        if anchor is None:
            self.missing["image"] = self._image_reason(target)
        else:
            quality["image_offset_ns"] = anchor.time_ns - target
        return encoded

    def _encode(self, frame: DecodedFrame | None) -> EncodedImage | None:
        if frame is None or any(span.holds(frame.time_ns) for span in self.segment.recording.redacted):
            return None
        picture = upright_picture(
            frame.frame,
            frame.time_ns,
            size=self.options.image_size,
            stereo_left=self.segment.recording.stereo,
        )
        return EncodedImage(encode_jpeg(picture, self.options.jpeg_quality), picture.time_ns)

    def _image_reason(self, target: int) -> str:
        if any(span.holds(target) for span in self.segment.recording.redacted):
            return Reason.REDACTED
        return Reason.DECODE_ERROR if self.media.frame_error else Reason.NO_COVERAGE

    def _audio(self, quality: dict[str, object]) -> EncodedAudio | None:
        info, request = self.segment.media.audio, self.media.request
        if request.audio is None or info is None or self.media.audio_stream is None:
            self.missing["audio"] = Reason.NOT_RECORDED
            return None
        try:
            track: AudioTrack = decode_audio(
                self.media.audio_packets, self.media.audio_stream, info, request.audio
            )
        except AlignError:
            self.missing["audio"] = Reason.DECODE_ERROR
            return None
        audio = window_audio(track, self.window, self.options.audio_rate)
        quality["audio_coverage"] = audio.coverage
        if self._too_little("audio", audio.coverage, info.span):
            return None
        return EncodedAudio(encode_flac(audio.samples, self.options.audio_rate), audio.gaps)

    def _imu(self, source: _ImuSource, quality: dict[str, object]) -> ImuWindow | None:
        if source.track is None:
            self.missing["imu"] = source.missing or Reason.INVALID
            return None
        result = window_imu(source.track, self.window, self.options.imu_rate)
        quality["imu_coverage"] = result.coverage
        quality["imu_max_gap_ns"] = result.max_gap_ns
        quality["imu_rate_hz"] = source.track.gyro_rate_hz or None
        return None if self._too_little("imu", result.coverage, source.span) else result.imu

    def _too_little(self, modality: str, coverage: float, span: TimeSpan | None) -> bool:
        """Whether the modality is to be null; says why: beyond the stream's ends, or a hole in it."""
        if coverage > 0 and coverage >= self.options.min_coverage:
            return False
        inside = self.window.cut_to(span) if span else None
        outside = 1 - (inside.length_ns / self.window.length_ns if inside else 0)
        beyond = outside >= (1 - coverage) / 2
        self.missing[modality] = Reason.NO_COVERAGE if beyond else Reason.GAP
        return True

    def _text(self) -> tuple[Narration, ...] | None:
        narrations = self.segment.recording.narrations
        if narrations is None:
            self.missing["text"] = Reason.NOT_RECORDED
            return None
        return narrations_in(narrations, self.window)

    def _provenance(self) -> Provenance:
        recording, media = self.segment.recording, self.segment.media
        imu = recording.imu
        return Provenance(
            video=recording.video.name,
            video_stream=media.video.index if media.video else 0,
            audio=recording.audio.name if recording.audio and media.audio else None,
            audio_stream=media.audio.index if recording.audio and media.audio else None,
            imu=imu.name if imu else None,
            clock_offset_ns=media.video.clock_offset_ns if media.video else 0,
            imu_clock=None if imu is None or imu.clock.is_identity else repr(imu.clock.pieces),
            config_sha256=self.config_sha256,
        )
