"""How the microphone turned during a take, from a file: a gyro's track, integrated.

A stabilised picture stands still while the microphone on the same rig goes on turning. Where its
orientation was recorded, nothing needs to be found: the field is turned along it, and one constant
rotation is left.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import MediaError

FloatArray = NDArray[np.float64]

TIME, YAW = "time_s", "yaw_deg"
_FASTEST_DEG_S = 180.0  # no microphone on a rig turns faster
_MOST = 1e12  # seconds since 1970 and degrees of many turns are far below


@dataclass(frozen=True)
class Orientation:
    """The microphone's yaw against the picture, since the picture's beginning.

    Attributes
    ----------
    times_s : of the picture, ascending, [shape=(N,)].
    yaw_deg : counter-clockwise seen from above, 0 at the picture's beginning, without jumps at the
        back, [shape=(N,)]; held before the first and after the last.
    """

    path: Path
    times_s: FloatArray
    yaw_deg: FloatArray

    def at(self, times_s: FloatArray) -> FloatArray:
        """The yaw in degrees at times of the picture."""
        return np.interp(times_s, self.times_s, self.yaw_deg)

    def check_tells_of(self, duration_s: float) -> None:
        """Refuse rows all before or behind a picture: held there, they would turn nothing.

        Raises
        ------
        MediaError : with the times of both.
        """
        first_s, last_s = self.times_s[0], self.times_s[-1]
        if last_s <= 0 or first_s >= duration_s:
            raise MediaError(
                f"{self.path} tells of {first_s:.12g} to {last_s:.12g} s, but the picture is from "
                f"0 to {duration_s:.2f} s: {TIME} has to count from the picture's beginning."
            )


def read_orientation(path: Path) -> Orientation:
    """Read a CSV file whose header names `time_s` and `yaw_deg`; other columns do not matter.

    Angles within one turn may be wrapped; those over more than a turn are continuous.

    Raises
    ------
    MediaError : missing, without those columns, or with rows that are no ascending numbers, or that
        do not tell which way round the microphone turned.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            missing = {TIME, YAW} - set(rows.fieldnames or ())
            if missing:
                raise MediaError(
                    f"{path} has no column {min(missing)}: an orientation is a CSV file, with "
                    f"commas between its columns, whose first line names {TIME} and {YAW}."
                )
            known = np.array([_numbers(path, rows.line_num, row) for row in rows])
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise MediaError(f"{path} is not a CSV file: {error}.") from error
    if len(known) < 2:
        raise MediaError(f"{path} has too few rows ({len(known)}): an orientation takes 2 or more.")
    times_s, yaw_deg = known.T
    back = np.flatnonzero(np.diff(times_s) <= 0)
    if len(back):
        raise MediaError(
            f"{path} does not go forward in time: {TIME} is {times_s[back[0]]:.15g}, then "
            f"{times_s[back[0] + 1]:.15g}. Sort its rows, and keep one of those of the same time."
        )
    yaw_deg = _continuous(path, times_s, yaw_deg)
    return Orientation(path, times_s, yaw_deg - np.interp(0.0, times_s, yaw_deg))


def _continuous(path: Path, times_s: FloatArray, yaw_deg: FloatArray) -> FloatArray:
    """The yaw without jumps at the back, [shape=(N,)].

    A step of half a turn or more may be one the other way. In angles over more than a turn it is
    what it says if it is slow enough; within one turn it is the other way, unless it is slow enough
    to be what it says: then either can be meant.
    """
    steps, wrapped = np.diff(yaw_deg), np.ptp(yaw_deg) <= 360
    slow = np.abs(steps) <= _FASTEST_DEG_S * np.diff(times_s)
    (doubtful,) = np.nonzero((np.abs(steps) >= 180) & (slow if wrapped else ~slow))
    if len(doubtful):
        at, step = doubtful[0], steps[doubtful[0]]
        other = np.sign(step) * ((abs(step) + 180) % 360 - 180)  # of a half turn the other half
        raise MediaError(
            f"{path} does not tell which way the microphone turned between {times_s[at]:.15g} and "
            f"{times_s[at + 1]:.15g} s: by {step:+g}° or by {other:+g}°. Write rows in between, "
            "less than 180° apart."
        )
    return np.unwrap(yaw_deg, period=360) if wrapped else yaw_deg


def _numbers(path: Path, line: int, row: dict[str, str]) -> tuple[float, float]:
    try:
        time_s, yaw_deg = float(row[TIME]), float(row[YAW])
    except (TypeError, ValueError) as error:
        raise MediaError(
            f"{path}, line {line}: {row[TIME]!r} and {row[YAW]!r} are not both numbers."
        ) from error
    if not (abs(time_s) <= _MOST and abs(yaw_deg) <= _MOST):
        raise MediaError(
            f"{path}, line {line}: {time_s:g} and {yaw_deg:g} are not both finite and within "
            f"±{_MOST:g}."
        )
    return time_s, yaw_deg
