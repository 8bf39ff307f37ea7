"""Commands on the page: what each does, in our words and in the first user's."""

from __future__ import annotations

import pytest

from agent.runbook.commands import operation_of
from agent.runbook.policy import Operation


@pytest.mark.parametrize(
    ("command", "operation"),
    [
        ("firebase firestore:write _config/maintenance '{\"enabled\": true}'", Operation.MAINTENANCE_ON),
        ("firebase firestore:write _config/maintenance '{\"enabled\": false}'", Operation.MAINTENANCE_OFF),
        ('runbookd maintenance on --message "Back soon"', Operation.MAINTENANCE_ON),
        ("runbookd maintenance off", Operation.MAINTENANCE_OFF),
        ("node scripts/database/backup-system.js backup FULL", Operation.CREATE_BACKUP),
        ("runbookd backup create --type full", Operation.CREATE_BACKUP),
        ("BACKUP_ID=$(node scripts/database/backup-system.js list | head -1)", Operation.CHOOSE_BACKUP),
        ("runbookd backup verify ID", Operation.CHOOSE_BACKUP),
        ("node scripts/database/backup-system.js restore ${BACKUP_ID} --skip-confirmation", Operation.RESTORE_DATA),
        ("runbookd backup restore ID --yes", Operation.RESTORE_DATA),
        ("runbookd backup restore ID --dry-run", Operation.VALIDATE),
        ("runbookd migrate undo RUN", Operation.RESTORE_DATA),
        ("runbookd rollback --yes", Operation.RESTORE_DATA),
        ("node scripts/database/backup-system.js restore-collection users ID", Operation.RESTORE_COLLECTION),
        ("node scripts/database/backup-system.js clean", Operation.CLEAN_BACKUPS),
        ("DRY_RUN=false node scripts/database/migrate-production.js", Operation.MIGRATE),
        ("node scripts/database/validate-migration.js", Operation.VALIDATE),
        ("firebase firestore:validate users", Operation.VALIDATE),
        ("tail -f database-reports/migration-*.log", Operation.WATCH_MIGRATION),
        ("runbookd perf", Operation.MEASURE_QUERIES),
        ("redis-cli FLUSHALL", Operation.CLEAR_CACHES),
        ("node scripts/database/warm-caches.js", Operation.WARM_CACHES),
        ("curl -X GET https://api.example.com/api/health", Operation.CHECK_HEALTH),
        ("rm -rf /", None),
    ],
)
def test_a_command_is_known_by_what_it_does(command: str, operation: Operation | None) -> None:
    """Both pages' commands give the same operations; an unknown one gives none."""
    assert operation_of(command) is operation
