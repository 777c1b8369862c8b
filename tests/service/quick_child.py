"""Children of tests (AVSA_CHILD_MODULE): the product's protocol and supervision, other work.

What is sent as the video is JSON that says what to do: `{"do": "work", "seconds": 0.3}`. The result
is a digest of both files, so that a wrong or half-done one shows.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from service.workers.child import Job, Tell, serve

STEPS = 5


def expected(video: bytes, audio: bytes) -> bytes:
    """What the corrected file holds."""
    return hashlib.sha256(video + b"|" + audio).hexdigest().encode()


def do(job: Job, tell: Tell) -> None:
    video = Path(job["video"]["path"]).read_bytes()
    audio = Path(job["tracks"][0]["paths"][0]).read_bytes()
    order: dict[str, Any] = json.loads(video)
    tell("progress", stage="begin", fraction=0.0)
    if order["do"] == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if order["do"] == "hang":
        time.sleep(3600)
    if order["do"] == "grow":
        held = []
        while True:
            held.append(b"x" * (8 << 20))
            time.sleep(0.01)
    steps = order.get("steps", STEPS)
    for step in range(steps):
        time.sleep(order.get("seconds", 0.0) / steps)
        tell("progress", stage="work", fraction=(step + 1) / steps)
    if order["do"] == "fail":
        error = {"code": "unreadable_media", "detail": "The take is not one."}
        tell("track", index=0, result={"error": error})
        return
    if order["do"] == "break":
        error = {"code": "internal", "detail": "It broke."}
        tell("track", index=0, result={"error": error})
        return
    folder = Path(job["folder"])
    partial = folder / "audio-0.part"
    partial.write_bytes(expected(video, audio))
    partial.rename(folder / "audio-0.wav")
    (folder / "report-0.json").write_text("{}")
    tell(
        "track",
        index=0,
        result={
            "name": "done.wav", "verdict": "aligned", "rotate_field_ccw_deg": 0.0,
            "confidence": 1.0, "audio": "audio-0.wav",
        },
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(serve(lambda: None, do))
