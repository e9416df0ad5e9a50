"""From files to frames, audio blocks and IMU rows, each with its own time."""
