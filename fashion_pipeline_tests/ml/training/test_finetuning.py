import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fashion_pipeline.core.training.recipe import Recipe
from fashion_pipeline.ml.devices import Device
from fashion_pipeline.ml.training import finetuning, processes
from fashion_pipeline.ml.training.data import caching
from fashion_pipeline.ml.training.data.caching import TensorCache, loaded
from fashion_pipeline.ml.training.identity import identity_of, key_of
from fashion_pipeline.ml.training.results import TrainingError, TrainingPair
from fashion_pipeline_tests.ml.conftest import CPU, finetune, job_of

SHORT = Recipe(
    rank=4, alpha=8.0, steps=7, batch_size=2, learning_rate=1e-3, warmup_steps=2, checkpoint_every=2, log_every=3
)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


def kill_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    inside = finetuning._train_step
    done = []

    def step(run, rate):
        if len(done) == steps:
            raise Killed
        done.append(1)
        return inside(run, rate)

    monkeypatch.setattr(finetuning, "_train_step", step)


def same(one, other) -> bool:
    left, right = load_file(one), load_file(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_killed_twice_ends_with_the_very_same_weights(generator_folder, pairs, tmp_path, monkeypatch, precision):
    def train(output):
        device = Device("cpu", precision, "")
        return finetune(generator_folder, pairs[:4], pairs[4:], SHORT, output, device)

    undisturbed = train(tmp_path / "undisturbed")
    for steps in (3, 2):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_after(patch, steps)
            train(tmp_path / "killed")
    resumed = train(tmp_path / "killed")
    assert resumed.resumed_from == 4
    assert resumed.steps_run == 3
    assert same(undisturbed.weights, resumed.weights)
    assert [(r.step, r.loss, r.held_out_loss) for r in resumed.log] == [
        (r.step, r.loss, r.held_out_loss) for r in undisturbed.log
    ]


def test_a_finished_training_is_not_trained_again(generator_folder, pairs, tmp_path, monkeypatch):
    first = finetune(generator_folder, pairs[:4], [], SHORT, tmp_path, CPU)
    kill_after(monkeypatch, 0)
    again = finetune(generator_folder, pairs[:4], [], SHORT, tmp_path, CPU, load_image=None)
    assert again == replace(first, steps_run=0)


def test_a_damaged_checkpoint_is_skipped_with_a_note(generator_folder, pairs, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 5)
        finetune(generator_folder, pairs[:4], [], SHORT, tmp_path / "a", CPU)
    tensors = tmp_path / "a" / "checkpoints" / "step-00000004" / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:1000])
    resumed = finetune(generator_folder, pairs[:4], [], SHORT, tmp_path / "a", CPU)
    assert resumed.resumed_from == 2
    assert "step-00000004 is damaged" in resumed.notes[0]
    assert same(finetune(generator_folder, pairs[:4], [], SHORT, tmp_path / "b", CPU).weights, resumed.weights)


def test_other_settings_are_refused_and_named(generator_folder, pairs, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 3)
        finetune(generator_folder, pairs[:4], [], SHORT, tmp_path, CPU)
    other = SHORT.changed({"learning_rate": 2e-3})
    with pytest.raises(TrainingError, match=r"learning_rate was 0\.001, is 0\.002"):
        finetune(generator_folder, pairs[:4], [], other, tmp_path, CPU)
    with pytest.raises(TrainingError, match="pairs was"):
        finetune(generator_folder, pairs[:3], [], SHORT, tmp_path, CPU)
    finetune(generator_folder, pairs[:4], [], SHORT.changed({"log_every": 1}), tmp_path, CPU)
    with pytest.raises(TrainingError, match="rank was 4, is 2"):
        finetune(generator_folder, pairs[:4], [], SHORT.changed({"rank": 2}), tmp_path, CPU)


def test_training_lowers_the_held_out_loss_and_reports_it(generator_folder, pairs, tmp_path):
    config = SHORT.changed(
        {"rank": 8, "alpha": 16.0, "steps": 60, "batch_size": 4, "learning_rate": 2e-2, "held_out_every": 20}
    )
    rows = []
    result = finetune(generator_folder, pairs[:2], pairs[:2], config, tmp_path, CPU, rows.append)
    losses = {row.step: row.held_out_loss for row in result.log if row.held_out_loss is not None}
    assert sorted(losses) == [0, 20, 40, 60]
    assert losses[60] < losses[0]
    assert list(result.log) == rows
    assert rows[0].loss is None and rows[-1].step == 60
    assert all(row.samples_per_second > 0 and row.gradient_norm > 0 for row in rows[1:])
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_images_and_captions_are_encoded_once(generator_folder, pairs, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = finetune(generator_folder, pairs[:4], pairs[4:], SHORT, tmp_path / "a", CPU, cache=cache)
    files = sorted(cache.iterdir())
    again = finetune(generator_folder, pairs[:4], pairs[4:], SHORT, tmp_path / "b", CPU, cache=cache)
    assert sorted(cache.iterdir()) == files
    assert same(first.weights, again.weights)
    files[0].write_bytes(b"half")
    shutil.rmtree(tmp_path / "b")
    assert same(first.weights, finetune(generator_folder, pairs[:4], pairs[4:], SHORT, tmp_path / "b", CPU).weights)


def test_a_loss_that_is_no_number_stops_with_the_last_good_checkpoint(generator_folder, pairs, tmp_path, monkeypatch):
    inside, calls = finetuning.squared_errors, []

    def spoiled(*given):
        calls.append(1)
        return inside(*given) * (float("nan") if len(calls) > 4 else 1)

    monkeypatch.setattr(finetuning, "squared_errors", spoiled)
    with pytest.raises(TrainingError, match=r"loss is nan at step 5; the last good checkpoint is .*step-00000004"):
        finetune(generator_folder, pairs[:4], [], SHORT, tmp_path, CPU)


def test_bad_training_data_is_named(generator_folder, pairs, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a photo")
    with pytest.raises(TrainingError, match=r"broken\.jpg cannot be read"):
        finetune(generator_folder, [TrainingPair(str(broken), "a coat")], [], SHORT, tmp_path / "a", CPU)
    with pytest.raises(TrainingError, match="caption of 102 tokens, but the model reads 77"):
        finetune(generator_folder, [TrainingPair(pairs[0].path, "x" * 100)], [], SHORT, tmp_path / "b", CPU)
    with pytest.raises(TrainingError, match="no training pairs"):
        finetune(generator_folder, [], [], SHORT, tmp_path / "c", CPU)


def test_images_may_come_from_anywhere(generator_folder, tmp_path):
    made = [TrainingPair("catalog:1", "a coat"), TrainingPair("catalog:2", "a coat")]
    result = finetune(
        generator_folder, made, [], SHORT, tmp_path, CPU, load_image=lambda name: Image.new("RGB", (9, 9), "navy")
    )
    assert result.weights.is_file()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", "dreambooth"),
        ("rank", 0),
        ("alpha", 0.0),
        ("layers", ()),
        ("steps", 0),
        ("batch_size", 0),
        ("learning_rate", -1e-4),
        ("learning_rate", float("nan")),
        ("warmup_steps", 401),
        ("min_snr_gamma", -1.0),
        ("gradient_clip", 0.0),
        ("caption_dropout", 1.5),
        ("seed", -1),
        ("checkpoint_every", 0),
        ("precision", "int8"),
        ("rank", 2.5),
    ],
)
def test_a_bad_setting_names_its_field(field, value):
    with pytest.raises(ValueError, match=f"^{field} is .*[:;]"):
        Recipe.of({field: value})


def test_where_the_photos_lie_does_not_make_another_training(generator_folder, pairs, tmp_path):
    moved = []
    for pair in pairs[:4]:
        copy = tmp_path / "moved" / pair.path.rpartition("/")[2]
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(pair.path, copy)
        moved.append(TrainingPair(str(copy), pair.caption))
    first = finetune(generator_folder, pairs[:4], pairs[4:], SHORT, tmp_path / "out", CPU)
    again = finetune(generator_folder, moved, pairs[4:], SHORT, tmp_path / "out", CPU)
    assert again.steps_run == 0 and again.identity == first.identity
    assert str(tmp_path) not in str(first.identity)


def test_how_much_of_the_base_is_on_the_device_makes_no_other_training(generator_folder, pairs, tmp_path):
    job = job_of(generator_folder, pairs[:4], [], SHORT.changed({"prior_images": 2}), tmp_path)
    elsewhere = replace(job, drawing=job.drawing.model_copy(update={"offload": True, "batch_size": 1}))
    assert identity_of(generator_folder, elsewhere, CPU) == identity_of(generator_folder, job, CPU)
    longer = replace(job, drawing=job.drawing.model_copy(update={"steps": job.drawing.steps + 1}))
    assert key_of(identity_of(generator_folder, longer, CPU)) != key_of(identity_of(generator_folder, job, CPU))


@pytest.mark.parametrize("change", ["base", "held_out", "precision", "pairs", "steps"])
def test_whatever_changes_a_training_changes_its_key(generator_folder, pairs, tmp_path, change):
    base = tmp_path / "base"
    shutil.copytree(generator_folder, base)
    if change == "base":
        (base / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "DDIMScheduler"}')
    job = job_of(
        base,
        pairs[:3] if change == "pairs" else pairs[:4],
        pairs[3:] if change == "held_out" else pairs[4:],
        SHORT.changed({"steps": 9}) if change == "steps" else SHORT,
        tmp_path,
    )
    changed = identity_of(base, job, replace(CPU, precision="bf16") if change == "precision" else CPU)
    before = job_of(generator_folder, pairs[:4], pairs[4:], SHORT, tmp_path)
    same_as_before = identity_of(generator_folder, before, CPU)
    assert key_of(changed) != key_of(same_as_before)


def test_a_cached_latent_that_was_damaged_is_computed_again(generator_folder, pairs, tmp_path):
    cache = tmp_path / "cache"
    undisturbed = finetune(generator_folder, pairs[:4], [], SHORT, tmp_path / "one", CPU, cache=cache)
    for file in cache.glob("*.safetensors"):
        content = bytearray(file.read_bytes())
        content[-64:] = b"\xff" * 64
        file.write_bytes(bytes(content))
    again = finetune(generator_folder, pairs[:4], [], SHORT, tmp_path / "two", CPU, cache=cache)
    assert same(undisturbed.weights, again.weights)


def test_processes_that_were_not_started_are_missed(generator_folder, pairs, tmp_path):
    with pytest.raises(TrainingError, match=r"processes is 2, but 1 were started: .* or set processes to 1"):
        finetune(generator_folder, pairs[:4], [], SHORT.changed({"processes": 2}), tmp_path, CPU)


def test_a_damaged_result_is_named_and_training_goes_on_without_it(generator_folder, pairs, tmp_path):
    finished = finetune(generator_folder, pairs[:4], [], SHORT, tmp_path, CPU)
    file = tmp_path / "result.json"
    file.write_text('{"step": 7}')
    with pytest.raises(TrainingError, match=r"result\.json is damaged \('weights'\): delete it"):
        finetune(generator_folder, pairs[:4], [], SHORT, tmp_path, CPU)
    file.unlink()
    again = finetune(generator_folder, pairs[:4], [], SHORT, tmp_path, CPU)
    assert again.resumed_from == 7 and same(finished.weights, again.weights)


def test_of_a_cache_only_what_is_asked_for_is_read_and_little_is_kept_in_memory(tmp_path, monkeypatch):
    def batch(number: int) -> dict[str, torch.Tensor]:
        return {f"{number}-{k}": torch.full((1024,), float(10 * number + k)) for k in range(4)}

    filled = TensorCache(tmp_path)
    for number in range(6):
        filled.add(batch(number))
    read: list[Path] = []
    inside = caching.load_file
    monkeypatch.setattr(caching, "load_file", lambda file: (read.append(file), inside(file))[1])
    cache = TensorCache(tmp_path, in_memory=3 * 4096)
    assert not read, "what nobody asks for is not read"
    assert "2-1" in cache and "2-3" in cache and "9-0" not in cache and len(read) == 1
    kept = [cache.stored(f"{number}-{k}") for number in range(6) for k in range(4) if f"{number}-{k}" in cache]
    assert len(kept) == 24 and all(each.shape == (1024,) for each in kept)
    for each in [*kept, *reversed(kept)]:
        number, k = map(int, each.key.split("-"))
        assert bool((loaded(each) == 10 * number + k).all())
        assert cache._bytes == sum(tensor.nbytes for tensor in cache._recent.values()) <= 3 * 4096


def test_a_photo_with_several_captions_is_opened_once(generator_folder, pairs, tmp_path):
    opened: list[str] = []

    def load(path: str) -> Image.Image:
        opened.append(path)
        return Image.open(path)

    twice = [*pairs[:3], *(pair._replace(caption="a coat") for pair in pairs[:3])]
    finetune(generator_folder, twice, [], SHORT, tmp_path, CPU, load_image=load)
    assert sorted(opened) == sorted(pair.path for pair in pairs[:3])


def test_processes_wait_for_a_leader_that_encodes_for_hours(monkeypatch):
    told: dict[str, object] = {}
    monkeypatch.setattr(processes.distributed, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(processes.distributed, "init_process_group", lambda **values: told.update(values))
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    processes.Group.join(CPU, 1)
    assert told["timeout"] > timedelta(hours=24) and told["backend"] == "gloo"
