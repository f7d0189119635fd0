"""A site of Wagtail."""
