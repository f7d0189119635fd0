"""A Django project that knows nothing of encryption: a model with a FileField behind forms, the admin and REST framework."""
