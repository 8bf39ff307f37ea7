"""Writes ``grafana/dashboards/*.json``: ``make dashboards``.

Dashboards are made here and committed, so that nobody edits JSON and a change can be read. What is drawn of the
database is what the rules judge: recorded series where there are any, thresholds as series from the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import QueryEditorMode

FOLDER = Path(__file__).parent / "dashboards"

_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_GREEN, _AMBER, _RED, _BLUE, _GREY = "green", "orange", "red", "blue", "#8e8e8e"

# Grafana's names of units.
_SECONDS, _RATIO, _PER_SECOND, _COUNT = "s", "percentunit", "cps", "short"


def overview() -> dict[str, Any]:
    """The dashboard to look at first."""
    board = (
        dashboard.Dashboard("runbookd: overview")
        .uid("runbookd-overview")
        .description("How the database is by the page's own thresholds, and what runbookd does about it.")
        .tags(["runbookd", "firestore"])
        .time("now-1h", "now")
        .timezone("browser")
        .refresh("5s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    ids = count(1)
    for title, row in _rows():
        board = board.with_row(dashboard.Row(title).id(next(ids)))
        for panel in row:
            board = board.with_panel(panel.id(next(ids)))
    content: dict[str, Any] = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    content["annotations"] = {"list": [_ALERTS, _MIGRATIONS]}
    for panel in content["panels"]:
        for letter, target in zip(ascii_uppercase, panel.get("targets", ()), strict=False):
            target["refId"] = letter
    return content


DASHBOARDS = {"overview.json": overview}

# The builders' annotation type lacks the fields that Prometheus's annotations have.
_ALERTS: Mapping[str, Any] = {
    "name": "Alerts",
    "datasource": {"type": "prometheus", "uid": "${datasource}"},
    "enable": True,
    "iconColor": _RED,
    "expr": 'ALERTS{alertstate="firing"}',
    "step": "5s",
    "titleFormat": "{{alertname}}",
    "textFormat": "{{severity}} {{condition}}",
    "tagKeys": "severity,condition",
}
_MIGRATIONS: Mapping[str, Any] = {
    "name": "Migrations",
    "datasource": {"type": "prometheus", "uid": "${datasource}"},
    "enable": True,
    "iconColor": _BLUE,
    "expr": "max(runbookd_migration_active) == 1",
    "step": "5s",
    "titleFormat": "A migration is running or under watch",
}

Panel = stat.Panel | timeseries.Panel | bargauge.Panel


def _rows() -> Iterable[tuple[str, list[Panel]]]:
    yield "Now", _state()
    yield "Key metrics of the page", _key_metrics()
    yield "Changes and recovery", _changes()
    yield "runbookd itself", _own_health()


# --- now ------------------------------------------------------------------------------------------------------------


def _state() -> list[Panel]:
    return [
        _figure("Alerts firing", 'count(ALERTS{alertstate="firing"}) or vector(0)', steps=[(None, _GREEN), (1, _RED)]),
        _figure(
            "Maintenance mode",
            "max(runbookd_maintenance_mode)",
            words={0: ("off", _GREEN), 1: ("on", _AMBER)},
            empty="not known",
        ),
        _figure(
            "Migration",
            "max(runbookd_migration_active)",
            words={0: ("none", _GREEN), 1: ("running or watched", _BLUE)},
            empty="not known",
        ),
        _figure(
            "Recovery",
            "max(runbookd_recovery_active) or vector(0)",
            words={0: ("none", _GREEN), 1: ("running", _BLUE), 2: ("stuck", _RED)},
        ),
        _figure(
            "Newest verified backup, age",
            "time() - max(runbookd_backup_last_success_timestamp_seconds)",
            unit=_SECONDS,
            steps=[(None, _BLUE)],
            empty="none",
        ),
        _figure(
            "Oldest signal",
            "max(runbookd_signal_age_seconds)",
            unit=_SECONDS,
            steps=[(None, _GREEN), (15, _AMBER), (60, _RED)],
            empty="blind",
        ),
    ]


# --- the page's five metrics ----------------------------------------------------------------------------------------


def _key_metrics() -> list[Panel]:
    latency = _with_thresholds(
        _graph("Query latency (p95)", _SECONDS, width=12)
        .with_target(
            _query(
                "all queries",
                "histogram_quantile(0.95, sum by (le) "
                '(rate(db_client_operation_duration_seconds_bucket{db_query_summary!=""}[30s])))',
            ).exemplar(True)
        )
        .with_target(_query("{{query}}", "max by (query) (runbookd:db_query_latency_by_query_seconds:p95_15s)"))
        .with_target(_query("target {{query}}", "max by (query) (runbook_query_target_seconds)"))
        .override_by_regexp("^target .*", _line(_GREY, dash=[2, 6])),
        "query_latency_p95",
    )
    errors = _with_thresholds(
        _graph("Error rate", _RATIO, width=12).with_target(_query("failed", "max(runbookd:db_error_ratio:rate30s)")),
        "error_rate",
    )
    writes = _with_thresholds(
        _graph("Document write rate", _PER_SECOND, width=8)
        .with_target(_query("{{origin}}", "sum by (origin) (rate(firestore_documents_written_total[1m]))"))
        .description("By what wrote: the thresholds leave undo and restore out."),
        "document_write_rate",
    )
    failures = _with_thresholds(
        _graph("Backups failed in a row", _COUNT, width=8).with_target(
            _query("{{type}}", "max by (type) (runbookd_backup_consecutive_failures)")
        ),
        "backup_failure",
    )
    storage = _with_thresholds(
        _graph("Storage usage", _RATIO, width=8).with_target(
            _query("{{storage}}", "max by (storage) (runbookd_storage_usage_ratio)")
        ),
        "storage_usage",
    )
    return [latency, errors, writes, failures, storage]


def _with_thresholds(panel: timeseries.Panel, metric: str) -> timeseries.Panel:
    """The page's two lines, drawn from its series."""
    for level, color in (("warning", _AMBER), ("critical", _RED)):
        panel = panel.with_target(
            _query(level, f'max(runbook_threshold{{metric="{metric}",level="{level}"}})')
        ).override_by_name(level, _line(color, dash=[8, 6]))
    return panel


# --- changes --------------------------------------------------------------------------------------------------------


def _changes() -> list[Panel]:
    progress = (
        _graph("Progress of operations", _RATIO, width=8)
        .min(0)
        .max(1)
        .with_target(
            _query(
                "{{operation}}",
                'max by (operation) (runbookd_operation_documents{state="done"}) '
                '/ max by (operation) (runbookd_operation_documents{state="total"} > 0)',
            )
        )
    )
    integrity = (
        _graph("Migrated documents that differ", _COUNT, width=8)
        .with_target(_query("{{collection}}", "max by (collection) (runbookd_migration_mismatched_documents)"))
        .with_target(_query("data corruption", 'max(runbook_decision_threshold{condition="data_corruption"})'))
        .override_by_name("data corruption", _line(_RED, dash=[8, 6]))
        .description("More than the dashed line, and the decision matrix says: roll back.")
    )
    steps = (
        bargauge.Panel()
        .title("Recovery steps, mean duration")
        .description("Of the recoveries since runbookd started.")
        .datasource(_SOURCE)
        .unit(_SECONDS)
        .min(0)
        .span(8)
        .height(8)
        .orientation(options.VizOrientation.HORIZONTAL)
        .display_mode(options.BarGaugeDisplayMode.BASIC)
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.FIXED).fixed_color(_BLUE))
        .no_value("no recovery yet")
        .with_target(
            _query(
                "{{step}}",
                "sum by (step) (runbookd_recovery_step_duration_seconds_sum) "
                "/ sum by (step) (runbookd_recovery_step_duration_seconds_count)",
            ).instant()
        )
    )
    return [progress, integrity, steps]


# --- runbookd itself ------------------------------------------------------------------------------------------------


def _own_health() -> list[Panel]:
    loop = (
        _graph("Rule loop", _SECONDS, width=8)
        .with_target(_query("pass (p99)", _p99("runbookd_rule_tick_duration_seconds")))
        .with_target(_query("late (p99)", _p99("runbookd_rule_tick_lag_seconds")))
        .description("How long a pass over the rules takes, and how late it starts. It is due once a second.")
    )
    senses = (
        _graph("Age of signals", _SECONDS, width=8)
        .with_target(_query("{{source}}", "max by (source) (runbookd_signal_age_seconds)"))
        .with_target(_query("missed passes", "sum(increase(runbookd_rule_ticks_missed_total[$__rate_interval]))"))
        .override_by_name("missed passes", [*_line(_RED), _set("unit", _COUNT), _set("custom.drawStyle", "bars")])
    )
    told = (
        _graph("Notifications", _COUNT, width=8)
        .with_target(
            _query(
                "{{channel}} {{outcome}}",
                "sum by (channel, outcome) (increase(runbookd_notifications_total[$__rate_interval]))",
            )
        )
        .with_target(_query("{{channel}} waiting", "max by (channel) (runbookd_outbox_pending)"))
        .override_by_regexp(".* waiting$", _line(_AMBER, dash=[4, 4]))
    )
    return [loop, senses, told]


def _p99(histogram: str) -> str:
    return f"histogram_quantile(0.99, sum by (le) (rate({histogram}_bucket[$__rate_interval])))"


# --- pieces ---------------------------------------------------------------------------------------------------------


def _figure(
    title: str,
    expression: str,
    *,
    unit: str = _COUNT,
    steps: Iterable[tuple[float | None, str]] = ((None, _GREEN),),
    words: Mapping[int, tuple[str, str]] | None = None,
    empty: str = "no data",
) -> stat.Panel:
    """One number or word with its colour."""
    panel = (
        stat.Panel()
        .title(title)
        .datasource(_SOURCE)
        .unit(unit)
        .span(4)
        .height(4)
        .no_value(empty)
        .graph_mode(options.BigValueGraphMode.NONE)
        .color_mode(options.BigValueColorMode.BACKGROUND)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(
            dashboard.ThresholdsConfig()
            .mode(models.ThresholdsMode.ABSOLUTE)
            .steps([models.Threshold(value=value, color=color) for value, color in steps])
        )
        .with_target(_query("", expression).instant())
    )
    if words:
        known = {
            str(value): models.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(words.items())
        }
        panel = panel.mappings([models.ValueMap(options=known)])
    return panel


def _graph(title: str, unit: str, *, width: int) -> timeseries.Panel:
    return (
        timeseries.Panel()
        .title(title)
        .datasource(_SOURCE)
        .unit(unit)
        .span(width)
        .height(8)
        .axis_soft_min(0)
        .line_width(1)
        .fill_opacity(8)
        .show_points(options.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI))
    )


def _query(legend: str, expression: str) -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(expression).datasource(_SOURCE).range()
    query = query.editor_mode(QueryEditorMode.CODE)
    return query.legend_format(legend) if legend else query


def _line(color: str, *, dash: list[float] | None = None) -> list[models.DynamicConfigValue]:
    """A line of a fixed colour without a filled area."""
    found = [_set("color", {"mode": "fixed", "fixedColor": color}), _set("custom.fillOpacity", 0)]
    return [*found, _set("custom.lineStyle", {"fill": "dash", "dash": dash})] if dash else found


def _set(name: str, value: object) -> models.DynamicConfigValue:
    return models.DynamicConfigValue(id_val=name, value=value)


def text_of(content: Mapping[str, Any]) -> str:
    """JSON as it is committed."""
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    """Write every dashboard."""
    FOLDER.mkdir(exist_ok=True)
    for name, make in DASHBOARDS.items():
        (FOLDER / name).write_text(text_of(make()), encoding="utf-8")


if __name__ == "__main__":
    main()
