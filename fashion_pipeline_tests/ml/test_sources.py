"""A model is known by what it is made of, not by where it lies or what lies beside it."""

import shutil

import pytest
import torch
from safetensors.torch import save_file

from fashion_pipeline.ml import sources
from fashion_pipeline.ml.sources import fingerprint, licence_of


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
    with pytest.raises(ValueError, match=r"other\.safetensors holds no Stable Diffusion v1 model"):
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
