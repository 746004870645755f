"""The files of `deploy/`, as far as they can be looked at without an engine: by linters, and by what they name."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fashion_pipeline.settings import Secrets, read_secrets, read_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROGRAMS = ("code", "web", "daemon", "prepare")


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8")))


def linter(name: str) -> str:
    place = shutil.which(name, path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if place is None:
        pytest.skip(f"{name} is not installed")
    return place


def test_the_image_is_written_as_a_linter_wants_it() -> None:
    done = subprocess.run([linter("hadolint"), str(DEPLOY / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout, done.stdout


def test_the_compose_file_follows_the_compose_specification() -> None:
    asked = [linter("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")]
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_nothing_but_the_proxy_can_be_reached_and_only_from_this_machine_unless_said() -> None:
    services = compose()["services"]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"proxy": ["${UI_ADDRESS:-127.0.0.1}:443:443"]}
    assert {name for name in services if services[name].get("network_mode") == "service:proxy"} == set(PROGRAMS)
    for name in PROGRAMS:
        assert services[name]["read_only"] and services[name]["cap_drop"] == ["ALL"]
        command = services[name].get("entrypoint", [])
        assert "--host" not in command or command[command.index("--host") + 1] == "127.0.0.1"
    assert "basic_auth" in (DEPLOY / "Caddyfile").read_text(encoding="utf-8")


def test_no_service_waits_in_a_circle() -> None:
    services = compose()["services"]
    waits = {name: set(service.get("depends_on", ())) for name, service in services.items()}
    for name in PROGRAMS:
        waits[name].add("proxy")
    order: list[str] = []
    while len(order) < len(waits):
        ready = [name for name, others in waits.items() if name not in order and others <= set(order)]
        assert ready, "services wait for each other"
        order += ready
    assert order.index("prepare") < order.index("code") < order.index("web")


def test_every_variable_is_known_and_secrets_have_no_default() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8") + (DEPLOY / "Caddyfile").read_text(encoding="utf-8")
    named = set(re.findall(r"\{\$?([A-Z_]+)", text))
    example = (DEPLOY / ".env.example").read_text(encoding="utf-8")
    assert named == set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE))
    for secret in ("POSTGRES_PASSWORD", "UI_PASSWORD_HASH", "FASHION_PIPELINE_WEBHOOK", "AWS_SECRET_ACCESS_KEY"):
        assert re.search(rf"^{secret}=$", example, re.MULTILINE)
    environment = compose()["x-program"]["environment"] | {"FASHION_PIPELINE_DATA": "/data"}
    assert read_settings(environment).hosts == ("${UI_NAME:-localhost}",)
    assert all(read_secrets(environment).__dict__.values()), "a secret of the program is not handed to it"
    assert "password" not in repr(Secrets("password", "password", "password"))


def test_the_image_brings_all_that_it_copies_and_starts() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    assert "USER 10001" in text and "[kubernetes,postgres,ray,s3]" in text
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {"data", ".git", ".venv", "**/.env"} <= set(ignored)
