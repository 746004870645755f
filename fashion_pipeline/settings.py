"""Where the data lies and which models are used: the only module that reads the environment.

What each variable means is told in docs/environment.md.
"""

import hashlib
import importlib.util
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fashion_pipeline.core.prompts.requests import Drawing
from fashion_pipeline.core.training.recipe import Recipe, explained

T = TypeVar("T", bound=BaseModel)

PACKAGE = Path(__file__).parent
PROFILES = PACKAGE / "profiles"
TEMPLATES = PACKAGE / "templates"
_SHIPPED = frozenset({"e426ba4db3653a1f", "222e52363907e0ea", "c340c0eaf4885d48"})
"""SHA-256, first 16 digits, of the Dagster configurations of earlier versions."""
DATABASE = "FASHION_PIPELINE_DATABASE"
MARK = "remote.json"
"""The file of a local copy that says which root in object storage it is a copy of."""
HOME = "dagster_home"
"""The folder of the Dagster instance, in the data root or the copy of one."""
_DRIVER = "postgresql+psycopg2://"
_POSTGRES = f"""
storage:
  postgres:
    postgres_url:
      env: {DATABASE}
"""


class SettingsError(ValueError):
    """A setting or profile that cannot be used; the message says how to mend it."""


@dataclass(frozen=True)
class Profile:
    """Which checkpoints serve as generator, encoder and judge: data, never a branch in the code."""

    name: str
    generator: str
    """Folder, single safetensors file or hub id of a base; its family is found by its `model_index.json`."""
    encoder: str
    """Folder or hub id of a `CLIPModel`, `SiglipModel` or `Siglip2Model`."""
    judge: str
    """Folder or hub id of an image model that `AutoModel` loads; never used to choose."""
    whole_photos: bool
    """Whether encoder and judge see images padded to squares, rather than their middle."""
    vocabulary: Path
    """TOML file of the facets and values that the encoder is asked about."""
    generation: Drawing
    """How samples are drawn."""
    training: Recipe
    """How weights are trained unless a run says otherwise."""
    looks: "LookSettings"
    """How prompts are looked at before the search draws samples of them."""
    proposer: "ProposerSettings | None" = None
    """A language model that proposes prompts; None for none."""
    presets: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """Name → step → its configuration: what a run may cost, for those who do not want to choose each number."""


class LookSettings(BaseModel):
    """The section `[looks]` of a profile, which may be left out."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    steps: int | None = Field(
        default=None, ge=1, le=1000, description="Denoising steps of a look; none: a third of those of a sample."
    )
    shipped: str | None = Field(
        default=None, description="Folder of looks that ship with the generator, laid out as `looks/` in a data root."
    )

    never: list[str] = Field(
        default=[], description="Words and phrases that no prompt of the search may have, such as brands and people."
    )

    @property
    def folder(self) -> Path | None:
        """The folder that ships, absolute."""
        return Path(self.shipped) if self.shipped else None


class ProposerSettings(BaseModel):
    """The section `[proposer]` of a profile: a server with the interface of OpenAI's chat completions."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    address: str = Field(pattern=r"^https?://[^\s@]+$", description="Such as http://127.0.0.1:8080/v1.")
    model: str = Field(min_length=1, description="The name by which the server knows the model.")
    temperature: float = Field(default=1.0, ge=0, le=2, description="How varied its prompts are.")


@dataclass(frozen=True)
class Settings:
    """The roots and choices of one installation."""

    data: Path
    """The data root, or this machine's copy of it."""
    profile: str
    device: str
    precision: str
    ray: str = ""
    """Address of the Ray cluster that embeds and draws; empty: the run does."""
    kubernetes: str = ""
    """File of what the pods of steps ask for; empty: a run is one process."""
    url: str = ""
    """Of the data root, where it is in object storage."""
    hosts: tuple[str, ...] = ()
    """Names by which the UI is asked for, beside 127.0.0.1 and localhost."""

    @property
    def dagster_home(self) -> Path:
        """Folder of the Dagster instance."""
        return self.data / HOME

    def _root(self) -> dict[str, str]:
        if not self.url:
            return {"FASHION_PIPELINE_DATA": str(self.data)}
        return {"FASHION_PIPELINE_DATA": self.url, "FASHION_PIPELINE_COPY": str(self.data)}

    def environment(self) -> dict[str, str]:
        """What a child process needs to see the same settings."""
        return {
            **self._root(),
            "FASHION_PIPELINE_PROFILE": self.profile,
            "FASHION_PIPELINE_DEVICE": self.device,
            "FASHION_PIPELINE_PRECISION": self.precision,
            "FASHION_PIPELINE_RAY": self.ray,
            "FASHION_PIPELINE_KUBERNETES": self.kubernetes,
            "FASHION_PIPELINE_HOSTS": ",".join(self.hosts),
            "DAGSTER_HOME": str(self.dagster_home),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "TRANSFORMERS_VERBOSITY": "error",  # importing diffusers warns of a torchvision that nothing here needs
        }


@dataclass(frozen=True)
class Secrets:
    """What must stand in no file."""

    webhook: str = field(default="", repr=False)
    smtp_password: str = field(default="", repr=False)
    proposer_key: str = field(default="", repr=False)
    """Of the server of the language model that proposes prompts."""
    database: str = field(default="", repr=False)
    """URL of the PostgreSQL database of the Dagster instance; empty for SQLite in the data root."""


def read_secrets(environment: Mapping[str, str] | None = None) -> Secrets:
    """The secrets of this process's environment."""
    given = os.environ if environment is None else environment
    return Secrets(
        database=given.get(DATABASE, ""),
        webhook=given.get("FASHION_PIPELINE_WEBHOOK", ""),
        smtp_password=given.get("FASHION_PIPELINE_SMTP_PASSWORD", ""),
        proposer_key=given.get("FASHION_PIPELINE_PROPOSER_KEY", ""),
    )


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process's environment, with absolute paths.

    Where the data root is in object storage, the folder of this machine's copy is marked as such.
    """
    given = os.environ if environment is None else environment
    data, url = _data_root(given)
    return Settings(
        data=data,
        url=url,
        profile=given.get("FASHION_PIPELINE_PROFILE") or "embedded",
        device=given.get("FASHION_PIPELINE_DEVICE") or "auto",
        precision=given.get("FASHION_PIPELINE_PRECISION") or "auto",
        ray=given.get("FASHION_PIPELINE_RAY", "").strip(),
        kubernetes=str(Path(pods).absolute()) if (pods := given.get("FASHION_PIPELINE_KUBERNETES", "").strip()) else "",
        hosts=tuple(name.strip() for name in given.get("FASHION_PIPELINE_HOSTS", "").split(",") if name.strip()),
    )


def _data_root(given: Mapping[str, str]) -> tuple[Path, str]:
    """The folder to work in, and the URL that it is a copy of, if it is one. Raises SettingsError."""
    root = given.get("FASHION_PIPELINE_DATA") or "data"
    if "://" not in root:
        return Path(root).absolute(), ""
    url = root.rstrip("/")
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    copy = Path(given.get("FASHION_PIPELINE_COPY") or Path.home() / ".cache" / "fashion-pipeline" / name).absolute()
    mark, text = copy / MARK, json.dumps({"url": url}) + "\n"
    if not mark.exists():
        if copy.exists() and any(each.name != HOME for each in copy.iterdir()):
            raise SettingsError(f"{copy} is not empty, and no copy of {url}: set FASHION_PIPELINE_COPY to another")
        copy.mkdir(parents=True, exist_ok=True)
        fresh = mark.with_name(f".{MARK}.{os.getpid()}")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(mark)
    elif mark.read_text(encoding="utf-8") != text:
        raise SettingsError(f"{copy} is a copy of another root than {url}: set FASHION_PIPELINE_COPY to another")
    return copy, url


def enter(settings: Settings) -> Settings:
    """Make these settings those of this process and its children, and prepare the Dagster home.

    Raises SettingsError for a database that cannot be used, or a variable that needs what is not installed.
    """
    for name, given, package, extra in (
        ("FASHION_PIPELINE_RAY", settings.ray, "dagster_ray", "ray"),
        ("FASHION_PIPELINE_KUBERNETES", settings.kubernetes, "dagster_k8s", "kubernetes"),
    ):
        if given and importlib.util.find_spec(package) is None:
            raise SettingsError(f"{name} needs more packages: pip install 'fashion-pipeline[{extra}]', or unset it")
    wanted = _dagster_configuration(read_secrets().database)
    os.environ.update(settings.environment())
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    configuration = home / "dagster.yaml"
    before = configuration.read_bytes() if configuration.exists() else None
    if before is not None and not _is_ours(before):  # somebody's own: only what has moved is put right in it
        wanted = before.replace(b"fashion_pipeline.resources.launcher", b"fashion_pipeline.running.launcher")
    if before != wanted:
        fresh = home / f".dagster.yaml.{os.getpid()}"
        fresh.write_bytes(wanted)
        fresh.replace(configuration)  # takes the place of a link that leads nowhere, too
    return settings


def _dagster_configuration(database: str) -> bytes:
    """What dagster.yaml says; the database's address, with its password, stays in the environment."""
    shipped = (TEMPLATES / "dagster.yaml").read_bytes()
    if not database:
        return shipped
    if not database.startswith(_DRIVER):
        raise SettingsError(f"{DATABASE} must start with {_DRIVER}, as in {_DRIVER}name:password@host:5432/dagster")
    if importlib.util.find_spec("dagster_postgres") is None:
        raise SettingsError(f"{DATABASE} needs two more packages: pip install 'fashion-pipeline[postgres]'")
    return shipped + _POSTGRES.encode()


def _is_ours(configuration: bytes) -> bool:
    """Whether a Dagster configuration is one that this or an earlier version wrote and nobody has changed."""
    plain = configuration.removesuffix(_POSTGRES.encode())
    shipped = plain == (TEMPLATES / "dagster.yaml").read_bytes()
    return shipped or hashlib.sha256(plain).hexdigest()[:16] in _SHIPPED


def profile_names() -> list[str]:
    """The profiles that ship with the package; vocabularies may lie beside them."""
    return sorted(path.stem for path in PROFILES.glob("*.toml"))


def read_profile(name: str) -> Profile:
    """A shipped profile by name, or any profile by the path of its TOML file.

    Relative paths in a profile count from the file's own folder.
    Raises SettingsError for an unknown name, a missing or unknown field, or a model folder that does not exist.
    """
    shipped = name in profile_names()
    path = PROFILES / f"{name}.toml" if shipped else Path(name)
    if not path.is_file():
        raise SettingsError(
            f"no profile {name!r}: use one of {', '.join(profile_names())}, or the path of a .toml file"
        )
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # UnicodeDecodeError is one, too
        raise SettingsError(f"{path}: not valid TOML: {error}") from error
    base = path.absolute().parent
    models = _section(data, "models", path)
    return Profile(
        name=path.stem,
        generator=_model(models, "generator", base, path),
        encoder=_model(models, "encoder", base, path),
        judge=_model(models, "judge", base, path),
        whole_photos=_whole_photos(models, path),
        vocabulary=_vocabulary(models, base, path),
        generation=_build(Drawing, "generation", data, path),
        training=_build(Recipe, "training", data, path),
        looks=_looks(data, base, path),
        proposer=_build(ProposerSettings, "proposer", data, path) if "proposer" in data else None,
        presets=_presets(data.get("presets", {}), path),
    )


def _section(data: Mapping[str, object], name: str, path: Path) -> dict[str, object]:
    section = data.get(name)
    if not isinstance(section, dict):
        raise SettingsError(f"{path}: section [{name}] is missing: add it as in {PROFILES / 'embedded.toml'}")
    return section


def _model(models: Mapping[str, object], role: str, base: Path, path: Path) -> str:
    """A local folder, or a generator in a single file, as an absolute path; what is no path is a hub id."""
    value = models.get(role)
    if not isinstance(value, str) or not value:
        raise SettingsError(f"{path}: [models] {role} is missing: give a folder or a hub id")
    folder = (base / Path(value).expanduser()).resolve()
    single_file = role == "generator" and folder.suffix == ".safetensors" and folder.is_file()
    if folder.is_dir() or single_file:
        return str(folder)
    if value.startswith((".", "/", "~")):
        raise SettingsError(f"{path}: [models] {role}: no folder {folder}: restore it, or name another model")
    return value


def _vocabulary(models: Mapping[str, object], base: Path, path: Path) -> Path:
    value = models.get("vocabulary")
    if not isinstance(value, str) or not value:
        raise SettingsError(f"{path}: [models] vocabulary is missing: name the TOML file of facets and values")
    return (base / Path(value).expanduser()).resolve()


def _whole_photos(models: Mapping[str, object], path: Path) -> bool:
    value = models.get("whole_photos", False)
    if not isinstance(value, bool):
        raise SettingsError(f"{path}: [models] whole_photos is {value!r}: it must be true or false")
    return value


def _looks(data: Mapping[str, object], base: Path, path: Path) -> LookSettings:
    looks = _build(LookSettings, "looks", {"looks": {}, **data}, path)
    folder = (base / looks.shipped).resolve() if looks.shipped else None
    if folder and not folder.is_dir():
        raise SettingsError(f"{path}: [looks] shipped: no folder {folder}: restore it, or remove the line")
    return looks.model_copy(update={"shipped": str(folder)}) if folder else looks


def _presets(value: object, path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The presets, as far as their shape goes; which fields a step has, its asset knows."""
    tables = isinstance(value, dict) and all(
        isinstance(steps, dict) and all(isinstance(fields, dict) for fields in steps.values())
        for steps in value.values()
    )
    if not isinstance(value, dict) or not tables:
        raise SettingsError(
            f"{path}: [presets] must have a section for each preset with a table for each step, such as "
            "lora_weights = { steps = 100 }"
        )
    return value


def _build(kind: type[T], name: str, data: Mapping[str, object], path: Path) -> T:
    try:
        return kind(**_section(data, name, path))
    except ValidationError as error:
        raise SettingsError(f"{path}: [{name}] {explained(kind, error)}") from error
