"""Traces (OpenTelemetry), where `OTEL_EXPORTER_OTLP_ENDPOINT` says that somebody collects them.

FastAPI traces requests by itself. A job carries its request's trace, so that every attempt at it,
on whichever machine, and the stages of each appear under the request. The standard `OTEL_*`
variables apply; without the endpoint all of this does nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import propagate, trace

from service.jobs import Job

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_tracer = trace.get_tracer("avsa")


def configure() -> None:
    """Have this process's spans sent, if anywhere.

    Raises
    ------
    ValueError : they are to be sent, and what sends them is not installed.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ValueError(
            f"{' or '.join(_ENDPOINTS)} asks for traces: install avsa-align[traces], or unset it."
        ) from error
    name = os.environ.get("OTEL_SERVICE_NAME", "avsa-align")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def carried() -> dict[str, str]:
    """The current trace, in a form that a job can carry; empty where none is recorded."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


@contextmanager
def attempt(job: Job, carrier: Mapping[str, str], *, device: str) -> Iterator[None]:
    """A span around an attempt at a job, under the request that has made the job."""
    attributes: dict[str, str | int] = {
        "avsa.job": job.id,
        "avsa.attempt": job.attempt,
        "avsa.device": device,
    }
    context = propagate.extract(dict(carrier))
    with _tracer.start_as_current_span("attempt", context, attributes=attributes):
        yield


def passed(stage: str, seconds: float) -> None:
    """Record a stage of the current attempt that has just ended."""
    now = time.time_ns()
    _tracer.start_span(stage, start_time=now - round(1e9 * seconds)).end(now)


def outcome(state: str) -> None:
    """Say how the current attempt ended."""
    trace.get_current_span().set_attribute("avsa.state", state)
