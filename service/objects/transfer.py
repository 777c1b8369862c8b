"""A job's files between an object store and the disk of the worker's child.

A file of a job's spec that lies in an object store has no path yet, but an `object`: its address,
and the size and version it had when the job was submitted.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from model.errors import DiskFull
from service.companions import COMPANIONS
from service.objects.names import ObjectName
from service.objects.store import ObjectFacts, ObjectStore
from service.settings import Settings
from service.storage import full_disk_told, safe_suffix

# Fetched files lie here, beside the results of the attempt, and go with them.
_FOLDER = "inputs"


def fetch_inputs(job: dict[str, Any], notify: Callable[[float], None]) -> dict[str, Any]:
    """Fetch what a job has in an object store; returns the job with all its paths.

    notify : is told the fraction of the bytes that are there.

    Raises
    ------
    MediaError : an object is gone, changed, or out of reach.
    DiskFull : no space for them.
    """
    tracks = job["tracks"]
    single = {name: job[name] for name in ("video", *COMPANIONS) if name in job}
    entries = [(file.get("object"), file["label"]) for file in single.values()]
    for track in tracks:
        entries += zip(track.get("objects", []), track["labels"], strict=False)
    wanted = {entry["uri"]: (entry, label) for entry, label in entries if entry}
    if not wanted:
        return job
    folder = Path(job["folder"]) / _FOLDER
    with full_disk_told("the job's files"):
        folder.mkdir(parents=True)
    total, before = sum(entry["size"] for entry, _ in wanted.values()), 0
    free = shutil.disk_usage(folder).free
    if free < total:
        raise DiskFull(f"No space is left to fetch {total} bytes of the job's files: {free} free.")
    paths = {}
    with closing(ObjectStore(Settings.load())) as store:
        for number, (uri, (entry, label)) in enumerate(wanted.items()):

            def tell(fraction: float, size: int = entry["size"], before: int = before) -> None:
                notify((before + fraction * size) / max(1, total))

            path = folder / f"file-{number}{safe_suffix(label)}"
            facts = ObjectFacts(entry["size"], entry["etag"])
            store.fetch(ObjectName.parse(uri), facts, path, tell)
            before += entry["size"]
            paths[uri] = str(path)
    return {
        **job,
        **{name: _with_path(file, paths) for name, file in single.items()},
        "tracks": [_with_paths(track, paths) for track in tracks],
    }


def _with_path(file: dict[str, Any], paths: dict[str, str]) -> dict[str, Any]:
    entry = file.get("object")
    return {**file, "path": paths[entry["uri"]]} if entry else file


def _with_paths(track: dict[str, Any], paths: dict[str, str]) -> dict[str, Any]:
    entries = track.get("objects") or [None] * len(track["paths"])
    return {
        **track,
        "paths": [
            paths[entry["uri"]] if entry else path
            for entry, path in zip(entries, track["paths"], strict=True)
        ],
    }


def drop_inputs(job: dict[str, Any]) -> None:
    """Delete what was fetched."""
    shutil.rmtree(Path(job["folder"]) / _FOLDER, ignore_errors=True)


def store_outputs(job: dict[str, Any], index: int, result: dict[str, Any]) -> dict[str, Any]:
    """Move a track's results to where the job wants them; returns the result with addresses.

    They lie below JOB/ATTEMPT/, so that an attempt that has lost its job overwrites nothing.

    Raises
    ------
    OutputError : the store does not take them.
    """
    if not job.get("output"):
        return result
    folder = Path(job["folder"])
    target = ObjectName.parse(job["output"]).below(*folder.parts[-2:])
    files = {
        "audio": result["audio"],
        "report": f"report-{index}.json",
        "plot": f"plot-{index}.png",
        **({"preview": result["preview"]} if result.get("preview") else {}),
    }
    objects = {kind: target.below(name) for kind, name in files.items()}
    with closing(ObjectStore(Settings.load())) as store:
        for kind, name in files.items():
            store.store(folder / name, objects[kind])
    for name in files.values():
        (folder / name).unlink()
    return {**result, "objects": {kind: name.uri for kind, name in objects.items()}}
