"""Network namespaces: what runs in one has its own interfaces, as on a host of its own.

Needs root and iproute2. A namespace reaches this machine at `ADDRESS`, and no other one.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

ADDRESS = "10.77.0.1"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Namespace:
    """One of them, and its cable to this machine."""

    name: str
    cable: str

    @property
    def prefix(self) -> list[str]:
        """What to put before a command to have it run there."""
        return ["ip", "netns", "exec", self.name]

    def unplug(self) -> None:
        """Cut it off: nothing arrives, and nobody is told."""
        _ip("link", "set", self.cable, "down")

    def plug_in(self) -> None:
        """Mend what `unplug` has cut."""
        _ip("link", "set", self.cable, "up")


@contextmanager
def namespaces(count: int) -> Iterator[list[Namespace]]:
    """Make some; they go at the end."""
    with ExitStack() as undo:
        _ip("address", "replace", f"{ADDRESS}/32", "dev", "lo")
        undo.callback(_ip, "address", "del", f"{ADDRESS}/32", "dev", "lo")
        made = []
        for number in range(1, count + 1):
            name, outer, inner = f"avsa-{number}", f"avsa-o{number}", f"avsa-i{number}"
            here, there = f"10.77.{number}.1", f"10.77.{number}.2"
            subprocess.run(["ip", "netns", "del", name], capture_output=True)  # of a killed run
            _ip("netns", "add", name)
            undo.callback(_ip, "netns", "del", name)  # and the pair of interfaces with it
            _ip("link", "add", outer, "type", "veth", "peer", "name", inner)
            _ip("link", "set", inner, "netns", name)
            _ip("address", "add", f"{here}/30", "dev", outer)
            _ip("link", "set", outer, "up")
            for words in (
                ["address", "add", f"{there}/30", "dev", inner],
                ["link", "set", inner, "up"],
                ["link", "set", "lo", "up"],
                ["route", "add", "default", "via", here],
            ):
                _ip("-n", name, *words)
            made.append(Namespace(name, outer))
        yield made
