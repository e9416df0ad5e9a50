"""What resampling looks at beyond a window: all that planning needs to know of it."""

from align.schemas.time import NS

AUDIO_MARGIN_NS = NS // 10
"""Sound on either side of a window."""

IMU_MARGIN_NS = NS
"""IMU rows on either side of a window."""
