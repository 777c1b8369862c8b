"""Images and compose file, as far as a machine without an engine can check them."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.access import open_gate
from service.jobs import NewJob, open_table
from service.settings import Settings
from tests.service.ports import free_port

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
            assert f"!{source}" in ignored, source
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


def test_the_api_needs_nothing_of_the_model() -> None:
    """Every third-party module that the API's process imports comes with the extra `service`."""
    code = "import sys, service.__main__; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
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
    assert not of_the_model & {*done.stdout.split()}
    assert "fastapi" in done.stdout.split()


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
