"""The admin as a project writes it: documents one by one, or with their folder."""

from django.contrib import admin

from support.django_site.models import Document, Folder


class DocumentInline(admin.TabularInline):
    model = Document
    extra = 1


class FolderAdmin(admin.ModelAdmin):
    inlines = (DocumentInline,)


admin.site.register(Document)
admin.site.register(Folder, FolderAdmin)
