"""``python -m agent.cli`` is ``runbookd``."""

from agent.cli.app import main

if __name__ == "__main__":
    main()
