"""Recordings: what a file of samples says, and that it answers as it did when it was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.alerting.recordings import About, read_recording, store_of
from agent.faults import Permanent
from agent.promql import Engine, Vector, compile_expression
from agent.samples import Exemplar, Matcher, MatchOperator

START = 1_767_225_600


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Five minutes of errors every 5 s, with too many from 1m to 2m."""
    lines = ["# TYPE errors gauge", "# HELP errors Errors, \\nin all.", "# UNIT errors "]
    for second in range(0, 301, 5):
        lines.append(f'errors{{app="a b"}} {8 if 60 <= second < 120 else 1} {START + second}')
    lines.append(f'took_bucket{{le="1"}} 3 {START} # {{trace_id="abc",span_id="d"}} 0.7 {START - 1}.5')
    path = tmp_path / "incident.om"
    path.write_text("\n".join([*lines, "# EOF", ""]))
    return path


def test_a_recording_answers_queries(recorded: Path) -> None:
    """Years later, with labels, times and values as recorded."""
    engine = Engine(store_of(read_recording(recorded)))
    value = engine.instant(compile_expression("max_over_time(errors[5m])"), START + 300)
    assert isinstance(value, Vector)
    assert [(each.labels, each.value) for each in value.elements] == [((("app", "a b"),), 8.0)]


def test_a_recording_keeps_what_its_file_says_beside_samples(recorded: Path) -> None:
    """Types and words of its metrics, and the traces of its exemplars."""
    found = read_recording(recorded)
    assert found.about == {"errors": About(kind="gauge", help="Errors, \nin all.")}
    ((_, exemplar),) = store_of(found).exemplars((Matcher(MatchOperator.EQUAL, "__name__", "took_bucket"),), 0)
    assert exemplar == Exemplar("abc", 0.7, START - 0.5)


@pytest.mark.parametrize("text", ["errors 1", "errors one 12", "{ 1 2", "", "errors 1 noon"])
def test_what_is_no_recording_is_said_with_its_line(tmp_path: Path, text: str) -> None:
    """A sample needs a timestamp."""
    path = tmp_path / "bad.om"
    path.write_text(f"{text}\n")
    with pytest.raises(Permanent, match=r"bad\.om:1: "):
        read_recording(path)
