"""Gunicorn as it comes: the command line says the rest."""

control_socket_disable = True
