"""cli: the command ``runbookd``.

Belongs here: one module a verb, parsing, printing, exit codes. Does not belong here: anything another program could
want to call; that is in the room the verb is about.
"""

from agent.cli.app import main

__all__ = ["main"]
