"""A model is known by what it is made of, not by where it lies or what lies beside it."""

import json
import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from fashion_pipeline.ml import sources
from fashion_pipeline.ml.files import fingerprint, licence_of, stored_dtype
from fashion_pipeline.ml.pipelines import load_pipeline


def test_a_pipeline_is_known_by_its_parts_and_not_by_what_lies_beside_them(generator_folder, tmp_path):
    version = tmp_path / "version"
    shutil.copytree(generator_folder, version)
    (version / "evaluation_report.json").write_text("{}")
    (version / "trail").mkdir()
    (version / "trail" / "record.json").write_text("{}")
    (version / "fashion_lora_weights.safetensors").write_bytes(b"x")
    (version / "safety_checker").mkdir()
    (version / "safety_checker" / "config.json").write_text("{}")
    assert fingerprint(version) == fingerprint(generator_folder)
    (version / "unet" / "config.json").write_text("{}")
    assert fingerprint(version) != fingerprint(generator_folder)


def test_a_single_file_that_is_missing_or_no_such_model_is_named(tmp_path, generator_folder, monkeypatch):
    monkeypatch.setattr(sources, "HF_HOME", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors is not there"):
        sources.find_pipeline(tmp_path / "gone.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, other)
    shutil.copytree(generator_folder, tmp_path / "other")
    with pytest.raises(ValueError, match=r"other\.safetensors holds no Stable Diffusion model"):
        sources.find_pipeline(other)
    assert not (tmp_path / "cache").exists()


def test_a_licence_is_what_the_front_matter_of_the_card_tells(tmp_path):
    card = tmp_path / "README.md"
    assert licence_of(tmp_path) is None
    card.write_text("# No front matter\n\nlicense: mit\n")
    assert licence_of(tmp_path) is None
    card.write_text("---\nlicense: creativeml-openrail-m\ntags: [x]\n---\n\n# Card\n")
    assert licence_of(tmp_path) == "creativeml-openrail-m"
    card.write_text("---\nlicense: [unclosed\n---\n")
    assert licence_of(tmp_path) is None


@pytest.fixture
def single(generator_folder, tmp_path, monkeypatch):
    """A single file; what it is unpacked to is the generator of the tests."""
    monkeypatch.setattr(sources, "HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        StableDiffusionPipeline, "from_single_file", lambda *_, dtype, **__: load_pipeline(generator_folder, dtype)
    )
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1), "b": torch.zeros(100, dtype=torch.float16)}, file)
    return file


def predicts(folder) -> str:
    return json.loads((folder / "scheduler" / "scheduler_config.json").read_text())["prediction_type"]


def test_a_single_file_is_unpacked_anew_where_anything_that_counts_has_changed(single):
    first = sources.find_pipeline(single)
    assert sources.find_pipeline(single) == first and predicts(first) == "epsilon"
    beside = single.with_suffix("")
    (beside / "scheduler").mkdir(parents=True)
    (beside / "scheduler" / "scheduler_config.json").write_text("{}")
    second = sources.find_pipeline(single)
    (beside / "scheduler" / "scheduler_config.json").write_text('{"x": 1}')
    assert len({first, second, sources.find_pipeline(single)}) == 3
    shutil.rmtree(beside)
    assert sources.find_pipeline(single) == first
    single.with_suffix(".yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    by_yaml = sources.find_pipeline(single)
    assert by_yaml != first and predicts(by_yaml) == "v_prediction"


@pytest.mark.parametrize("marker", ["tensor", "header"])
def test_a_marker_in_a_single_file_says_that_it_predicts_v(single, marker):
    header = {"modelspec.prediction_type": "v"} if marker == "header" else {}
    more = {"v_pred": torch.zeros(0)} if marker == "tensor" else {}
    save_file({"b": torch.zeros(100, dtype=torch.float16), **more}, single, header)
    assert predicts(sources.find_pipeline(single)) == "v_prediction"


def test_a_single_file_is_written_out_in_the_precision_that_most_of_it_is_in(single):
    assert stored_dtype(single) == torch.float16
    (weights,) = (sources.find_pipeline(single) / "unet").glob("*.safetensors")
    assert stored_dtype(weights) == torch.float16


def test_two_that_unpack_one_file_do_not_collide(single, generator_folder, monkeypatch):
    begun: list[bool] = []

    def overtaken(*_, dtype, **__):
        begun.append(True)
        if len(begun) == 1:
            sources.find_pipeline(single)  # another process is faster
        return load_pipeline(generator_folder, dtype)

    monkeypatch.setattr(StableDiffusionPipeline, "from_single_file", overtaken)
    found = sources.find_pipeline(single)
    assert len(begun) == 2 and (found / "model_index.json").is_file()
    assert not list(found.parent.glob(".*"))
