"""runbookd: runs a database team's Markdown runbook as a daemon.

Each package below is a room; the docstring of its ``__init__`` says what belongs there and what does not. Rooms
import in one direction only, and ``lint-imports`` fails the build when one looks the wrong way
(see ``[tool.importlinter]`` in ``pyproject.toml`` and ARCHITECTURE.md).
"""

__version__ = "0.1.0"
