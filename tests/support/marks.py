"""By what marks `make test-fast` leaves tests out: all of them are decided here.

A test is marked ``server`` or ``browser`` where it, or a fixture of it, comes to call what starts
one, however indirectly. What is ``slow`` cannot be seen in code: :data:`SLOW` lists it.
"""

from __future__ import annotations

import functools
import inspect
import types
from pathlib import Path

from support import browsers, servers

TESTS = Path(__file__).resolve().parents[1]

# Whatever starts a server or a browser gets there by one of these functions.
STARTERS = {servers.launch: "server", browsers.open_window: "browser"}
# Files and tests that take more than about two seconds on one core: at once, or all their cases
# together.
SLOW = (
    # Campaigns, a wheel that is built and installed, and every case through every framework.
    "cli/test_terminal.py",
    "fuzz/test_fuzz_campaign.py",
    "fuzz/test_fuzz_corpus.py::test_the_hostile_corpus_holds",
    "middleware/test_beginning.py",
    "middleware/test_body.py",
    "middleware/test_codings.py",
    "middleware/test_content_types.py",
    "middleware/test_cut_files.py",
    "middleware/test_differential.py",
    "middleware/test_download.py",
    "middleware/test_download_limits.py",
    "middleware/test_frameworks_upload.py",
    "middleware/test_hostile.py",
    "middleware/test_range_differential.py",
    "middleware/test_paths.py::test_spellings_composed_at_random_break_no_rule",
    "middleware/test_places.py",
    "middleware/test_servable.py",
    "middleware/test_looking.py",
    "middleware/test_tracebacks.py",
    "middleware/test_vault.py",
    "integrations/django/test_checks.py",
    "integrations/django/test_handlers.py",
    "integrations/django/test_storage.py",
    "integrations/django/test_uploads.py",
    "integrations/test_flask.py",
    "integrations/test_werkzeug.py",
    "packaging/test_django_page.py",
    "packaging/test_packaging.py",
    "packaging/test_quickstart.py",
    "securefs/test_secrecy.py",
    "test_error_reporters.py",
    "torture/test_torture.py",
    "securefs/test_memory.py",
    "test_error_reporters.py",
    "test_examples.py",
    "test_examples_django.py",
    # Processes that race and are killed, memory that is measured.
    "audit/test_docs_evidence.py::test_the_runbook_is_run_on_a_journal_in_which_a_record_was_changed",
    "audit/test_docs_evidence.py::test_a_copy_without_the_secrets_is_proven",
    "audit/test_processes.py",
    "audit/test_sealer.py",
    "audit/test_sealing_processes.py",
    "cli/test_beside.py",
    "cli/test_counters.py",
    "cli/test_exporter.py",
    "cli/test_metrics.py",
    "cli/test_sealing.py",
    "audit/test_pseudonym.py::test_workers_that_race_agree_on_one_key",
    # Every bit, every cut, every moment at which the power may fail.
    "middleware/test_filename.py::test_every_short_name_of_letters_that_matter",
    "middleware/test_filename.py::test_multipart_and_we_find_the_same_name",
    "middleware/test_multipart.py::test_a_thousand_of_the_worst_headers_take_seconds_and_not_minutes",
    "middleware/test_multipart.py::test_no_mutation_is_read_otherwise_by_another_strict_parser",
    "middleware/test_tracebacks.py::test_the_cases_find_what_is_not_cleared",
    "middleware/test_upload.py::test_no_byte_of_plaintext_is_ever_in_a_file",
    "securefs/test_attacks.py::test_any_flipped_bit_is_refused",
    "securefs/test_attacks.py::test_any_flipped_bit_is_refused_by_the_second_decryptor",
    "securefs/test_walking.py::test_a_tree_may_be_deeper_than_calls_can_be",
    "securefs/test_importing.py::test_whenever_it_is_killed_there_is_the_old_file_or_the_new_one",
    "securefs/test_recovery.py::test_whenever_it_is_killed_there_is_the_old_file",
    "securefs/test_reencryption.py::test_whenever_it_is_killed_there_is_the_old_file_or_the_new_one",
    "securefs/test_metadata.py::test_any_bytes_are_read_or_refused_alike_in_the_second_decryptor",
    "securefs/test_metadata.py::test_what_is_written_is_read",
    "securefs/test_rotation.py::test_any_bytes_of_a_new_slot_on_the_disk_leave_a_file_that_opens",
    "securefs/test_rotation.py::test_rewrap_never_takes_a_file_from_anybody",
    "securefs/test_rotation.py::test_wherever_the_power_fails_the_file_opens_and_can_be_completed",
    "securefs/test_secrecy.py::test_the_cases_find_what_is_not_cleared",
    "securefs/test_suites.py::test_checking_and_opening_agree_on_every_padding",
    "test_chance.py::test_every_run_takes_the_same_examples_unless_it_is_told_to_look_longer",
)


def is_slow(path: Path) -> bool:
    """Return whether all tests of a file are slow, so that a fast run need not even import it."""
    return path.is_relative_to(TESTS) and path.relative_to(TESTS).as_posix() in SLOW


def marks_of(item) -> set[str]:
    """Return the marks of a collected test."""
    fixtures = [made.func for known in item._fixtureinfo.name2fixturedefs.values() for made in known]
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    marks = set().union(*map(started_by, [item.function, *fixtures, *filter(callable, values)]))
    name = item.nodeid.partition("[")[0].removeprefix("tests/")
    return marks | ({"slow"} if {name, name.partition("::")[0]} & set(SLOW) else set())


def started_by(function) -> frozenset[str]:
    """Return what a function starts by all that it calls, directly or not, as far as its code names it."""
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    return _started_by(inner) if isinstance(inner, types.FunctionType) else frozenset()


@functools.cache
def _started_by(function: types.FunctionType) -> frozenset[str]:
    seen, left = set(), [function]
    while left:
        # Behind a decorator, such as that of a context manager, there is the function that was
        # written.
        function = inspect.unwrap(left.pop())
        if function not in seen:
            seen.add(function)
            left += _named_by(function)
    return frozenset(mark for function, mark in STARTERS.items() if inspect.unwrap(function) in seen)


def _named_by(function: types.FunctionType):
    """Yield the functions of the tests that a function names: as such, as a default, of a module or of a class."""
    names = _names_in(function.__code__)
    values = [function.__globals__[name] for name in names if name in function.__globals__]
    for value in [*values, *(function.__defaults__ or ())]:
        if isinstance(value, types.FunctionType):
            yield value
        elif isinstance(value, types.ModuleType) and value.__name__.startswith("support."):
            yield from (
                made for name in names if isinstance(made := vars(value).get(name), types.FunctionType)
            )
        elif isinstance(value, type) and not value.__module__.startswith("securefs."):
            yield from (made for made in vars(value).values() if isinstance(made, types.FunctionType))


def _names_in(code: types.CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_names_in, inner))
