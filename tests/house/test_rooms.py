"""The rooms: each has a charter and a layer, its modules keep to a size, and a vendor has one door."""

from __future__ import annotations

import tomllib

import pytest

from tests.house.tree import ROOT, Module, modules

ROOMS = sorted(path.name for path in (ROOT / "agent").iterdir() if (path / "__init__.py").exists())
SINGLE = {"ahead", "settings", "clock", "faults"}  # rooms of one module
MARKS = ("Belongs here", "Does not belong here")

# Who may import a vendor's package: one module each, so that a vendor can be replaced or upgraded in one place.
DOORS: dict[str, set[str]] = {
    "google.cloud.firestore": set(),  # the official client is what we are faster than; benches and tests use it
    "google.cloud.firestore_v1": {"agent/firestore/protos.py"},
    "google.cloud.firestore_admin_v1": {"agent/firestore/indexes.py"},
    "google.cloud.storage": {"agent/storage/gcs.py"},
    "google.cloud.monitoring_v3": {"agent/signals/cloud_monitoring.py"},
    "pagerduty": {"agent/notifications/pagerduty.py"},
    "slack_sdk": {"agent/notifications/slack.py"},
    "smtplib": {"agent/notifications/email.py"},
    "apscheduler": {"agent/scheduling/scheduler.py"},
    "redis": {"agent/recovery/caches.py"},
    "promql_parser": {"agent/promql/adapter.py"},
    "re2": {"agent/samples/matchers.py"},
    # One reads the page as policy; the other renders it for a browser, and needs nothing of the policy.
    "markdown_it": {"agent/runbook/document.py", "agent/api/handbook.py"},
    "uvicorn": {"agent/api/server.py"},
}
# A framework is spread over its room: routes are declared where they are answered.
FRAMEWORKS = {"fastapi": "agent/api/", "starlette": "agent/api/", "typer": "agent/cli/"}

LIMIT = 500
LONGER = {
    "agent/migration/facade.py": "the front door: every verb of the room with its promise",
}


def test_every_room_has_its_layer() -> None:
    """The layers that import-linter checks name exactly the packages and modules there are."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    named = sorted(name.strip() for layer in layers for name in layer.split("|"))
    assert named == sorted({*ROOMS, *SINGLE})


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_belongs_there_and_what_does_not(room: str) -> None:
    """The docstring of the package is its charter."""
    charter = Module(ROOT / "agent" / room / "__init__.py").docstring
    assert charter.startswith(f"{room}: ")
    assert [mark for mark in MARKS if mark not in charter] == []


@pytest.mark.parametrize("module", modules("agent"), ids=lambda module: module.name)
def test_a_module_says_what_it_is(module: Module) -> None:
    """Every module has a docstring, and none is a drawer for odds and ends."""
    assert module.docstring
    assert module.path.stem not in {"utils", "util", "common", "helpers", "helper", "types", "misc"}


def test_modules_keep_to_a_size() -> None:
    """A module over the limit is named here with the reason."""
    long = {module.name: len(module.text.splitlines()) for module in modules("agent")}
    assert {name: lines for name, lines in long.items() if lines > LIMIT and name not in LONGER} == {}


@pytest.mark.parametrize("vendor", DOORS)
def test_a_vendor_has_one_door(vendor: str) -> None:
    """Only the module named here imports the vendor's package."""
    found = {module.name for module in modules("agent") if any(_within(name, vendor) for name in module.imports())}
    assert found <= DOORS[vendor]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_framework_stays_in_its_room(framework: str) -> None:
    """Web and command-line frameworks are not known to the rooms behind them."""
    found = {module.name for module in modules("agent") if any(_within(name, framework) for name in module.imports())}
    assert {name for name in found if not name.startswith(FRAMEWORKS[framework])} == set()


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")
