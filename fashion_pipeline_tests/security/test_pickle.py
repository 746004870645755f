"""Nothing that is loaded can run code: no pickle is read or written, and no model's own code is run."""

import ast
import io
import json
import pickletools
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fashion_pipeline.ml.devices import Device
from fashion_pipeline.ml.encoders import load_clip, load_judge
from fashion_pipeline.ml.pipelines import load_pipeline
from fashion_pipeline.ml.sources import find_model, find_pipeline
from fashion_pipeline.settings import PACKAGE
from fashion_pipeline.stages.drawing.base import require_lora
from fashion_pipeline.stages.drawing.models import ModelError, Models

CODE = PACKAGE.parent
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
UNSAFE_CALLS = {"torch.load", "torch.save", "pandas.read_pickle", "pd.read_pickle", "eval", "exec", "os.system"}
UNSAFE_ARGUMENTS = {"allow_pickle", "trust_remote_code", "weights_only", "use_safetensors", "shell"}
"""Arguments that must not be the unsafe value where they are given."""
CPU = Device("cpu", "fp32")


def sources() -> list[Path]:
    return [
        path for name in ("fashion_pipeline", "tools", "benchmarks") for path in sorted((CODE / name).rglob("*.py"))
    ]


def unsafe(tree: ast.Module) -> Iterator[str]:
    """What in a module could load a pickle or run what it was given."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"import {each.name}" for each in node.names if each.name.split(".")[0] in UNSAFE_MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE_MODULES:
            yield f"from {node.module} import"
        elif isinstance(node, ast.Call):
            if (name := ast.unparse(node.func)) in UNSAFE_CALLS:
                yield name
            for argument in node.keywords:
                safe = argument.arg in ("weights_only", "use_safetensors")
                given = argument.value.value if isinstance(argument.value, ast.Constant) else None
                if argument.arg in UNSAFE_ARGUMENTS and given is not safe:
                    yield f"{name}({argument.arg}={ast.unparse(argument.value)})"
            loads = re.search(r"(Model\w*|Pipeline|AutoencoderKL|model_class)\.from_pretrained$", name)
            if loads and "use_safetensors" not in {argument.arg for argument in node.keywords}:
                yield f"{name} without use_safetensors"


def test_no_code_of_ours_reads_or_writes_a_pickle() -> None:
    found = {str(path.relative_to(CODE)): list(unsafe(ast.parse(path.read_text("utf-8")))) for path in sources()}
    assert len(found) > 100 and not {path: what for path, what in found.items() if what}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(file)",
        "np.load(file, allow_pickle=True)",
        "AutoModel.from_pretrained(x, use_safetensors=True, trust_remote_code=True)",
        "AutoModel.from_pretrained(x)",
        "subprocess.run(x, shell=True)",
    ],
)
def test_the_scan_finds_what_it_looks_for(code: str) -> None:
    assert list(unsafe(ast.parse(code)))


def is_pickle(data: bytes) -> bool:
    """Whether bytes are a pickle, or an archive that holds one, as torch.save writes it."""
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    if data[:1] != b"\x80":
        return False
    try:
        return sum(1 for _ in pickletools.genops(data)) > 0
    except Exception:
        return False


# Models from elsewhere


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, sprung: Path) -> None:
        self._sprung = sprung

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return open, (str(self._sprung), "w")


def trapped(tmp_path: Path, role: str) -> tuple[Path, Path]:
    """A model folder whose weights are pickles that make a file, and which brings code that does, and that file."""
    import pickle

    sprung, folder = tmp_path / "sprung", tmp_path / "model"
    shutil.copytree(PACKAGE / "embedded" / role, folder)
    for weights in list(folder.rglob("*.safetensors")):
        name = {"model": "pytorch_model", "diffusion_pytorch_model": "diffusion_pytorch_model"}[weights.stem]
        weights.with_name(f"{name}.bin").write_bytes(pickle.dumps(Trap(sprung)))
        weights.unlink()
    return folder, sprung


@pytest.mark.parametrize("role", ["encoder", "judge", "generator"])
def test_weights_that_are_pickles_are_refused_unread(tmp_path: Path, role: str) -> None:
    folder, sprung = trapped(tmp_path, role)
    with pytest.raises((OSError, ValueError)):
        if role == "encoder":
            load_clip(find_model(folder), CPU)
        elif role == "judge":
            load_judge(find_model(folder), CPU)
        else:
            load_pipeline(find_pipeline(folder))
    assert not sprung.exists()


@pytest.mark.parametrize("role", ["encoder", "judge"])
def test_code_that_a_model_brings_is_not_run(tmp_path: Path, role: str) -> None:
    sprung, folder = tmp_path / "sprung", tmp_path / "model"
    shutil.copytree(PACKAGE / "embedded" / role, folder)
    (folder / "own.py").write_text(f"open({str(sprung)!r}, 'w')\n")
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        if (file := folder / name).exists():
            config = json.loads(file.read_text(encoding="utf-8")) | {"model_type": "own"}
            auto = ("AutoConfig", "AutoModel", "AutoImageProcessor", "AutoTokenizer")
            config["auto_map"] = dict.fromkeys(auto, "own.Own")
            file.write_text(json.dumps(config), encoding="utf-8")
    with suppress(OSError, ValueError):  # a model of another kind may load, without what it brings
        (load_clip if role == "encoder" else load_judge)(folder, CPU)
    assert not sprung.exists()


def test_code_that_a_pipeline_brings_is_not_run(tmp_path: Path) -> None:
    sprung, folder = tmp_path / "sprung", tmp_path / "model"
    shutil.copytree(PACKAGE / "embedded" / "generator", folder)
    (folder / "unet" / "own.py").write_text(f"open({str(sprung)!r}, 'w')\nclass Own:\n    pass\n")
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    (folder / "model_index.json").write_text(json.dumps(index | {"unet": ["own", "Own"]}), encoding="utf-8")
    with pytest.raises((OSError, ValueError, AttributeError, ImportError)):
        load_pipeline(folder)
    assert not sprung.exists()


def test_a_lora_file_that_is_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    import pickle

    sprung = tmp_path / "sprung"
    for name in ("lora.pt", "lora.bin", "lora.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap(sprung)))
        with pytest.raises(ModelError, match=name):
            require_lora(Models("embedded", device="cpu", precision="fp32"), tmp_path / name)
    assert not sprung.exists()
