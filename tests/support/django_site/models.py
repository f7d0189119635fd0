"""Folders with documents in them."""

from django.db import models


class Folder(models.Model):
    name = models.CharField(max_length=100)

    def __str__(self):
        return self.name


class Document(models.Model):
    folder = models.ForeignKey(Folder, models.CASCADE, null=True, blank=True)
    file = models.FileField(upload_to="documents")

    def __str__(self):
        return self.file.name
