"""A month of one data root with the clock turned on: schedule and sensor tick, photos come and go, runs fail.

    python -m tools.simulated_month [--data FOLDER]

Six styles of the sample catalog are trained, then the sensor and the schedule are switched on. The sensor ticks every
three hours and the schedule whenever its cron fires; what they ask for is run at once, with the real chain, small.
Printed is every run that was asked for with its reason; the exit code tells whether it was what should have been.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from fashion_pipeline.core.catalog.listing import SourceSpec
from fashion_pipeline.defs.automation.jobs import ASSETS, CATALOG
from fashion_pipeline.defs.automation.schedules import is_due, scheduled_runs
from fashion_pipeline.defs.automation.sensors import TAKE_IN, new_photos
from fashion_pipeline.intake.sources import read_source
from fashion_pipeline.resources.gpu import Gpu
from fashion_pipeline.resources.models import ModelsResource
from fashion_pipeline.resources.store import StoreResource
from fashion_pipeline.running.runs import PARTITION, REASON
from fashion_pipeline.stages.catalog.sources import take_in
from fashion_pipeline.stages.drawing.models import Models
from fashion_pipeline.store.store import Store

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
START = datetime(2026, 6, 1, tzinfo=UTC)
"""A Monday."""
DAYS = 30
HOURS = 3
"""Between two ticks."""
FIRST = 40
"""Photos of each style at the start."""
STYLES = {"bag": "bag", "bag-b": "bag", "coat": "coat", "dress": "dress", "dress-b": "dress", "sneaker": "sneaker"}
"""Style → the styles of the sample catalog that its photos are taken from."""
SMALL = {
    "generated_samples": {"budget": 8, "held_out_products": 2},
    "lora_weights": {"steps": 2},
    "evaluation_report": {"products": 2},
}

EXPECTED = [
    (2, "coat", "catalog", "photos arrived or changed"),
    (2, "coat", "full_pipeline", "24 new photos"),
    (3, "dress", "catalog", "photos arrived or changed"),
    (7, "dress", "full_pipeline", "on schedule: 5 new photos"),
    (9, "bag-b", "catalog", "photos arrived or changed"),
    (9, "bag-b", "full_pipeline", "drift: "),
    (10, "sneaker", "catalog", "photos arrived or changed"),
    (11, "bag", "catalog", "photos arrived or changed"),
    (12, "bag", "catalog", "photos arrived or changed"),
    (13, "bag", "catalog", "photos arrived or changed"),
    (13, "bag", "full_pipeline", "24 new photos"),
    (16, "dress-b", "catalog", "photos arrived or changed"),
    (20, "sneaker", "catalog", "photos arrived or changed"),
    (20, "sneaker", "full_pipeline", "22 new photos"),
    (20, "sneaker", "full_pipeline", "22 new photos"),
    (21, "coat", "full_pipeline", "on schedule: 0 new photos, other settings"),
    (21, "dress-b", "full_pipeline", "on schedule: 0 new photos, 2 gone"),
    (24, "clog", "catalog", "photos arrived or changed"),
    (24, "clog", "full_pipeline", "first training, on 40 photos"),
]
"""(day, style, job, beginning of the reason) of every run that should be asked for, in order. Mondays are 0, 7, 14 …"""


@dataclass
class World:
    """A data root, its photos, and the clock."""

    root: Path
    run: Callable[["World", str, str, dict[str, str]], bool]
    """Runs a job for a style with tags; returns whether it went well."""
    instance: dg.DagsterInstance
    models: Models = field(default_factory=lambda: Models("embedded"))
    now: datetime = START
    cursor: str | None = None
    asked: list[tuple[int, str, str, str]] = field(default_factory=list)
    fails_next: set[str] = field(default_factory=set)
    used: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store(self.root / "data")

    @property
    def day(self) -> int:
        """Days since the start."""
        return (self.now - START).days

    def arrive(self, style: str, sample: str, count: int) -> None:
        """Photos that were never used before, of a style of the sample catalog."""
        folder = self.root / "photos" / style
        folder.mkdir(parents=True, exist_ok=True)
        first = self.used.get(sample, 0)
        self.used[sample] = first + count
        for photo in sorted((SAMPLES / sample).glob("*.png"))[first : first + count]:
            shutil.copy(photo, folder / f"{sample}-{photo.name}")

    def take_in(self) -> None:
        """Register the styles, as the command does."""
        spec = SourceSpec(str(self.root / "photos"))
        self.instance.add_dynamic_partitions("styles", take_in(self.store, spec, read_source(spec)))

    def sensor(self) -> list[dg.RunRequest]:
        """One tick of the sensor."""
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"store": self.store, "models": self.models}
        ) as context:
            result = new_photos(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        for request in result.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions("styles", list(request.partition_keys))
        return list(result.run_requests or [])

    def schedule(self) -> list[dg.RunRequest]:
        """One tick of the schedule, if its cron fires now."""
        if not is_due(self.store.preferences.read().retraining.cron, self.now, "UTC"):
            return []
        with dg.build_schedule_context(instance=self.instance, scheduled_execution_time=self.now) as context:
            found = list(scheduled_runs(context, self.store, self.models))
        return [each for each in found if isinstance(each, dg.RunRequest)]

    def tick(self) -> None:
        """Schedule and sensor are asked, and what they ask for is run."""
        for request in [*self.schedule(), *self.sensor()]:
            style, job = str(request.partition_key), request.job_name or "full_pipeline"
            self.asked.append((self.day, style, job, request.tags[REASON]))
            self.run(self, job, style, dict(request.tags))
        self.now += timedelta(hours=HOURS)


def live(world: World) -> Iterator[int]:
    """The month; gives back the day at the beginning of each."""
    for style, sample in STYLES.items():
        world.arrive(style, sample, FIRST)
    world.take_in()
    for style in STYLES:
        world.run(world, "catalog", style, {})
    for style in STYLES:
        world.run(world, "full_pipeline", style, {})
    for day in range(DAYS):
        yield day
        _happens(world, day)
        for _ in range(24 // HOURS):
            world.tick()


def _happens(world: World, day: int) -> None:
    """What people do on a day."""
    photos = world.root / "photos"
    match day:
        case 2:
            world.arrive("coat", "coat", 24)
        case 3:
            world.arrive("dress", "dress", 5)
        case 9:
            world.arrive("bag-b", "sneaker", 18)
        case 10:
            for name in ("cut.png", "text.png"):
                (photos / "sneaker" / name).write_bytes(b"\x89PNG\r\n\x1a\n cut off")
        case 11 | 12 | 13:
            world.arrive("bag", "bag", 8)
        case 16:
            for photo in sorted((photos / "dress-b").iterdir())[:2]:
                photo.unlink()
        case 17:
            world.store.sources.choose("coat", lambda known: {**SMALL, "lora_weights": {"steps": 3}})
        case 20:
            world.fails_next.add("sneaker")
            world.arrive("sneaker", "sneaker", 22)
        case 24:
            world.arrive("clog", "sneaker", FIRST)


def unexpected(world: World) -> list[str]:
    """What was asked for and should not have been, or the other way round; empty if all is well."""
    asked = [(day, style, job, why) for day, style, job, why in world.asked]
    problems = [
        f"expected {wanted}, asked for {found}"
        for wanted, found in zip(EXPECTED, asked, strict=False)
        if wanted[:3] != found[:3] or not found[3].startswith(wanted[3])
    ]
    problems += [f"asked for {each} beyond what was expected" for each in asked[len(EXPECTED) :]]
    return problems + [f"never asked for {each}" for each in EXPECTED[len(asked) :]]


def run_chain(world: World, job: str, style: str, tags: dict[str, str]) -> bool:
    """The real job, small; where a failure is due, its steps fail because the photos are away."""
    config: dict[str, Any] = world.store.sources.config(style) or SMALL
    if job != TAKE_IN and not world.store.sources.config(style):
        world.store.sources.choose(style, lambda known: config)
    broken = style in world.fails_next and job != TAKE_IN
    folder = world.root / "photos" / style
    if broken:
        world.fails_next.discard(style)
        folder.rename(folder.with_name(".away"))
    result = dg.materialize(
        ASSETS,
        selection=dg.AssetSelection.assets(*(CATALOG if job == TAKE_IN else ASSETS)),
        partition_key=style,
        instance=world.instance,
        resources={
            "store": StoreResource(root=str(world.store.root)),
            "models": ModelsResource(profile="embedded", gpu=Gpu(), root=str(world.store.root)),
        },
        run_config={} if job == TAKE_IN else {"ops": {op: {"config": values} for op, values in config.items()}},
        tags={**tags, PARTITION: style},
        raise_on_error=False,
    )
    if broken:
        folder.with_name(".away").rename(folder)
    return result.success


def main(argv: list[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder that does not exist yet; default: a temporary one")
    folder = parser.parse_args(argv).data or Path(tempfile.mkdtemp(prefix="month-"))
    (folder / "home").mkdir(parents=True, exist_ok=True)
    with dg.DagsterInstance.local_temp(str(folder / "home")) as instance:
        world = World(folder, run_chain, instance)
        for day in live(world):
            print(f"day {day}: {len(world.asked)} runs so far", file=sys.stderr, flush=True)
        print(f"{'day':>4}  {'style':8} {'job':14} reason")
        for day, style, job, why in world.asked:
            print(f"{day:>4}  {style:8} {job:14} {why}")
        problems = unexpected(world)
    print("\n".join(problems) or "every run was asked for once, and no other")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
