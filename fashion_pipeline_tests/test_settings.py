"""Where the data lies and which models are used."""

import hashlib
import importlib
import os
import re
from pathlib import Path

import pytest
import yaml

from fashion_pipeline import settings
from fashion_pipeline.settings import (
    PROFILES,
    Settings,
    SettingsError,
    enter,
    profile_names,
    read_profile,
    read_settings,
)

SHIPPED = (PROFILES / "embedded.toml").read_text(encoding="utf-8")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A profile of one's own: the folders of its models lie beside it."""
    for name in ("generator", "encoder", "judge", "looks"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine.toml").write_text(SHIPPED.replace('"../embedded/', '"./'), encoding="utf-8")
    return tmp_path / "mine.toml"


def changed(path: Path, old: str, new: str) -> str:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return str(path)


def test_looks_that_a_profile_ships_are_found_or_named(mine: Path) -> None:
    assert read_profile(str(mine)).looks.folder == mine.parent / "looks"
    assert read_profile(changed(mine, 'shipped = "./looks"', "")).looks.folder is None
    (mine.parent / "looks").rmdir()
    changed(mine, "[looks]", '[looks]\nshipped = "./looks"')
    with pytest.raises(SettingsError, match=r"\[looks\] shipped: no folder .*looks: restore it, or remove the line"):
        read_profile(str(mine))
    with pytest.raises(SettingsError, match=r"\[looks\] steps is 0: .*; Denoising steps of a look"):
        read_profile(changed(mine, "steps = 5", "steps = 0"))


def test_without_variables_the_data_lies_in_the_current_folder() -> None:
    assert read_settings({}) == Settings(Path("data").absolute(), "embedded", "auto", "auto")
    assert read_settings({"FASHION_PIPELINE_DATA": "", "FASHION_PIPELINE_PROFILE": ""}) == read_settings({})


def test_a_child_process_sees_the_same_settings(tmp_path: Path) -> None:
    settings = Settings(tmp_path, "sd15", "cuda:1", "bf16")
    assert read_settings(settings.environment()) == settings
    assert settings.environment()["DAGSTER_HOME"] == str(tmp_path / "dagster_home")


@pytest.fixture
def entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that a process has entered; what that put into the environment is taken back."""
    settings = Settings(tmp_path / "data", "embedded", "auto", "auto")
    for name in settings.environment():
        monkeypatch.setenv(name, "before")
    return enter(settings)


def test_a_dagster_configuration_that_was_edited_is_kept(entered: Settings) -> None:
    configuration = entered.dagster_home / "dagster.yaml"
    assert configuration.read_text() and read_settings() == entered
    configuration.write_text("edited: true")
    enter(entered)
    assert configuration.read_text() == "edited: true"
    assert os.environ["DAGSTER_HOME"] == str(configuration.parent)


def test_an_edited_dagster_configuration_finds_the_launcher_where_it_is_now(entered: Settings) -> None:
    configuration = entered.dagster_home / "dagster.yaml"
    edited = "# ours\n" + configuration.read_text()
    configuration.write_text(edited.replace("fashion_pipeline.running.launcher", "fashion_pipeline.resources.launcher"))
    enter(entered)
    assert configuration.read_text() == edited
    launcher = yaml.safe_load(edited)["run_launcher"]
    assert hasattr(importlib.import_module(launcher["module"]), launcher["class"])


def test_a_dagster_configuration_of_an_earlier_version_is_replaced_unless_it_was_edited(
    entered: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = entered.dagster_home / "dagster.yaml"
    shipped = configuration.read_text()
    earlier = (
        "# Settings of the Dagster instance in the data root. Storage is SQLite in this folder.\n"
        "run_coordinator:\n  module: dagster.core.run_coordinator\n  class: QueuedRunCoordinator\n"
    )
    monkeypatch.setattr("fashion_pipeline.settings._SHIPPED", {hashlib.sha256(earlier.encode()).hexdigest()[:16]})
    configuration.write_text(earlier)
    enter(entered)
    assert configuration.read_text() == shipped
    configuration.write_text(earlier + "telemetry: {enabled: false}\n")
    enter(entered)
    assert configuration.read_text() != shipped


def test_a_data_root_whose_dagster_configuration_was_a_link_that_leads_nowhere_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(tmp_path / "data", "embedded", "auto", "auto")
    for name in settings.environment():
        monkeypatch.setenv(name, "before")
    settings.dagster_home.mkdir(parents=True)
    configuration = settings.dagster_home / "dagster.yaml"
    configuration.symlink_to("../../gone/dagster.yaml")
    enter(settings)
    assert "run_monitoring" in configuration.read_text() and not configuration.is_symlink()


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_that_ships_is_complete(name: str) -> None:
    profile = read_profile(name)
    assert profile.name == name
    assert profile.vocabulary.is_file()
    assert profile.generation.image_size % 8 == 0
    assert profile.judge != profile.encoder


def test_folders_of_a_profile_count_from_its_own_place(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine.parent.parent)
    profile = read_profile(str(mine.relative_to(mine.parent.parent)))
    assert profile.generator == str(mine.parent / "generator")
    assert profile.vocabulary == mine.parent / "vocabulary.toml"


def test_a_folder_in_the_home_folder_is_found(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(mine.parent))
    assert read_profile(changed(mine, '"./judge"', '"~/encoder"')).judge == str(mine.parent / "encoder")


def test_what_is_not_written_as_a_path_is_a_hub_id(mine: Path) -> None:
    assert read_profile(changed(mine, '"./judge"', '"facebook/dinov2-base"')).judge == "facebook/dinov2-base"


def test_an_unknown_profile_is_answered_with_those_there_are() -> None:
    answer = r"no profile 'flux': use one of embedded, flux2-klein, sd15, sd35, sdxl, z-image, or the path of a \.toml"
    with pytest.raises(SettingsError, match=answer):
        read_profile("flux")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[training]", "[other]", r"section \[training\] is missing: add it as in .*embedded\.toml"),
        ("[models]", "models = 3\n[other]", r"section \[models\] is missing"),
        (
            "image_size",
            "imagesize",
            r"\[generation\] image_size is missing: add it; imagesize is not known: choose among",
        ),
        ("[training]", "[training]\ndropout = 0.1", r"\[training\] dropout is not known: choose among method, rank"),
        ("image_size = 64", 'image_size = "64"', r"image_size is '64': it must be a whole number from 8 to 4096"),
        ("image_size = 64", "image_size = 60", r"\[generation\] image_size is 60"),
        ("rank = 16", "rank = -2.5", r"rank is -2.5: it must be a whole number from 1 to 1024; Rank of the additions"),
        ("steps = 400", "steps = 0", r"\[training\] steps is 0: it must be a whole number from 1"),
        ('judge = "./judge"', "", r"\[models\] judge is missing: give a folder or a hub id"),
        ('"./judge"', '""', r"\[models\] judge is missing"),
        ('"./judge"', '"./gone"', r"\[models\] judge: no folder .*gone: restore it, or name another model"),
        ('"./judge"', '"/gone"', r"no folder /gone"),
        ("[models]", "[models", "not valid TOML"),
    ],
)
def test_a_slip_in_a_profile_is_named_with_its_file(mine: Path, old: str, new: str, message: str) -> None:
    name = changed(mine, old, new)
    with pytest.raises(SettingsError, match=message) as error:
        read_profile(name)
    assert name in str(error.value)


def test_photos_are_seen_whole_only_where_the_profile_says_true(tmp_path: Path) -> None:
    assert read_profile("sd15").whole_photos and not read_profile("embedded").whole_photos
    text = (PROFILES / "sd15.toml").read_text(encoding="utf-8").replace("whole_photos = true", 'whole_photos = "yes"')
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"whole_photos is 'yes': it must be true or false"):
        read_profile(str(tmp_path / "mine.toml"))


def test_the_file_of_pods_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = read_settings({"FASHION_PIPELINE_KUBERNETES": "pods.yaml"})
    assert given.environment()["FASHION_PIPELINE_KUBERNETES"] == str(tmp_path / "pods.yaml")
    assert read_settings({}).kubernetes == ""


def test_every_variable_is_documented() -> None:
    named = set(re.findall(r"FASHION_PIPELINE_[A-Z_]+", Path(settings.__file__).read_text(encoding="utf-8")))
    documented = Path(__file__).parents[1] / "docs" / "environment.md"
    assert named and named <= set(re.findall(r"`(FASHION_PIPELINE_[A-Z_]+)`", documented.read_text(encoding="utf-8")))
