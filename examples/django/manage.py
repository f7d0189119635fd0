"""Django's commands for the album."""
# ruff: noqa: INP001  # a program

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "album.settings")
    execute_from_command_line(sys.argv)
