"""Webhooks: the signature, where they may go, and that they arrive."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from service.jobs import Delivery, Job, JobTable, NewJob, State, TableUnreachable
from service.problems import Problem
from service.settings import Settings
from service.webhooks import (
    RETRY_AFTER_S,
    Deliverer,
    Refused,
    Sender,
    check_url,
    checked_address,
    is_public,
    notice,
    secret_of_owner,
    signature,
)
from tests.service.ports import free_port
from tests.service.tables import Clock, new_table

MASTER = "m" * 43
# A TLS handshake that fails leaves its socket to the garbage collector, which `deliver` calls.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


# --- the signature -------------------------------------------------------------------------------


@given(st.binary(max_size=200).map(lambda b: b.hex().encode()), st.text(max_size=20))
def test_the_standards_own_library_accepts_the_signature(body: bytes, owner: str) -> None:
    secret, now = secret_of_owner(MASTER, owner), int(time.time())
    document = json.dumps({"body": body.decode()}).encode()

    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now),
        "webhook-signature": signature(secret, "msg_1", now, document),
    }

    verifier = standardwebhooks.Webhook(secret)
    assert verifier.verify(document, headers) == json.loads(document)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verifier.verify(document + b" ", headers)


def test_owners_have_secrets_of_their_own() -> None:
    assert len({secret_of_owner(MASTER, f"owner-{i}") for i in range(50)}) == 50
    assert secret_of_owner(MASTER, "a") != secret_of_owner(MASTER + "x", "a")


# --- the target ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "ftp://example.com/", "//example.com", "", "https://", "https:///x",
        "https://user:pw@example.com/", "https://example.com/#x", "javascript:alert(1)",
        "file:///etc/passwd", "https://exa mple.com", "https://[::1/", "https://example.com:99999/",
    ],
)  # fmt: skip
def test_targets_that_are_refused_by_their_text(url: str) -> None:
    with pytest.raises(Problem) as caught:
        check_url(url)
    assert (caught.value.status, caught.value.code) == (422, "webhook_refused")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://straße.example/", "xn--strae-oqa.example"),  # and not strasse.example
        ("https://xn--strae-oqa.example/", "xn--strae-oqa.example"),
        ("https://xn--/", "xn--"),  # what is no name of any language may be one all the same
        ("https://[2606:4700::1111]/", "2606:4700::1111"),
    ],
)
def test_the_name_that_is_looked_up_is_the_one_that_was_asked_for(url: str, name: str) -> None:
    asked: list[str] = []

    async def lookup(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["8.8.8.8"]

    settings = Settings(webhook_secret=SecretStr(MASTER))
    assert notice(url, settings) == {"url": url}
    assert asyncio.run(checked_address(check_url(url), (), lookup)) == "8.8.8.8"
    assert asked == [name]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1",
        "255.255.255.255", "240.0.0.1", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "64:ff9b::7f00:1",
        "64:ff9b::a00:1", "2002:7f00:1::", "2002:c0a8:101::", "64:ff9b:1::a00:1", "fec0::1",
        "::10.0.0.1", "::ffff:0:10.0.0.1", "5f00::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::"]
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_wrapping_an_address_changes_nothing(address: ipaddress.IPv4Address) -> None:
    plain = is_public(str(address))
    assert is_public(f"::ffff:{address}") is plain
    assert is_public(str(ipaddress.IPv6Address((0x64FF9B << 96) | int(address)))) is plain


def test_a_wish_that_cannot_be_met_is_refused_when_it_is_made() -> None:
    inside = "https://10.0.0.1/done"
    settings = Settings(webhook_secret=SecretStr(MASTER))
    assert notice(None, settings) is None
    for refusing, code in ((Settings(), "webhooks_off"), (settings, "webhook_refused")):
        with pytest.raises(Problem) as caught:
            notice(inside, refusing)
        assert (caught.value.status, caught.value.code) == (422, code)
    allowing = settings.model_copy(update={"webhook_hosts": frozenset({"10.0.0.1"})})
    assert notice(inside, allowing) == {"url": inside}


# --- delivery, to a real server over TLS ---------------------------------------------------------


@dataclass
class Receiver:
    """An HTTPS server on loopback that keeps what it is sent and answers as it is told."""

    port: int
    trust: ssl.SSLContext
    statuses: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for hooks.example and its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    key, cert = path.with_name("key.pem"), path.with_name("cert.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=hooks.example", "-addext", "subjectAltName=DNS:hooks.example", "-keyout", str(key),
         "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_bytes(key.read_bytes() + cert.read_bytes())
    return path


@pytest.fixture
def receiver(certificate: Path) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            here.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
            status = here.statuses.pop(0) if here.statuses else 204
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    trust = ssl.create_default_context(cafile=str(certificate.with_name("cert.pem")))
    here = Receiver(server.server_address[1], trust)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield here
    server.shutdown()
    server.server_close()


async def to_loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def sender(receiver: Receiver, **changes: Any) -> Sender:
    fields = {
        "masters": (MASTER,), "allowed": frozenset({"hooks.example"}), "tls": receiver.trust,
        "lookup": to_loopback,
    }  # fmt: skip
    return Sender(**{**fields, **changes})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(tmp_path: Path, clock: Clock) -> Iterator[JobTable]:
    with new_table("sqlite", tmp_path, clock, None) as opened:
        yield opened


def ended_job(table: JobTable, url: str, *, owner: str = "post-house") -> Job:
    new = NewJob(spec={}, owner=owner, label="reel 7", notify={"url": url})
    table.submit(new)
    job = table.claim(lease_s=30)
    assert job is not None
    error = {"code": "unreadable_media", "detail": "It cannot be read."}
    assert table.finish(job.id, job.attempt, State.FAILED, error=error)
    ended = table.get(job.id)
    assert ended is not None
    return ended


def deliver(table: JobTable, how: Sender) -> None:
    """Try once what is due."""

    async def once() -> None:
        deliverer = Deliverer(table, how)
        await asyncio.gather(*map(deliverer.see_to, await deliverer.take()))
        await asyncio.sleep(0.05)  # connections that were cut are closed in the loop

    asyncio.run(once())
    gc.collect()


def test_the_end_of_a_job_arrives_signed(table: JobTable, receiver: Receiver) -> None:
    job = ended_job(table, f"https://hooks.example:{receiver.port}/done?x=1")

    deliver(table, sender(receiver, masters=("new" * 20, MASTER)))

    ((headers, body),) = receiver.got
    event = json.loads(body)
    assert (event["type"], event["data"]["id"]) == ("job.failed", job.id)
    assert event["data"]["label"] == "reel 7"
    assert event["data"]["error"]["code"] == "unreadable_media"
    assert headers["host"] == f"hooks.example:{receiver.port}"
    for master in ("new" * 20, MASTER):  # receivers that know either secret accept it
        secret = secret_of_owner(master, "post-house")
        assert standardwebhooks.Webhook(secret).verify(body, headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(secret_of_owner(MASTER, "other")).verify(body, headers)
    assert table.summary().deliveries == 0


def test_a_failing_target_is_tried_again_with_the_same_id_then_given_up(
    table: JobTable, receiver: Receiver, clock: Clock
) -> None:
    ended_job(table, f"https://hooks.example:{receiver.port}/")
    receiver.statuses = [500] * 20

    for wait_s in (*RETRY_AFTER_S, 100_000):
        deliver(table, sender(receiver))
        clock.now += 1.2 * wait_s + 1

    assert len(receiver.got) == len(RETRY_AFTER_S) + 1
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert table.summary().deliveries == 0


def test_a_target_that_recovers_is_told_once(
    table: JobTable, receiver: Receiver, clock: Clock
) -> None:
    ended_job(table, f"https://hooks.example:{receiver.port}/")
    receiver.statuses = [503]

    for _ in range(4):
        deliver(table, sender(receiver))
        clock.now += 10

    assert len(receiver.got) == 2
    assert table.summary().deliveries == 0


def test_gone_means_gone(table: JobTable, receiver: Receiver) -> None:
    ended_job(table, f"https://hooks.example:{receiver.port}/")
    receiver.statuses = [410]
    deliver(table, sender(receiver))
    assert table.summary().deliveries == 0


def test_redirects_are_not_followed(table: JobTable, receiver: Receiver) -> None:
    ended_job(table, f"https://hooks.example:{receiver.port}/")
    receiver.statuses = [307]
    deliver(table, sender(receiver))
    assert len(receiver.got) == 1
    assert table.summary().deliveries == 1


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::ffff:127.0.0.1"], []]
)
def test_nothing_is_sent_to_a_host_with_a_private_address(
    table: JobTable, receiver: Receiver, addresses: list[str]
) -> None:
    async def lookup(host: str, port: int) -> list[str]:
        return addresses

    ended_job(table, f"https://hooks.example:{receiver.port}/")
    deliver(table, sender(receiver, allowed=frozenset(), lookup=lookup))
    assert receiver.got == []
    assert table.summary().deliveries == 1


def test_the_address_that_was_checked_is_the_one_connected_to(
    table: JobTable, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that resolves to something else the second time (DNS rebinding) gains nothing, nor
    does the environment send it by way of a proxy, which would look for itself.
    """
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")
    asked: list[str] = []

    async def lookup(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    ended_job(table, f"https://hooks.example:{receiver.port}/")
    deliver(table, sender(receiver, lookup=lookup))
    assert asked == ["hooks.example"]
    assert len(receiver.got) == 1


def test_a_foreign_certificate_is_refused(table: JobTable, receiver: Receiver) -> None:
    ended_job(table, f"https://hooks.example:{receiver.port}/")
    ended_job(table, f"https://other.example:{receiver.port}/")
    deliver(table, sender(receiver, tls=None))
    deliver(table, sender(receiver, allowed=frozenset({"other.example"})))
    assert receiver.got == []


def test_a_target_that_never_answers_does_not_hold_up_the_others(
    table: JobTable, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.webhooks._TIMEOUT_S", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ended_job(table, f"https://hooks.example:{silent.getsockname()[1]}/")
        ended_job(table, f"https://hooks.example:{receiver.port}/")
        deliver(table, sender(receiver))
    assert len(receiver.got) == 1
    assert table.summary().deliveries == 1


def test_deliveries_go_on_whatever_becomes_of_the_outbox(
    table: JobTable, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended_job(table, f"https://hooks.example:{receiver.port}/")
    faults = [RuntimeError("nobody has thought of it"), TableUnreachable("it is away")]
    take = table.take_deliveries

    def failing(limit: int, *, lease_s: float) -> list[Delivery]:
        if faults:
            raise faults.pop()
        return take(limit, lease_s=lease_s)

    monkeypatch.setattr(table, "take_deliveries", failing)
    monkeypatch.setattr("service.webhooks._POLL_S", 0.01)

    asyncio.run(until_left(0, table, sender(receiver)))
    assert len(receiver.got) == 1


async def until_left(number: int, table: JobTable, how: Sender) -> None:
    """Deliver until the outbox has so few."""
    running = asyncio.create_task(Deliverer(table, how).run())
    async with asyncio.timeout(10):
        while table.summary().deliveries > number:
            assert not running.done()
            await asyncio.sleep(0.02)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await asyncio.sleep(0.05)
    gc.collect()


def test_a_slow_target_keeps_one_place_and_no_other(
    table: JobTable, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.webhooks._AT_A_TIME", 2)
    monkeypatch.setattr("service.webhooks._TIMEOUT_S", 60.0)
    take = table.take_deliveries

    def no_more_than_two(limit: int, *, lease_s: float) -> list[Delivery]:
        assert limit <= 2
        return take(limit, lease_s=lease_s)

    monkeypatch.setattr(table, "take_deliveries", no_more_than_two)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ended_job(table, f"https://hooks.example:{silent.getsockname()[1]}/")
        for _ in range(5):
            ended_job(table, f"https://hooks.example:{receiver.port}/")
        asyncio.run(until_left(1, table, sender(receiver)))
    assert len(receiver.got) == 5


def test_an_unresolvable_host_is_refused() -> None:
    async def lookup(host: str, port: int) -> list[str]:
        raise socket.gaierror("Name or service not known")

    from service.webhooks import checked_address

    with pytest.raises(Refused, match="does not resolve"):
        asyncio.run(checked_address(check_url("https://nowhere.example/"), (), lookup))
