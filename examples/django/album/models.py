"""A photo, and a row of a table."""

from django.db import models


class Photo(models.Model):
    """An image with the size that Pillow finds, and a document beside it."""

    title = models.CharField(max_length=100)
    image = models.ImageField(upload_to="photos", width_field="width", height_field="height")
    notes = models.FileField(upload_to="notes", blank=True)
    width = models.IntegerField(editable=False, default=0)
    height = models.IntegerField(editable=False, default=0)

    def __str__(self) -> str:
        return self.title


class Salary(models.Model):
    """A row of what is imported."""

    name = models.CharField(max_length=100)
    amount = models.IntegerField()

    def __str__(self) -> str:
        return self.name
