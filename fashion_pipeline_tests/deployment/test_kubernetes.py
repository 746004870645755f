"""The files of `deploy/kubernetes/`, as far as they can be tried without a cluster.

They are put together by kubectl, held to Kubernetes' schema and to each other; and runs are started from them through
dagster-k8s on a cluster whose pods are processes (`cluster.py`), with the data root in S3.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
pytest.importorskip("dagster_k8s", reason="the extra kubernetes is not installed")

from fashion_pipeline.core.catalog.listing import SourceSpec  # noqa: E402
from fashion_pipeline.defs.automation.jobs import POOLS  # noqa: E402
from fashion_pipeline.intake.sources import read_source  # noqa: E402
from fashion_pipeline.running.kubernetes import read_pods  # noqa: E402
from fashion_pipeline.settings import SettingsError, read_secrets, read_settings  # noqa: E402
from fashion_pipeline.stages.catalog.sources import take_in  # noqa: E402
from fashion_pipeline_tests.conftest import PHOTOS, SAMPLES, quick_profile  # noqa: E402
from fashion_pipeline_tests.deployment.cluster import Cluster, Pod, serving, until  # noqa: E402
from fashion_pipeline_tests.store.buckets import ROOT as BUCKET  # noqa: E402
from fashion_pipeline_tests.store.buckets import bucket, keys, machine  # noqa: E402

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OLDEST, NEWEST = "1.31", "1.37"
"""Versions of Kubernetes to whose schema the files are held."""

HEAVY = ("clip_features", "evaluation_report", "generated_samples", "lora_weights", "similarity_table")


def put_together(folder: Path) -> list[dict[str, Any]]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


@pytest.fixture(scope="module", params=["base", "small", "small with ray"])
def resources(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each overlay comes to."""
    if request.param != "small with ray":
        return put_together(KUBERNETES / request.param)
    copy = tmp_path_factory.mktemp("overlay") / "kubernetes"
    shutil.copytree(KUBERNETES, copy)
    overlay = copy / "small" / "kustomization.yaml"
    text = overlay.read_text(encoding="utf-8")
    assert "[../postgres] # and ../ray" in text
    overlay.write_text(text.replace("[../postgres] # and ../ray", "[../postgres, ../ray]"), encoding="utf-8")
    return put_together(copy / "small")


def named(resources: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in resources if each["kind"] == kind}


def templates(resources: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pods that the files themselves ask for."""
    found = {
        name: each["spec"]["template"]
        for kind in ("Deployment", "StatefulSet")
        for name, each in named(resources, kind).items()
    }
    for name, cluster in named(resources, "RayCluster").items():
        groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
        found |= {f"{name}-{number}": group["template"] for number, group in enumerate(groups)}
    return found


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_all_is_as_kubernetes_wants_it(resources: list[dict[str, Any]], version: str) -> None:
    for each in resources:
        if each["kind"] != "RayCluster":
            kubernetes_validate.validate(each, version, strict=True)
    for name, template in templates(resources).items():
        pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": name, **template["metadata"]}}
        kubernetes_validate.validate(pod, version, strict=True)


def test_whatever_is_named_is_there(resources: list[dict[str, Any]]) -> None:
    maps, accounts = named(resources, "ConfigMap"), named(resources, "ServiceAccount")
    secret = set(read_example())
    for name, template in templates(resources).items():
        spec = template["spec"]
        volumes = {volume["name"] for volume in spec["volumes"]} | {"database"}  # which the StatefulSet claims
        assert spec.get("serviceAccountName", "default") in {"default", *accounts}, name
        for volume in spec["volumes"]:
            assert "configMap" not in volume or volume["configMap"]["name"] in maps, name
        for container in spec["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, name
            for source in container.get("envFrom", []):
                kind, ref = next(iter(source.items()))
                assert ref["name"] in (maps if kind == "configMapRef" else {"fashion-pipeline"}), name
            for each in container.get("env", []):
                if wanted := each.get("valueFrom", {}).get("secretKeyRef"):
                    assert wanted["name"] == "fashion-pipeline" and wanted["key"] in secret, name
    for policy in named(resources, "NetworkPolicy").values():
        labels = {template["metadata"]["labels"]["fashion-pipeline"] for template in templates(resources).values()}
        wanted = policy["spec"]["podSelector"].get("matchLabels", {}).get("fashion-pipeline")
        assert wanted is None or wanted in labels
    for name, service in named(resources, "Service").items():
        chosen = service["spec"]["selector"]
        ports = [
            port
            for template in templates(resources).values()
            if chosen.items() <= template["metadata"]["labels"].items()
            for container in template["spec"]["containers"]
            for port in container.get("ports", [])
        ]
        for port in service["spec"]["ports"]:
            wanted = port.get("targetPort", port["port"])
            assert any(wanted in (each["name"], each["containerPort"]) for each in ports), name


def test_nobody_is_more_than_he_must_be(resources: list[dict[str, Any]]) -> None:
    policies = named(resources, "NetworkPolicy")
    assert policies["nobody"]["spec"]["podSelector"]["matchExpressions"] == [
        {"key": "fashion-pipeline", "operator": "Exists"}
    ]
    for name, template in templates(resources).items():
        assert "fashion-pipeline" in template["metadata"]["labels"], f"{name} is reached by all"
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True, name
        for container in template["spec"]["containers"]:
            locked = container["securityContext"]
            assert locked["allowPrivilegeEscalation"] is False and locked["capabilities"] == {"drop": ["ALL"]}, name
            assert "memory" in container["resources"]["limits"], name
            command = container.get("command", [])
            listens = command[command.index("--host") + 1] if "--host" in command else "127.0.0.1"
            assert listens == "127.0.0.1" or name in policies, f"{name} listens and has no policy of its own"
    (role,) = named(resources, "Role").values()
    assert not any("*" in (*rule["verbs"], *rule["resources"]) for rule in role["rules"])
    assert not any("secrets" in rule["resources"] for rule in role["rules"])
    for cluster in named(resources, "RayCluster").values():
        assert cluster["spec"]["authOptions"] == {"mode": "token"}


def read_example() -> dict[str, str]:
    lines = (KUBERNETES / "secret.env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_settings_and_secrets_are_those_of_the_program(resources: list[dict[str, Any]], tmp_path: Path) -> None:
    given = named(resources, "ConfigMap")["fashion-pipeline"]["data"]
    known = {name for name in read_settings({}).environment() if name.startswith("FASHION_PIPELINE")}
    assert {name for name in given if name.startswith("FASHION_PIPELINE")} <= known | {"FASHION_PIPELINE_COPY"}
    settings = read_settings(given | {"FASHION_PIPELINE_COPY": str(tmp_path / "copy")})
    assert settings.url.startswith("s3://") and settings.kubernetes and settings.hosts
    assert given["DAGSTER_HOME"] == f"{given['FASHION_PIPELINE_COPY']}/dagster_home"
    secret = read_example()
    assert not any(secret[name] for name in ("AWS_SECRET_ACCESS_KEY", "UI_PASSWORD_HASH", "POSTGRES_PASSWORD"))
    filled = {name: value or "any" for name, value in secret.items()}
    assert all(read_secrets(filled).__dict__.values()), "a secret of the program is not handed to it"


def test_images_and_versions_agree(resources: list[dict[str, Any]]) -> None:
    images = {
        container["image"]
        for template in templates(resources).values()
        for container in template["spec"]["containers"]
        if container["image"].startswith("fashion-pipeline")
    }
    assert images <= {"fashion-pipeline:cpu", "fashion-pipeline:cuda"}
    for name, template in templates(resources).items():
        for container in template["spec"]["containers"]:
            said = [each["value"] for each in container.get("env", []) if each["name"] == "DAGSTER_CURRENT_IMAGE"]
            assert said in ([], [container["image"]]), f"{name} names another image than its own"
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    for cluster in named(resources, "RayCluster").values():
        assert cluster["spec"]["rayVersion"] == pinned["ray"]


def test_each_heavy_step_asks_for_one_card_and_no_other_step_for_any() -> None:
    cards = {
        step: asked["container_config"]["resources"]["limits"].get("nvidia.com/gpu", 0)
        for step, asked in read_pods(KUBERNETES / "base" / "pods.yaml", POOLS).items()
    }
    assert {step for step, count in cards.items() if count} == {*HEAVY, "specialised_model"}
    assert set(cards.values()) == {0, 1} and cards.keys() == POOLS.keys()
    with_ray = read_pods(KUBERNETES / "ray" / "pods.yaml", POOLS)
    limits = {step: asked["container_config"]["resources"]["limits"] for step, asked in with_ray.items()}
    assert [step for step in limits if "nvidia.com/gpu" in limits[step]] == ["lora_weights"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("heavy: {container_config: {resource: {}}}", "resource"),
        ("heavy: {pod_config: {}}", "pod_config"),
        ("lora_weight: {}", "'lora_weight' is no step: choose among heavy, light, "),
        ("[heavy]", "it must have sections"),
        ("heavy: {", "cannot be read"),
        ("heavy: 3", "heavy"),
    ],
)
def test_a_file_of_pods_that_cannot_be_used_is_named_with_its_field(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "pods.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as error:
        read_pods(file, POOLS)
    assert str(file) in str(error.value) and told in str(error.value)


def test_the_instance_is_that_of_one_machine_but_for_what_a_cluster_changes() -> None:
    ours = yaml.safe_load((KUBERNETES / "base" / "dagster.yaml").read_text(encoding="utf-8"))
    shipped = yaml.safe_load((ROOT / "fashion_pipeline" / "templates" / "dagster.yaml").read_text(encoding="utf-8"))
    changed = {"run_launcher", "storage", "compute_logs", "concurrency", "run_monitoring"}
    assert {name: ours[name] for name in ours.keys() - changed} == {
        name: shipped[name] for name in shipped.keys() - changed
    }
    limits = "tag_concurrency_limits"
    assert ours["concurrency"]["runs"][limits] == shipped["concurrency"]["runs"][limits]
    assert ours["concurrency"]["pools"] == shipped["concurrency"]["pools"]


# --- runs on a cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The overlay `small`, applied to a cluster whose pods are processes, with photos and the data root in S3."""
    folder = tmp_path_factory.mktemp("cluster")
    applied = put_together(KUBERNETES / "small")
    maps = {name: each["data"] for name, each in named(applied, "ConfigMap").items()}
    with bucket() as access, serving(folder, maps, {"fashion-pipeline": access}) as made:
        for style in ("coat", "bag"):
            for photo in sorted((SAMPLES / style).glob("*.png"))[:PHOTOS]:
                boto3.client("s3").upload_file(str(photo), "fashion", f"photos/{style}/{photo.name}")
        instance = yaml.safe_load(made.config_maps["fashion-pipeline-instance"]["dagster.yaml"])
        instance["storage"] = {"sqlite": {"base_dir": str(folder / "database")}}
        here = {"load_incluster_config": False, "kubeconfig_file": str(made.kubeconfig)}
        instance["run_launcher"]["config"] |= here
        made.config_maps["fashion-pipeline-instance"]["dagster.yaml"] = yaml.safe_dump(instance)
        made.config_maps["fashion-pipeline-files"]["quick.toml"] = Path(quick_profile()).read_text(encoding="utf-8")
        made.config_maps["fashion-pipeline"] |= {
            "FASHION_PIPELINE_DATA": BUCKET,
            "FASHION_PIPELINE_PROFILE": "/etc/fashion-pipeline/quick.toml",
        }
        made.deployments = named(applied, "Deployment")
        store, spec = machine(folder / "copy"), SourceSpec("s3://fashion/photos")
        take_in(store, spec, read_source(spec))
        yield made


FOLLOWING = """
import sys
from fashion_pipeline.running.launching import launcher
from fashion_pipeline.settings import enter, read_settings
from fashion_pipeline.store.store import Store

store = Store(enter(read_settings()).data)
with launcher(store) as here:
    here.instance.add_dynamic_partitions("styles", [sys.argv[1]])
    sys.exit(not here.launch("catalog", sys.argv[1], {}, {}, lambda event: print(event, flush=True)).success)
"""
"""A command that launches a run and follows it, as `fashion-pipeline run` does."""


def catalog(cluster: Cluster, style: str) -> Pod:
    """Launch the job `catalog` from the pod of the daemon."""
    return cluster.run(
        f"command-{style}", cluster.deployments["daemon"]["spec"]["template"], ["python", "-c", FOLLOWING, style]
    )


def states(pods: list[Pod]) -> list[str]:
    return [pod.phase for pod in pods]


def test_the_doctor_sees_whether_jobs_can_be_started(cluster: Cluster) -> None:
    template = cluster.deployments["daemon"]["spec"]["template"]
    pod = cluster.run("doctor", template, ["fashion-pipeline", "doctor"])
    pod.process.wait(240)
    assert "runs are jobs in the namespace fashion" in " ".join(pod.said().split()), pod.said()
    before = cluster.config_maps["fashion-pipeline-files"].copy()
    cluster.config_maps["fashion-pipeline-files"]["pods.yaml"] = "heavy: {container_config: {limits: {}}}"
    pod = cluster.run("doctor-again", template, ["fashion-pipeline", "doctor"])
    pod.process.wait(240)
    cluster.config_maps["fashion-pipeline-files"] = before
    assert pod.process.returncode == 1 and "correct the file" in " ".join(pod.said().split()), pod.said()


def test_a_step_whose_pod_is_killed_goes_on_in_another(cluster: Cluster) -> None:
    run = catalog(cluster, "bag")
    until(lambda: "embedded" in run.said() or run.phase != "Running", 400, "nothing was embedded")
    assert keys("leases/runs") and keys("leases/styles/bag"), "a run holds its style while its steps work"
    os.killpg(cluster.steps("clip_features")[0].process.pid, signal.SIGKILL)
    until(lambda: run.phase != "Running", 400, "the run did not end")
    assert run.phase == "Succeeded", run.said()
    assert states(cluster.steps("clip_features")) == ["Failed", "Succeeded"]
    assert states(cluster.runs()) == ["Succeeded"] and states(cluster.steps("raw_images")) == ["Succeeded"]
    (photos,) = cluster.steps("raw_images")
    embedding = cluster.steps("clip_features")[1]
    assert embedding.asked["requests"]["memory"] == "4Gi" and photos.asked["requests"]["memory"] == "2Gi"
    assert embedding.spec["automountServiceAccountToken"] is False
    pods = [photos, embedding, *cluster.runs()]
    assert {pod.labels["fashion-pipeline"] for pod in pods} == {"run"}, "network policies know it by this"
    assert [key for key in keys("records/features/style=bag") if key.endswith("latest.json")]
    assert not keys("leases/runs") and not keys("leases/commands")


def test_a_run_that_is_cancelled_takes_the_pods_of_its_steps_along(cluster: Cluster) -> None:
    before = len(cluster.pods)
    run = catalog(cluster, "coat")
    until(lambda: len(cluster.pods) == before + 3 or run.phase != "Running", 90, "no step began")
    os.kill(run.process.pid, signal.SIGTERM)
    until(lambda: run.phase != "Running", 60, "the command did not end")
    own = list(cluster.pods.values())[before:]
    until(lambda: all(pod.phase != "Running" for pod in own), 60, "a pod goes on")
    assert len(own) == 3 and own[1].deleted and own[2].deleted and not cluster.jobs.keys() & {pod.name for pod in own}
    assert not keys("leases/runs") and not keys("leases/commands")
    assert not [key for key in keys("records/features/style=coat") if key.endswith("latest.json")]
