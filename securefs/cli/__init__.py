"""The command line ``securefs``.

Each command imports what it needs when it runs, so that ``--help`` is quick.
"""

from securefs.cli.main import main

__all__ = ["main"]
