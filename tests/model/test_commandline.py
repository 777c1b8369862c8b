"""The command line: what it prints, what it leaves, how it ends."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import model
from model.align import Outputs
from model.ambisonics import Convention, Fix
from model.checkpoint import Method
from model.commandline import main
from model.errors import OptionError
from model.options import Options
from model.output import JSON, check_output, whole_file
from model.take import Track
from tests.bad_inputs import BAD_INPUTS
from training.data.takes import TakeFiles


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_person_runs_one_command(take: TakeFiles, tmp_path: Path) -> None:
    """As a process of its own, with files beside each other and nothing said about outputs."""
    for path in (take.video, take.audio):
        shutil.copyfile(path, tmp_path / path.name)

    done = subprocess.run(
        [sys.executable, "-m", "model.align", "take.mp4", "take.wav"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = re.search(
        r"take\.wav: Misaligned: turn the sound field (\d+\.\d)° to the left", done.stdout
    )
    assert told is not None
    assert abs(float(told[1]) + take.rotated_deg) <= 10
    assert "corrected: take_aligned.wav" in done.stdout
    assert listing(tmp_path) == {"take.mp4", "take.wav", "take_aligned.wav"}


@pytest.mark.parametrize(("asked", "spins"), [({}, 0), ({"GOMP_SPINCOUNT": "300000"}, 300_000)])
def test_threads_that_wait_leave_their_core_to_others(asked: dict[str, str], spins: int) -> None:
    """Unless somebody wants it otherwise; as the library of torch's threads says itself."""
    without = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}

    done = subprocess.run(
        [sys.executable, "-c", "import model, torch"], capture_output=True, text=True,
        env={**without, "OMP_DISPLAY_ENV": "verbose", **asked},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input_ends_with_a_sentence_and_nothing_left(
    take: TakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    video, audio, words = BAD_INPUTS[name](take.video, take.audio, tmp_path)
    before = listing(tmp_path)

    status = main([str(video), str(audio), "-o", str(tmp_path / "out.wav")])

    told = capsys.readouterr()
    assert status == 2
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert re.match(rf"error: .*{words}", told.err), told.err
    assert listing(tmp_path) == before


def test_outputs_that_cannot_be(
    take: TakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio = tmp_path / "t.wav"
    shutil.copyfile(take.audio, audio)
    for arguments, words in (
        (["-o", str(tmp_path / "no" / "out.wav")], "cannot be written"),
        (["-o", str(audio)], "never overwritten"),
        (["-o", str(tmp_path)], "cannot be written: it is a folder|should end in"),
        (["-o", str(tmp_path / "out.mp3")], r"should end in .*\.wav"),
        (["--output-dir", str(tmp_path / "no")], "does not exist"),
        (["-o", str(tmp_path / "out.wav"), "--report", os.devnull], "no regular file"),
        (["-o", str(tmp_path / "o.wav"), "--report", str(tmp_path / "no" / "r.json")], "cannot be"),
    ):
        assert main([str(take.video), str(audio), *arguments]) == 2
        assert re.search(words, capsys.readouterr().err)
    assert listing(tmp_path) == {"t.wav"}


@pytest.mark.parametrize("option", ["--report", "--plot", "--preview"])
def test_no_other_kind_of_file_gives_way_to_a_report(
    take: TakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    other = tmp_path / "other.wav"
    shutil.copyfile(take.audio, other)

    status = main(
        [str(take.video), str(take.audio), "-o", str(tmp_path / "o.wav"), option, str(other)]
    )

    assert status == 2
    assert "other.wav is there already, and" in capsys.readouterr().err
    assert other.read_bytes() == take.audio.read_bytes()
    assert listing(tmp_path) == {"other.wav"}


def test_an_empty_file_is_of_every_kind_and_a_name_may_be_long(tmp_path: Path) -> None:
    """As `mktemp` makes them; of the 255 bytes that a name may have."""
    path = tmp_path / (125 * "\u00e9" + ".json")
    path.touch()

    check_output(path, [], begins=JSON)
    with whole_file(path) as part:
        part.write_text("{}")

    assert path.read_text() == "{}"
    assert listing(tmp_path) == {path.name}


def test_a_folder_of_results_and_one_bad_track(
    take: TakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, bad, words = BAD_INPUTS["mono"](take.video, take.audio, tmp_path)
    results = tmp_path / "results"
    results.mkdir()

    tracks = [str(take.audio), str(bad)]
    status = main(
        [str(take.video), *tracks, "--output-dir", str(results), "--tolerance-deg", "179"]
    )

    told = capsys.readouterr()
    assert status == 2
    assert re.search(words, told.err)
    assert "take.wav: Aligned" in told.out
    assert f"untouched copy: {results}" in told.out
    assert listing(results) == {"take_aligned.wav", "take_aligned.json", "take_aligned.png"}


def test_the_report_on_standard_output(
    take: TakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(take.video), str(take.audio), "-o", str(tmp_path / "o.wav"), "--json"]

    assert main([*arguments, "--windows", "1"]) == 0

    report = json.loads(capsys.readouterr().out)
    assert len(report["windows"]) == 1


def test_quiet_is_quiet(
    take: TakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(take.video), str(take.audio), "-o", str(tmp_path / "o.wav"), "--quiet"]

    assert main(arguments) == 0

    assert capsys.readouterr() == ("", "")


def test_a_dash_is_the_sound_inside_the_video(
    take: TakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(take.video), "-", "-o", str(tmp_path / "o.wav")]) == 2
    assert "has no sound" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--windows", "0"], "at least 1"),
        (["--channels", "a,b"], "not a list of numbers"),
        (["--channels", "0,1,2,9"], "between 0 and 3"),
        (["--join"], "only"),
        (["--device", "cuda"], "no CUDA GPU"),
        (["--device", "gpu"], "gpu is not known"),
        (["--apply-deg", "nan"], "must be within a turn"),
        (["--apply-deg", "360"], "must be within a turn"),
        (["--offset-s", "nan"], "must be a finite number"),
        (["--convention", "fuma", "--offset-s", "90"], "overlap"),
    ],
)
def test_usage_errors(
    take: TakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    arguments: list[str], words: str,
) -> None:  # fmt: skip
    output = ["-o", str(tmp_path / "o.wav")]
    assert main([str(take.video), str(take.audio), *output, *arguments]) == 2
    assert words in capsys.readouterr().err
    assert listing(tmp_path) == set()


def test_a_part_of_a_split_track_is_named_once(
    take: TakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(take.video), str(take.audio), str(take.audio), "--join"]) == 2
    assert "take.wav was named twice" in capsys.readouterr().err


def test_every_option_reaches_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, Track, Outputs, Options]] = []

    def heard(
        video: Path, track: Track, outputs: Outputs, options: Options, *, notify: object
    ) -> None:
        asked.append((video, track, outputs, options))
        raise OptionError("enough")

    monkeypatch.setattr("model.commandline.align", heard)
    v, t, o, r, p, w, a, b = (tmp_path / name for name in "vtorpwab")
    ends = ["-o", str(o), "--report", str(r), "--plot", str(p)]

    main(
        f"{v} {t} --convention fuma --fix mirror --channels 3,0,1,2 --stereo mono --offset-s 1.5 "
        f"--windows 3 --tolerance-deg 4 --method evidence --weights {a} --reference {b} --float "
        "--apply-undecided --over-time --follow --lay-on-picture".split()
        + ends
    )
    main(f"{v} {t} --method avsa --checkpoint {a} --orientation {b}".split() + ends)
    main(f"{v} {t} --detections {a} --apply-deg -37.5 --preview {w}".split() + ends)
    main(f"{v} {t} --detector {a}".split() + ends)
    main(f"{v} {t} {a} --join".split() + ends)

    track, outputs = Track((t,)), Outputs(o, r, p)
    everything = Options(
        3, 4.0, "mono", method=Method.EVIDENCE, weights=a, reference=b, float_output=True,
        apply_undecided=True, over_time=True, follow=True, lay_on_picture=True,
    )  # fmt: skip
    assert asked == [
        (v, Track((t,), Convention.FUMA, (3, 0, 1, 2), 1.5, Fix.MIRROR), outputs, everything),
        (v, track, outputs, Options(method=Method.AVSA, checkpoint=a, orientation=b)),
        (v, track, Outputs(o, r, p, w), Options(detections=a, apply_deg=-37.5)),
        (v, track, outputs, Options(detector=a)),
        (v, Track((t, a)), outputs, Options()),
    ]


def test_several_tracks_and_one_output(
    take: TakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracks = [str(take.audio), str(take.audio)]
    assert main([str(take.video), *tracks, "-o", str(tmp_path / "o.wav")]) == 2
    assert "use --output-dir" in capsys.readouterr().err
    assert main([str(take.video), *tracks, "--output-dir", str(tmp_path)]) == 2
    assert "Two results would be written" in capsys.readouterr().err
    other = tmp_path / "take.flac"
    soundfile.write(other, np.zeros((48_000, 4)), 48_000)
    tracks = [str(take.audio), str(other)]
    assert main([str(take.video), *tracks, "--output-dir", str(tmp_path)]) == 2
    assert "take_aligned.json" in capsys.readouterr().err
    one = str(tmp_path / "o.wav")
    for same in (one, str(tmp_path / "O.WAV")):
        assert main([str(take.video), str(take.audio), "-o", one, "--report", same]) == 2
        assert "Two results" in capsys.readouterr().err
    assert listing(tmp_path) == {"take.flac"}


def test_a_track_is_not_the_place_of_anothers_result(
    take: TakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when `*.wav` is named a second time."""
    tracks = [tmp_path / "t.wav", tmp_path / "t_aligned.wav"]
    for track in tracks:
        shutil.copyfile(take.audio, track)
    before = tracks[1].read_bytes()

    assert main([str(take.video), *map(str, tracks)]) == 2

    assert "t_aligned.wav is named as an input" in capsys.readouterr().err
    assert tracks[1].read_bytes() == before
    assert listing(tmp_path) == {"t.wav", "t_aligned.wav"}


@pytest.mark.parametrize("of_checkpoint", [False, True])
def test_a_report_does_not_take_the_place_of_a_calibration(
    take: TakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str], of_checkpoint: bool
) -> None:
    """Which is JSON as well."""
    shipped = Path(model.__file__).parent / "weights" / "evidence.json"
    named, beside = tmp_path / "mine", tmp_path / "mine.json"
    shutil.copyfile(shipped, beside)
    by = ["--method", "avsa", "--checkpoint", str(named)] if of_checkpoint else [
        "--method", "evidence", "--weights", str(beside)
    ]  # fmt: skip

    arguments = [str(take.video), str(take.audio), "-o", str(tmp_path / "o.wav"), *by]

    assert main([*arguments, "--report", str(beside)]) == 2
    assert "mine.json is named as an input" in capsys.readouterr().err
    assert beside.read_bytes() == shipped.read_bytes()
    assert listing(tmp_path) == {"mine.json"}


@pytest.mark.parametrize(
    ("place", "option"), [(0, "-o"), (1, "-o"), (3, "-o"), (3, "--output-dir"), (5, "-o")]
)
def test_names_that_no_file_can_have(
    take: TakeFiles, upright: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    place: int, option: str,
) -> None:  # fmt: skip
    """Of which the system says so, as of files in a folder that is closed to the user."""
    arguments = [take.video, take.audio, option, tmp_path / "o.wav", "--reference", upright]
    arguments[place] = tmp_path / (300 * "x" + ".wav")

    assert main([str(argument) for argument in arguments]) == 2

    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "File name too long" in told
    assert listing(tmp_path) == set()


@pytest.mark.parametrize("place", [0, 1, 5])
def test_links_that_go_in_circles(
    take: TakeFiles, upright: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: int
) -> None:
    arguments = [take.video, take.audio, "-o", tmp_path / "o.wav", "--reference", upright]
    arguments[place] = tmp_path / "circle.wav"
    (tmp_path / "circle.wav").symlink_to("circle.wav")

    assert main([str(argument) for argument in arguments]) == 2

    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "circle.wav" in told
    assert listing(tmp_path) == {"circle.wav"}


def test_tracks_of_any_name(take: TakeFiles, tmp_path: Path) -> None:
    """That are no UTF-8, look like a formula, or cannot be said where only ASCII is printed."""
    stems = [os.fsdecode(name) for name in (b"caf\xe9", b"$5^$ and $6", "Tür 東京".encode())]
    tracks, results = [tmp_path / f"{stem}.wav" for stem in stems], tmp_path / "results"
    for track in tracks:
        shutil.copyfile(take.audio, track)
    results.mkdir()

    done = subprocess.run(
        [sys.executable, "-m", "model.align", take.video, *tracks, "--output-dir", results],
        capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"Misaligned") == len(stems)
    ends = (".wav", ".json", ".png")
    assert listing(results) == {f"{stem}_aligned{end}" for stem in stems for end in ends}


@pytest.mark.parametrize("command", ["commandline", "conventions", "reference", "sync"])
def test_a_name_of_two_lines_is_told_in_one(
    take: TakeFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """And obeyed by no terminal."""
    track = tmp_path / "a\nb\x1b[2J.wav"
    track.write_text("no sound")
    before = [] if command == "conventions" else [str(take.video)]
    if command in ("reference", "sync"):
        before = [str(take.audio)]

    assert importlib.import_module(f"model.{command}").main([*before, str(track)]) == 2

    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert r"a\nb\x1b[2J.wav" in told


@pytest.mark.parametrize(
    "option",
    ["--reference", "--orientation", "--detections", "--detector", "--weights",
     "--method=avsa --checkpoint"],
)  # fmt: skip
def test_a_file_that_cannot_serve_is_told_before_any_work(
    take: TakeFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], option: str,
) -> None:  # fmt: skip
    """A pipe too: what waited for its end would wait for good."""
    names = {name: tmp_path / name for name in ("none", "pipe", "folder", "void")}
    os.mkfifo(names["pipe"])
    names["folder"].mkdir()
    names["void"].touch()
    monkeypatch.setattr("model.align.Take", lambda *_, **__: pytest.fail("the take was opened"))
    for name, words in (
        ("none", "does not exist"), ("pipe", "is not a file"), ("folder", "is not a file"),
        ("void", "is empty"),
    ):  # fmt: skip
        asked = [*option.split(), str(names[name])]

        assert main([str(take.video), str(take.audio), *asked, "-o", str(tmp_path / "o.wav")]) == 2
        assert re.fullmatch(
            rf"error: .*{option.split()[-1][2:]}.*{name} {words}\.\n", capsys.readouterr().err
        )


@pytest.mark.parametrize("option", ["--detections", "--detector", "--weights", "--reference"])
def test_a_file_of_another_kind_is_told_before_any_work(
    take: TakeFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], option: str,
) -> None:  # fmt: skip
    def no_detector(weights: Path, _device: str) -> None:
        raise OptionError(f"{weights} does not hold weights.")

    notes = tmp_path / "notes"
    notes.write_text("of the shoot")
    # Itself it would first load torchvision, which takes seconds.
    monkeypatch.setattr("model.decision.load_detector", no_detector)
    monkeypatch.setattr("model.align.Take", lambda *_, **__: pytest.fail("the take was opened"))

    status = main(
        [str(take.video), str(take.audio), option, str(notes), "--output-dir", str(tmp_path)]
    )

    assert status == 2
    assert re.fullmatch(r"error: .*notes .*\n", capsys.readouterr().err)
