"""Numbers of a command line, refused where they make no sense: types of argparse's arguments."""

from __future__ import annotations

import argparse
import math
from functools import partial


def at_least(least: int, text: str) -> int:
    """A whole number of a command line that must not be below another."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least} up")
    return int(text)


one_or_more = partial(at_least, 1)
none_or_more = partial(at_least, 0)


def even_height(text: str) -> int:
    """A picture's height: coders take even ones alone, and the smallest say nothing."""
    height = at_least(_LEAST_HEIGHT, text)
    if height % 2:
        raise argparse.ArgumentTypeError(f"{text} is odd; coders take even numbers of pixels")
    return height


def a_duration(text: str) -> float:
    """A duration, long enough that something can be seen and heard in it."""
    duration_s = _number(text)
    if not _LEAST_S <= duration_s < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a duration from {_LEAST_S:g} s up")
    return duration_s


def positive(text: str) -> float:
    """A finite number above 0."""
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def not_negative(text: str) -> float:
    """A finite number from 0 up."""
    number = _number(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 up")
    return number


def finite(text: str) -> float:
    """Any number that is one."""
    number = _number(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return number


def a_share(text: str) -> float:
    """A part of a whole: above 0, 1 at most."""
    share = _number(text)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share above 0 and up to 1")
    return share


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a number") from None


_LEAST_HEIGHT = 16
_LEAST_S = 0.5
