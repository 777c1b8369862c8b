"""Traces, as a real collector receives them over HTTP."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.service.conftest import Server

_TRACE, _CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Keeps the spans that are sent to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Span] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_an_attempt_and_its_stages_belong_to_the_callers_trace(
    own_server: Server, collector: Collector, tmp_path: Path
) -> None:
    own_server.settings |= {
        "AVSA_CHILD_MODULE": "tests.service.polite_child",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    own_server.start()
    files = {"video": ("take.mp4", b"a picture"), "audio": ("take.wav", b"a sound")}
    answer = httpx.post(
        f"{own_server.url}/align",
        files=files,
        headers={"traceparent": f"00-{_TRACE}-{_CALLER}-01"},
    )
    job_id = answer.json()["id"]
    own_server.wait_for(job_id, "succeeded")
    own_server.stop()  # sends what is left

    of_trace = [span for span in collector.spans if span.trace_id.hex() == _TRACE]
    by_id = {span.span_id: span for span in of_trace}
    (attempt,) = [span for span in of_trace if span.name == "attempt"]
    told = {item.key: item.value for item in attempt.attributes}
    assert told["avsa.job"].string_value == job_id
    assert told["avsa.attempt"].int_value == 1
    assert told["avsa.state"].string_value == "succeeded"
    # Up from the attempt one comes to the request, and from there to the caller.
    ancestor = attempt
    while ancestor.parent_span_id in by_id:
        ancestor = by_id[ancestor.parent_span_id]
    assert ancestor is not attempt
    assert ancestor.parent_span_id.hex() == _CALLER
    stages = [span for span in of_trace if span.parent_span_id == attempt.span_id]
    assert stages
    for stage in stages:
        assert attempt.start_time_unix_nano - 10**7 <= stage.start_time_unix_nano
        assert stage.start_time_unix_nano <= stage.end_time_unix_nano
        assert stage.end_time_unix_nano <= attempt.end_time_unix_nano


def test_traces_that_cannot_be_sent_are_no_silent_wish(tmp_path: Path) -> None:
    hidden = tmp_path / "opentelemetry_hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import sys\nsys.modules['opentelemetry.sdk.trace'] = None\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "service"], capture_output=True, text=True, timeout=60,
        env={"PYTHONPATH": str(hidden), "PATH": "", "AVSA_DATA_DIR": str(tmp_path / "data"),
             "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "avsa-align[traces]" in done.stderr
