"""What users install may be used as users of this program use it, and docs/licences.md says so."""

import re
from pathlib import Path

from tools.licences import installed, licence

PAGE = Path(__file__).parents[2] / "docs" / "licences.md"
ALLOWED = re.compile(r"MIT|Apache|BSD|ISC|Python Software Foundation|PSF|MPL|Mozilla|Zlib|CC0|HPND|Unlicense")
FORBIDS = re.compile(r"(?<!L)GPL|Affero|proprietary|non-?commercial", re.IGNORECASE)
LGPL = {"psycopg2-binary"}
"""Used as a library that is not changed."""


def test_every_package_is_listed_and_none_forbids_what_users_do() -> None:
    packages = installed()
    listed = set(re.findall(r"^\| ([\w.-]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)) - {"package", "---"}
    assert {"torch", "dagster", "duckdb", "pillow"} <= set(packages) and set(packages) <= listed
    for name, package in packages.items():
        stated = licence(package)
        assert ALLOWED.search(stated) or name in LGPL, f"{name}: {stated}"
        assert not FORBIDS.search(stated), f"{name}: {stated}"
