"""An S3-compatible server in this process, and machines that share a data root on it.

It is moto's: consistent, never slow, never full. A real one answers 503 under load (the client tries again) and takes
seconds for large files; what it says in case of trouble is planted by the tests.
"""

import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from fashion_pipeline.settings import Settings, read_settings
from fashion_pipeline.store.store import Store

ROOT = "s3://fashion/root"
ACCESS = {
    "AWS_ACCESS_KEY_ID": "id",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def bucket() -> Iterator[dict[str, str]]:
    """A bucket `fashion`, which the environment leads to meanwhile; yields what it was given."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    given = {**ACCESS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    S3FileSystem.clear_instance_cache()  # of a server before
    try:
        request = urllib.request.Request(f"{given['AWS_ENDPOINT_URL']}/moto-api/reset", method="POST")
        urllib.request.urlopen(request).close()  # what a server before left in this process
        boto3.client("s3").create_bucket(Bucket="fashion")
        yield given
    finally:
        server.stop()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def settings_of(copy: Path, root: str = ROOT) -> Settings:
    """The settings of a machine that keeps its copy of a root in a folder."""
    return read_settings({"FASHION_PIPELINE_DATA": root, "FASHION_PIPELINE_COPY": str(copy)})


def machine(copy: Path, root: str = ROOT) -> Store:
    """The data root as a machine sees it."""
    return Store(settings_of(copy, root).data)


def keys(prefix: str = "") -> list[str]:
    """What lies in the bucket."""
    found = boto3.client("s3").list_objects_v2(Bucket="fashion", Prefix=f"root/{prefix}")
    return [each["Key"].removeprefix("root/") for each in found.get("Contents", [])]
