"""The documentation is tested: what it cites exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel

from agent.alerting import AlertRule, load_rules
from agent.alerting.sight import ANNOTATIONS
from agent.runbook import load_runbook
from agent.settings import Settings, load_settings
from agent.telemetry import CATALOGUE, by_prometheus_name
from tests.docs.pages import ROOT, anchors, blocks, codes, commands, links, pages
from tests.docs.verbs import problem_of

PAGES = pages()
_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
_METRIC = re.compile(r"(?<![\w:./-])(?:runbookd|runbook|firestore|db_client)_[a-z0-9_]+(?![\w:(/-])")
_KEY = re.compile(r"^[a-z_]+(\.[a-z_]+)+$")
_VARIABLE = re.compile(r"\bRUNBOOKD_[A-Z0-9_]+")
_TARGET = re.compile(r"(?:^|\s|`)make ((?:[a-z][\w-]*(?=\s|$|`)\s?)+)")
_OURS = ("agent", "bench", "docs", "grafana", "migrations", "rules", "runbooks", "tests", ".ci")
# Files that a page tells its reader to write.
_READERS_OWN = {"runbookd.yaml"}
_FAMILIES = {spec.prometheus_name for spec in CATALOGUE}
# Not metrics: what the same prefixes begin otherwise.
_OTHER_WORDS = {"firestore_admin_v1", *ANNOTATIONS}
# Not commands: what the backup format's keys are derived with.
_OTHER_CODE = {"runbookd backup file", "runbookd backup key id"}

each_page = pytest.mark.parametrize("page", PAGES, ids=_NAMES)


@each_page
def test_commands_parse(page: Path) -> None:
    """Every command line of a page is one that the program takes: verb, options, arguments."""
    wrong = [
        f"{cited}: {problem}"
        for cited in codes(page)
        if cited.text not in _OTHER_CODE
        for words in commands(cited)
        if (problem := problem_of(words, whole=bool(cited.block)))
    ]
    assert wrong == []


@each_page
def test_verbs_listed_beside_a_command_are_its_siblings(page: Path) -> None:
    """In a table cell such as "`runbookd rules check`, `test`, `eval`" each word is a verb of the same group."""
    wrong = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        cell = line.split("|")[1] if line.startswith("|") else ""
        first, *others = re.findall(r"`([^`]+)`", cell) or [""]
        words = first.split()
        if words[:1] == ["runbookd"] and len(words) == 3:
            wrong += [f"{page.name}:{number}: {verb}" for verb in others if problem_of([words[1], verb], whole=False)]
    assert wrong == []


@each_page
def test_paths_exist(page: Path) -> None:
    """Every file and folder of ours that a page names is there, and every link leads somewhere."""
    wrong = []
    for cited in codes(page):
        word = cited.text.rstrip("/").partition("#")[0]
        if cited.block or not re.fullmatch(r"[\w.*/-]+", word) or word in _READERS_OWN:
            continue
        ours = word.split("/")[0] in _OURS or re.fullmatch(r"[A-Z]+\.md|pyproject\.toml|Makefile", word)
        if ours and not list(ROOT.glob(word)) and not list(page.parent.glob(word)):
            wrong.append(str(cited))
    for cited in links(page):
        path, _, fragment = cited.text.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            wrong.append(str(cited))
    assert wrong == []


@each_page
def test_metrics_are_in_the_catalogue(page: Path) -> None:
    """Every word that looks like one of our metrics is one."""
    wrong = [
        f"{cited.page.name}:{cited.line}: {name}"
        for cited in codes(page)
        for name in _METRIC.findall(cited.text)
        if name not in _FAMILIES and by_prometheus_name(name) is None and name not in _OTHER_WORDS
    ]
    assert wrong == []


@each_page
def test_make_targets_exist(page: Path) -> None:
    """Every target that a page tells its reader to make is in the Makefile."""
    known = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    cited = {
        target
        for code in codes(page)
        for found in _TARGET.findall(re.sub(r"(^|\s)#.*$", "", code.text))
        for target in found.split()
    }
    assert cited <= known


@each_page
def test_settings_exist(page: Path) -> None:
    """Every RUNBOOKD_ variable and every dotted key of a settings section can be set."""
    wrong = []
    for cited in codes(page):
        for variable in _VARIABLE.findall(cited.text):
            keys = variable.removeprefix("RUNBOOKD_").lower().split("__")
            if variable not in ("RUNBOOKD_OWNER",) and not _is_setting(keys):
                wrong.append(f"{cited}: {variable}")
        keys = cited.text.split(".")
        if not cited.block and _KEY.match(cited.text) and keys[0] in Settings.model_fields and keys[-1] != "py":
            wrong += [] if _is_setting(keys) else [str(cited)]
    assert wrong == []


def _is_setting(keys: list[str]) -> bool:
    model: type[BaseModel] = Settings
    for position, key in enumerate(keys):
        if key not in model.model_fields:
            return False
        kind = model.model_fields[key].annotation
        inner = [kind, *get_args(kind)]
        sections = [each for each in inner if isinstance(each, type) and issubclass(each, BaseModel)]
        if not sections:
            return position == len(keys) - 1 or key == "queries"
        model = sections[0]
    return True


@each_page
def test_example_settings_load(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A YAML block of settings is accepted as it stands."""
    for name in ("FIRESTORE_EMULATOR_HOST", "FIREBASE_PROJECT", "BATCH_SIZE", "DRY_RUN", "VALIDATE"):
        monkeypatch.delenv(name, raising=False)
    for text in blocks(page, "yaml"):
        content = yaml.safe_load(text)
        if isinstance(content, dict) and content.keys() <= Settings.model_fields.keys():
            file = tmp_path / "runbookd.yaml"
            file.write_text(text, encoding="utf-8")
            load_settings(file)


def test_alerts_lead_to_a_section() -> None:
    """Every runbook_url of a rule names a page that is there and a heading on it."""
    alerts = [rule for rule in load_rules([ROOT / "rules"]).rules if isinstance(rule, AlertRule)]
    urls = {rule.annotations["runbook_url"].text for rule in alerts}
    assert urls
    for url in urls:
        path, _, anchor = url.partition("#")
        assert anchor in load_runbook(ROOT / path).anchors, url
