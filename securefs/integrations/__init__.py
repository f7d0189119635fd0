"""For apps that look into what is uploaded: one module for each framework.

:mod:`securefs.integrations.flask` is for Flask, :mod:`securefs.integrations.werkzeug` for apps on
Werkzeug alone. Each imports its framework, and nothing else of securefs imports them.
"""

__all__: list[str] = []
