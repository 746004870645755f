"""A model is known by what it is made of, not by where it lies or what lies beside it."""

import shutil

from fashion_pipeline.ml.sources import fingerprint


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
