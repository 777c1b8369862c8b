"""What all tests share: real components, named at the end where they are missing, and media."""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from model.ambisonics import rotate_yaw
from tests.model.fields import RATE, field_of
from tests.model.media.boxes import bext, chunk, insert_chunks
from training.data.scenes import Conditions, draw_scene
from training.data.takes import TakeFiles, write_take

TAKE_SEED = 3
EXAMPLE = Conditions(
    duration_s=6.0, n_sources=1, n_distractors=1, calm=True, snr_db=25.0, envelope="speech",
    body="speaker", offscreen=False, shaken=False, flawless=True,
)  # fmt: skip
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

TUSJS = Path(__file__).parent / "service" / "tusjs"


def _can_make_namespaces() -> bool:
    """Network namespaces take root, iproute2, and a kernel that lets one."""
    name = f"avsa-{os.getpid()}"
    command = f"ip netns add {name} && ip netns del {name}"
    return subprocess.run(command, shell=True, capture_output=True).returncode == 0


COMPONENTS = {
    "tus-js-client": lambda: (
        shutil.which("node") is not None and (TUSJS / "node_modules" / "tus-js-client").is_dir()
    ),
    "chromium": lambda: shutil.which("chromium") is not None,
    "redis-server": lambda: shutil.which("redis-server") is not None,
    "wrk": lambda: shutil.which("wrk") is not None,
    "curl": lambda: shutil.which("curl") is not None,
    "ffmpeg": lambda: shutil.which("ffmpeg") is not None,
    "landlock": lambda: ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) >= 1,
    "rclone": (Path(sys.executable).parent / "rclone").is_file,
    "root": lambda: os.geteuid() == 0,
    "netns": _can_make_namespaces,
    "cuda": torch.cuda.is_available,
    "shared-data": SHARED_DATA.is_dir,
}
_not_run = pytest.StashKey[dict[str, int]]()


# The same examples in every run: what is found once is found by all, and kept as a case of its own.
settings.register_profile("same everywhere", derandomize=True, deadline=None)


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("same everywhere")
    config.stash[_not_run] = {}
    torch.set_num_threads(1)
    # Each call of httpx's own functions would read all the world's certificates, 50 ms of a core.
    os.environ.pop("SSL_CERT_FILE", None)
    os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)  # none are here


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    missing = {name for name, present in COMPONENTS.items() if not present()}
    for item in items:
        for mark in item.iter_markers("needs"):
            component = mark.args[0]
            if component not in COMPONENTS:
                raise pytest.UsageError(f"{item.nodeid} needs an unknown component {component!r}")
            if component in missing:
                item.add_marker(pytest.mark.skip(reason=f"{component} is not here"))
                counts = config.stash[_not_run]
                counts[component] = counts.get(component, 0) + 1
    _interleave(items)


def _interleave(items: list[pytest.Item]) -> None:
    """Modules of the service, which wait, evenly among those of the rest, which compute: so they
    run beside each other. The order within a module stays.
    """
    modules = list(dict.fromkeys(map(_module, items)))
    waiting = [module for module in modules if module.startswith("tests/service/")]
    computing = [module for module in modules if module not in waiting]
    place = {
        module: (index + 0.5) / len(kind)
        for kind in (waiting, computing)
        for index, module in enumerate(kind)
    }
    items.sort(key=lambda item: place[_module(item)])


def _module(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


class _Modules(LoadScopeScheduling):  # type: ignore[misc]
    """A module's tests stay together, for they share servers and takes; so do those of all modules
    with ranks: they are forked from one that has loaded all of PyTorch, or each would load its own.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        source = (self.config.rootpath / module).read_text()
        return "ranks" if "from tests.training.ranks import" in source else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Instead of that of `--dist`."""
    return _Modules(config, log)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for component, count in sorted(config.stash[_not_run].items()):
        terminalreporter.write_line(
            f"NOT RUN: {count} tests that need {component}, which is not here", yellow=True
        )


@pytest.fixture(autouse=True)
def _clean_environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _same_chance_in_every_run() -> None:
    """What a test draws of torch does not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The measuring and format material beside the repository (tests that use it need it)."""
    return SHARED_DATA


@pytest.fixture(scope="session")
def upright(take: TakeFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's track as it fits its picture."""
    path = tmp_path_factory.mktemp("upright") / "upright.wav"
    turned = rotate_yaw(field_of(take.audio), math.radians(-take.rotated_deg))
    soundfile.write(path, turned.T, RATE, subtype="FLOAT")
    return path


@pytest.fixture(scope="session")
def take(tmp_path_factory: pytest.TempPathFactory) -> TakeFiles:
    """A synthetic take whose answer is known and easy to find: the session's example, one window.

    24-bit WAV with `bext` and `iXML`, as a recorder writes it.
    """
    folder = tmp_path_factory.mktemp("take")
    files = write_take(
        draw_scene(TAKE_SEED, EXAMPLE), folder, "take", rotate_deg=-75.0, height=256,
        rate_hz=15.0, colour=False,
    )  # fmt: skip
    insert_chunks(files.audio, bext() + chunk(b"iXML", b"<BWFXML/>"), b"")
    return files
