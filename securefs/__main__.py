"""``python -m securefs`` is the command ``securefs``."""

import sys

from securefs.cli import main

sys.exit(main())
