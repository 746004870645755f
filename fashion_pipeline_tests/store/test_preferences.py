"""The settings file: read, changed with its comments kept, and refused by section and field."""

from pathlib import Path

import pytest

from fashion_pipeline.core.automation.preferences import Preferences
from fashion_pipeline.store.errors import StorageError
from fashion_pipeline.store.store import Store

WRITTEN = """# ours
[retraining]
cron = "0 5 * * *"  # early

[styles.coat]
new_photos = 5
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


def write(store: Store, text: str) -> None:
    store.root.mkdir(exist_ok=True)
    store.preferences.path.write_text(text, encoding="utf-8")


def test_without_a_file_there_are_the_defaults_and_nothing_is_written(store: Store) -> None:
    assert store.preferences.read() == Preferences()
    assert not store.root.exists()


def test_a_change_keeps_what_people_wrote(store: Store) -> None:
    write(store, WRITTEN)
    changed = store.preferences.change("retraining", new_photos=7)
    changed = store.preferences.change("retraining", "rain-coat", cron="")
    assert store.preferences.read() == changed
    assert changed.rule("coat").new_photos == 5 and changed.rule("dress").new_photos == 7
    assert changed.rule("rain-coat").cron == "" and changed.rule("dress").cron == "0 5 * * *"
    text = store.preferences.path.read_text(encoding="utf-8")
    assert "# ours" in text and "# early" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[retraining", "not valid TOML"),
        ("[retrain]", r"section \[retrain\] is not known: choose among retraining, alerts, tracking, styles"),
        ("[retraining]\nnew_photo = 3", r"\[retraining\] new_photo is not known: choose among cron, new_photos"),
        ("[retraining]\nnew_photos = -1", r"\[retraining\] new_photos is -1: it must be a whole number"),
        ('[retraining]\ntimezone = "Mars"', r"\[retraining\] timezone is 'Mars'"),
        ("[styles.coat]\ndrift = 2.0", r"\[styles.coat\] drift is 2.0"),
        ("styles = 3", r"styles is 3: it must be a section \[styles\]"),
    ],
)
def test_a_mistake_is_named_with_file_section_and_field(store: Store, text: str, said: str) -> None:
    write(store, text)
    with pytest.raises(StorageError, match=said) as caught:
        store.preferences.read()
    assert str(store.preferences.path) in str(caught.value)


def test_what_cannot_be_is_not_written(store: Store) -> None:
    write(store, WRITTEN)
    with pytest.raises(StorageError, match="new_photos is -1"):
        store.preferences.change("retraining", new_photos=-1)
    with pytest.raises(StorageError, match="not a style name"):
        store.preferences.change("retraining", "Rain Coat", new_photos=1)
    assert store.preferences.path.read_text(encoding="utf-8") == WRITTEN


def test_a_file_that_an_editor_has_marked_is_read_and_another_encoding_is_told(store: Store) -> None:
    store.preferences.change("retraining", new_photos=3)
    text = store.preferences.path.read_text(encoding="utf-8").replace("\n", "\r\n")
    store.preferences.path.write_text(text, encoding="utf-8-sig")
    assert store.preferences.read().retraining.new_photos == 3
    assert store.preferences.change("retraining", "coat", new_photos=4).rule("coat").new_photos == 4
    store.preferences.path.write_text(text + "# M\u00e4ntel", encoding="utf-16")
    with pytest.raises(StorageError, match=r"settings.toml is not UTF-8 text .*: save it as UTF-8"):
        store.preferences.read()
