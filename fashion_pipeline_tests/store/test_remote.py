"""A data root in object storage: what one machine makes, another one has, whole or not at all."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import duckdb
import numpy as np
import pytest
from PIL import Image

from fashion_pipeline import diagnosis
from fashion_pipeline.resources.steps import may_pass
from fashion_pipeline.settings import SettingsError
from fashion_pipeline.store.errors import LockedError, StorageError
from fashion_pipeline.store.storage import remote
from fashion_pipeline.store.storage.remote import LeaseLostError, RemoteError
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.store.buckets import bucket, keys, machine, settings_of
from fashion_pipeline_tests.store.planting import put_in_use

ROWS = {"training_log": [{"step": 0, "loss": None, "held_out_loss": 1.0, "learning_rate": 0.1, "gradient_norm": None}]}


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    with bucket() as given:
        yield given


@pytest.fixture
def pair(environment: dict[str, str], tmp_path: Path) -> tuple[Store, Store]:
    """Two machines with copies of one root."""
    return machine(tmp_path / "a"), machine(tmp_path / "b")


def add(store: Store, content: bytes = b"weights", **made_of: object):
    files = {"weights.bin": content, "model": lambda path: (path.mkdir(), (path / "unet.bin").write_bytes(content))}
    return store.records.add("training", "coat", made_of=made_of, tables=ROWS, files=files)


def test_what_one_machine_makes_the_other_one_has(pair: tuple[Store, Store]) -> None:
    one, other = pair
    made = add(one)
    found = other.records.latest("training", "coat")
    assert (found, found.table("training_log")) == (made, made.table("training_log"))
    assert not (found.folder / "weights.bin").exists(), "large files come when they are asked for"
    assert found.path("weights.bin").read_bytes() == b"weights"
    assert (found.path("model") / "unet.bin").read_bytes() == b"weights"
    assert other.records.whole("training", "coat", made.key) == made
    assert other.records.styles("training") == ["coat"] and other.records.all("training", "coat") == [made]

    newer = add(other, b"more", steps=2)
    assert one.records.latest("training", "coat") == newer
    assert one.records.pointed_at("training", "coat") == other.records.pointed_at("training", "coat")


def test_embeddings_images_sources_settings_and_versions_are_shared(pair: tuple[Store, Store], tmp_path: Path) -> None:
    one, other = pair
    rows = np.eye(2, dtype=np.float32)
    one.features.add("coat", "encoder", "m", ["a", "b"], rows)
    assert other.features.index("coat", "encoder", "m").rows(["b", "a"]).tolist() == rows[::-1].tolist()
    assert other.features.styles() == ["coat"] and len(other.features.paths(["coat"])) == 1

    one.samples.write("ab12", Image.new("RGB", (8, 8), "red"))
    assert other.samples.readable("ab12") and not other.samples.readable("cd34")
    assert [path.stem for path in other.samples.all()] == ["ab12"]

    one.preferences.change("retraining", new_photos=5)
    assert other.preferences.read().retraining.new_photos == 5

    model = tmp_path / "model"
    model.mkdir()
    (model / "unet.bin").write_bytes(b"x")
    put_in_use(one, "coat", "v1", model, {"card.md": "# Coat"}, {"training": add(one)})
    assert other.versions.styles() == ["coat"] and other.versions.pointer("coat").version == "v1"
    assert [folder.name for folder in other.versions.all("coat")] == ["v1"]
    assert not (tmp_path / "b" / "published" / "coat" / "v1" / "unet.bin").exists()
    champion = other.versions.champion("coat")
    assert champion is not None and (champion / "unet.bin").read_bytes() == b"x"
    assert (champion / "trail" / "training" / "training_log.parquet").exists()
    put_in_use(one, "coat", "v2", model, {}, {})
    assert other.versions.roll_back("coat") == ("v1", "v2")
    other.versions.delete("coat", "v2")
    assert [folder.name for folder in one.versions.all("coat")] == ["v1"]


def test_a_query_reads_the_tables_that_it_names_where_they_lie(pair: tuple[Store, Store]) -> None:
    one, other = pair
    made = add(one)
    one.features.add("coat", "encoder", "m", ["a"], np.eye(1, dtype=np.float32))
    assert other.sql("select count(*) n from training_log").to_pylist() == [{"n": 1}]
    assert other.sql("select style, record from training_log_history").to_pylist() == [
        {"style": "coat", "record": made.key}
    ]
    assert other.sql("SELECT f.id FROM Features f JOIN training_log t USING (style)").to_pylist() == [{"id": "a"}]
    assert other.sql("SELECT style FROM training_log WHERE style = 'bag'").num_rows == 0
    with pytest.raises(duckdb.BinderException):
        other.sql("SELECT nothing FROM training_log")
    assert not list(other.root.glob("**/*.parquet")), "nothing was fetched for it"
    assert one.sql("select count(*) n from training_log").to_pylist() == [{"n": 1}]


def test_a_damaged_table_in_object_storage_is_left_out_of_a_query_and_told(pair: tuple[Store, Store]) -> None:
    one, other = pair
    add(one)
    (key,) = [key for key in keys("records") if key.endswith(".parquet")]
    boto3.client("s3").put_object(Bucket="fashion", Key=f"root/{key}", Body=b"PAR1 no more PAR1")
    told: list[str] = []
    assert other.sql("select count(*) n from training_log", told.append).to_pylist() == [{"n": 0}]
    assert len(told) == 1 and "is damaged" in told[0]


def test_a_style_that_is_forgotten_is_forgotten_everywhere(pair: tuple[Store, Store], tmp_path: Path) -> None:
    from fashion_pipeline.core.catalog.listing import SourceSpec

    one, other = pair
    one.sources.register("coat", "coat", SourceSpec("/photos"))
    add(one)
    assert other.sources.subject("coat") == "coat"
    other.forget("coat")
    assert other.sources.styles() == one.sources.styles() == []
    assert not keys("records") and keys("sources") == ["sources/state/removed/coat.json"]
    assert one.sources.removed() == other.sources.removed() == {"coat"}
    one.sources.welcome("coat")
    assert not keys("sources") and not other.sources.removed()
    assert one.records.newest("training", "coat") is None


def test_an_upload_that_stops_half_way_leaves_nothing_to_be_seen(
    pair: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    assert one.files.remote is not None
    put = one.files.remote._fs.put_file

    def stop(source: str, key: str, **options: object) -> None:
        if key.endswith("record.json"):
            raise OSError("Please reduce your request rate. (SlowDown, 503)")
        put(source, key, **options)

    with monkeypatch.context() as patched:
        patched.setattr(one.files.remote._fs, "put_file", stop)
        with pytest.raises(RemoteError, match=r"s3://fashion/root does not answer .*SlowDown.*: try again") as caught:
            add(one)
    assert may_pass(caught.value)
    assert keys("records") and not any(key.endswith("record.json") for key in keys("records"))
    for store in pair:
        assert store.records.newest("training", "coat") is None and store.records.all("training", "coat") == []
        assert not list(store.root.glob("records/*/*/record=*"))
    made = add(one)
    assert other.records.whole("training", "coat", made.key) == made


def test_an_answer_from_the_past_is_not_believed(pair: tuple[Store, Store]) -> None:
    one, other = pair
    client = boto3.client("s3")
    place = {"Bucket": "fashion", "Key": "root/records/training/style=coat/latest.json"}
    add(one)
    old = client.get_object(**place)["Body"].read()
    newer = add(one, steps=2)
    assert other.records.latest("training", "coat") == newer
    client.put_object(**place, Body=old)
    assert other.records.latest("training", "coat") == newer == one.records.latest("training", "coat")


def test_two_machines_do_not_work_on_one_style(pair: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = pair
    with one.locks.working_on("coat", "run 1"), other.locks.working_on("bag", "run 2"):
        with (
            pytest.raises(LockedError, match=r"style 'coat' is in use by run 1 on .*: wait for it"),
            other.locks.working_on("coat", "run 2"),
        ):
            pytest.fail("two at once")
        entered = threading.Event()

        def wait() -> None:
            with other.locks.working_on("coat", "run 3", wait=20.0):
                entered.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not entered.wait(1.5)
    waiting.join(timeout=20)
    assert entered.is_set()
    assert len(keys("leases/styles/coat")) <= 2

    # a machine that is gone
    monkeypatch.setattr(remote, "LEASE_SECONDS", 2.0)
    assert one.files.remote is not None
    one.files.remote._take("styles/coat", "style 'coat'", "run 4", 0.0)
    with pytest.raises(LockedError), other.locks.working_on("coat", "run 5"):
        pytest.fail("two at once")
    time.sleep(3.1)
    with other.locks.working_on("coat", "run 6"):
        content = json.loads(boto3.client("s3").get_object(Bucket="fashion", Key=_newest())["Body"].read())
    assert content["who"] == "run 6" and content["until"] > time.time() - 1


def _newest() -> str:
    return f"root/{max(keys('leases/styles/coat'))}"


def test_only_one_of_many_takes_a_free_lease(environment: dict[str, str], tmp_path: Path) -> None:
    stores = [machine(tmp_path / str(number)) for number in range(6)]
    began, taken, ended = threading.Barrier(6), [], threading.Barrier(6)

    def take(store: Store) -> None:
        began.wait()
        try:
            with store.locks.working_on("coat", "somebody"):
                taken.append(store)
                ended.wait()
        except LockedError:
            ended.wait()

    threads = [threading.Thread(target=take, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(taken) == 1


@pytest.mark.parametrize(
    ("root", "without", "message"),
    [
        ("s3://nowhere/root", (), r"s3://nowhere/root: .*bucket does not exist.*: create it, or correct the URL"),
        (
            "s3://fashion/root",
            ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
            r"s3://fashion/root lets nobody in .*: give credentials",
        ),
        ("ftp4://x/y", (), r"ftp4://x/y cannot be opened .*: use s3://, gs:// or az://"),
        ("gs://x/y", (), r"gs://x/y cannot be opened .*: install the extra 'gs'"),
    ],
)
def test_what_is_wrong_with_a_root_is_said_with_the_way_out(
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    root: str,
    without: tuple[str, ...],
    message: str,
) -> None:
    for name in without:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StorageError, match=message):
        add(machine(tmp_path / "copy", root))


def test_the_doctor_says_whether_a_root_can_be_written(environment: dict[str, str], tmp_path: Path) -> None:
    for root, fine in (("s3://fashion/root", True), ("s3://nowhere/root", False)):
        settings = settings_of(tmp_path / root.replace("/", "-"), root)
        findings = {name: (good, told) for name, good, told, _ in diagnosis.examine(settings, "embedded")}
        assert findings["object storage"][0] == fine and root in findings["object storage"][1]
    assert not keys("leases")


def test_no_object_is_fetched_to_a_place_outside_of_the_copy(pair: tuple[Store, Store], tmp_path: Path) -> None:
    place = "root/embeddings/features/style=coat/model=m/../../../../../stolen.parquet"
    boto3.client("s3").put_object(Bucket="fashion", Key=place, Body=b"x")
    _, other = pair
    with pytest.raises(StorageError, match="outside of the copy"):
        other.files.here(other.files.inside("embeddings", "features"))
    assert not list(tmp_path.rglob("stolen.parquet"))


def test_a_copy_belongs_to_one_root(tmp_path: Path) -> None:
    assert settings_of(tmp_path / "a", "s3://x/y").url == settings_of(tmp_path / "a", "s3://x/y/").url == "s3://x/y"
    with pytest.raises(SettingsError, match=r"a copy of another root than s3://x/z: set FASHION_PIPELINE_COPY"):
        settings_of(tmp_path / "a", "s3://x/z")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("mine")
    with pytest.raises(SettingsError, match="is not empty, and no copy of s3://x/y"):
        settings_of(tmp_path / "b", "s3://x/y")
    told = settings_of(tmp_path / "a", "s3://x/y").environment()
    assert (told["FASHION_PIPELINE_DATA"], told["FASHION_PIPELINE_COPY"]) == ("s3://x/y", str(tmp_path / "a"))


def test_a_training_goes_on_with_the_checkpoints_of_another_machine(
    pair: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MIRROR_SECONDS", 0.05)
    one, other = pair
    here, there = (store.training_folder("coat", "key") / "checkpoints" for store in pair)

    def write(name: str) -> None:
        (here / f".{name}.fresh").mkdir(parents=True)
        (here / f".{name}.fresh" / "tensors.safetensors").write_bytes(name.encode())
        (here / f".{name}.fresh" / "state.json").write_text("{}")
        (here / f".{name}.fresh").rename(here / name)

    with one.files.mirrored(here):
        write("step-00000001")
        (here / "best-00000001.safetensors").write_bytes(b"best")
        (here / ".step-00000002.fresh").mkdir()
        (here / ".step-00000002.fresh" / "tensors.safetensors").write_bytes(b"half")
        until_keys("work", 3)
        write("step-00000003")  # and the first one goes
        (here / "step-00000001" / "state.json").unlink()
        (here / "step-00000001" / "tensors.safetensors").unlink()
        (here / "step-00000001").rmdir()
    expected = ["best-00000001.safetensors", "step-00000003/state.json", "step-00000003/tensors.safetensors"]
    assert [key.partition("checkpoints/")[2] for key in keys("work")] == expected

    with other.files.mirrored(there):
        assert (there / "step-00000003" / "tensors.safetensors").read_bytes() == b"step-00000003"
        assert (there / "best-00000001.safetensors").read_bytes() == b"best"
        (there / "best-00000001.safetensors").unlink()
    assert not [key for key in keys("work") if "best" in key]
    other.files.remove(there)
    assert not keys("work")


def test_checkpoints_that_cannot_be_sent_do_not_end_a_training(
    pair: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = pair
    folder = one.training_folder("coat", "key") / "checkpoints"
    assert one.files.remote is not None
    with one.files.mirrored(folder):
        folder.mkdir(parents=True)
        (folder / "best-00000001.safetensors").write_bytes(b"best")
        with monkeypatch.context() as patched:
            patched.setattr(one.files.remote, "put", lambda *_: (_ for _ in ()).throw(RemoteError("503")))
            one.files.remote._mirror(folder, set())
    assert len(keys("work")) == 1, "it was sent when object storage answered again"


def until_keys(prefix: str, count: int) -> None:
    until = time.monotonic() + 10
    while len(keys(prefix)) < count:
        assert time.monotonic() < until, keys(prefix)
        time.sleep(0.02)


def test_a_command_is_followed_by_its_runs_on_other_machines(
    pair: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    with one.locks.following("7-abc"):
        assert one.locks.follows("7-abc") and other.locks.follows("7-abc") and not other.locks.follows("8-abc")
    assert not one.locks.follows("7-abc") and not other.locks.follows("7-abc") and not keys("leases/commands")
    assert not one.locks.command("7-abc").exists()
    monkeypatch.setattr(remote, "LEASE_SECONDS", 2.0)
    assert one.files.remote is not None
    one.files.remote._take("commands/9-abc", "this command", "a command", 0.0)  # a machine that is switched off
    assert other.locks.follows("9-abc")
    time.sleep(3.1)
    assert not other.locks.follows("9-abc")


def take_over(store: Store, name: str) -> None:
    """What another machine does that found a lease too old."""
    assert store.files.remote is not None
    assert store.files.remote._write(name, 2, "run 2", time.time() + 90, create=True)


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["in front", "in the background"])
def started(request: pytest.FixtureRequest) -> Iterator[None]:
    """As a shell starts a command: SIGINT is ignored by its background jobs."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    assert signal.signal(signal.SIGINT, before) == request.param


@pytest.mark.usefixtures("started")
def test_whoever_lost_a_lease_is_interrupted_and_uploads_nothing_more(
    pair: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    monkeypatch.setattr(remote, "RENEW_SECONDS", 0.3)
    begun = time.monotonic()
    with (
        pytest.raises(LeaseLostError, match=r"style 'coat' was taken over by another machine.*: run it again"),
        one.locks.working_on("coat", "run 1"),
    ):
        take_over(other, "styles/coat")
        time.sleep(20)
    assert time.monotonic() - begun < 10, "the work was interrupted"
    assert other.files.remote is not None and other.files.remote.is_held("styles/coat")

    monkeypatch.setattr(remote, "RENEW_SECONDS", 60.0)
    with pytest.raises(LeaseLostError), one.locks.working_on("bag", "run 1"):
        take_over(other, "styles/bag")
        assert one.files.remote is not None
        one.files.remote._held[0].renewed -= 1000.0  # it could not be renewed for long
        add(one)
    assert not keys("records")


def test_clocks_of_two_machines_are_not_compared(pair: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = pair
    with one.locks.working_on("coat", "run 1"):
        real = time.time()
        monkeypatch.setattr(remote.time, "time", lambda: real + 3600.0)  # an hour ahead
        with pytest.raises(LockedError, match="in use by run 1"), other.locks.working_on("coat", "run 2"):
            pytest.fail("two at once")
