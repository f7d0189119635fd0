"""The admin, in which filer is, and its files for whoever is logged in."""

from django.contrib import admin
from django.contrib.auth.decorators import login_required
from django.urls import include, path
from filer import urls as of_filer

from securefs.integrations.django import serve

urlpatterns = [
    path("admin/", admin.site.urls),
    path("filer/", include(of_filer)),
    path("media/<path:path>", login_required(serve)),
]
