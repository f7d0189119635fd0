"""The admin, what was uploaded, and thumbnails: all of it for whoever is logged in."""

from django.contrib import admin
from django.contrib.auth.decorators import login_required
from django.shortcuts import get_object_or_404, redirect
from django.urls import path
from easy_thumbnails.files import get_thumbnailer

from album.models import Photo
from securefs.integrations.django import serve


@login_required
def thumbnail(request, number):
    """Lead to the small form of a photo, which is made when it is first asked for."""
    photo = get_object_or_404(Photo, pk=number)
    return redirect(get_thumbnailer(photo.image)["small"].url)


urlpatterns = [
    path("admin/", admin.site.urls),
    path("thumbnail/<int:number>", thumbnail),
    path("media/<path:path>", login_required(serve)),
]
