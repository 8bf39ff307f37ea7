"""Templates of labels and annotations, held to Prometheus's own: promtool has to find what we wrote."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from agent.alerting.scripts import run_script
from agent.alerting.template_functions import Sampled
from agent.alerting.templates import Facts, Surroundings, compile_template
from agent.faults import Misconfigured
from tests.conftest import binary

# (template, value of the alert). As found in published rule files, and every function at its edges.
TEMPLATES: list[tuple[str, float]] = [
    ("plain, with 100% of {braces}", 1.0),
    ("{{ $value }} {{ .Value }} {{ $.Value }}", 1234567.0),
    ("{{ $value }}", 0.00001),
    ("{{ $value }}", 1e21),
    ("{{ $value }}", float("inf")),
    ("{{ $labels.job }}/{{ .Labels.instance }}/{{ $labels.nothing }}.", 1.0),
    ("{{ $labels }}", 1.0),
    ("a {{- /* said to nobody */ -}} b {{/* nor this */}}c", 1.0),
    ("a  {{- ` b ` -}}   c\n {{ 3 -}} \n d", 1.0),
    # externalURL and pathPrefix are left out: promtool 2.42 runs into a nil pointer there.
    ("{{ $externalLabels.cluster }} {{ .ExternalLabels.none }} {{ $externalURL }} {{ .ExternalURL }}", 1.0),
    ("{{ if gt $value 1.5 }}high{{ else if gt $value 0.5 }}middle{{ else }}low{{ end }}", 1.0),
    ("{{ if eq $labels.job `api` `web` }}ours{{ end }}{{ if ne $labels.job `api` }}other{{ end }}", 1.0),
    ("{{ if and $labels.job (not $labels.nothing) }}yes{{ end }}{{ if or $labels.nothing false }}no{{ end }}", 1.0),
    ("{{ with $labels.job }}job {{ . }}{{ end }}{{ with $labels.nothing }}x{{ else }}none{{ end }}", 1.0),
    ("{{ with query `sort_desc(memory)` }}{{ . | first | value | humanize1024 }}B{{ end }}", 1.0),
    ("{{ range query `sort(memory)` }}{{ .Labels.instance }}={{ .Value | humanize }} {{ end }}", 1.0),
    ("{{ range $i, $e := query `sort_desc(memory)` }}{{ $i }}:{{ $e.Labels.instance }} {{ else }}none{{ end }}", 1.0),
    ("{{ range query `nothing_of_that_name` }}x{{ else }}none{{ end }}", 1.0),
    ("{{ range $k, $v := $labels }}{{ $k }}={{ $v }};{{ end }}", 1.0),
    ("{{ range query `sort(memory)` | sortByLabel `instance` }}{{ label `instance` . }} {{ end }}", 1.0),
    ("{{ query `memory{instance='b:1'}` | first | label `__name__` }}", 1.0),
    ("{{ printf `memory{instance='%s'}` `a:1` | query | first | value }}", 1.0),
    ("{{ (query `memory{instance='a:1'}` | first).Value | humanize }}", 1.0),
    ("{{ (query `memory{instance='a:1'}` | first).Labels.instance }}", 1.0),
    ("{{ query `scalar(memory{instance='a:1'})` | first | value }} {{ query `1 + 1` | first | value }}", 1.0),
    ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $y := 3 }}{{ $y }}{{ end }}{{ $x }}", 1.0),
    ("{{ define `t` }}[{{ . }}]{{ end }}{{ template `t` $value }}{{ template `t` `x` }}", 1.0),
    ("{{ define `t` }}{{ .arg0 }}-{{ .arg1 }}{{ end }}{{ template `t` (args 1 `b`) }}", 1.0),
    ("{{ $value | humanize }} {{ humanize 12345 }} {{ humanize `0.0021` }} {{ humanize 1e30 }}", 12_345.0),
    ("{{ humanize 0 }} {{ humanize -1234.5 }} {{ humanize 1e-30 }} {{ humanize 999.99 }} {{ humanize 1000 }}", 1.0),
    ("{{ humanize1024 1048576 }} {{ humanize1024 1023 }} {{ humanize1024 0.5 }} {{ humanize1024 1e30 }}", 1.0),
    ("{{ humanizePercentage 0.08123 }} {{ humanizePercentage 1 }} {{ humanizePercentage 12.345678 }}", 1.0),
    ("{{ humanizeDuration 0 }} {{ humanizeDuration 1 }} {{ humanizeDuration 59.9 }} {{ humanizeDuration 60 }}", 1.0),
    ("{{ humanizeDuration 3725 }} {{ humanizeDuration 90000 }} {{ humanizeDuration 0.2475 }}", 1.0),
    ("{{ humanizeDuration -3725 }} {{ humanizeDuration 12.3456 }} {{ humanizeDuration 1e-7 }}", 1.0),
    ("{{ humanizeTimestamp 0 }} {{ humanizeTimestamp 1435065584.128 }}", 1.0),
    ("{{ $value | toTime }} {{ ($value | toTime).Year }}", 1435065584.0),
    ("{{ (toTime $value).Format `2006-01-02 15:04:05 MST, Mon Jan` }}", 1435065584.0),
    ("{{ title `hello big wORLD` }} {{ toUpper `aBc` }} {{ `aBc` | toLower }}", 1.0),
    ("{{ stripPort `h:1` }} {{ stripPort `h` }} {{ stripPort `[::1]:80` }} {{ stripPort `a:b:c` }}", 1.0),
    ("{{ stripDomain `h.example.com:1` }} {{ stripDomain `h.example.com` }} {{ stripDomain `10.0.0.1:1` }}", 1.0),
    ("{{ match `a.*c` `xabcx` }} {{ match `^b` `abc` }}", 1.0),
    ("{{ reReplaceAll `(.*)-(.*)` `${2}_$1` `one-two` }} {{ reReplaceAll `a` `$1x$$` `banana` }}", 1.0),
    ("{{ reReplaceAll `localhost:(.*)` `my.host:$1` `localhost:9100` }}", 1.0),
    ("{{ graphLink `up == 1` }} {{ tableLink `sum by (a) (b)` }}", 1.0),
    ("{{ parseDuration `1h30m` }} {{ parseDuration `1d` | humanizeDuration }}", 1.0),
    ("{{ safeHtml `<b>` }} {{ html `<a href='x'>&` }} {{ urlquery `a b&c=d/~` }}", 1.0),
    ("{{ printf `%.2f%% of %s, %d, %5.1f|%-6s|%06.2f %q %v %t` 12.345 `x` 7 2.25 `ab` 3.14159 `q` 1.5 true }}", 1.0),
    ("{{ printf `%d` $value }} {{ printf `%s` $value }} {{ printf `%f` `x` }} {{ printf `%s` }}", 1.5),
    ("{{ printf `%g %e %G %.3g %v` $value $value $value $value $value }}", 1234567.0),
    ("{{ printf `%s` `a` `b` }} {{ printf `%x %X %o %c` 255 255 8 65 }}", 1.0),
    ("{{ print 1 2 `a` `b` 3 }} {{ println `x` 1 }}.", 1.0),
    ("{{ len $labels.job }} {{ len (query `memory`) }} {{ index $labels `job` }} {{ slice `abcdef` 1 3 }}", 1.0),
    ("{{ eq 1 1 }} {{ lt 1.5 2.5 }} {{ ge `b` `a` }} {{ le 2 2 }} {{ not 0 }} {{ 0x10 }} {{ 1e3 }} {{ 'a' }}", 1.0),
    ("{{ range query `sort(memory)` }}{{ if gt .Value 2000000.0 }}{{ break }}{{ end }}{{ .Value }};{{ end }}", 1.0),
    ("{{ true }} {{ `a` | printf `%s-%s` `b` }} {{ (1) }} {{ (print `x` | toUpper) }}", 1.0),
    ("{{ query `sort(memory)` | first | strvalue }}|", 1.0),
]  # fmt: skip
SERIES = [
    {"series": 'memory{instance="b:1"}', "values": "3145728x2"},
    {"series": 'memory{instance="a:1"}', "values": "1048576x2"},
]


@pytest.mark.prometheus
def test_templates_read_as_in_prometheus(tmp_path: Path) -> None:
    """Each template on an alert of its own, rendered by us, and expected of promtool word by word."""
    promtool = binary("promtool", "prometheus")
    rules = [
        {"alert": f"Case{number}", "expr": f'given{{case="{number}"}}', "annotations": {"text": template}}
        for number, (template, _) in enumerate(TEMPLATES)
    ]
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "cases", "rules": rules}]}))
    labels = {"job": "api", "instance": "host.example.com:9090"}
    given = [
        {
            "series": f'given{{case="{number}",job="api",instance="host.example.com:9090"}}',
            "values": _written(value),
        }
        for number, (_, value) in enumerate(TEMPLATES)
    ]
    script = tmp_path / "templates.test.yaml"
    test = {
        "interval": "1m",
        "external_labels": {"cluster": "eu-1"},
        "external_url": "https://prometheus.example.com/prefix",
        "input_series": [*given, *SERIES],
    }

    def write(texts: list[str]) -> None:
        expected = [
            {
                "eval_time": "1m",
                "alertname": f"Case{number}",
                "exp_alerts": [{"exp_labels": {**labels, "case": str(number)}, "exp_annotations": {"text": text}}],
            }
            for number, text in enumerate(texts)
        ]
        body = {"rule_files": ["rules.yaml"], "tests": [{**test, "alert_rule_test": expected}]}
        script.write_text(json.dumps(body))

    write([""] * len(TEMPLATES))
    ours = [_text_got(assertion.got) for assertion in run_script(script)]
    write(ours)
    assert all(assertion.passed for assertion in run_script(script))
    done = subprocess.run([promtool, "test", "rules", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _written(value: float) -> str:
    return "Inf Inf Inf" if value == float("inf") else f"{value!r}x2"


def _text_got(got: str) -> str:
    """The annotation ``text`` of an assertion's wording of one alert."""
    ((_, annotations),) = [eval(got, {"__builtins__": {}})]
    return str(dict(annotations)["text"])


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ if $value }}x", "'if' is never ended"),
        ("{{ end }}", "unexpected 'end'"),
        ("{{ range query `up` }}{{ $x := 1 }}{{ end }}{{ $x }}", "unknown variable '$x'"),
        ("{{ break }}", "break outside of a range"),
        ("{{ template `none` }}", "template 'none' not defined"),
        ("{{ define x }}{{ end }}", "needs a name in quotes"),
        ("{{ if gt $value 5 }}x{{ end }}", "incompatible types for comparison: float64 and int"),
        ("{{ $value.Labels }}", "can't evaluate field Labels"),
        ("{{ 1 2 }}", "'1' takes no arguments"),
        ("{{ define `t` }}{{ template `t` . }}{{ end }}{{ template `t` . }}", "include each other without end"),
        ("{{ range $value }}x{{ end }}", "range can't iterate over 1"),
    ],
)
def test_what_can_never_render_is_refused_at_load(template: str, message: str) -> None:
    """A comparison of a number with a whole number is the classic: Prometheus says so at night, in the page."""
    with pytest.raises(Misconfigured) as caught:
        compile_template(template)
    assert message in str(caught.value)


def test_what_the_data_break_is_said_in_the_text() -> None:
    """``first`` of nothing can't be known at load; the alert goes out and says so."""
    template = compile_template("{{ query `up` | first | value }}")
    assert template.render(Facts(labels={}, value=1.0)).startswith("<error expanding template: error calling first")
    found = template.render(Facts(labels={}, value=1.0, query=lambda _: [Sampled({}, 3.0)]))
    assert found == "3"


def test_a_template_knows_its_surroundings() -> None:
    """External labels and the address are the deployment's."""
    around = Surroundings(labels={"region": "eu"}, url="https://x.example/p/")
    template = compile_template("{{ $externalLabels.region }} {{ externalURL }} {{ pathPrefix }}")
    assert template.render(Facts(labels={}, value=0.0, around=around)) == "eu https://x.example/p/ /p/"
