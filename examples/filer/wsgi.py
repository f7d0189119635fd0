"""The library, with securefs in front: the import is the only line that differs from what startproject writes."""
# ruff: noqa: INP001  # gunicorn --chdir imports this file by its name; it is no part of a package

import os

from securefs.integrations.django import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "library.settings")
application = get_wsgi_application()
