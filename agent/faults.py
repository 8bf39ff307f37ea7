"""What can go wrong, said so that a program can decide and a person can act.

Every error the product raises on purpose is one of four kinds. The kind answers "retry, or not?"; the ``reason``
is a closed enum that is also the metric label and the span's ``error.type``; the message says where and what; the
``hint`` says what to do now. Vendor exceptions are translated at the edge of the room that owns the vendor, with
the cause chained.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class TransientReason(StrEnum):
    """The same call may succeed in a moment."""

    UNAVAILABLE = "unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    ABORTED = "aborted"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    RATE_LIMITED = "rate_limited"
    WORKER_DIED = "worker_died"
    BUSY = "busy"
    SERVER_ERROR = "server_error"


class PermanentReason(StrEnum):
    """The same call will fail again, and no setting would have helped."""

    NOT_FOUND = "not_found"
    CORRUPT = "corrupt"
    INVALID = "invalid"
    CONFLICT = "conflict"
    UNBALANCED = "unbalanced"
    READ_TIME_EXPIRED = "read_time_expired"
    DISK_FULL = "disk_full"
    UNSUPPORTED = "unsupported"
    INTERNAL = "internal"
    TOO_MANY_FAILURES = "too_many_failures"
    BUDGET_EXCEEDED = "budget_exceeded"
    UNHEALTHY = "unhealthy"
    CANCELLED = "cancelled"


class MisconfiguredReason(StrEnum):
    """Somebody has to change a file, a flag, a permission or an address first."""

    RUNBOOK = "runbook"
    RULES = "rules"
    SETTINGS = "settings"
    CREDENTIALS = "credentials"
    ADDRESS = "address"
    PORT_IN_USE = "port_in_use"
    NOT_WRITABLE = "not_writable"
    DEFINITION = "definition"
    MISSING_INDEX = "missing_index"
    MISSING_PART = "missing_part"


class RefusedReason(StrEnum):
    """A guard said no; the system is as it was."""

    NO_RESTORE_POINT = "no_restore_point"
    UNDO_OVER_BUDGET = "undo_over_budget"
    CHANGED_DEFINITION = "changed_definition"
    ALREADY_RAN = "already_ran"
    ALREADY_RUNNING = "already_running"
    FAILED_BEFORE = "failed_before"
    HELD = "held"
    COOLDOWN = "cooldown"
    DAILY_LIMIT = "daily_limit"
    NOT_CONFIRMED = "not_confirmed"
    NOT_VERIFIED = "not_verified"
    HOT_FIELD = "hot_field"
    NEEDS_MAINTENANCE = "needs_maintenance"
    RAMP = "ramp"
    LAST_GOOD = "last_good"
    UNSUPPORTED_EXPRESSION = "unsupported_expression"
    LIMIT = "limit"


Reason = TransientReason | PermanentReason | MisconfiguredReason | RefusedReason


class RunbookdError(Exception):
    """Base of every error raised on purpose.

    Args:
        reason: member of the closed enum of this kind; used as metric label and ``error.type``.
        message: where and what, in one sentence, without a trailing full stop.
        hint: what the reader can do now; empty where the message says it all.
    """

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    def __init__(self, reason: Reason, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class Transient(RunbookdError):
    """Retrying is right.

    Args:
        retry_after: seconds after which the other side asked to be tried again; None where it didn't say.
    """

    retryable = True

    def __init__(
        self, reason: TransientReason, message: str, *, hint: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(reason, message, hint=hint)
        self.retry_after = retry_after


class Permanent(RunbookdError):
    """Retrying is useless."""

    def __init__(self, reason: PermanentReason, message: str, *, hint: str = "") -> None:
        super().__init__(reason, message, hint=hint)


class Misconfigured(RunbookdError):
    """A file, flag, permission or address has to change first."""

    exit_code = 2

    def __init__(self, reason: MisconfiguredReason, message: str, *, hint: str = "") -> None:
        super().__init__(reason, message, hint=hint)


class Refused(RunbookdError):
    """A guard said no and nothing was changed."""

    exit_code = 3

    def __init__(self, reason: RefusedReason, message: str, *, hint: str = "") -> None:
        super().__init__(reason, message, hint=hint)
