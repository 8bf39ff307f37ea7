"""backup: point-in-time copies of a database that can be trusted.

Belongs here: segments and manifests, taking, verifying, restoring (as a diff, in place) and exporting backups, chains
of increments, retention, leases, the record of how scheduled backups went. Does not belong here: where bytes are kept
(``storage``), how documents travel (``firestore``), when backups are due (``scheduling``), which restore point a
rollback takes (``recovery``). The layout on disk is described in ``docs/backup-format.md``.
"""

from agent.backup.backups import Backups
from agent.backup.encryption import Keyring, read_keys
from agent.backup.history import Attempt, BackupHistory, Outcome, consecutive_failures, missed_since
from agent.backup.letting_go import Shrinkage
from agent.backup.manifest import BackupType, Manifest, Tally
from agent.backup.ports import Database, Reader
from agent.backup.records import Interrupted
from agent.backup.restore import Change, ChangeSink, Left, LeftSink, RestoreReport
from agent.backup.retention import Candidate, CandidateCopy, Verdict, Why, decide_retention
from agent.backup.scratch import sandbox_scratch
from agent.backup.segments import Compression
from agent.backup.summaries import BackupDetails, BackupSummary, CleanReport
from agent.backup.upload import UploadReport
from agent.backup.verify import Scratch, VerifyReport

__all__ = [
    "Attempt",
    "BackupDetails",
    "BackupHistory",
    "BackupSummary",
    "BackupType",
    "Backups",
    "Candidate",
    "CandidateCopy",
    "Change",
    "ChangeSink",
    "CleanReport",
    "Compression",
    "Database",
    "Interrupted",
    "Keyring",
    "Left",
    "LeftSink",
    "Manifest",
    "Outcome",
    "Reader",
    "RestoreReport",
    "Scratch",
    "Shrinkage",
    "Tally",
    "UploadReport",
    "Verdict",
    "VerifyReport",
    "Why",
    "consecutive_failures",
    "decide_retention",
    "missed_since",
    "read_keys",
    "sandbox_scratch",
]
