"""Hold custom resources to the schema of their definition.

    python -m tools.check_custom_resources CRD.yaml FILE.yaml …

As an API server does it, and stricter: a field that the definition does not know is told of, where a server would drop
it. KubeRay's definition is `helm-chart/kuberay-operator/crds/ray.io_rayclusters.yaml` in its repository.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator


def complaints(definition: dict[str, Any], resource: dict[str, Any]) -> Iterator[str]:
    """What a definition has against a resource of its kind; nothing against others."""
    if resource["kind"] != definition["spec"]["names"]["kind"]:
        return
    version = resource["apiVersion"].rpartition("/")[2]
    schemas = {each["name"]: each["schema"]["openAPIV3Schema"] for each in definition["spec"]["versions"]}
    if version not in schemas:
        yield f"{resource['kind']}: version {version} is not among {', '.join(schemas)}"
        return
    for error in Draft202012Validator(closed(schemas[version])).iter_errors(resource):
        yield f"{resource['kind']} {resource['metadata']['name']}: {error.json_path}: {error.message}"


def closed(schema: Any) -> Any:
    """The same schema without room for fields that it does not name, in the words of JSON schema."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(each) for name, each in schema.items()}
    if made.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if isinstance(made.get("properties"), dict) and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def main(argv: list[str]) -> int:
    """See the module; the exit code is 1 if there is any complaint, and 2 if no resource was of the kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("definition", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    given = parser.parse_args(argv)
    definition = yaml.safe_load(given.definition.read_text(encoding="utf-8"))
    found = [each for file in given.files for each in yaml.safe_load_all(file.read_text(encoding="utf-8")) if each]
    of_kind = [each for each in found if each["kind"] == definition["spec"]["names"]["kind"]]
    told = [line for each in of_kind for line in complaints(definition, each)]
    print("\n".join(told) or f"{len(of_kind)} of {len(found)} resources held against {given.definition.name}: well")
    return 1 if told else 0 if of_kind else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
