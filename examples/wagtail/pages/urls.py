"""Wagtail's admin, its documents, its pages; and images, which everybody may see who sees a page."""

from django.urls import include, path
from wagtail import urls as of_pages
from wagtail.admin import urls as of_admin
from wagtail.documents import urls as of_documents

from securefs.integrations.django import serve

urlpatterns = [
    path("admin/", include(of_admin)),
    path("documents/", include(of_documents)),
    path("media/<path:path>", serve),
    path("", include(of_pages)),
]
