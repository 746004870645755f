"""A Kubernetes cluster of this machine's processes: what of its API starting and watching jobs needs, over HTTP.

A job's pod is a process with the environment, the volumes and the command that the job asks for; images, limits and
users are not looked at. What is posted is held to Kubernetes' own schema, as an API server does. Whose pod is deleted
loses the jobs that it owns.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

NAMESPACE = "fashion"
VERSION = "1.33"
"""Of Kubernetes, whose schema is meant."""

GRACE_SECONDS = 30.0

PACKED = "eJ"
"""How base64 of what zlib has packed begins."""


@dataclass
class Pod:
    """A process."""

    name: str
    spec: Mapping[str, Any]
    process: subprocess.Popen[bytes]
    folder: Path
    labels: Mapping[str, str]
    deleted: bool = False

    @property
    def phase(self) -> str:
        """As Kubernetes says it."""
        ended = self.process.poll()
        return "Running" if ended is None else "Succeeded" if ended == 0 else "Failed"

    @property
    def asked(self) -> Mapping[str, Any]:
        """The resources of its container."""
        return dict(self.spec["containers"][0]["resources"])

    def said(self) -> str:
        """What it printed."""
        return (self.folder / "output").read_text(encoding="utf-8", errors="replace")

    def as_json(self) -> dict[str, Any]:
        """As the API tells of it."""
        return {
            "metadata": {"name": self.name, "uid": f"uid-{self.name}", "namespace": NAMESPACE},
            "spec": self.spec,
            "status": {"phase": self.phase, "containerStatuses": []},
        }


@dataclass
class Cluster:
    """What was applied to it, and the jobs that somebody asked for."""

    folder: Path
    config_maps: dict[str, dict[str, str]]
    secrets: dict[str, dict[str, str]]
    deployments: dict[str, Any] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    """Also of those that are over."""
    requests: list[str] = field(default_factory=list)

    @property
    def kubeconfig(self) -> Path:
        """What leads to the API; pods that may not use it do not have it."""
        return self.folder / "kubeconfig"

    def run(self, name: str, template: Mapping[str, Any], command: Sequence[str] = ()) -> Pod:
        """Start the pod of a template, or a command in a pod like it, as `kubectl exec` does."""
        spec, folder = template["spec"], self.folder / "pods" / name
        container = spec["containers"][0]
        places = dict(self._mounted(container, spec, folder))
        if spec.get("automountServiceAccountToken") is False:
            places[str(self.kubeconfig)] = "/nowhere"
        wanted = [*(command or (*container["command"], *container.get("args", [])))]
        environment = {name: _placed(value, places) for name, value in self._environment(container)}
        own = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOSTNAME": name, "OMP_NUM_THREADS": "1"}
        output = (folder / "output").open("wb")
        process = subprocess.Popen(
            [_placed(each, places) for each in wanted],
            env=environment | own,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        output.close()
        self.pods[name] = Pod(name, spec, process, folder, template.get("metadata", {}).get("labels", {}))
        return self.pods[name]

    def steps(self, step: str) -> list[Pod]:
        """The pods of a step, in the order in which they came."""
        return [pod for pod in self.pods.values() if pod.labels.get("dagster/op") == step]

    def runs(self) -> list[Pod]:
        """The pods of runs."""
        return [pod for pod in self.pods.values() if pod.labels.get("app.kubernetes.io/component") == "run_worker"]

    def post(self, job: dict[str, Any]) -> dict[str, Any]:
        """Start a job's pod. Raises ValidationError of kubernetes_validate."""
        kubernetes_validate.validate(job, VERSION, strict=True)
        self.jobs[job["metadata"]["name"]] = job
        template = job["spec"]["template"]
        self.run(template["metadata"]["name"], template)
        return self.status(job["metadata"]["name"])

    def status(self, name: str) -> dict[str, Any]:
        """A job with what became of its pod."""
        pod = self.pods[self.jobs[name]["spec"]["template"]["metadata"]["name"]]
        count = {"Running": "active", "Succeeded": "succeeded", "Failed": "failed"}[pod.phase]
        return {**self.jobs[name], "status": {count: 1}}

    def delete_pod(self, name: str) -> None:
        """End a pod as Kubernetes does: a signal, then force; and delete the jobs that it owns."""
        pod = self.pods[name]
        pod.deleted = True
        if pod.process.poll() is None:
            os.killpg(pod.process.pid, signal.SIGTERM)
        threading.Thread(target=self._finish, args=[pod], daemon=True).start()

    def delete_job(self, name: str) -> None:
        """Forget a job and end its pod."""
        self.delete_pod(self.jobs.pop(name)["spec"]["template"]["metadata"]["name"])

    def _finish(self, pod: Pod) -> None:
        try:
            pod.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(pod.process.pid, signal.SIGKILL)
        for name, job in list(self.jobs.items()):
            owners = [owner["uid"] for owner in job["metadata"].get("ownerReferences", [])]
            if f"uid-{pod.name}" in owners:
                self.delete_job(name)

    def _environment(self, container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                yield from self.config_maps[source["configMapRef"]["name"]].items()
            else:
                yield from self.secrets[source["secretRef"]["name"]].items()
        for each in container.get("env", []):
            if "value" in each:
                yield each["name"], each["value"]
            elif "fieldRef" in each["valueFrom"]:
                assert each["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace"
                yield each["name"], NAMESPACE
            else:
                wanted = each["valueFrom"]["secretKeyRef"]
                yield each["name"], self.secrets[wanted["name"]][wanted["key"]]

    def _mounted(
        self, container: Mapping[str, Any], spec: Mapping[str, Any], folder: Path
    ) -> Iterator[tuple[str, str]]:
        """Where each path of the container lies here, the longest first. /tmp is this machine's own."""
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = sorted(container["volumeMounts"], key=lambda mount: str(mount["mountPath"]).count("/"))
        made = {}
        for mount in mounts:
            above = next(
                (here for path, here in reversed(made.items()) if mount["mountPath"].startswith(f"{path}/")), None
            )
            if mount["mountPath"] == "/tmp":
                continue
            beside = str(mount["mountPath"]).rpartition("/")[2]
            place = Path(above) / beside if above else folder / "volumes" / mount["name"]
            self._fill(volumes[mount["name"]], place, mount.get("subPath"))
            made[mount["mountPath"]] = str(place)
        yield from reversed(made.items())

    def _fill(self, volume: Mapping[str, Any], place: Path, only: str | None) -> None:
        files = self.config_maps[volume["configMap"]["name"]] if "configMap" in volume else {}
        if only:
            place.write_text(files[only], encoding="utf-8")
            return
        assert files or "emptyDir" in volume, volume
        place.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (place / name).write_text(content, encoding="utf-8")

    def close(self) -> None:
        """End whatever still runs."""
        for pod in self.pods.values():
            if pod.process.poll() is None:
                os.killpg(pod.process.pid, signal.SIGKILL)
                pod.process.wait()


def _placed(text: str, places: Mapping[str, str]) -> str:
    """A text of the container with its paths where they lie here."""
    if text.startswith("{"):  # arguments in JSON
        for path, place in places.items():
            text = text.replace(f'"{path}', f'"{place}')
        return text
    if text.startswith(PACKED):  # the same, packed by Dagster
        plain = zlib.decompress(base64.b64decode(text)).decode()
        return base64.b64encode(zlib.compress(_placed(plain, places).encode())).decode()
    found = next((path for path in places if text == path or text.startswith(f"{path}/")), None)
    return text if found is None else places[found] + text[len(found) :]


@contextmanager
def serving(
    folder: Path, config_maps: Mapping[str, Mapping[str, str]], secrets: Mapping[str, Mapping[str, str]]
) -> Iterator[Cluster]:
    """A cluster whose API is served meanwhile; `kubeconfig` leads there."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(
        folder,
        {name: dict(content) for name, content in config_maps.items()},
        {name: dict(content) for name, content in secrets.items()},
    )

    class Api(BaseHTTPRequestHandler):
        """Jobs and pods of one namespace."""

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            kind, _, name = address.path.partition(f"/namespaces/{NAMESPACE}/")[2].partition("/")
            name = name.removesuffix("/status")
            if name:
                known = cluster.jobs if kind == "jobs" else cluster.pods
                told = cluster.status(name) if kind == "jobs" and name in known else None
                self._answer(told or (cluster.pods[name].as_json() if kind == "pods" and name in known else None))
                return
            wanted = parse_qs(address.query).get("labelSelector", [""])[0].removeprefix("job-name=")
            found = [pod.as_json() for pod in cluster.pods.values() if pod.name == wanted] if kind == "pods" else []
            self._answer({"items": found})

        def do_POST(self) -> None:
            job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                self._answer(cluster.post(job))
            except Exception as error:
                self._answer({"message": str(error)}, 422)

        def do_DELETE(self) -> None:
            kind, _, name = self.path.partition(f"/namespaces/{NAMESPACE}/")[2].partition("/")
            known = cluster.jobs if kind == "jobs" else cluster.pods
            if name not in known:
                self._answer(None)
                return
            (cluster.delete_job if kind == "jobs" else cluster.delete_pod)(name)
            self._answer({"status": "Success"})

        def _answer(self, content: Mapping[str, Any] | None, code: int = 200) -> None:
            cluster.requests.append(f"{self.command} {self.path}")
            body = json.dumps(content if content is not None else {"reason": "NotFound"}).encode()
            self.send_response(code if content is not None else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    cluster.kubeconfig.write_text(yaml.safe_dump(_leading_to(server.server_port)), encoding="utf-8")
    try:
        yield cluster
    finally:
        cluster.close()
        server.shutdown()
        server.server_close()


def _leading_to(port: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "nobody", "namespace": NAMESPACE}}],
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "nobody", "user": {}}],
    }


def until(fulfilled: Any, seconds: float, what: str) -> None:
    """Wait for something. Raises TimeoutError that says what did not come."""
    end = time.monotonic() + seconds
    while not fulfilled():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.2)
