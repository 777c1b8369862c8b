"""Webhooks: who asked for it is told when a job has ended, signed, and again until it is heard.

What to send comes from the job table's outbox, which is written together with the job's end. The
format and the signature are those of Standard Webhooks (standardwebhooks.com). A target is a place
that a stranger names and this service connects to, so it has to be https, every address its name
resolves to has to be a public one, the connection goes to an address that was checked, and
redirects are not followed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import logging
import random
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from anyio.to_thread import run_sync

from service.jobs import Delivery, Job, JobTable, TableUnreachable
from service.problems import Problem
from service.schemas import JobInfo, WebhookEvent
from service.settings import Settings

log = logging.getLogger("avsa.webhooks")

SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets of the standard begin with
# Seconds until the next try, after the first, the second, ...: eight tries within 25 hours.
RETRY_AFTER_S = (5, 300, 1800, 7200, 18_000, 25_200, 36_000)
_HOST = re.compile(rb"[A-Za-z0-9.:-]+")
# What of IPv6 is handed out to the open internet.
_UNICAST = ipaddress.ip_network("2000::/3")
_TIMEOUT_S = 10.0
_AT_A_TIME = 16
_POLL_S = 1.0

Resolve = Callable[[str, int], Awaitable[list[str]]]


class Refused(Exception):
    """A target that may not be connected to, or an answer that is none of success."""


# --- the target ----------------------------------------------------------------------------------


def check_url(url: str) -> httpx.URL:
    """A target as far as its text tells.

    Raises
    ------
    Problem : not an https address of a host, or with a user name or a fragment in it.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise _bad_url(url, str(error)) from error
    if parsed.scheme != "https":
        raise _bad_url(url, "it has to begin with https://")
    if (parsed.port or 443) > 65535:
        raise _bad_url(url, f"there is no port {parsed.port}")
    if not _HOST.fullmatch(parsed.raw_host) or parsed.userinfo or parsed.fragment:
        raise _bad_url(url, "it has to be a host and a path, without user or fragment")
    return parsed


def host_of(url: httpx.URL) -> str:
    """A target's host in ASCII, as it is looked up, allowed, and asked to prove itself.

    The standard library would encode an international name by rules of 2003, which make another
    name of some: of `ß` an `ss`.
    """
    return url.raw_host.decode("ascii")


def _bad_url(url: str, why: str) -> Problem:
    return Problem(422, "webhook_refused", f"The webhook {url[:200]!r} cannot be used: {why}.")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet, those wrapped in IPv6 included."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ip.ipv4_mapped or ip.sixtofour
        if ip in ipaddress.ip_network("64:ff9b::/96"):  # NAT64
            wrapped = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if wrapped is not None:
            return is_public(str(wrapped))
        # All else that Python calls global leads into networks of somebody's own, or nowhere:
        # site-local, local NAT64, IPv4 in the last bits, segment routing.
        if ip not in _UNICAST:
            return False
    return ip.is_global and not ip.is_multicast


async def resolve(host: str, port: int) -> list[str]:
    """Addresses of a host, in the order to be tried."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in found]


async def checked_address(url: httpx.URL, allowed: Collection[str], lookup: Resolve) -> str:
    """The address to connect to.

    Every address of the host has to be public, unless the host is one of `allowed`: a name that
    resolves to a public and a private one is refused, not tried.

    Raises
    ------
    Refused : there is none, or one is not public.
    """
    host = host_of(url)
    try:
        addresses = await lookup(host, url.port or 443)
    except OSError as error:
        raise Refused(f"{host} does not resolve: {error}") from error
    if not addresses:
        raise Refused(f"{host} does not resolve")
    if host not in allowed:
        for address in addresses:
            if not is_public(address):
                raise Refused(f"{host} resolves to {address}, which is not public")
    return addresses[0]


def notice(url: str | None, settings: Settings) -> dict[str, Any] | None:
    """What the job table keeps of a wish to be told; None where there is none.

    Raises
    ------
    Problem : the target may not be used, or the service signs nothing.
    """
    if url is None:
        return None
    if not settings.webhook_masters:
        detail = "This service sends no webhooks (AVSA_WEBHOOK_SECRET): leave notify_url out."
        raise Problem(422, "webhooks_off", detail)
    host = host_of(check_url(url))
    with suppress(ValueError):  # a name: what it resolves to is looked at when it is used
        if host not in settings.webhook_hosts and not is_public(host):
            raise _bad_url(url, f"{host} is not a public address")
    return {"url": url}


# --- the signature -------------------------------------------------------------------------------


def secret_of_owner(master: str, owner: str) -> str:
    """The secret that an owner's webhooks are signed with, as the standard writes it.

    It follows from the service's own, so it need not be stored, and no owner learns another's.
    """
    derived = hmac.digest(master.encode(), b"webhooks of " + owner.encode(), hashlib.sha256)
    return SECRET_PREFIX + base64.b64encode(derived).decode()


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the HMAC-SHA256 of `ID.TIMESTAMP.BODY`, base64.

    Raises
    ------
    ValueError : the secret is not base64.
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(f"The webhook secret is not base64: {error}") from error
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def event(job: Job) -> WebhookEvent:
    """What is sent: that the job ended, and the job as `get_job` gives it."""
    ended_at = datetime.fromtimestamp(job.finished_at or time.time(), UTC)
    return WebhookEvent(type=f"job.{job.state}", timestamp=ended_at, data=JobInfo.of(job))


# --- sending -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sender:
    """Sends one webhook.

    Attributes
    ----------
    masters : the service's secrets, the newest first; each adds a signature, so that a secret can
        be exchanged while receivers still know the old one.
    allowed : hosts that may have addresses that are not public.
    tls : whom to trust; None: whom the system trusts.
    """

    masters: tuple[str, ...]
    allowed: frozenset[str] = frozenset()
    tls: ssl.SSLContext | None = None
    lookup: Resolve = resolve

    async def send(self, delivery: Delivery, job: Job) -> None:
        """Send it; returns when the target has answered with a 2xx.

        Raises
        ------
        Refused, httpx.HTTPError, TimeoutError, Problem : it was not delivered.
        """
        body = event(job).model_dump_json().encode()
        now = int(time.time())
        secrets = [secret_of_owner(master, delivery.owner) for master in self.masters]
        headers = {
            "content-type": "application/json",
            "user-agent": "avsa-align",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(now),
            "webhook-signature": " ".join(signature(s, delivery.id, now, body) for s in secrets),
        }
        async with asyncio.timeout(_TIMEOUT_S):
            status = await self._post(check_url(delivery.notify["url"]), body, headers)
        if not 200 <= status < 300:
            raise Refused(f"the answer was {status}")

    async def _post(self, url: httpx.URL, body: bytes, headers: dict[str, str]) -> int:
        """Post to the address that was checked, under the name that was asked for."""
        address = await checked_address(url, self.allowed, self.lookup)
        host = url.netloc.decode()
        async with (
            httpx.AsyncClient(
                verify=self.tls or True, trust_env=False, follow_redirects=False, timeout=_TIMEOUT_S
            ) as client,
            client.stream(
                "POST", url.copy_with(host=address), content=body,
                headers={**headers, "host": host}, extensions={"sni_hostname": host_of(url)},
            ) as answer,
        ):  # fmt: skip
            return answer.status_code  # what it says is of no interest, and may be endless


class Deliverer:
    """Empties the job table's outbox, as long as it runs; several may run on one table."""

    def __init__(self, table: JobTable, sender: Sender) -> None:
        self._table = table
        self._sender = sender

    async def run(self) -> None:
        """Deliver until cancelled, some at a time; a target that is slow keeps one place."""
        under_way: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            while True:
                room = _AT_A_TIME - len(under_way)
                taken: list[Delivery] = []
                with _told():
                    taken = await self.take(room)
                under_way |= {group.create_task(self.see_to(delivery)) for delivery in taken}
                if len(taken) == room:
                    await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(_POLL_S)
                under_way = {task for task in under_way if not task.done()}

    async def take(self, limit: int = _AT_A_TIME) -> list[Delivery]:
        """What is due; each is to be seen to before its lease ends."""
        return await run_sync(lambda: self._table.take_deliveries(limit, lease_s=6 * _TIMEOUT_S))

    async def see_to(self, delivery: Delivery) -> None:
        """Try one; whatever becomes of it, the others go on, and so does it when its lease ends."""
        with _told():
            await self._deliver(delivery)

    async def _deliver(self, delivery: Delivery) -> None:
        job = await run_sync(self._table.get, delivery.job_id)
        try:
            if job is not None:
                await self._sender.send(delivery, job)
        except Exception as error:
            await self._failed(delivery, error)
            return
        await run_sync(self._table.drop_delivery, delivery.id)
        log.info("webhook %s of job %s delivered", delivery.id, delivery.job_id)

    async def _failed(self, delivery: Delivery, error: Exception) -> None:
        words = str(error) or type(error).__name__
        if delivery.tries > len(RETRY_AFTER_S) or words == "the answer was 410":
            log.error("webhook %s of job %s given up after %d tries: %s",
                      delivery.id, delivery.job_id, delivery.tries, words)  # fmt: skip
            await run_sync(self._table.drop_delivery, delivery.id)
            return
        # A little apart, so that all that failed together does not come back together.
        delay_s = RETRY_AFTER_S[delivery.tries - 1] * random.uniform(1.0, 1.2)
        log.warning("webhook %s of job %s failed, again in %.0f s: %s",
                    delivery.id, delivery.job_id, delay_s, words)  # fmt: skip
        await run_sync(self._table.postpone_delivery, delivery.id, delay_s, words)


@contextmanager
def _told() -> Iterator[None]:
    """Log what fails: those that wait must not wait for ever."""
    try:
        yield
    except TableUnreachable as error:
        log.warning("the outbox is out of reach: %s", error)
    except Exception:
        log.exception("webhooks could not be sent; it is tried again")


async def deliver(table: JobTable, settings: Settings) -> None:
    """Empty the outbox until cancelled, as the settings say."""
    sender = Sender(settings.webhook_masters, settings.webhook_hosts)
    await Deliverer(table, sender).run()
