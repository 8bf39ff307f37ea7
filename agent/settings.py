"""What a deployment sets: addresses, credentials, folders, limits.

Read from ``runbookd.yaml``, then ``RUNBOOKD_*`` (nested with ``__``), then the environment variables that the runbook
names (FIREBASE_PROJECT, BACKUP_STORAGE, RETENTION_DAYS, BATCH_SIZE, DRY_RUN, VALIDATE) and those that every Google
tool knows (GOOGLE_CLOUD_PROJECT, FIRESTORE_EMULATOR_HOST). Later sources win. Figures that belong to the team's
procedure (thresholds, schedules, budgets) are not here: they are on the page.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from agent.faults import Misconfigured, MisconfiguredReason


class Section(BaseModel):
    """A part of the file; unknown keys are errors, because a misspelt limit is a missing limit."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


class DatabaseSettings(Section):
    """Which Firestore."""

    project: str = ""
    database: str = "(default)"
    host: str | None = Field(default=None, description="host:port of an emulator or proxy; None is production")


class StorageSettings(Section):
    """Where backups live."""

    local: Path = Path("database-backups")
    capacity_bytes: int | None = Field(default=None, description="quota of the local folder; None: its file system")
    gcs_bucket: str | None = None
    archive_bucket: str | None = None
    encryption_key: SecretStr | None = Field(
        default=None, description="32 bytes in base64; older keys may follow, apart by blanks: they open old backups"
    )
    encryption_key_file: Path | None = Field(default=None, description="a file with such keys; instead of the key")
    retention_days: int | None = Field(default=None, description="RETENTION_DAYS: overrides the page's full retention")


class MigrationSettings(Section):
    """How migrations run; the page says which and in what order."""

    definitions: Path = Path("migrations")
    batch_size: int = Field(default=500, ge=1, le=5000)
    dry_run: bool = False
    validate_sample: bool = Field(default=True, description="VALIDATE: read back a sample of every batch")
    max_write_rate: float | None = Field(
        default=None, description="documents/s; None: 90 % of the page's write-rate warning"
    )
    watch_minutes: float = Field(default=30.0, description="how long after its end a run may still be rolled back")
    restore_point_max_age_hours: float = 24.0
    parallel: int = Field(default=6, ge=1, le=64)
    throttle: bool = Field(default=True, description="slow down and stop by the page's thresholds and matrix")
    new_collection_rate: float = Field(
        default=500.0, gt=0, description="documents/s created in a collection that was empty; grows by half in 5 min"
    )
    set_aside_limit: int = Field(default=100, ge=0, description="a run stops when it had to set more documents aside")


class ProbeSettings(Section):
    """A check that the agent runs by itself every ``interval`` seconds."""

    interval: float = 5.0
    timeout: float = 5.0


class ScrapeTarget(Section):
    """A Prometheus endpoint, usually the application's own client metrics."""

    job: str
    url: str
    interval: float = Field(default=1.0, gt=0, description="seconds between two scrapes")
    counters_from_zero: bool = Field(
        default=True,
        description="a counter that appears between two scrapes was zero at the first; false for an exporter that "
        "shows figures of something older than itself",
    )

    @property
    def instance(self) -> str:
        """``host:port`` as it stands in the URL, without a user's name and password."""
        return urlsplit(self.url).netloc.rpartition("@")[2]


class CloudMonitoringSettings(Section):
    """Reading the service's own metrics; they lag by minutes, so nothing urgent rests on them alone."""

    enabled: bool = False
    interval: float = 60.0


class SignalSettings(Section):
    """What feeds samples."""

    interval: float = Field(default=1.0, gt=0, description="seconds between two looks at the agent's own instruments")
    probe: ProbeSettings = ProbeSettings()
    scrape: tuple[ScrapeTarget, ...] = ()
    cloud_monitoring: CloudMonitoringSettings = CloudMonitoringSettings()
    retention_hours: float = 6.0

    @model_validator(mode="after")
    def _each_target_once(self) -> Self:
        seen: set[tuple[str, str]] = set()
        for target in self.scrape:
            key = (target.job, target.instance)
            if key in seen:
                # One would end the other's series at every scrape, as they would have the same labels.
                raise ValueError(f"scrape names {target.job} at {target.instance} twice; give one of them another job")
            seen.add(key)
        return self


class PagerDutySettings(Section):
    """Events API v2."""

    routing_key: SecretStr | None = None
    url: str | None = Field(default=None, description="another endpoint, e.g. the EU region's; None: the default one")


class SlackSettings(Section):
    """An incoming webhook of the page's channel."""

    webhook_url: SecretStr | None = None


class EmailSettings(Section):
    """SMTP."""

    host: str | None = None
    port: int = 25
    sender: str = "runbookd@localhost"
    to: tuple[str, ...] = ()
    username: str | None = None
    password: SecretStr | None = None
    starttls: bool = False


class NotificationSettings(Section):
    """Where notices go; which ones go where is on the page."""

    pagerduty: PagerDutySettings = PagerDutySettings()
    slack: SlackSettings = SlackSettings()
    email: EmailSettings = EmailSettings()
    status_url: str = Field(default="", description="address of the status page, put into notices")
    heartbeat_url: SecretStr | None = Field(
        default=None,
        description="dead-man's switch that is asked as long as the rules are evaluated, e.g. a healthchecks.io check",
    )
    heartbeat_interval: float = Field(default=60.0, gt=0, description="seconds between two heartbeats")


class ApiSettings(Section):
    """The HTTP server."""

    host: str = "127.0.0.1"
    port: int = 8080
    token: SecretStr | None = Field(default=None, description="bearer token of the control endpoints; None: closed")


class RecoverySettings(Section):
    """What a recovery touches besides the database."""

    redis_url: str | None = Field(default=None, description="cache to clear; None: none is configured")
    redis_prefix: str | None = Field(default=None, description="clear only keys with this prefix; None: FLUSHALL")
    health_url: str | None = Field(default=None, description="the application's health check; None: the page's")
    check_health_url: bool = True
    retries: int = Field(default=3, ge=0)
    cooldown_minutes: float = 15.0
    daily_limit: int = 3


class QueryFilter(Section):
    """A condition of a query that the page names."""

    field: str = Field(description="path of a field; __name__ reads documents by their ids")
    comparison: Literal["==", "!=", "<", "<=", ">", ">=", "in", "array-contains"] = "=="
    values: tuple[str | bool | int | float | datetime, ...] = Field(
        default=(), description="sample values, used in turn; empty: those that documents of the collection have"
    )


class QueryRequest(Section):
    """One request of a query that the page names, so that it can be measured."""

    collection: str = Field(pattern=r"^[^/]+$", description="id of a root collection")
    group: bool = Field(default=False, description="every collection with this id")
    filters: tuple[QueryFilter, ...] = ()
    order: tuple[str, ...] = Field(default=(), description="fields; a minus in front sorts downwards")
    limit: int = Field(default=20, ge=1, le=1000)
    write: int = Field(
        default=0, ge=0, le=500, description="documents to write instead of reading; in a transient collection only"
    )


def _default_queries() -> dict[str, tuple[QueryRequest, ...]]:
    """What the first user's application asks, see :mod:`agent.sandbox.traffic`."""
    user = QueryFilter(field="userId")
    by_id = (QueryFilter(field="__name__"),)
    return {
        "user_lookup": (
            QueryRequest(collection="users", filters=by_id),
            QueryRequest(collection="lessons", filters=by_id),
        ),
        "queue_generation": (
            QueryRequest(collection="reviews", filters=(user,), order=("nextReviewAt",)),
            QueryRequest(
                collection="review_items", filters=(user, QueryFilter(field="status")), order=("-lastReviewedAt",)
            ),
        ),
        "batch_updates": (QueryRequest(collection="sessions", write=20),),
        "stats_calculation": (QueryRequest(collection="progress", filters=(user,), limit=50),),
    }


class _PageEnvironment(PydanticBaseSettingsSource):
    """The environment variables that the page and Google's tools define."""

    _NAMES: ClassVar[tuple[tuple[str, tuple[str, ...]], ...]] = (
        ("GOOGLE_CLOUD_PROJECT", ("database", "project")),
        ("FIREBASE_PROJECT", ("database", "project")),
        ("FIRESTORE_EMULATOR_HOST", ("database", "host")),
        ("RETENTION_DAYS", ("storage", "retention_days")),
        ("BATCH_SIZE", ("migration", "batch_size")),
        ("DRY_RUN", ("migration", "dry_run")),
        ("VALIDATE", ("migration", "validate_sample")),
        ("BACKUP_STORAGE", ("backup_storage",)),
    )

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, path in self._NAMES:
            value = os.environ.get(name)
            if value:
                place = found
                for key in path[:-1]:
                    place = place.setdefault(key, {})
                place[path[-1]] = value
        return found


class Settings(BaseSettings):
    """Everything that a deployment sets."""

    model_config = SettingsConfigDict(
        env_prefix="RUNBOOKD_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    runbook: Path = Path("runbooks/firestore-operations.md")
    rules: tuple[str, ...] = ("rules/*.yaml",)
    data_dir: Path = Path(".runbookd")
    reports_dir: Path = Path("database-reports")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    backup_storage: Literal["local", "gcs"] | None = Field(
        default=None, description="BACKUP_STORAGE: a manual backup's storage; None: as on the page"
    )
    database: DatabaseSettings = DatabaseSettings()
    storage: StorageSettings = StorageSettings()
    migration: MigrationSettings = MigrationSettings()
    signals: SignalSettings = SignalSettings()
    notifications: NotificationSettings = NotificationSettings()
    api: ApiSettings = ApiSettings()
    recovery: RecoverySettings = RecoverySettings()
    queries: dict[str, tuple[QueryRequest, ...]] = Field(
        default_factory=_default_queries,
        description="what the queries of the page's target table are, by slug; given: instead of the default",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings
        # pydantic-settings: earlier sources win. ``init_settings`` carries the file.
        return (_PageEnvironment(settings_cls), env_settings, init_settings)


def load_settings(path: Path | None = None, *, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from ``path`` (default: ``runbookd.yaml`` if there is one) and the environment.

    Relative paths in the file are relative to the file's folder.

    Raises:
        Misconfigured: the file can't be read, isn't a mapping, or a value is wrong; the message lists every one.
    """
    file = path or Path("runbookd.yaml")
    values: dict[str, Any] = {}
    if path is not None or file.exists():
        values = _read(file)
    if overrides:
        values = _merged(values, overrides)
    try:
        return Settings(**values)
    except ValidationError as error:
        problems = "\n".join(
            f"  {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']} (given: {problem['input']!r})"
            for problem in error.errors(include_url=False)
        )
        where = file if values else "the environment"
        raise Misconfigured(
            MisconfiguredReason.SETTINGS, f"settings in {where} are not valid:\n{problems}", hint="correct them"
        ) from error


_PATHS = (("runbook",), ("data_dir",), ("reports_dir",), ("storage", "local"), ("migration", "definitions"))


def _read(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured(
            MisconfiguredReason.SETTINGS, f"{file} can't be read ({error.strerror})", hint="give --config another file"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Misconfigured(MisconfiguredReason.SETTINGS, f"{file} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise Misconfigured(MisconfiguredReason.SETTINGS, f"{file} must hold a mapping, not {type(values).__name__}")
    base = file.resolve().parent
    for path in _PATHS:
        place: Any = values
        for key in path[:-1]:
            place = place.get(key) if isinstance(place, dict) else None
        if isinstance(place, dict) and isinstance(place.get(path[-1]), str):
            place[path[-1]] = base / place[path[-1]]
    if isinstance(values.get("rules"), list):
        values["rules"] = [str(base / pattern) for pattern in values["rules"]]
    return values


def _merged(values: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(values)
    for key, value in overrides.items():
        known = result.get(key)
        result[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, Mapping) else value
    return result
