"""What a command on the page does.

A procedure's step is known by its command, because the command is what gets done whatever the step is called. Pages
are written with ``runbookd`` commands; those that are still written with a team's own scripts, ``redis-cli`` or the
``firebase`` tool are understood by the words that such commands share.
"""

from __future__ import annotations

import re

from agent.runbook.policy import Operation

# First match wins: validation before what it validates, a collection's restore before a whole one.
_PATTERNS: tuple[tuple[re.Pattern[str], Operation], ...] = tuple(
    (re.compile(pattern), operation)
    for pattern, operation in (
        (r"_config/maintenance\b.*\"enabled\"\s*:\s*true", Operation.MAINTENANCE_ON),
        (r"_config/maintenance\b.*\"enabled\"\s*:\s*false", Operation.MAINTENANCE_OFF),
        (r"\bmaintenance on\b", Operation.MAINTENANCE_ON),
        (r"\bmaintenance off\b", Operation.MAINTENANCE_OFF),
        (r"\brestore(-collection)?\b.*--dry-run\b", Operation.VALIDATE),
        (r"\bvalidate\b", Operation.VALIDATE),
        (r"\bbackup\S* restore-collection\b", Operation.RESTORE_COLLECTION),
        (r"\bbackup\S* restore\b|\brunbookd (rollback|migrate undo)\b", Operation.RESTORE_DATA),
        (r"\bbackup\S* (list|show|verify)\b", Operation.CHOOSE_BACKUP),
        (r"\bbackup\S* clean\b", Operation.CLEAN_BACKUPS),
        (r"\bbackup\S* (backup|create)\b", Operation.CREATE_BACKUP),
        (r"\btail -f\b|\bmigrate status\b", Operation.WATCH_MIGRATION),
        (r"\bmigrate (run|resume)\b|\bmigrate-[\w-]+\.\w+", Operation.MIGRATE),
        (r"\brunbookd perf\b|\bperformance-test\b", Operation.MEASURE_QUERIES),
        (r"\bredis-cli FLUSHALL\b|\bcaches clear\b", Operation.CLEAR_CACHES),
        (r"\bcaches warm\b|\bwarm-caches\b", Operation.WARM_CACHES),
        (r"\bcurl\b.*/health\b", Operation.CHECK_HEALTH),
    )
)


def operation_of(command: str) -> Operation | None:
    """The operation that one command line (continuations joined) does, None if it isn't known."""
    words = " ".join(command.split())
    return next((operation for pattern, operation in _PATTERNS if pattern.search(words)), None)
