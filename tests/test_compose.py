"""The many-machine shape: every service of ours runs a command that exists and starts."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("lambdahat:")}


def test_the_services_are_the_ones_of_serve() -> None:
    assert set(OURS) == {"migrate", "api", "worker-cpu", "worker-gpu", "sweeper", "webhooks"}
    assert set(SERVICES) - set(OURS) == {"postgres", "valkey"}


@pytest.mark.parametrize("name", OURS)
def test_the_command_exists_and_starts(name: str) -> None:
    python, *arguments = OURS[name]["command"]
    assert python == "python"
    shown = subprocess.run(
        [sys.executable, *arguments, "--help"],
        env={**os.environ, **OURS[name]["environment"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    assert "usage" in shown.stdout.lower()


@pytest.mark.parametrize("name", OURS)
def test_a_service_has_the_settings_of_the_store(name: str) -> None:
    environment = OURS[name]["environment"]
    assert {"LAMBDAHAT_DATABASE_URL", "LAMBDAHAT_BROKER_URL", "LAMBDAHAT_BLOB_DIR"} <= set(environment)
    volume, folder = OURS[name]["volumes"][0].split(":")
    assert folder == environment["LAMBDAHAT_BLOB_DIR"]
    assert volume in COMPOSE["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_waits_for_can_become_so(name: str) -> None:
    for other, wait in SERVICES[name].get("depends_on", {}).items():
        if wait["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]
        else:
            assert wait["condition"] == "service_completed_successfully"
            assert SERVICES[other]["restart"] == "on-failure"


def test_the_image_has_what_the_commands_need() -> None:
    copied = {line.split()[1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")}
    packages = {service["command"][2].split(".")[0] for service in OURS.values()}
    assert packages <= copied
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    wanted = {
        name
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for name in line.split()[1:-1]
    }
    assert wanted == sent
    assert all((ROOT / name).exists() for name in wanted)


def test_only_the_gpu_worker_reserves_a_gpu() -> None:
    reserving = {name for name, service in OURS.items() if "resources" in service.get("deploy", {})}
    assert reserving == {"worker-gpu"}
    devices = {name: service["command"][-1] for name, service in OURS.items() if name.startswith("worker-")}
    assert devices == {"worker-cpu": "cpu", "worker-gpu": "gpu"}
