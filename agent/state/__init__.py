"""state: the one durable file.

Belongs here: opening the SQLite file (WAL, synchronous=FULL), transactions, schema versions. Does not belong here:
any table. Each room owns its own tables and declares them with :meth:`StateFile.ensure`; nobody reads another
room's table. What is written here is written before the effect that it announces, so that ``kill -9`` at any point
leaves a record of what was about to happen.
"""

from agent.state.file import StateFile, Transaction

__all__ = ["StateFile", "Transaction"]
