"""The command, as far as it launches nothing."""

import socket
from pathlib import Path

import pytest

from fashion_pipeline import api
from fashion_pipeline.api import running
from fashion_pipeline.core.catalog.listing import CatalogError, SourceSpec
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.store.store import Store
from fashion_pipeline_tests.cli.conftest import call, photos_of
from fashion_pipeline_tests.conftest import assert_one_message
from fashion_pipeline_tests.store.planting import put_in_use


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


def test_an_empty_root_says_how_to_start() -> None:
    result = call("styles")
    assert result.exit_code == 0
    assert "fashion-pipeline run --style coat --source data/samples" in result.output


def test_a_style_that_never_ran_is_listed_with_no_photos(root: Path) -> None:
    Store(root).sources.register("coat", "coat", SourceSpec("/photos"))
    result = call("styles")
    assert result.exit_code == 0 and "coat" in result.output and "0" in result.output


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
    put_in_use(Store(root), "coat", "v1", tmp_path / "model", {}, {})
    (tmp_path / "file").write_text("")
    result = call("generate", "--style", "coat", "--prompt", "a coat", "--out", str(tmp_path / "file"))
    assert_one_message(result, str(tmp_path / "file"), "File exists")


def test_generate_after_no_evidence_says_why_nothing_is_published(root: Path) -> None:
    report = {"verdict": "no evidence", "reason": "Only 2 dev products."}
    Store(root).records.add("evaluation", "coat", files={"report.json": report})
    result = call("generate", "--style", "coat", "--prompt", "a coat")
    assert_one_message(result, "Not published: no difference to the original was found. Only 2 dev products.")


def test_the_ui_says_that_its_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert_one_message(call("ui", "--port", str(port)), f"port {port} cannot be used", "choose another with --port")


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
    put_in_use(store, "coat", "v1", tmp_path / "model", {}, {})
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


def test_a_style_that_a_command_is_about_to_run_cannot_be_removed(tmp_path: Path, root: Path) -> None:
    store = Store(root)
    api.move(photos_of(tmp_path / "photos", "coat"))
    with store.locks.claiming("coat", "a command that runs it"):
        for arguments in (("remove", "--style", "coat", "--yes"), ("run", "--style", "coat")):
            assert_one_message(call(*arguments), "in use by a command that runs it")
    assert store.sources.styles() == ["coat"]


def test_no_images_are_refused_and_nothing_is_left_behind(tmp_path: Path, root: Path) -> None:
    with pytest.raises(ValueError, match="n is 0: ask for 1 image or more"):
        api.generate("coat", "a coat", 0, tmp_path / "out")
    with pytest.raises(ValueError, match="strength is 0: choose one above 0"):
        api.generate("coat", "a coat", 1, tmp_path / "out", strength=0.0)
    model = Models("embedded").profile.generator
    put_in_use(Store(root), "coat", "v1", Path(model), {}, {})
    for place in (tmp_path / "out", tmp_path):
        result = call("generate", "--style", "coat", "--prompt", "long " * 100, "--out", str(place))
        assert_one_message(result, "tokens, but the model reads 77: shorten")
    assert not (tmp_path / "out").exists() and tmp_path.exists()
