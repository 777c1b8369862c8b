"""What can go wrong, drawn once.

    AvsaError                     anything this library raises on purpose
    ├── InputError                the caller's file or option is at fault  (exit 2, HTTP 4xx)
    │   ├── OptionError           an option, a path or a combination of them
    │   ├── MediaError            a file that cannot be read as what it should be
    │   │   └── NoSound           of a picture alone
    │   ├── UnsupportedMedia      a readable file of a kind that is refused by name
    │   └── UnusableContent       a readable file without what alignment needs (sound, length)
    ├── OutputError               the result could not be written          (exit 2, HTTP 5xx)
    │   └── DiskFull              no space left                            (exit 2, HTTP 507)
    └── Cancelled                 the caller asked to stop

Every message is one sentence that holds the offending value and what to do about it.
`code` is stable: tools may branch on it.
"""

from __future__ import annotations

import re


class AvsaError(Exception):
    """Anything this library raises on purpose; `str(error)` is fit to show to a user."""

    code = "internal"


class InputError(AvsaError):
    """The caller's file or option is at fault."""

    code = "invalid_input"


class OptionError(InputError):
    """An option, a path, or a combination of them makes no sense."""

    code = "invalid_option"


class MediaError(InputError):
    """A file is missing, empty, damaged, or not what its place asks for."""

    code = "unreadable_media"


class NoSound(MediaError):
    """A file without any sound, where sound is asked for."""


class UnsupportedMedia(InputError):
    """A readable file of a kind that is refused by name, with the way to convert it."""

    code = "unsupported_media"


class UnusableContent(InputError):
    """A readable file that lacks what alignment needs: sound, length, overlap."""

    code = "unusable_content"


class OutputError(AvsaError):
    """The result could not be written."""

    code = "output_failed"


class DiskFull(OutputError):
    """No space is left where the result goes."""

    code = "disk_full"


class Cancelled(AvsaError):
    """The caller asked to stop."""

    code = "cancelled"


def in_one_line(words: object) -> str:
    """Words for a terminal: of names in them, line ends and what it would obey are spelled out."""
    return re.sub(
        r"[\x00-\x1f\x7f-\x9f\u2028\u2029]",
        lambda found: found[0].encode("unicode_escape").decode(),
        str(words),
    )
