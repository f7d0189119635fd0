"""Both models in Django's admin; salaries are imported from tables."""

from django.contrib import admin
from import_export.admin import ImportExportModelAdmin

from album.models import Photo, Salary


@admin.register(Photo)
class PhotoAdmin(admin.ModelAdmin):
    """Django's own forms."""

    list_display = ("title", "width", "height")


@admin.register(Salary)
class SalaryAdmin(ImportExportModelAdmin):
    """With the buttons of django-import-export."""

    list_display = ("name", "amount")
