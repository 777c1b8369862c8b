"""What requests and answers look like: the examples of the OpenAPI document."""

from __future__ import annotations

import json

ID = "5f2b7c0e9d3a41f6b8c7d6e5f4a3b2c1"
OPTIONS = {"label": "reel 7, take 12", "convention": "ambix", "tolerance_deg": 5.0}
REQUEST = {
    "video": {"upload": ID},
    "audio": [{"path": "/takes/reel-7/take-12.wav"}],
    "options": OPTIONS,
}
UPLOAD = {
    "id": ID, "state": "complete", "name": "take-12.mp4", "offset": 4_812_093_440,
    "length": 4_812_093_440, "sha256": None, "expires_at": "2026-11-24T09:30:00Z",
}  # fmt: skip
URI = "s3://takes/uploads/5f2b7c0e/take-12.mp4"
DIRECT = {
    "id": ID, "uri": URI, "size": 70_000_000, "part_size": 67_108_864,
    "missing": [
        {
            "number": 2, "offset": 67_108_864, "size": 2_891_136,
            "url": "https://store.example/takes/uploads/5f2b7c0e/take-12.mp4?partNumber=2",
        }
    ],
    "expires_at": "2026-11-23T10:30:00Z",
}  # fmt: skip
JOB = {
    "id": ID, "state": "succeeded", "label": "reel 7, take 12", "priority": 5,
    "stage": "succeeded", "progress": 1.0, "attempt": 1,
    "created_at": "2026-11-23T09:30:00Z", "started_at": "2026-11-23T09:30:01Z",
    "finished_at": "2026-11-23T09:30:14Z",
    "results": [
        {
            "name": "take-12.aligned.wav", "verdict": "misaligned",
            "rotate_field_ccw_deg": -147.5, "confidence": 0.97,
            "audio_url": f"/jobs/{ID}/audio/0", "report_url": f"/jobs/{ID}/report.json?track=0",
            "plot_url": f"/jobs/{ID}/plot.png?track=0",
            "preview_url": f"/jobs/{ID}/preview.mp4?track=0", "audio_uri": None, "error": None,
        }
    ],
    "error": None,
}  # fmt: skip
PAGE = {"jobs": [JOB], "next_cursor": None}
EVENT = {"type": "job.succeeded", "timestamp": "2026-11-23T09:30:14Z", "data": JOB}
STORED = {"uri": URI, "size": 70_000_000}
DIRECT_REQUEST = {"name": "take-12.mp4", "size": 70_000_000}
# One event of a stream, and two lines of metrics.
JOB_ENDED = f"id: 7\nevent: end\ndata: {json.dumps(JOB)}\n\n"
METRICS = 'avsa_jobs{state="queued"} 3.0\navsa_jobs{state="running"} 1.0\n'
FORM = {
    "video": "(bytes of take-12.mp4)",
    "audio": ["(bytes of take-12.wav)"],
    "options": json.dumps(OPTIONS),
}
