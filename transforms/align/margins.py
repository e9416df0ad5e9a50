"""What resampling looks at beyond a window: all that planning needs to know of it."""

from align.schemas.modality import AUDIO, IMU

AUDIO_MARGIN_NS = AUDIO.margin_ns
"""Sound on either side of a window."""

IMU_MARGIN_NS = IMU.margin_ns
"""IMU rows on either side of a window."""
