"""Names of corrected files: a suffix promises a format, and the promise is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.errors import OptionError
from model.media.audio import LIBSNDFILE_BITS, AudioInfo
from model.media.embedded import is_embedded

RIFF_CONTAINERS = ("wav", "rf64", "bw64")
# Readers take the sound of ".amb" for FuMa, whatever is inside.
FUMA_SUFFIX = ".amb"
_SUFFIXES = {
    "wav": (".wav", ".wave", ".bwf", FUMA_SUFFIX),
    "rf64": (".wav", ".rf64", ".bwf"),
    "bw64": (".wav", ".bw64", ".bwf"),
    "w64": (".w64",),
    "aiff": (".aiff", ".aif", ".aifc"),
    "caf": (".caf",),
    "flac": (".flac",),
}
_NEW_WAV = (".wav", ".wave", FUMA_SUFFIX)


@dataclass(frozen=True)
class Rewriting:
    """What is asked of a corrected file that the track's own format may not give.

    Attributes
    ----------
    joined : the track is spread over several files.
    laid : it is laid on another clock.
    floats : 32-bit floats are asked for.
    """

    joined: bool = False
    laid: bool = False
    floats: bool = False


_NOTHING = Rewriting()


def keeps_format(info: AudioInfo, asked: Rewriting = _NOTHING) -> bool:
    """Whether a corrected file can be of the track's own format; it is a new WAV otherwise."""
    if asked.joined or asked.laid or info.codec not in ("pcm", "flac"):
        return False
    if info.codec == "flac" and info.format and info.format.bits not in LIBSNDFILE_BITS:
        return False
    return info.container in (RIFF_CONTAINERS if asked.floats else _SUFFIXES)


def own_suffixes(info: AudioInfo) -> tuple[str, ...]:
    """Suffixes of the track's own format, if files of it are written."""
    return _SUFFIXES[info.container] if keeps_format(info) else ()


def changed_in_place(info: AudioInfo, asked: Rewriting) -> bool:
    """Whether a whole MP4 or MOV can be written with only the track's samples changed."""
    return is_embedded(info) and asked == _NOTHING


def output_suffix(info: AudioInfo, asked: Rewriting = _NOTHING) -> str:
    """Suffix of a corrected file: the input's own, or .wav where a new WAV is written."""
    true = own_suffixes(info) if keeps_format(info, asked) else _NEW_WAV
    return info.path.suffix if info.path.suffix.lower() in true else ".wav"


def check_suffix(
    info: AudioInfo, output: Path, asked: Rewriting = _NOTHING, *, fuma: bool = False
) -> None:
    """Refuse an output name whose suffix promises what would not be in it.

    fuma : the field is in FuMa order and weights.

    Raises
    ------
    OptionError : naming the suffixes that would do.
    """
    true = {*_NEW_WAV, *(own_suffixes(info) if keeps_format(info, asked) else ())}
    if changed_in_place(info, asked):
        true.add(info.path.suffix.lower())
    if not (fuma or info.path.suffix.lower() == FUMA_SUFFIX):
        true.discard(FUMA_SUFFIX)
    if output.suffix.lower() not in true:
        own = true - {*_NEW_WAV}
        way = "in its own format, or as WAV" if own else "into a new WAV file here"
        raise OptionError(
            f"The output {output} should end in {' or '.join(sorted(true))}: {info.path.name} is "
            f"corrected {way}."
        )
