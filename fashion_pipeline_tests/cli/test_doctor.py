"""What `doctor` finds."""

import shutil
from pathlib import Path

import pytest

from fashion_pipeline import diagnosis
from fashion_pipeline.settings import PACKAGE, PROFILES
from fashion_pipeline.stages.drawing.base import unknown_words
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline_tests.cli.conftest import call


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
    for name in ("generator", "encoder", "judge", "looks"):
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
def test_the_doctor_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASHION_PIPELINE_DATA", str(tmp_path / "new" / "data"))
    assert "can be made" in call("doctor").output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_torch")
def test_the_doctor_says_so_when_the_data_root_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASHION_PIPELINE_DATA", str(tmp_path / "file" / "data"))
    result = call("doctor")
    assert result.exit_code == 1 and result.exception.__class__ is SystemExit
    assert "missing data root" in " ".join(result.output.split())
    assert "set FASHION_PIPELINE_DATA" in result.output


def test_the_doctor_says_each_thing_about_the_device_once(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    from fashion_pipeline.ml.tuning import ComputeConfig

    monkeypatch.setattr(
        "fashion_pipeline.ml.devices.measure_cpu", lambda task, keep: {ComputeConfig("bf16", attention="classic"): 1}
    )
    monkeypatch.setenv("FASHION_PIPELINE_DEVICE", "cpu")
    (line,) = [line for line in call("doctor").output.splitlines() if " device " in line]
    assert line.count("bf16") == 1 and "classic attention" in line


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

    models = Models("embedded")
    assert unknown_words(models, "a photo of a black coat, casual") == []
    assert unknown_words(models, "一件黑色的 coat, 🧥") == ["一件黑色的", "🧥"]
