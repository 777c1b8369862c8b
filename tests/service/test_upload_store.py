"""The store of uploads against a plain model, with writers that die at any point."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from model.errors import DiskFull
from service import uploads
from service.problems import Problem
from service.storage import Storage
from service.uploads import Check, UploadStore, Writer

SOURCE = np.random.default_rng(0).bytes(400)
ID = "0123456789abcdef" * 2


def new_store(folder: Path, *, reserve_bytes: int = 0, ttl_s: float = 100.0) -> UploadStore:
    return UploadStore(folder, Storage(folder, reserve_bytes), max_bytes=1000, ttl_s=ttl_s)


class Cuts(RuleBasedStateMachine):
    """Whatever is cut off, the offset tells how much of the source is there, to the byte."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.kept = b""
        self.n_proven = 0
        self.complete = False

    def teardown(self) -> None:
        self.folder.cleanup()

    @property
    def store(self) -> UploadStore:
        """A process that has just started."""
        return new_store(Path(self.folder.name))

    @initialize()
    def begin(self) -> None:
        self.store.create(ID, name="a.wav", owner="", length=len(SOURCE))

    @precondition(lambda self: not self.complete)
    @rule(
        size=strategies.integers(0, 90), written=strategies.floats(0, 1),
        end=strategies.sampled_from(["whole", "broken", "killed"]),
        check=strategies.sampled_from([None, "right", "wrong"]),
    )  # fmt: skip
    def append(self, size: int, written: float, end: str, check: str | None) -> None:
        store = self.store
        with store.locked(ID, owner="") as upload:
            assert upload.offset == len(self.kept)
            data = SOURCE[upload.offset : upload.offset + size]
            sent = data if end == "whole" else data[: round(written * len(data))]
            expected = hashlib.sha256(data if check == "right" else b"?").digest()
            writer = store.writer(upload, check=Check("sha256", expected) if check else None)
            writer.write(bytearray(sent))
            if end == "killed":
                os.close(writer._file)
            else:
                self.close(writer, end == "whole", wrong=check == "wrong")
                if end == "whole" and writer.offset == upload.length:
                    writer.finish()
        if check is None or (end == "whole" and check == "right"):
            self.kept += sent
        self.complete = len(self.kept) == len(SOURCE)

    @precondition(lambda self: self.complete)
    @rule()
    def take(self) -> None:
        """All that can be done with one that is whole; a machine always needs a step to take."""
        job = Path(self.folder.name) / "job"
        assert self.store.take(ID, job, "1", owner="").path.read_bytes() == SOURCE
        shutil.rmtree(job)

    def close(self, writer: Writer, whole: bool, *, wrong: bool) -> None:
        if wrong and whole:
            with pytest.raises(Problem, match="damaged"):
                writer.close(whole=True)
        else:
            writer.close(whole=whole)

    @invariant()
    def the_offset_is_what_counts(self) -> None:
        upload = self.store.get(ID, owner="")
        assert upload.offset == len(self.kept)
        with self.store.locked(ID, owner="") as upload:
            assert upload.offset == len(self.kept)
            assert upload.complete == (len(self.kept) == len(SOURCE))
        name = "data" if upload.complete else "data.part"
        assert (Path(self.folder.name) / "incoming" / ID / name).read_bytes() == self.kept
        assert SOURCE.startswith(self.kept)
        assert upload.sha256 in (None, hashlib.sha256(SOURCE).hexdigest())


TestCuts = Cuts.TestCase
TestCuts.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


def test_another_owners_upload_is_not_there(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.create(ID, name="a.wav", owner="me", length=0)

    assert store.get(ID, owner="me").complete
    for look in (
        lambda: store.get(ID, owner="you"),
        lambda: store.take(ID, tmp_path / "job", "1", owner="you"),
        lambda: store.locked(ID, owner="you").__enter__(),
    ):
        with pytest.raises(Problem) as told:
            look()
        assert told.value.status == 404


def test_an_upload_serves_several_jobs_and_outlives_itself(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    with store.locked(store.create(ID, name="x.WAV", owner="", length=3).id, owner="") as upload:
        writer = store.writer(upload, check=Check("sha256"))
        writer.write(bytearray(b"abc"))
        writer.close(whole=True)
        writer.finish()
    assert store.get(ID, owner="").sha256 == hashlib.sha256(b"abc").hexdigest()

    files = [store.take(ID, tmp_path / job, "2", owner="") for job in ("one", "two")]
    with store.locked(ID, owner="") as upload:
        store.delete(upload)

    assert [file.path.name for file in files] == ["2.wav", "2.wav"]
    assert [file.path.read_bytes() for file in files] == [b"abc", b"abc"]
    assert list((tmp_path / "incoming").iterdir()) == []


def test_an_upload_that_is_begun_again_meanwhile_is_locked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two hold its lock, and the second cuts off what the first writes."""
    store = new_store(tmp_path)
    old = store.create(ID, name="", owner="", length=5)
    locked = uploads._locked

    def begun_again_before(lock: int, path: Path) -> bool:
        monkeypatch.undo()
        store.delete(old)
        store.create(ID, name="", owner="", length=5)
        return locked(lock, path)

    monkeypatch.setattr(uploads, "_locked", begun_again_before)
    with (
        store.locked(ID, owner=""),
        pytest.raises(Problem, match="Another request"),
        store.locked(ID, owner="", wait_s=0.0),
    ):
        pass


def test_the_reserve_is_left_free(tmp_path: Path) -> None:
    store = new_store(tmp_path, reserve_bytes=1 << 62)
    with pytest.raises(DiskFull, match="no space left for 10 bytes: 0 are free"):
        store.create(ID, name="", owner="", length=10)
    assert list((tmp_path / "incoming").iterdir()) == []
    new_store(tmp_path).create(ID, name="", owner="", length=10)
    with store.locked(ID, owner="") as upload:
        writer = store.writer(upload)
        with pytest.raises(DiskFull, match="no space left for 3 bytes"):
            writer.write(bytearray(b"abc"))
        writer.close(whole=False)
    assert store.get(ID, owner="").offset == 0


def test_what_cannot_be_begun_leaves_nothing(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    with pytest.raises(Problem, match="the limit is 1000"):
        store.create(ID, name="", owner="", length=1001)
    store.create(ID, name="", owner="me", length=1000)
    with pytest.raises(Problem, match="already"):
        store.create(ID, name="", owner="you", length=1)
    assert [path.name for path in (tmp_path / "incoming").iterdir()] == [ID]
    assert store.get(ID, owner="me").length == 1000


def test_a_sweep_spares_what_is_young_or_being_written(tmp_path: Path) -> None:
    store = new_store(tmp_path, ttl_s=50)
    old, young, busy = (ID.replace("0", digit) for digit in "abc")
    for upload_id in (old, young, busy):
        store.create(upload_id, name="", owner="", length=5)
    for upload_id in (old, busy):
        part = tmp_path / "incoming" / upload_id / "data.part"
        os.utime(part, (time.time() - 60,) * 2)

    for name, age_s in ((f".{old}.1.new", 60), (f".{young}.2.new", 0)):  # of processes that died
        (tmp_path / "incoming" / name).mkdir()
        os.utime(tmp_path / "incoming" / name, (time.time() - age_s,) * 2)

    with store.locked(busy, owner=""):
        assert store.sweep() == [old]
    dotted = [path.name for path in (tmp_path / "incoming").iterdir() if path.name[0] == "."]
    assert dotted == [f".{young}.2.new"]
    assert store.sweep() == [busy]
    assert store.get(young, owner="").offset == 0


def test_a_sweep_spares_a_request_that_has_just_taken_an_old_upload(tmp_path: Path) -> None:
    store, storage = new_store(tmp_path), Storage(tmp_path)
    store.create(ID, name="a.wav", owner="", length=0)
    long_ago = (time.time() - 60,) * 2
    os.utime(tmp_path / "incoming" / ID / "data", long_ago)
    folder = storage.upload_folder("job")

    store.take(ID, folder, "1", owner="")

    assert storage.sweep(lambda _: False, older_than_s=50) == []
    os.utime(folder, long_ago)
    assert storage.sweep(lambda _: False, older_than_s=50) == ["job"]


@pytest.mark.parametrize("name", ["upload.json", "unproven"])
def test_a_damaged_upload_is_told_and_keeps_no_other_from_being_swept(
    tmp_path: Path, name: str
) -> None:
    store, old = new_store(tmp_path, ttl_s=50), time.time() - 100
    ids = [f"{n:032x}" for n in range(6)]  # in whatever order they are swept
    for upload_id in ids:
        store.create(upload_id, name="a", owner="o", length=5)
        folder = tmp_path / "incoming" / upload_id
        os.utime(folder / "data.part", (old, old))
    for upload_id, damage in zip(ids[1:5], ("", "[]", "x", "0x5"), strict=True):
        folder = tmp_path / "incoming" / upload_id
        (folder / name).write_text(damage or " ")
        with pytest.raises(Problem, match=rf"{upload_id} is damaged: begin another"):
            store.get(upload_id, owner="o")
        if upload_id != ids[4]:
            os.utime(folder, (old, old))
    (tmp_path / "incoming" / ids[5] / "data.part").unlink()

    assert sorted(store.sweep()) == [ids[0]]
    assert sorted(path.name for path in (tmp_path / "incoming").iterdir()) == ids[4:]  # the young


def test_who_makes_room_may_delete_the_folder_of_uploads(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    shutil.rmtree(tmp_path / "incoming")
    assert store.sweep() == []
    assert store.create(ID, name="a", owner="", length=5).offset == 0
    shutil.rmtree(tmp_path)  # but that disk is gone, and another may be below
    with pytest.raises(FileNotFoundError):
        store.create(ID, name="a", owner="", length=5)
    assert not tmp_path.exists()
