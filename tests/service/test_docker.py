"""Images and compose file, as far as a machine without an engine can check them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from service.http.access import open_gate
from service.jobs import NewJob, open_table
from service.settings import OTHER_NAMES, Settings
from tests.service.ports import free_port
from tests.test_architecture import imports, starts_with

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
COMPOSE = ROOT / "docker-compose.yml"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


def test_the_dockerfile_passes_the_linter() -> None:
    done = subprocess.run([BIN / "hadolint", DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_fits_the_specification() -> None:
    done = subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_what_the_files_name_is_there(compose: dict[str, Any]) -> None:
    text = DOCKERFILE.read_text()
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE))
    ignored = (ROOT / ".dockerignore").read_text().split()
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert f"!{source.split('/')[0]}" in ignored, source
    for service in compose["services"].values():
        if "build" in service:
            assert service["build"]["target"] in stages
            assert (ROOT / service["build"]["dockerfile"]).is_file()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (
                (ROOT / source).is_file()
                if source.startswith(".")
                else source in compose["volumes"]
            )
        assert set(service.get("secrets", [])) <= compose["secrets"].keys()
        assert set(service["networks"]) <= compose["networks"].keys()


def test_what_the_files_set_are_settings(compose: dict[str, Any]) -> None:
    settings = {f"AVSA_{name.upper()}" for name in Settings.model_fields} | OTHER_NAMES
    named = set(re.findall(r"\bAVSA_[A-Z_]+\b", COMPOSE.read_text() + DOCKERFILE.read_text()))
    secrets = {name.upper() for name in compose["secrets"] if name.startswith("avsa_")}
    assert named | secrets <= settings


def test_every_container_is_on_a_short_lead(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert ("outside" in service["networks"]) == (name == "api")
        assert "ports" not in service or name == "api"
    assert compose["networks"]["inside"]["internal"] is True
    assert re.search(r"^USER 10001:10001$", DOCKERFILE.read_text(), re.MULTILINE)


def test_the_commands_of_the_images_exist() -> None:
    text = DOCKERFILE.read_text()
    commands = re.findall(r"^(?:CMD|.* CMD) \[(.*)\]", text, re.MULTILINE)
    words = [re.findall(r'"([^"]+)"', command) for command in commands]
    assert sorted(words) == [
        ["python", "-m", "service", "probe", "api"], ["python", "-m", "service", "probe", "worker"],
        ["serve"], ["worker"],
    ]  # fmt: skip
    for command in (["probe", "api"], ["serve"], ["worker"]):
        done = subprocess.run([sys.executable, "-m", "service", *command, "--help"], timeout=120)
        assert done.returncode == 0


def replay(stages: list[str], folder: Path) -> None:
    """Do in a folder what stages of the Dockerfile do to the sources before they are installed."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    for stage in stages:
        body = re.split(rf"^FROM \S+ AS {stage}$", text, maxsplit=1, flags=re.MULTILINE)[1]
        for line in body.partition("\nFROM ")[0].splitlines():
            step, _, rest = line.partition(" ")
            if step == "COPY":
                *sources, target = rest.split()
                for source in sources:
                    copy(ROOT / source, folder / target, into=target.endswith("/"))
            elif step == "RUN":
                for command in rest.split(" && "):
                    if "pip install" in command:
                        (folder / "build").mkdir(exist_ok=True)  # which pip leaves behind
                    elif "venv" not in command:
                        subprocess.run(["sh", "-c", command], cwd=folder, check=True)


def copy(source: Path, target: Path, *, into: bool) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__py*"))
    else:
        shutil.copy(source, target / source.name if into else target)


# Every module of the service but the worker's child, in a folder that stands for what is installed.
IN_THE_IMAGE = """
import pkgutil, sys
from pathlib import Path
sys.path += sys.argv[1:]
import service.__main__
from service.app import create_app
from service.settings import OTHER_NAMES, Settings
for module in pkgutil.walk_packages(service.__path__, "service."):
    if module.name != "service.workers.child":
        __import__(module.name)
create_app(Settings(data_dir=Path("data"), redis_url="redis://127.0.0.1:1/0"))
print(*(name for name in sys.modules))
"""


def test_the_api_starts_from_what_its_image_holds(tmp_path: Path) -> None:
    """And every third-party module that its process imports comes with the extra `service`."""
    replay(["source", "api-build"], tmp_path)
    packages = sysconfig.get_path("purelib")
    done = subprocess.run(  # -S: this environment has the repository on its path
        [sys.executable, "-I", "-S", "-c", IN_THE_IMAGE, tmp_path, packages],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    of_the_model = {
        "av",
        "matplotlib",
        "numpy",
        "scipy",
        "soundfile",
        "torch",
        "torchaudio",
        "tqdm",
    }
    loaded = done.stdout.split()
    assert not of_the_model & {name.partition(".")[0] for name in loaded}
    assert "fastapi" in loaded
    held = {"model", "model.errors"}
    assert {name for name in loaded if name.startswith("model")} == held
    for path in (ROOT / "service").rglob("*.py"):
        if path.name != "child.py":  # what is imported late, too
            late = {name for name in imports(path) if starts_with(name, "model")}
            assert all(starts_with(name, "model.errors") for name in late), path


def test_both_ends_of_a_password_are_made_together(tmp_path: Path) -> None:
    """Where the one is missing, as after a break between them, a new one fits the other."""
    for _ in range(2):
        subprocess.run(["sh", ROOT / "docker" / "secrets.sh", tmp_path], check=True)
        url, acl = ((tmp_path / name).read_text() for name in ("avsa_redis_url", "redis_acl"))
        password = urlsplit(url).password
        assert password is not None
        assert f"#{hashlib.sha256(password.encode()).hexdigest()} " in acl
        (tmp_path / "avsa_redis_url").unlink()


@pytest.mark.needs("redis-server")
def test_secrets_open_the_redis_of_the_deployment_and_nothing_else_does(tmp_path: Path) -> None:
    """`docker/secrets.sh` and `docker/redis.conf`, with folders of the test."""
    folder, port = tmp_path / "secrets", free_port()
    for _ in range(2):  # the second time changes nothing
        subprocess.run(["sh", ROOT / "docker" / "secrets.sh", folder], check=True)
        made = {path.name: path.read_text() for path in folder.iterdir()}
    assert made.keys() == {"avsa_admin_key", "avsa_redis_url", "avsa_webhook_secret", "redis_acl"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    url = made["avsa_redis_url"].replace("redis:6379", f"127.0.0.1:{port}")
    (folder / "avsa_redis_url").write_text(url)
    conf = (ROOT / "docker" / "redis.conf").read_text()
    conf = conf.replace("dir /data", f"dir {tmp_path}")
    conf = conf.replace("/run/secrets/redis_acl", str(folder / "redis_acl"))
    (tmp_path / "redis.conf").write_text(f"{conf}\nport {port}\nbind 127.0.0.1\n")
    server = subprocess.Popen(["redis-server", tmp_path / "redis.conf"], stdout=subprocess.DEVNULL)
    try:
        os.environ["AVSA_SECRETS_DIR"] = str(folder)
        settings = Settings.load()
        table = open_table(settings)
        for _ in range(100):
            if subprocess.run(["redis-cli", "-p", str(port), "ping"], capture_output=True).stdout:
                break
        table.check()
        table.submit(NewJob(spec={}))
        assert table.waiting() == 1
        gate = open_gate(settings)
        assert gate.caller(made["avsa_admin_key"]).sees_all
        assert gate.keys.empty()
        stranger = subprocess.run(
            ["redis-cli", "-p", str(port), "get", "x"], capture_output=True, text=True
        )
        assert "NOAUTH" in stranger.stdout
    finally:
        server.terminate()
        server.wait()
    assert shutil.which("redis-cli")
