"""The command, as far as it launches nothing."""

import os
import shutil
import socket
import subprocess
import sys
from io import StringIO
from pathlib import Path

import dagster as dg
import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from fashion_pipeline import api, diagnosis
from fashion_pipeline.api import running
from fashion_pipeline.cli import app, console
from fashion_pipeline.cli.commands import _config
from fashion_pipeline.core.catalog.listing import CatalogError, SourceSpec
from fashion_pipeline.defs.configuration import settled
from fashion_pipeline.defs.publishing import PublishingConfig
from fashion_pipeline.defs.samples import SearchConfig
from fashion_pipeline.defs.training import TrainingConfig
from fashion_pipeline.settings import PACKAGE, PROFILES, Settings
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.conftest import assert_one_message


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data root; what the command puts into the environment is taken back."""
    for name, value in Settings(tmp_path / "data", "embedded", "auto", "auto").environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "data"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_help_teaches_how_to_start_and_what_there_is() -> None:
    text = call("--help").output
    for part in ("run", "generate", "report", "styles", "sql", "doctor", "ui", "--source data/samples"):
        assert part in text
    assert "Run the pipeline for one style" in text


def test_help_of_run_explains_the_modes_and_sources() -> None:
    text = call("run", "--help").output
    for part in ("prompt", "finetune", "full", "manifest", "--budget", "Ctrl-C"):
        assert part in text


@pytest.mark.parametrize("command", ["run", "generate", "versions"])
def test_a_command_without_a_style_says_which_option_is_missing(command: str) -> None:
    result = call(command)
    assert result.exit_code == 2 and "--style" in result.output


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        (("run", "--style", "hat"), "run it once with --source"),
        (("report", "--style", "hat"), "style 'hat' has no report (known styles: none yet): run it first"),
        (("report", "--style", "hat", "--json"), "style 'hat' has no report (known styles: none yet): run it first"),
        (("generate", "--style", "hat", "--prompt", "a hat"), "run --mode full --style hat first"),
        (("run", "--style", "../x"), "rename it to letters and digits"),
    ],
)
def test_an_unknown_style_is_one_message_with_the_mend(arguments: tuple[str, ...], mend: str) -> None:
    assert_one_message(call(*arguments), mend)


def test_a_source_that_lacks_the_style_is_answered_with_those_it_has(tmp_path: Path, root: Path) -> None:
    (tmp_path / "photos" / "coat").mkdir(parents=True)
    (tmp_path / "photos" / "coat" / "a.png").write_bytes(b"x")
    result = call("run", "--style", "hat", "--source", str(tmp_path / "photos"))
    assert_one_message(result, "has no photos of style 'hat'; its styles: coat")
    assert Store(root).sources.styles() == []


def test_a_source_that_does_not_exist_is_named(tmp_path: Path) -> None:
    result = call("run", "--style", "hat", "--source", str(tmp_path / "gone"))
    assert_one_message(result, f"there is no {tmp_path / 'gone'}")


def test_an_impossible_budget_is_refused_at_once() -> None:
    result = call("run", "--style", "hat", "--budget", "1")
    assert result.exit_code == 2 and "--budget" in result.output


def test_an_empty_root_says_how_to_start() -> None:
    result = call("styles")
    assert result.exit_code == 0
    assert "fashion-pipeline run --style coat --source data/samples" in result.output


def test_a_style_that_never_ran_is_listed_with_no_photos(root: Path) -> None:
    Store(root).sources.register("coat", "coat", SourceSpec("/photos"))
    result = call("styles")
    assert result.exit_code == 0 and "coat" in result.output and "0" in result.output


def test_a_query_is_answered_as_a_table(root: Path) -> None:
    Store(root).records.add(
        "catalog", "coat", tables={"images": [], "rejects": [{"path": "a[1].jpg", "reason": "empty"}]}
    )
    result = call("sql", "SELECT style, path FROM rejects")
    assert result.exit_code == 0
    assert [line.split() for line in result.output.splitlines()] == [["style", "path"], ["coat", "a[1].jpg"]]


@pytest.mark.parametrize("query", ["SELEC 1", "SELECT * FROM nowhere"])
def test_a_query_with_an_error_shows_it_without_a_traceback(query: str) -> None:
    result = call("sql", query)
    assert result.exit_code == 1
    assert result.output.count("error:") == 1 and "Traceback" not in result.output
    assert "Parser Error" in result.output or "nowhere" in result.output


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choosing the device is tested in ml/; here it would only load torch."""
    monkeypatch.setattr(diagnosis, "_device", lambda settings: ("device", True, "cpu", ""))


@pytest.mark.usefixtures("no_torch")
def test_the_doctor_reports_a_profile_whose_folder_is_missing(tmp_path: Path) -> None:
    text = (PROFILES / "embedded.toml").read_text(encoding="utf-8").replace('"../embedded/', '"./gone/')
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    result = call("doctor", "--profile", str(tmp_path / "mine.toml"))
    assert result.exit_code == 1
    assert "missing profile" in result.output
    assert f"no folder {tmp_path / 'gone' / 'generator'}: restore it" in result.output


@pytest.mark.usefixtures("no_torch")
def test_the_doctor_reports_a_model_folder_that_is_incomplete(tmp_path: Path) -> None:
    for name in ("generator", "encoder", "judge"):
        (tmp_path / name).mkdir()
    text = (PROFILES / "embedded.toml").read_text(encoding="utf-8").replace('"../embedded/', '"./')
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    result = call("doctor", "--profile", str(tmp_path / "mine.toml"))
    assert result.exit_code == 1
    told = " ".join(result.output.split())
    assert "generator is incomplete (model_index.json, unet/diffusion_pytorch_model.safetensors, vae/" in told
    assert "judge is incomplete (config.json, model.safetensors): download it again" in told


@pytest.mark.usefixtures("no_torch")
def test_the_doctor_finds_the_embedded_models(root: Path) -> None:
    result = call("doctor")
    for name in ("profile", "generator", "encoder", "judge", "vocabulary", "data root"):
        assert any(line.split()[:1] == ["ok"] and name in line for line in result.output.splitlines()), result.output


@pytest.mark.usefixtures("no_torch")
def test_the_doctor_says_so_when_the_data_root_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASHION_PIPELINE_DATA", str(tmp_path / "file" / "data"))
    result = call("doctor")
    assert result.exit_code == 1 and result.exception.__class__ is SystemExit
    assert "missing data root" in " ".join(result.output.split())
    assert "set FASHION_PIPELINE_DATA" in result.output


def test_options_of_a_run_become_the_configuration_of_its_steps() -> None:
    assert _config(None, None, None, [], [], None) == {}
    knobs = ["rank=8", "caption_dropout=0.2", "horizontal_flip=false", "precision=fp32"]
    assert _config(30, 48, 9, knobs, ["my own coat"], 2) == {
        "prompt_candidates": {"prompts": ["my own coat"], "rounds": 2},
        "generated_samples": {"budget": 48, "held_out_products": 9},
        "lora_weights": {"rank": 8, "caption_dropout": 0.2, "horizontal_flip": False, "precision": "fp32", "steps": 30},
        "evaluation_report": {"products": 9},
    }
    assert _config(None, None, None, ['layers=["attention"]'], [], None)["lora_weights"] == {"layers": ["attention"]}


@pytest.mark.parametrize(
    ("knob", "mend"),
    [
        ("rank", "write it as name=value"),
        ("rank=0", "rank is 0: it must be a whole number from 1 to 1024"),
        ("rnk=8", "rnk is not known: choose among"),
        ("precision=fp8", "precision is 'fp8': it must be one of auto, fp32, bf16"),
    ],
)
def test_a_knob_that_cannot_be_is_refused_before_anything_starts(
    tmp_path: Path, root: Path, knob: str, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos" / "coat").mkdir(parents=True)
    (tmp_path / "photos" / "coat" / "a.png").write_bytes(b"x")
    monkeypatch.setattr("fashion_pipeline.running.launching.launcher", lambda *_: pytest.fail("a run was started"))
    result = call("run", "--style", "coat", "--source", str(tmp_path / "photos"), "--set", knob)
    assert result.exit_code == 1 and mend in " ".join(result.output.split())


def test_thumbnails_and_embeddings_do_not_fill_the_terminal(root: Path) -> None:
    result = call("sql", "SELECT from_hex('00ff') AS thumbnail, range(500) AS embedding, [1, 2] AS few, NULL AS none")
    assert result.exit_code == 0
    assert result.output.splitlines()[1].split("  ") != [] and "(2 bytes)" in result.output
    assert "(500 values)" in result.output and "[1, 2]" in result.output and len(result.output) < 300


def test_the_doctor_says_each_thing_about_the_device_once(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    from fashion_pipeline.ml.tuning import ComputeConfig

    monkeypatch.setattr(
        "fashion_pipeline.ml.devices.measure_cpu", lambda task, keep: {ComputeConfig("bf16", attention="classic"): 1}
    )
    monkeypatch.setenv("FASHION_PIPELINE_DEVICE", "cpu")
    (line,) = [line for line in call("doctor").output.splitlines() if " device " in line]
    assert line.count("bf16") == 1 and "classic attention" in line


def test_a_result_of_prompts_alone_is_listed(root: Path) -> None:
    store = Store(root)
    store.sources.register("coat", "coat", SourceSpec("/photos"))
    report = {"optimized_prompt": "a photo of a red coat"}
    store.records.add("prompt_report", "coat", files={"report.json": report})
    assert "a photo of a red coat" in call("styles").output
    assert api.report("coat") == report


# What a new user ran into


def photos_of(root: Path, *styles: str) -> Path:
    for style in styles:
        (root / style).mkdir(parents=True)
        (root / style / "a.png").write_bytes(b"x")
    return root


@pytest.mark.parametrize("arguments", [("styles",), ("sql", "SELECT 1"), ("run", "--style", "coat"), ("ui",)])
def test_a_data_root_that_is_a_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASHION_PIPELINE_DATA", str(tmp_path / "file"))
    assert_one_message(call(*arguments), f"{tmp_path / 'file'} is no folder: set FASHION_PIPELINE_DATA to one")


def test_a_disk_that_is_full_or_read_only_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/data/x")

    monkeypatch.setattr(api, "run", full)
    assert_one_message(call("run", "--style", "coat"), "/data/x: No space left on device: name another one, or set")


def test_a_folder_for_images_that_is_a_file_is_named(tmp_path: Path, root: Path) -> None:
    (tmp_path / "model").mkdir()
    Store(root).versions.publish("coat", "v1", tmp_path / "model", {}, {})
    (tmp_path / "file").write_text("")
    result = call("generate", "--style", "coat", "--prompt", "a coat", "--out", str(tmp_path / "file"))
    assert_one_message(result, str(tmp_path / "file"), "File exists")


def test_generate_after_no_evidence_says_why_nothing_is_published(root: Path) -> None:
    report = {"verdict": "no evidence", "reason": "Only 2 dev products."}
    Store(root).records.add("evaluation", "coat", files={"report.json": report})
    result = call("generate", "--style", "coat", "--prompt", "a coat")
    assert_one_message(result, "the verdict on its newest training is 'no evidence' (Only 2 dev products)")


def test_the_ui_says_that_its_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert_one_message(call("ui", "--port", str(port)), f"port {port} cannot be used", "choose another with --port")


def test_a_query_in_a_pipe_is_lines_with_tabs_that_are_never_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = call("sql", f"SELECT '{'x' * 300}' AS \"[bold]long\", 'a\tb' AS \"[/]two\"")
    assert result.stdout.splitlines() == ["[bold]long\t[/]two", f"{'x' * 300}\ta b"]


def test_a_query_without_rows_shows_its_columns() -> None:
    result = call("sql", "SELECT style, path FROM rejects")
    assert result.stdout.splitlines() == ["style\tpath"] and "no rows" in result.stderr


def test_what_a_query_may_touch_stands_in_its_help() -> None:
    assert "It only reads" in call("sql", "--help").output


def test_a_source_is_the_same_however_it_is_spelt(tmp_path: Path, root: Path) -> None:
    photos = photos_of(tmp_path / "photos", "coat")
    (tmp_path / "link").symlink_to(photos)
    api.move(photos)
    for spelling in (photos, f"{photos}/", tmp_path / "x" / ".." / "photos", tmp_path / "link"):
        assert running._take_in(Store(root), "coat", spelling, lambda text: None)[0].keys() == {"coat"}
    assert Store(root).sources.source("coat").path == str(photos)


def test_all_styles_of_a_source_move_with_one_command(tmp_path: Path, root: Path) -> None:
    before = photos_of(tmp_path / "before", "bag", "coat")
    after = photos_of(tmp_path / "after", "bag", "coat")
    api.move(before)
    with pytest.raises(CatalogError, match=f"already comes from {before}: .* fashion-pipeline move {after}"):
        running._take_in(Store(root), "coat", after, lambda text: None)
    result = call("move", str(after))
    assert result.exit_code == 0 and f"bag, coat: photos are now taken from {after}" in result.output
    assert {Store(root).sources.source(style).path for style in ("bag", "coat")} == {str(after)}


def test_a_style_is_forgotten_but_for_what_was_published(tmp_path: Path, root: Path) -> None:
    store = Store(root)
    api.move(photos_of(tmp_path / "photos", "bag", "coat"))
    for style in ("bag", "coat"):
        store.records.add("catalog", style, tables={"images": [], "rejects": []})
    (tmp_path / "model").mkdir()
    store.versions.publish("coat", "v1", tmp_path / "model", {}, {})
    assert call("remove", "--style", "coat").exit_code != 0 and "coat" in store.sources.styles()
    assert call("remove", "--style", "coat", "--yes").exit_code == 0
    assert store.sources.styles() == ["bag"] and store.records.styles("catalog") == ["bag"]
    assert store.versions.champion("coat") is not None
    assert_one_message(call("remove", "--style", "coat", "--yes"), "style 'coat' is not in the catalog (known: bag)")


def test_files_of_no_style_are_told(tmp_path: Path, root: Path) -> None:
    photos = photos_of(tmp_path / "photos", "coat", "!!")
    (photos / "stray.jpg").write_bytes(b"x")
    told: list[str] = []
    running._take_in(Store(root), "coat", photos, told.append)
    (text,) = told
    assert "stray.jpg: lies in no style's folder" in text and "'!!' has no letter or digit" in text


def test_a_mode_step_or_field_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path, root: Path) -> None:
    with pytest.raises(ValueError, match="mode 'train' is not known: use one of prompt, finetune, full"):
        api.run("coat", "train")  # type: ignore[arg-type]
    api.move(photos_of(tmp_path / "photos", "coat"))
    with pytest.raises(ValueError, match="step 'samples' cannot be configured: choose among curated_subset, eval"):
        running._choose(Store(root), "coat", {"samples": {}}, None, False)
    with pytest.raises(ValueError, match="budgett is not known: choose among budget, held_out_products"):
        running._choose(Store(root), "coat", {"generated_samples": {"budgett": 3}}, None, False)


def embedded_profile(folder: Path, changes: dict[str, str]) -> str:
    """A copy of the embedded profile with texts replaced."""
    text = (PROFILES / "embedded.toml").read_text(encoding="utf-8").replace("../embedded", f"{PACKAGE}/embedded")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    return str(folder / "mine.toml")


@pytest.mark.usefixtures("no_torch")
def test_the_doctor_finds_what_a_run_would_trip_over(tmp_path: Path) -> None:
    def found(changes: dict[str, str]) -> str:
        result = call("doctor", "--profile", embedded_profile(tmp_path, changes))
        assert result.exit_code == 1
        return " ".join(result.output.split())

    assert "steps is 'many': it must be a whole number" in found({"steps = 15": 'steps = "many"'})
    assert "steps is 0: it must be a whole number" in found({"steps = 15": "steps = 0"})
    assert "/judge is a resnet, not a CLIP: name a CLIPModel" in found({"embedded/encoder": "embedded/judge"})
    (tmp_path / "v.toml").write_text("[colour]\nred = []\n")
    assert "facet [colour] has 1 values" in found({f"{PACKAGE}/embedded/vocabulary.toml": str(tmp_path / "v.toml")})
    shutil.copytree(PACKAGE / "embedded" / "generator", tmp_path / "generator")
    weights = tmp_path / "generator" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    told = found({f"{PACKAGE}/embedded/generator": str(tmp_path / "generator")})
    assert "has damaged weights (unet/diffusion_pytorch_model.safetensors): download them again" in told
    weights.unlink()
    assert "is incomplete (unet/" in found({f"{PACKAGE}/embedded/generator": str(tmp_path / "generator")})


def test_words_that_the_text_encoder_cannot_know_are_told() -> None:
    from fashion_pipeline.stages.drawing.models import Models

    models = Models("embedded")
    assert models.unknown_words("a photo of a black coat, casual") == []
    assert models.unknown_words("一件黑色的 coat, 🧥") == ["一件黑色的", "🧥"]


@pytest.mark.parametrize(
    ("pods", "told"),
    [(None, "cannot be read"), ("heavy: {}", "runs are no pods"), ("heavy: {container_config: {cpu: 1}}", "heavy")],
)
def test_steps_that_cannot_be_pods_end_in_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pods: str | None, told: str
) -> None:
    pytest.importorskip("dagster_k8s", reason="the extra kubernetes is not installed")
    file = tmp_path / "pods.yaml"
    if pods:
        file.write_text(pods, encoding="utf-8")
    monkeypatch.setenv("FASHION_PIPELINE_KUBERNETES", str(file))
    assert_one_message(call("status"), told)


def test_an_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASHION_PIPELINE_RAY", "auto")
    monkeypatch.setattr("fashion_pipeline.settings.importlib.util.find_spec", lambda name: None)
    assert_one_message(call("status"), "FASHION_PIPELINE_RAY needs more packages: pip install 'fashion-pipeline[ray]'")


def test_a_preset_changes_what_it_names_and_approval_goes_by_its_own_word_only(tmp_path: Path, root: Path) -> None:
    store = Store(root)
    api.move(photos_of(tmp_path / "photos", "coat"))

    def choose(preset: str | None = None, forget: bool = False, **config: dict[str, object]) -> object:
        return running._choose(store, "coat", config, preset, forget)

    choose(published_model={"approval": "required"}, curated_subset={"keep": 0.5}, lora_weights={"rank": 4, "steps": 9})
    mine = {"published_model": {"approval": "required"}, "curated_subset": {"keep": 0.5}}
    quick = {
        "generated_samples": {"budget": 64, "held_out_products": 24},
        "lora_weights": {"rank": 4, "steps": 100},
        "evaluation_report": {"products": 48},
    }
    assert choose("quick") == {**mine, **quick}
    assert choose("quick", generated_samples={"budget": 70})["generated_samples"]["budget"] == 70  # type: ignore[index]
    assert choose("standard", generated_samples={"budget": 64}) == {
        **mine,
        "generated_samples": {"budget": 64},
        "lora_weights": {"rank": 4},
    }
    assert choose("thorough")["prompt_candidates"] == {"rounds": 2}  # type: ignore[index]
    assert choose(forget=True) == {"published_model": {"approval": "required"}}
    assert store.sources.approval("coat") == "required"
    choose(published_model={"approval": "none"})
    assert store.sources.approval("coat") == "none"
    with pytest.raises(ValueError, match="preset 'quik' is not known: choose among standard, quick, thorough"):
        choose("quik")


def test_every_way_to_start_a_run_is_bound_by_what_was_chosen(tmp_path: Path, root: Path) -> None:
    store = Store(root)
    api.move(photos_of(tmp_path / "photos", "coat"))
    chosen = {
        "published_model": {"approval": "required"},
        "generated_samples": {"budget": 300},
        "lora_weights": {"steps": 77, "control": True, "of an earlier version": 1},
    }
    store.sources.choose("coat", lambda known: chosen)

    def of(config: dg.Config, step: str, style: str = "coat") -> dict[str, object]:
        return settled(config, store, style, step)

    assert of(PublishingConfig(), "published_model") == {"approval": "required"}
    assert of(PublishingConfig(approval="none"), "published_model") == {"approval": "required"}, "a launchpad's default"
    assert of(SearchConfig(), "generated_samples") == {"budget": 300, "held_out_products": 128}
    assert of(SearchConfig(budget=40), "generated_samples")["budget"] == 40
    training = of(TrainingConfig(rank=4), "lora_weights")
    assert (training["steps"], training["rank"], training["control"]) == (77, 4, True)
    assert "of an earlier version" not in training
    store.sources.choose("coat", lambda known: {})
    assert of(PublishingConfig(approval="required"), "published_model") == {"approval": "required"}
    assert of(PublishingConfig(), "published_model") == {"approval": "none"}


def test_a_style_that_a_command_is_about_to_run_cannot_be_removed(tmp_path: Path, root: Path) -> None:
    store = Store(root)
    api.move(photos_of(tmp_path / "photos", "coat"))
    with store.claiming("coat", "a command that runs it"):
        for arguments in (("remove", "--style", "coat", "--yes"), ("run", "--style", "coat")):
            assert_one_message(call(*arguments), "in use by a command that runs it")
    assert store.sources.styles() == ["coat"]


def test_ids_are_whole_in_a_narrow_terminal_and_between_tabs_in_a_pipe(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"version": "0123456789abcdef" * 2, "state": "in use", "what else there is": "word " * 30}]
    monkeypatch.setattr(
        api, "versions", lambda style: [{**rows[0], "bytes": 1, "bytes of its own": 1, "judge gain": None}]
    )
    piped = call("versions", "--style", "coat")
    header, row = piped.stdout.splitlines()
    assert header.split("\t")[:2] == ["version", "state"] and row.split("\t")[0] == rows[0]["version"]
    shown = StringIO()
    monkeypatch.setattr(console, "out", Console(file=shown, force_terminal=True, width=60))
    console.show(rows)
    assert rows[0]["version"] in shown.getvalue()


@pytest.mark.parametrize(
    "arguments", [("sql", "SELECT range AS n FROM range(500000)"), ("status", "--json"), ("styles",)]
)
def test_a_reader_that_leaves_is_no_error(root: Path, arguments: tuple[str, ...]) -> None:
    for style in range(60):
        Store(root).sources.register(f"style-{style}", "coat " * 100, SourceSpec("/photos"))
    program = [sys.executable, "-m", "fashion_pipeline.cli", *arguments]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(100)
        process.stdout.close()
        told = process.stderr.read().decode()
    assert "Broken pipe" not in told and "Traceback" not in told and "Exception ignored" not in told
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process")
def test_rows_of_an_answer_are_not_all_in_memory_as_text(root: Path) -> None:
    code = (
        "import sys; from fashion_pipeline.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)"
    )
    program = [sys.executable, "-c", code, "sql", "SELECT range AS n FROM range(2000000)"]
    ended = subprocess.run(program, capture_output=True, check=True)
    assert ended.stdout.count(b"\n") == 2_000_001
    assert int(ended.stderr.split()[-1]) < 450 * 1024, "KiB; as Python objects the rows alone take 800 MB"


def test_a_terminal_shows_the_beginning_of_a_long_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = StringIO()
    monkeypatch.setattr(console, "out", Console(file=shown, force_terminal=True, width=60))
    monkeypatch.setattr("fashion_pipeline.cli.commands.out", console.out)
    result = call("sql", "SELECT range AS n FROM range(3000)")
    assert len(shown.getvalue().splitlines()) == 1001 and "and 2,000 rows more" in result.stderr


def test_no_images_are_refused_and_nothing_is_left_behind(tmp_path: Path, root: Path) -> None:
    with pytest.raises(ValueError, match="n is 0: ask for 1 image or more"):
        api.generate("coat", "a coat", 0, tmp_path / "out")
    model = Models("embedded").profile.generator
    Store(root).versions.publish("coat", "v1", Path(model), {}, {})
    for place in (tmp_path / "out", tmp_path):
        result = call("generate", "--style", "coat", "--prompt", "long " * 100, "--out", str(place))
        assert_one_message(result, "tokens, but the model reads 77: shorten")
    assert not (tmp_path / "out").exists() and tmp_path.exists()


def test_a_locale_that_is_not_utf_8_is_to_blame_and_not_the_name(tmp_path: Path, root: Path) -> None:
    (tmp_path / "photos" / "旗袍").mkdir(parents=True)
    (tmp_path / "photos" / "旗袍" / "a.png").write_bytes(b"x")
    settings = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "COLUMNS": "500"}
    program = [sys.executable, "-m", "fashion_pipeline.cli", "run", "--source", str(tmp_path / "photos")]
    for style in ("旗袍", "coat"):
        ended = subprocess.run(
            [*program, "--style", style], env=os.environ | settings, capture_output=True, check=False
        )
        told = (ended.stdout + ended.stderr).decode(errors="replace")
        assert ended.returncode == 1 and "Traceback" not in told
        assert "locale's encoding is" in told and "set LC_ALL=C.UTF-8" in told, told


BY = ("encoder", "judge")


def test_a_run_ends_with_a_line_on_each_thing_that_people_want_to_know(root: Path) -> None:
    store = Store(root)

    def cell(model: str, measure: str, mean: float) -> dict[str, object]:
        place = {"model": model, "prompt": "plain", "measure": measure, "split": "dev"}
        return place | {"mean": mean, "low": None, "high": None, "n": 48}

    figures = (("original", 0.4, 0.5), ("specialised", 0.7, 0.6))
    scores = [cell(name, by, mean) for name, *means in figures for by, mean in zip(BY, means, strict=True)]
    report = {"style": "coat", "optimized_prompt": "a red coat", "strategy": "top_k", "scores": scores, "model": "v1"}
    report |= {"verdict": "better", "reason": "Closer by both."}
    store.records.add("model", "coat", key="v1")
    store.records.add("evaluation", "coat", files={"report.json": report, "report.html": "<p>page</p>"})
    told = api.outcome("coat")
    assert told["did it help"] == "better. Closer by both."
    assert told["similarity"] == (
        "encoder 0.400 → 0.700, judge 0.500 → 0.600 (plain prompt, original → specialised; 48 products)"
    )
    assert told["best prompt"] == "a red coat  (top_k)" and told["model"].endswith("not published")
    assert told["report"].endswith("report.html") and told["next"] == "fashion-pipeline report --style coat --open"
    (root / "model").mkdir()
    store.versions.assemble("coat", "v1", root / "model", {}, {})
    store.versions.hold("coat", "v1")
    assert "waits for approval" in api.outcome("coat")["model"]
    assert api.outcome("coat")["next"] == "fashion-pipeline publish --style coat"
    store.versions.promote("coat", "v1")
    assert api.outcome("coat")["model"].endswith("v1, in use")
    assert api.outcome("coat")["next"] == 'fashion-pipeline generate --style coat --prompt "a red coat"'
