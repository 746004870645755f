"""Plant known mistakes, one at a time, in a copy of the project, and see whether the tests notice.

    python -m tools.plant_mutations [name …]

Each mistake once stood for a rule that no test protected. Says whether `make test` notices it or only `make test-all`,
and ends with exit code 1 if neither does.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = (
    *("fashion_pipeline", "fashion_pipeline_tests", "data/samples", "deploy", "tools"),
    *("pyproject.toml", "constraints.txt"),
)

SUITES = {"not thorough": "make test", "thorough": "make test-all"}
"""Tests that pytest selects → who runs them first."""

CHAIN = "fashion_pipeline_tests/defs/test_chain.py"
FAULTS = "fashion_pipeline_tests/stages/test_faults.py"
FINETUNING = "fashion_pipeline_tests/ml/training"
TRAINER = "fashion_pipeline_tests/stages/training/test_process.py"
PUBLISHING = "fashion_pipeline_tests/stages/publishing/test_publishing.py"
EVALUATION = "fashion_pipeline_tests/stages/evaluation/test_evaluation.py"
WITHDRAWING = "fashion_pipeline_tests/stages/publishing/test_withdrawing.py"
FEATURES = "fashion_pipeline_tests/stages/catalog/test_features.py"
SENSORS = "fashion_pipeline_tests/defs/test_sensors.py"
SCHEDULES = "fashion_pipeline_tests/defs/test_schedules.py"
MONTH = "fashion_pipeline_tests/defs/test_month.py"
STEPS = "fashion_pipeline_tests/resources/test_steps.py"
PAGES = "fashion_pipeline_tests/web/test_pages.py"
LIVENESS = "fashion_pipeline_tests/running/test_liveness.py"
DAMAGE = "fashion_pipeline_tests/stages/test_damage.py"
HOSTILE = "fashion_pipeline_tests/intake/test_hostile.py"
SECURITY = "fashion_pipeline_tests/security"
FINGERPRINTS = "fashion_pipeline_tests/core/catalog/test_fingerprints.py"
ASSEMBLING = "fashion_pipeline_tests/intake/test_assembling.py"
BUCKETS = "fashion_pipeline_tests/intake/test_buckets.py"
REMOTE = "fashion_pipeline_tests/store/test_remote.py"
RAY = "fashion_pipeline_tests/stages/drawing/test_ray.py"
ANYWHERE = "fashion_pipeline_tests/stages/test_anywhere.py"
KUBERNETES = "fashion_pipeline_tests/deployment/test_kubernetes.py"
STORE = "fashion_pipeline_tests/store/test_store.py"
PRUNING = "fashion_pipeline_tests/store/test_pruning.py"
COMMAND = "fashion_pipeline_tests/cli"
SOURCES = "fashion_pipeline_tests/intake/test_sources.py"


@dataclass(frozen=True)
class Mutation:
    """One mistake: a piece of a file, and what stands there instead."""

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]
    """Files of tests, one of which has to fail."""
    also: tuple[tuple[str, str], ...] = ()
    """Further pieces of the file, and what stands there instead."""


MUTATIONS = (
    Mutation(
        "a style is asked to be trained while a run of it is under way",
        "defs/sensors.py",
        "            if worker := busy(self.context.instance, self.store, self.style):\n"
        "                return worker\n",
        "",
        (SENSORS,),
    ),
    Mutation(
        "one reason starts a training at every tick",
        "defs/sensors.py",
        "        elif not self._failed(cause) or not 0 < self.memory.tries.get(key, 0) < TRIES:\n"
        "            return None\n",
        "",
        (SENSORS, MONTH),
    ),
    Mutation(
        "the schedule trains what has no reason",
        "core/automation/reasons.py",
        '    return Decision(False, "photos, profile',
        '    return Decision(True, "photos, profile',
        (SCHEDULES, MONTH),
    ),
    Mutation(
        "photos of one product count as many in the test of drift",
        "core/features/drift.py",
        "    names, places = np.unique(np.array(groups, dtype=str), return_inverse=True)\n",
        "    names, places = np.array(range(len(groups))), np.arange(len(groups))\n",
        ("fashion_pipeline_tests/core/features/test_drift.py",),
    ),
    Mutation(
        "what cannot pass is tried again all the same",
        "resources/steps.py",
        "if tried >= len(WAITS) or not (may_pass(error) or _is_evicted(context, error)):",
        "if tried >= len(WAITS):",
        (STEPS,),
    ),
    Mutation(
        "a version's page is made of the newest records",
        "stages/publishing/trails.py",
        "    made, withdrawn = trail_of(store, style, version), store.withdrawals.ids()\n",
        '    newest = store.records.ancestry(store.records.latest("evaluation", style))\n'
        "    made, withdrawn = {k: Made(k, r.folder) for k, r in newest.items()}, store.withdrawals.ids()\n",
        (PAGES,),
    ),
    Mutation(
        "a withdrawn photo is shown on the page of a version",
        "stages/publishing/trails.py",
        "        return None if id_ in withdrawn else version_photo_link(style, version, id_)",
        "        return version_photo_link(style, version, id_)",
        (PAGES,),
    ),
    Mutation(
        "images behind published versions are cleaned away",
        "store/pruning.py",
        "    named |= _published_samples(store)\n",
        "",
        (PAGES,),
    ),
    Mutation(
        "pictures that fell apart are judged by their score alone",
        "core/evaluation/verdicts.py",
        '    ("broken", _unrecognisable),\n',
        "",
        (EVALUATION,),
    ),
    Mutation(
        "copies of training photos are judged by their score alone",
        "core/evaluation/verdicts.py",
        '    ("memorised", _memorised),\n',
        "",
        (EVALUATION,),
    ),
    Mutation(
        "one picture over and over is judged by its score alone",
        "core/evaluation/verdicts.py",
        '    ("collapsed", _repeated),\n    ("collapsed", _narrow),\n',
        "",
        (EVALUATION,),
    ),
    Mutation(
        "copies are looked for by the judge alone, which misses blurred ones",
        "stages/evaluation/memorisation.py",
        "    for by, embedder in embedders.items():\n        known",
        "    for by, embedder in list(embedders.items())[:1]:\n        known",
        (EVALUATION,),
    ),
    Mutation(
        "a run publishes what a person took back",
        "stages/publishing/publishing.py",
        '    if report["model"] in pointer.rolled_back:\n',
        "    if False:\n",
        (PUBLISHING,),
    ),
    Mutation(
        "what waits is approved over a version that it was not compared with",
        "stages/publishing/publishing.py",
        'if pointer.version is not None and report["champion"] != pointer.version:',
        "if False:",
        (PUBLISHING,),
    ),
    Mutation(
        "a copy of a withdrawn photo is taken in again",
        "intake/assembling.py",
        "        elif place in near:\n",
        "        elif False:\n",
        (WITHDRAWING,),
    ),
    Mutation(
        "an upload takes the photos along",
        "stages/publishing/uploading.py",
        "if everything or (path.parts[0] != TRAIL and path.name != REPORT_PAGE)]",
        "]",
        (WITHDRAWING,),
    ),
    Mutation(
        "an encoder that sees no garments is believed",
        "core/features/shuffling.py",
        "return bool(self.upper >= SEEN)",
        "return True",
        (FEATURES,),
    ),
    Mutation(
        "each process trains alone",
        "ml/training/processes.py",
        "        if distributed.is_torchelastic_launched() and not distributed.is_initialized():",
        "        if not distributed.is_available():",
        (TRAINER,),
    ),
    Mutation(
        "anchors from dev",
        "stages/prompts/similarity.py",
        "own = [photo for photo in store.photos(catalog) if photo.split == Split.SEARCH]",
        "own = [photo for photo in store.photos(catalog) if photo.split == Split.DEV]",
        (CHAIN,),
    ),
    Mutation(
        "anchors from dev photos of other styles",
        "stages/catalog/features.py",
        "search = [at for at, photo in enumerate(photos) if photo.split == Split.SEARCH]",
        "search = list(range(len(photos)))",
        (CHAIN,),
    ),
    Mutation(
        "attributes of dev and test photos shape prompts",
        "stages/catalog/features.py",
        "search = [photo.id for photo in photos if photo.split == Split.SEARCH]",
        "search = [photo.id for photo in photos]",
        (CHAIN,),
    ),
    Mutation(
        "prompts searched on dev",
        "stages/prompts/search.py",
        "photos_of(photos, Split.SEARCH)",
        "photos_of(photos, Split.DEV)",
        (CHAIN,),
    ),
    Mutation(
        "published is the newest training, not the one that was evaluated",
        "stages/publishing/publishing.py",
        'training = store.records.input(evaluation, "training")\n    models',
        'training = store.records.latest("training", style)\n    models',
        (PUBLISHING,),
    ),
    Mutation(
        "training key without the base",
        "ml/training/identity.py",
        '"base": fingerprint(folder),',
        '"base": "any",',
        (FINETUNING,),
    ),
    Mutation(
        "curation threshold at the lower anchor",
        "stages/training/curation.py",
        "    captions = photo_captions(store, models, features, strategy)",
        "    from fashion_pipeline.stages.prompts.similarity import style_anchors\n"
        '    threshold = style_anchors(store, catalog, "encoder", model).anchors.across\n'
        "    captions = photo_captions(store, models, features, strategy)",
        (CHAIN,),
    ),
    Mutation(
        "specialised equals original in the evaluation",
        "stages/evaluation/evaluation.py",
        "folder=challenger.folder, lora=challenger.lora)",
        "folder=None)",
        (CHAIN,),
    ),
    Mutation(
        "training on the random control",
        "stages/training/training.py",
        'table("training_pairs")) if pair.kept != control',
        'table("training_pairs")) if pair.kept == control',
        (CHAIN,),
    ),
    Mutation(
        "caption dropout inverted",
        "ml/training/data.py",
        "bool(d >= recipe.caption_dropout)",
        "bool(d < recipe.caption_dropout)",
        (FINETUNING,),
    ),
    Mutation(
        "Min-SNR without its cap",
        "ml/training/objective.py",
        "ratio.clamp(min=1e-8, max=gamma)",
        "ratio.clamp(min=1e-8)",
        (FINETUNING,),
    ),
    Mutation(
        "the champion need not be beaten",
        "stages/publishing/publishing.py",
        'if against["verdict"] == "better":',
        "if against:",
        (PUBLISHING,),
    ),
    Mutation(
        "near-duplicates of held-out photos are trained on",
        "intake/assembling.py",
        "return sorted({there[i] for i, j, _ in known.near(known_prints(own)) if out[j]})",
        "return []",
        (FAULTS,),
    ),
    Mutation(
        "weights are chosen by photos that were trained on",
        "stages/training/curation.py",
        "if photo.product_group not in validation",
        "if photo",
        (CHAIN,),
    ),
    Mutation(
        "weights are chosen by dev photos, which the verdict rests on",
        "core/training/curation.py",
        "products = photos_of(photos, Split.SEARCH)",
        "products = photos_of(photos, Split.DEV)",
        (CHAIN,),
    ),
    Mutation(
        "the worst look counts as the closest",
        "ml/training/finetuning.py",
        "fmean(seen) > fmean(run.closest)",
        "fmean(seen) < fmean(run.closest)",
        (FINETUNING,),
    ),
    Mutation(
        "the average is not kept in a checkpoint",
        "ml/training/state.py",
        """run.average.load({name: found.tensors[f"average.{name}"] for name in run.average.tensors})""",
        "pass",
        (FINETUNING,),
    ),
    Mutation(
        "kohya's alpha is the rank",
        "ml/training/lora_files.py",
        "torch.tensor(scale * recipe.rank)",
        "torch.tensor(float(recipe.rank))",
        (FINETUNING,),
    ),
    Mutation(
        "gradients of processes are added, not averaged",
        "ml/training/processes.py",
        "gradient /= self.size",
        "pass",
        (TRAINER,),
    ),
    Mutation(
        "the daemon takes every run for alive",
        "running/launcher.py",
        "if is_dead(self._instance, store, run):",
        "if False:",
        (LIVENESS,),
    ),
    Mutation(
        "a photo that was replaced is taken for the one that was catalogued",
        "intake/photos.py",
        "    if content and content_id(data) != content:\n",
        "    if False:\n",
        (FAULTS,),
    ),
    Mutation(
        "damaged weights are found and used",
        "store/records.py",
        "                require_same_files(found.fetched(), found.checksums)\n",
        "",
        (DAMAGE,),
    ),
    Mutation(
        "large photos are decoded all at once",
        "intake/decoding.py",
        "            with self._one_large_at_a_time:\n",
        "            with suppress():\n",
        (HOSTILE,),
    ),
    Mutation(
        "links out of a source are followed",
        "intake/sources.py",
        "return not path.resolve().is_relative_to(root.resolve())",
        "return False",
        (f"{SECURITY}/test_paths.py",),
    ),
    Mutation(
        "pages of other servers may ask ours",
        "web/guard.py",
        "if origin is not None and _place(origin) != host.lower():",
        "if False:",
        (f"{SECURITY}/test_listening.py",),
    ),
    Mutation(
        "a query of GraphQL is taken from an address",
        "web/guard.py",
        "        if _asks_in_its_address(scope):\n",
        "        if False:\n",
        (f"{SECURITY}/test_listening.py",),
    ),
    Mutation(
        "pages of other sites may load ours into theirs",
        "web/guard.py",
        'not in ("same-origin", "none") and',
        'in ("nowhere",) and',
        (f"{SECURITY}/test_listening.py",),
    ),
    Mutation(
        "a preset forgets that a style needs approval",
        "api/running.py",
        "kept = _above(_without_presets(kept, profile.presets.values()), profile.presets.get(preset, {}))",
        "kept = profile.presets.get(preset, {})",
        (COMMAND,),
    ),
    Mutation(
        "forgetting what was chosen forgets approval",
        "api/running.py",
        'kept: Config = {step: known[step] for step in known if step == "published_model"} if forget else known',
        "kept: Config = {} if forget else known",
        (COMMAND,),
    ),
    Mutation(
        "a launch undoes the approval that a style needs",
        "stages/publishing/publishing.py",
        'if "required" in (approval, chosen) and store',
        'if approval == "required" and store',
        (PUBLISHING,),
    ),
    Mutation(
        "what was chosen for a style does not bind a launch from the UI",
        "defs/configuration.py",
        "return usual(type(config)) | chosen | said",
        "return usual(type(config)) | said",
        (COMMAND,),
    ),
    Mutation(
        "a version that is taken out of use is published again",
        "store/versions.py",
        "replace(known, line=(), rolled_back=(*known.rolled_back, known.version))",
        "replace(known, line=())",
        (PUBLISHING,),
    ),
    Mutation(
        "a model that was trained on a withdrawn photo is published",
        "stages/publishing/publishing.py",
        "if withdrawn := len(trained_ids(store, training) & store.withdrawals.ids()):",
        "if withdrawn := 0:",
        (WITHDRAWING,),
    ),
    Mutation(
        "a command that prunes looks before it locks",
        "store/pruning.py",
        "    with ExitStack() as locks:\n        locks",
        "    found = leftovers(store)\n    with ExitStack() as locks:\n        locks",
        (PRUNING,),
        also=(("        found = leftovers(store)\n        for", "        for"),),
    ),
    Mutation(
        "embeddings of a later version are taken for damaged",
        "store/embeddings.py",
        "            except DamagedError:\n",
        "            except StorageError:\n",
        (STORE,),
        also=(("import DamagedError", "import StorageError"),),
    ),
    Mutation(
        "a record of a later version is taken for damaged",
        "store/records.py",
        "        except NewerVersionError:\n            raise\n        except StorageError:\n            return None\n",
        "        except StorageError:\n            return None\n",
        (STORE,),
    ),
    Mutation(
        "two withdrawals at once lose one",
        "store/withdrawals.py",
        'with self._files.changing("withdrawn.json"):',
        "if True:",
        (STORE,),
    ),
    Mutation(
        "whoever lost a lease goes on",
        "store/remote.py",
        "        if number > lease.number:\n",
        "        if False:\n",
        (REMOTE,),
    ),
    Mutation(
        "clocks of two machines are compared",
        "store/remote.py",
        "        return now - renewed < LEASE_SECONDS",
        '        return float(held["until"]) > time.time()',
        (REMOTE,),
    ),
    Mutation(
        "a style is removed that a command is about to run",
        "api/running.py",
        'held.enter_context(store.claiming(style, "a command that runs it"))',
        "pass",
        (COMMAND,),
    ),
    Mutation(
        "a query sees the program's variables",
        "store/queries.py",
        "SET python_enable_replacements = false",
        "SET python_enable_replacements = true",
        (f"{SECURITY}/test_sql.py",),
    ),
    Mutation(
        "the index of near-duplicates looks less far than it must",
        "core/catalog/fingerprints.py",
        "np.sqrt(_VALUES) * _contrast(thumbnails) + 0.1)",
        "np.sqrt(_VALUES) * _contrast(thumbnails) / 2)",
        (FINGERPRINTS,),
    ),
    Mutation(
        "near-duplicates in two splits of two styles are not seen",
        "intake/assembling.py",
        "if i < j or j >= own]",
        "if i < j < own]",
        (ASSEMBLING,),
    ),
    Mutation(
        "the pieces of a worker that died are forgotten",
        "stages/drawing/on_ray.py",
        "left.extendleft([given] if given is not None else [])",
        "left.extendleft([])",
        (RAY,),
    ),
    Mutation(
        "a record in object storage is seen before it is complete",
        "store/remote.py",
        "key=lambda each: (each.name in _LAST, each)",
        "key=lambda each: (each.name not in _LAST, each)",
        (REMOTE,),
    ),
    Mutation(
        "what is uploaded is seen here before it is there",
        "store/files.py",
        "            if self._is_shared(path):\n"
        "                self._remote.put(temporary, path)\n"
        "            temporary.replace(path)\n",
        "            temporary.replace(path)\n"
        "            if self._is_shared(path):\n"
        "                self._remote.put(path, path)\n",
        (REMOTE,),
    ),
    Mutation(
        "an answer from the past is believed",
        "store/remote.py",
        "_count(found) >= _count(path.read_bytes())",
        "True",
        (REMOTE,),
    ),
    Mutation(
        "two machines take one lease",
        "store/remote.py",
        'mode="create" if create else "overwrite"',
        'mode="overwrite"',
        (REMOTE,),
    ),
    Mutation(
        "runs of other machines are taken for dead",
        "store/store.py",
        "remote is None else remote.is_held(lease)",
        "remote is None else False",
        (LIVENESS,),
    ),
    Mutation(
        "a manifest in a bucket may name photos elsewhere",
        "intake/buckets.py",
        'if is_url(relative) or relative.startswith("/") or ".." in PurePosixPath(relative).parts:',
        "if False:",
        (BUCKETS,),
    ),
    Mutation(
        "processes of a training meet where everybody can",
        "stages/training/together.py",
        '"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"',
        '"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "0"',
        (f"{SECURITY}/test_listening.py",),
    ),
    Mutation(
        "a step on a machine of its own does not find what another one made",
        "store/records.py",
        '        """Its folder, with all of its files on this machine."""\n        return self.files.here(self.folder)',
        '        """Its folder, with all of its files on this machine."""\n        return self.folder',
        (ANYWHERE,),
    ),
    Mutation(
        "a training begins anew where another machine left checkpoints",
        "store/remote.py",
        "there = {path.relative_to(folder).parts[0] for path in self.fetch(folder)}",
        "there: set[str] = set()",
        (REMOTE,),
    ),
    Mutation(
        "half a checkpoint is sent",
        "store/remote.py",
        'here = sorted(path.name for path in folder.glob("[!.]*"))',
        'here = sorted(path.name for path in folder.glob("*"))',
        (REMOTE,),
    ),
    Mutation(
        "a node of a Ray cluster does not find samples of another machine",
        "stages/drawing/on_ray.py",
        "        _here(Path(picture.location))\n",
        "        pass\n",
        (RAY,),
    ),
    Mutation(
        "light steps ask for a card",
        "running/kubernetes.py",
        "HEAVY if pool == POOL else LIGHT",
        "HEAVY if pool != POOL else LIGHT",
        (KUBERNETES,),
    ),
    Mutation(
        "a step whose pod was killed ends the run",
        "running/kubernetes.py",
        "lost = err_info.cls_name is None",
        "lost = err_info.cls_name is not None",
        (KUBERNETES,),
    ),
    Mutation(
        "a run on Kubernetes holds no lock of its style",
        "running/kubernetes.py",
        "with working(self._store, run, plan_context.instance, plan_context.log):",
        "if working:",
        (KUBERNETES,),
    ),
    Mutation(
        "a cancelled step starts anew in another pod",
        "resources/steps.py",
        "return run is not None and run.status == dg.DagsterRunStatus.STARTED",
        "return run is not None",
        (STEPS,),
    ),
    Mutation(
        "one late lease ends a run",
        "running/liveness.py",
        "missed = missed + 1 if gone() else 0",
        "missed = needed if gone() else 0",
        (LIVENESS,),
    ),
    Mutation(
        "runs that Kubernetes started are buried while they wait for a node",
        "running/liveness.py",
        "    if not isinstance(instance.run_launcher, DefaultRunLauncher):\n        return []\n",
        "",
        (LIVENESS,),
    ),
    Mutation(
        "a style of a manifest is listed with others",
        "intake/manifests.py",
        "if style and taken.style != style:",
        "if style and taken.style == style:",
        (SOURCES,),
    ),
)


def main() -> int:
    """Plant the mistakes that were asked for, or all; returns how many went unnoticed, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="names of mistakes; all without any")
    names = parser.parse_args().names
    unnoticed = [
        mutation.name for mutation in MUTATIONS if not names or mutation.name in names if not noticed(mutation)
    ]
    print(f"{len(unnoticed)} unnoticed" + (f": {', '.join(unnoticed)}" if unnoticed else ""))
    return int(bool(unnoticed))


def noticed(mutation: Mutation) -> bool:
    """Whether a test fails with the mistake in place; says of which suite."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source, target = ROOT / name, copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
        plant(copy / "fashion_pipeline" / mutation.file, mutation)
        for suite, command in SUITES.items():
            if failed := _failing(copy, mutation, suite):
                print(f"noticed by {command:13} {mutation.name}: {failed}", flush=True)
                return True
    print(f"UNNOTICED                {mutation.name}: no test failed", flush=True)
    return False


def _failing(copy: Path, mutation: Mutation, suite: str) -> str:
    """The first test of a mutation's files that fails; empty where none does."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-m", suite, *mutation.tests],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    failed = [line.removeprefix("FAILED ") for line in result.stdout.splitlines() if line.startswith("FAILED ")]
    return failed[0].partition(" - ")[0] if failed else ""


def plant(file: Path, mutation: Mutation) -> None:
    """Put the mistake into a file. Raises ValueError where the right piece does not stand exactly once."""
    text = file.read_text(encoding="utf-8")
    for right, wrong in ((mutation.right, mutation.wrong), *mutation.also):
        if text.count(right) != 1:
            raise ValueError(f"{mutation.name}: {right!r} stands {text.count(right)} times in {file.name}")
        text = text.replace(right, wrong)
    file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
