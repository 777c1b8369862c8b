"""What keeps the service from starting is one sentence, before anything is begun."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from service.__main__ import main
from service.settings import unknown_names

BAD_SETTINGS = {
    "REDIS_URL": [
        "http://here", "unix:///run/redis.sock", "redis://here:port/0", "redis://here/jobs",
    ],
    "OBJECTS_URL": ["https://store/takes/", "takes/in", "s3://takes"],
    "RESULTS_URL": ["s3:/takes/out/"],
    "OBJECT_ROOTS": ['["s3://takes/in/", "takes/out"]'],
    "OBJECT_ENDPOINT": ["store.internal:9000", "https://store:port", "https://a store"],
    "MEDIA_ROOTS": ["/takes"],
    "BEAT_S": ["30", "0"],
    "SWEEP_S": ["inf", "nan", "1e300"],
    "UPLOAD_SWEEP_S": ["inf"],
    "UPLOAD_TTL_S": ["inf"],
    "LEASE_S": ["inf"],
    "WAKE_UP_S": ["inf"],
    "PORT": ["70000"],
    "HOST": [""],
    "DATA_DIR": [""],
    "CORS_ORIGINS": ['["*"]', '["here.example"]', '["https://here.example/"]'],
    "WEBHOOK_SECRET": [f"{'a' * 20} {'b' * 20}"],
}  # fmt: skip


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence that comes in place of a start."""
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVSA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr("service.logs.configure", lambda form: None)  # those of this process


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD_SETTINGS.items() for value in values]
)
def test_a_setting_that_does_not_fit_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"AVSA_{name}", value)
    assert f"AVSA_{name} does not fit" in refused([], capsys)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PORT", "8o", "(it is '8o')"),
        ("DEVICE", "gpu", "write where children compute: cpu, cuda"),
        ("ADMIN_KEY", "s3cret", "write 32 characters or more"),
        ("REDIS_URL", "redis://avsa:s3cret/x@here:6379", "as %XX"),
    ],
)
def test_a_value_is_told_unless_it_is_secret(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv(f"AVSA_{name}", value)
    sentence = refused([], capsys)
    assert words in sentence
    assert "s3cret" not in sentence


def test_a_setting_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVSA_MAX_UPLOAD_BYTE", "1")
    monkeypatch.setenv("AVSA_PUBLISH", "0.0.0.0:8000")
    assert list(unknown_names()) == [
        "there is no setting AVSA_MAX_UPLOAD_BYTE: is AVSA_MAX_UPLOAD_BYTES meant?"
    ]


def test_what_the_command_line_sets_has_to_fit_as_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "AVSA_PORT" in refused(["--port", "70000"], capsys)
    monkeypatch.setenv("AVSA_REDIS_URL", "redis://127.0.0.1:1/0")
    assert "AVSA_DEVICE" in refused(["worker", "--device", "gpu"], capsys)


@pytest.mark.parametrize("days", ["0", "inf", "nan", "1e9"])
def test_a_key_is_good_for_some_days(days: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{float(days):g} days" in refused(["keys", "add", "a", "--days", days], capsys)


@pytest.mark.parametrize("limit", ["-1", "0", str(1 << 64)])
def test_some_jobs_are_listed(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"limit is {limit}" in refused(["jobs", "list", "--limit", limit], capsys)


@pytest.mark.parametrize("name", ["jobs.sqlite", "keys.sqlite"])
def test_a_damaged_table_is_named(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "data" / name
    file.parent.mkdir()
    file.write_bytes(b"no table " * 1000)
    assert str(file) in refused([], capsys)
    assert file.read_bytes() == b"no table " * 1000


def test_a_table_of_a_newer_service_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    with sqlite3.connect(tmp_path / "data" / "jobs.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    assert "version 99" in refused([], capsys)


def test_a_data_folder_that_cannot_hold_ours_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "uploads").touch()
    assert str(tmp_path / "data") in refused([], capsys)


@pytest.mark.needs("root")
def test_a_data_folder_that_only_reads_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path / "data")]
    subprocess.run(mount, check=True)
    try:
        assert "Read-only" in refused([], capsys)
    finally:
        subprocess.run(["umount", tmp_path / "data"], check=True)


@pytest.mark.needs("root")
@pytest.mark.parametrize("begun", [(), ("uploads", "results")])
def test_a_disk_too_full_to_begin_on_is_named(
    begun: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "data"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    try:
        for name in begun:
            (disk / name).mkdir()
        with suppress(OSError), (disk / "of others").open("wb", 0) as file:
            while file.write(bytes(4096)):
                pass
        told = refused([], capsys)
        assert f"{disk} is full" in told
        assert "free some space" in told
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
