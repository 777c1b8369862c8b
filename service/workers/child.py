"""The process that does the work: `python -m service.workers.child`.

It reads jobs from standard input, one JSON object a line, and writes what happens to standard
output, one JSON object a line: `ready`, `progress`, `track` (one is done or has failed), `done`.
It stays warm between jobs. When its input ends, the worker that started it is gone, and it exits
at once, whatever it is doing.
"""

from __future__ import annotations

import json
import os
import queue
import re
import sys
import threading
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.companions import COMPANIONS

if TYPE_CHECKING:
    from model.errors import AvsaError
    from model.media.probe import Probe

Job = dict[str, Any]
Tell = Callable[..., None]


def main() -> int:
    """Align until the input ends."""
    return serve(_warm_up, _do)


def serve(warm_up: Callable[[], None], do: Callable[[Job, Tell], None]) -> int:
    """Do jobs as they come until the input ends; `do` tells what happens, but not that it is done.

    The protocol's one owner: tests serve other work through it.
    """
    # What libraries print must not get between our lines.
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    jobs: queue.Queue[Job] = queue.Queue()
    threading.Thread(target=_read_jobs, args=(jobs,), daemon=True).start()

    def tell(kind: str, **fields: Any) -> None:
        lines.write(json.dumps({"kind": kind, **fields}) + "\n")

    warm_up()
    tell("ready")
    while True:
        do(jobs.get(), tell)
        tell("done", usage=_usage())


def _warm_up() -> None:
    import model.align  # noqa: F401 - slow, so done before a job is there


def _usage() -> dict[str, int]:
    """Memory of a GPU that this process holds, if it uses one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    return {
        "gpu_memory_bytes": torch.cuda.memory_reserved(),
        "gpu_peak_bytes": torch.cuda.max_memory_allocated(),
    }


def _read_jobs(jobs: queue.Queue[Job]) -> None:
    """Pass on jobs; leave when the input ends. Unbuffered: no lock is held at exit."""
    rest = b""
    while chunk := os.read(0, 1 << 16):
        *complete, rest = (rest + chunk).split(b"\n")
        for line in complete:
            jobs.put(json.loads(line))
    os._exit(0)


def _do(job: Job, tell: Tell) -> None:
    """Align every track of a job; one that fails does not stop the others."""
    from model.errors import AvsaError
    from service.objects.transfer import drop_inputs, fetch_inputs, store_outputs

    def fetching(fraction: float) -> None:
        tell("progress", stage="fetching", fraction=0.2 * fraction)

    n_tracks, error = len(job["tracks"]), None
    try:
        job = fetch_inputs(job, fetching)
    except AvsaError as fault:
        error = _failed(fault)
    for index, track in enumerate(job["tracks"]):

        def notify(stage: str, fraction: float, index: int = index) -> None:
            tell("progress", stage=stage, fraction=(index + fraction) / n_tracks)

        result = error or _align(job, track, index, notify)
        if "error" not in result:
            try:
                result = store_outputs(job, index, result)
            except AvsaError as fault:
                result = _failed(fault)
        tell("track", index=index, result=result)
    drop_inputs(job)


# Options that a request calls otherwise.
_FIELDS = {"float": "float_output"}


def _in_fields(text: str) -> str:
    """A sentence with a request's fields in place of the command line's options."""
    return re.sub(
        r"(?<![^\s(])--([a-z]+(?:-[a-z]+)*)",
        lambda option: _FIELDS.get(option[1], option[1].replace("-", "_")),
        text,
    )


def _failed(fault: AvsaError) -> dict[str, Any]:
    return {"error": {"code": fault.code, "detail": str(fault)}}


@cache
def _probe() -> Probe:
    """Files are opened in its cage before they are opened here."""
    from model.media.probe import Probe

    return Probe()


def _options_of(job: Job) -> Any:
    """What the caller asked for, as the library takes it."""
    from model.checkpoint import Method
    from model.options import Options

    options = job["options"]
    method = Method(options.get("method", Method.FUSED))
    checkpoint = job.get("checkpoint") if method is Method.AVSA else None
    beside = {name: Path(job[name]["path"]) for name in COMPANIONS if name in job}
    return Options(
        n_windows=options["windows"],
        tolerance_deg=options["tolerance_deg"],
        method=method,
        checkpoint=Path(checkpoint) if checkpoint else None,
        reference=beside.get("reference"),
        orientation=beside.get("orientation"),
        detections=beside.get("detections"),
        clip=Path(job["video"]["label"]).stem,
        stereo=options["stereo"],
        device=job["device"],
        float_output=options["float_output"],
        apply_undecided=options["apply_undecided"],
        apply_deg=options.get("apply_deg"),
        over_time=options.get("over_time", False),
        follow=options.get("follow", False),
        lay_on_picture=options.get("lay_on_picture", False),
    )


def _align(job: Job, track: dict[str, Any], index: int, notify: Any) -> dict[str, Any]:
    """One track: its outputs' names, or its error."""
    from model.align import Outputs, align, corrected_suffix
    from model.ambisonics import Convention, Fix
    from model.errors import AvsaError
    from model.take import Track

    options = job["options"]
    folder = Path(job["folder"])
    paths = tuple(map(Path, track["paths"]))
    names = dict(zip(track["paths"], track["labels"], strict=True))
    names[job["video"]["path"]] = job["video"]["label"]
    names |= {job[name]["path"]: job[name]["label"] for name in COMPANIONS if name in job}

    def wording(text: str) -> str:
        return _labelled(_in_fields(text), names)

    try:
        how = _options_of(job)
        _probe().check(Path(job["video"]["path"]), "video", stereo=options["stereo"])
        for path in (*paths, *([Path(job["reference"]["path"])] if "reference" in job else [])):
            _probe().check(path, "audio")
        suffix = corrected_suffix(paths, how)
        audio = folder / f"audio-{index}{suffix}"
        preview = f"preview-{index}.mp4" if options.get("preview") else None
        outputs = Outputs(
            audio, folder / f"report-{index}.json", folder / f"plot-{index}.png",
            folder / preview if preview else None,
        )  # fmt: skip
        names[str(audio)] = f"{Path(track['labels'][0]).stem}_aligned{suffix}"
        convention = options["convention"]
        report = align(
            Path(job["video"]["path"]),
            Track(
                paths,
                None if convention == "auto" else Convention(convention),
                tuple(options["channels"]) if options["channels"] else None,
                options["offset_s"],
                Fix(options["fix"]) if options.get("fix") else None,
            ),
            outputs,
            how,
            notify=notify,
            wording=wording,
        )
    except AvsaError as error:
        return {"error": {"code": error.code, "detail": wording(str(error))}}
    except Exception:
        traceback.print_exc()
        detail = "The alignment failed for a reason of ours; the worker's log has the trace."
        return {"error": {"code": "internal", "detail": detail}}
    return {
        "name": report["output"]["path"],
        "verdict": report["verdict"],
        "rotate_field_ccw_deg": report["rotate_field_ccw_deg"],
        "confidence": report["confidence"],
        "audio": f"audio-{index}{suffix}",
        "preview": preview,
    }


def _labelled(text: str, names: dict[str, str]) -> str:
    """A sentence with the names users gave their files in place of ours, where those are whole.

    In one pass, for a user's name may hold one of ours.
    """
    told = {Path(path).name: label for path, label in names.items()} | names
    ours = "|".join(map(re.escape, sorted(told, key=len, reverse=True)))
    return re.sub(rf"(?<![\w.-])(?:{ours})(?!\.?\w)", lambda match: told[match[0]], text)


if __name__ == "__main__":
    sys.exit(main())
