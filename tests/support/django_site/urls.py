"""Where everything is."""

from django.contrib import admin
from django.urls import include, path
from rest_framework.routers import SimpleRouter

from support.django_site import views

router = SimpleRouter()
router.register("documents", views.DocumentViewSet, basename="document")

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", include(router.urls)),
    path("add", views.add),
    path("add-many", views.add_many),
    path("file/<path:name>", views.download),
]
