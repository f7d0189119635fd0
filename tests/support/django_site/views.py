"""Uploads by a ModelForm, by a set of them, and by a serializer; downloads by a FileResponse."""

from django.forms import ModelForm, modelformset_factory
from django.http import FileResponse, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.template import RequestContext, Template
from rest_framework import mixins, serializers, viewsets
from rest_framework.response import Response

from support.django_site.models import Document

PAGE = (
    '<form method="post" enctype="multipart/form-data">{% csrf_token %}{{ form }}<button>Save</button></form>'
)


class DocumentForm(ModelForm):
    class Meta:
        model = Document
        fields = ("file",)


DocumentFormSet = modelformset_factory(Document, DocumentForm, extra=1)


def save_or_show(request, form):
    """Save what was sent and say what it is called; show the form where there is nothing to save, or it is wrong."""
    if request.method == "POST" and form.is_valid():
        saved = form.save()
        documents = saved if isinstance(saved, list) else [saved]
        names = [file.name for files in request.FILES.lists() for file in files[1]]
        return JsonResponse({"names": names, "stored": [document.file.name for document in documents]})
    page = Template(PAGE).render(RequestContext(request, {"form": form}))
    return HttpResponse(page, status=400 if request.method == "POST" else 200)


def add(request):
    return save_or_show(request, DocumentForm(request.POST or None, request.FILES or None))


def add_many(request):
    none = Document.objects.none()
    return save_or_show(request, DocumentFormSet(request.POST or None, request.FILES or None, queryset=none))


def download(request, name):
    return FileResponse(get_object_or_404(Document, file=name).file.open())


class UploadSerializer(serializers.Serializer):
    files = serializers.ListField(child=serializers.FileField())

    def create(self, validated_data):
        return [Document.objects.create(file=file) for file in validated_data["files"]]


class DocumentViewSet(mixins.CreateModelMixin, viewsets.GenericViewSet):
    serializer_class = UploadSerializer

    def create(self, request, *args, **kwargs):
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        names = [file.name for file in serializer.validated_data["files"]]
        stored = [document.file.name for document in serializer.save()]
        return Response({"names": names, "stored": stored}, status=201)
