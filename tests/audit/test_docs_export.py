"""docs/export.md: its tables are those of the code, and the schemas give the words."""

from __future__ import annotations

import re

from ocsf_json_schema import get_ocsf_schema
from support.journals import ROOT

from securefs.audit.cef import SEVERITIES
from securefs.audit.ecs import ECS_VERSION, KINDS
from securefs.audit.events import EVENTS
from securefs.audit.fields import LAYOUTS, VERSION
from securefs.audit.ocsf import CLASSES, OCSF_VERSION

PAGE = (ROOT / "docs" / "export.md").read_text("utf-8")


def table(heading):
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [re.split(r" (?<!\\)\| ", row[2:-2]) for row in section.splitlines() if row.startswith("| ")][2:]


def test_each_event_has_the_class_and_the_category_of_the_code():
    classes = {each["uid"]: each for each in get_ocsf_schema(version=OCSF_VERSION)["classes"].values()}
    rows = []
    for event in EVENTS:
        uid, number = CLASSES[event]
        activity = classes[uid]["attributes"]["activity_id"]["enum"][str(number)]["caption"]
        told = "the method" if classes[uid]["name"] == "http_activity" else f"{number} {activity}"
        kinds = "`, `".join(KINDS[event])
        rows.append([f"`{event}`", f"{uid} {classes[uid]['caption']}", told, f"`{kinds}`"])
    assert table("Events") == rows


def test_each_field_of_a_record_is_in_the_table():
    named = set(re.findall(r"`([a-z_.]+)`", " ".join(row[0] for row in table("Fields"))))
    layout = LAYOUTS[VERSION]
    for field in layout.allowed - {"v"}:
        if field.endswith("_len"):
            continue
        members = layout.sections.get(field)
        if members is None or field == "obj":
            assert field in named, field
        else:
            assert {f"{field}.{name}" for name in members.strings | members.integers} <= named, field


def test_versions_and_severities():
    assert f"OCSF](https://schema.ocsf.io) {OCSF_VERSION}, profile `host`" in PAGE
    assert re.search(rf"\[ECS\]\(\S+\) {re.escape(ECS_VERSION)} ", PAGE)
    (row,) = [row for row in table("Fields") if row[0].startswith("`sev`")]
    assert row[3] == "severity " + ", ".join(str(SEVERITIES[number]) for number in range(1, 5))
