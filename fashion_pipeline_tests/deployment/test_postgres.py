"""PostgreSQL as storage of the Dagster instance: a real server, runs through it, and its password nowhere on disk."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fashion_pipeline.settings import DATABASE, Settings, SettingsError, enter
from fashion_pipeline.store.storage.locks import is_held
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.conftest import SAMPLES, quick_profile
from tools.postgres import postgres_server, programs

pytestmark = pytest.mark.thorough

SECRETS = {
    "FASHION_PIPELINE_WEBHOOK": "https://hooks.example/token-of-ours",
    "FASHION_PIPELINE_SMTP_PASSWORD": "password-of-ours",
}
STATUSES = """
import json, dagster as dg
with dg.DagsterInstance.get() as instance:
    info = instance.event_log_storage.get_concurrency_info("gpu")
    runs = [[run.status.value, run.job_name] for run in instance.get_runs()]
    told = {"storage": type(instance.run_storage).__name__, "runs": runs, "held": info.active_slot_count}
    logs = [str(entry) for run in instance.get_runs() for entry in [run, *instance.all_logs(run.run_id)]]
    print(json.dumps(told | {"logs": logs}))
"""


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    if programs() is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres_server() as url:
        yield url


def environment(root: Path, database: str) -> dict[str, str]:
    settings = Settings(root, quick_profile(), "cpu", "fp32").environment()
    return os.environ | settings | SECRETS | {DATABASE: database, "OMP_NUM_THREADS": "1"}


def photos(root: Path) -> Path:
    (root / "photos" / "coat").mkdir(parents=True)
    for photo in sorted((SAMPLES / "coat").glob("*.png"))[:12]:
        (root / "photos" / "coat" / photo.name).write_bytes(photo.read_bytes())
    return root / "photos"


def run(root: Path, database: str, *arguments: str) -> "subprocess.Popen[bytes]":
    program = [sys.executable, "-m", "fashion_pipeline.cli", "run", "--style", "coat", "--mode", "prompt", *arguments]
    with (root.parent / "said").open("wb") as said:
        return subprocess.Popen(program, env=environment(root, database), stdout=said, stderr=subprocess.STDOUT)


def known(root: Path, database: str) -> dict[str, object]:
    asked = [sys.executable, "-W", "ignore", "-c", STATUSES]
    told = subprocess.run(asked, env=environment(root, database), capture_output=True, text=True, check=True).stdout
    return dict(json.loads(told.splitlines()[-1]))


def test_runs_go_through_postgresql_and_a_killed_one_is_buried(tmp_path: Path, database: str) -> None:
    root, source = tmp_path / "data", photos(tmp_path)
    small = ["--budget", "8", "--products", "2", "--source", str(source)]
    killed = run(root, database, *small)
    lock = Store(root).locks.style("coat")
    until = time.monotonic() + 120
    while not (lock.exists() and is_held(lock) and lock.read_text()):
        assert time.monotonic() < until and killed.poll() is None, (tmp_path / "said").read_text()
        time.sleep(0.05)
    os.kill(int(json.loads(lock.read_text())["pid"]), signal.SIGKILL)
    assert killed.wait(120) == 1
    again = run(root, database, *small)
    ended = again.wait(300)
    said = (tmp_path / "said").read_text()
    assert ended == 0, said
    found = known(root, database)
    assert found["storage"] == "PostgresRunStorage" and found["held"] == 0
    assert sorted(found["runs"]) == [["FAILURE", "prompt_optimization"], ["SUCCESS", "prompt_optimization"]]
    files = [path for path in root.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix == ".db"], "SQLite was used beside it"
    for secret in (database.split(":")[2].split("@")[0], "token-of-ours", "password-of-ours"):
        assert not [path for path in files if secret.encode() in path.read_bytes()], "a secret lies on the disk"
        assert secret not in said and secret not in str(found)


def test_a_database_that_does_not_answer_is_one_line_without_the_password(tmp_path: Path) -> None:
    url = "postgresql+psycopg2://dagster:sesame@127.0.0.1:1/dagster"
    program = [sys.executable, "-m", "fashion_pipeline.cli", "status"]
    done = subprocess.run(program, env=environment(tmp_path, url), capture_output=True, text=True, timeout=200)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "sesame" not in said and "Traceback" not in said
    assert "FASHION_PIPELINE_DATABASE" in said and "Connection refused" in said


def test_another_driver_or_database_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(tmp_path, "embedded", "cpu", "fp32")
    for name in settings.environment():
        monkeypatch.setenv(name, "")
    for url in ("postgresql://a:b@c/d", "mysql://a:b@c/d", "somewhere"):
        monkeypatch.setenv(DATABASE, url)
        with pytest.raises(SettingsError, match=r"must start with postgresql\+psycopg2://"):
            enter(settings)
    assert not settings.dagster_home.exists()


def test_the_configuration_follows_the_environment_back_and_forth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(tmp_path, "embedded", "cpu", "fp32")
    for name in settings.environment():
        monkeypatch.setenv(name, "")
    file = settings.dagster_home / "dagster.yaml"
    for url in ("", "postgresql+psycopg2://a:sesame@c/d", ""):
        monkeypatch.setenv(DATABASE, url)
        enter(settings)
        assert ("postgres" in file.read_text()) == bool(url) and "sesame" not in file.read_text()
