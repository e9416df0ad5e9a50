"""EGO4D's IMU tables: what their columns mean (``data/imu.md`` of github.com/EGO4D/docs), where they lie."""

from __future__ import annotations

from pathlib import Path

from align.schemas.recording import ImuColumns

IMU_COLUMNS = ImuColumns(
    time="canonical_timestamp_ms",
    gyro=("gyro_x", "gyro_y", "gyro_z"),
    accl=("accl_x", "accl_y", "accl_z"),
    time_scale_ns=1e6,
    component="component_idx",
)


def table_of(path: str) -> str | None:
    """The IMU table of a media file that lies in a download; None where there is none."""
    media = Path(path)
    table = media.parent.parent / "imu" / f"{media.stem}.csv"
    return str(table) if table.is_file() else None
