"""Files of django-filer."""
