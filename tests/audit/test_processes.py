"""Threads, forks and kills: every process has its own chain, and no record of one is lost."""

import pytest
from support.journals import all_records, chain_files, finish, records, run_script, start_script
from support.servers import wait_until

from securefs.audit import verify_journal


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journal"


def chains_by_pid(folder):
    return {records(path)[0]["host"]["pid"]: records(path) for path in chain_files(folder)}


def test_forked_child_has_its_own_chain_and_not_the_parents_file(folder):
    code = """
import os, sys
from securefs.audit import Entry, Journal, verify_journal
journal = Journal(sys.argv[1])
journal.record(Entry("file.decrypt", obj={"size": 1}))
inside = os.open(sys.argv[1], os.O_RDONLY)
def held():
    found = []
    for name in os.listdir("/dev/fd"):
        try:
            found.append(os.readlink("/dev/fd/" + name))
        except OSError:
            pass
    return [path for path in found if path.endswith(".jsonl")]
assert len(held()) == 1
if (pid := os.fork()) == 0:
    assert held() == []
    journal.record(Entry("file.decrypt", obj={"size": 2}))
    journal.close()
    sys.exit()
assert os.waitpid(pid, 0)[1] == 0
live = [chain.live for chain in verify_journal(sys.argv[1]).chains]
assert sorted(live) == [False, True], live
journal.record(Entry("file.decrypt", obj={"size": 3}))
journal.close()
print(os.getpid(), pid)
"""
    out, _ = run_script(code, folder)
    parent, child = map(int, out.split())
    chains = chains_by_pid(folder)
    assert [record["obj"].get("size") for record in chains[parent][:-1]] == [None, 1, 3]
    assert [record["obj"].get("size") for record in chains[child][:-1]] == [None, 2]
    assert "replaces" not in chains[child][0]["obj"]
    assert verify_journal(folder).exit_code == 3


def test_preloaded_master_has_no_chain(folder):
    code = """
import os, sys
from securefs.audit import Entry, Journal
journal = Journal(sys.argv[1])
children = []
for number in range(3):
    if (pid := os.fork()) == 0:
        journal.record(Entry("key.use", actor="alice"))
        journal.close()
        sys.exit()
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
journal.close()
print(*children)
"""
    out, _ = run_script(code, folder)
    assert set(chains_by_pid(folder)) == set(map(int, out.split()))
    actors = {record["actor"]["id"] for record in all_records(folder) if "actor" in record}
    assert len(actors) == 1


def test_fork_that_python_does_not_see(folder):
    """A server written in C may fork without telling: the process id gives it away."""
    code = """
import ctypes, os, sys
from securefs.audit import Entry, Journal
journal = Journal(sys.argv[1])
journal.record(Entry("key.use"))
if (pid := ctypes.PyDLL(None).fork()) == 0:
    journal.record(Entry("key.use"))
    journal.close()
    sys.exit()
assert os.waitpid(pid, 0)[1] == 0
journal.record(Entry("key.use"))
journal.close()
"""
    run_script(code, folder)
    report = verify_journal(folder)
    assert sorted(chain.records for chain in report.chains) == [3, 4]
    assert report.intact
    assert len(chains_by_pid(folder)) == 2


def test_fork_while_another_thread_writes(folder):
    """The lock that the thread holds does not exist in the child."""
    code = """
import os, sys, threading
from securefs.audit import Entry, Journal
journal = Journal(sys.argv[1])
go_on = True
def write():
    while go_on:
        journal.record(Entry("key.use"))
threads = [threading.Thread(target=write) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(20):
    if (pid := os.fork()) == 0:
        journal.record(Entry("key.use"))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
go_on = False
for thread in threads:
    thread.join()
journal.close()
"""
    run_script(code, folder)
    report = verify_journal(folder)
    assert len(report.chains) == 21
    assert report.intact


def test_nothing_is_imported_by_a_record(folder):
    """A child that is forked while another thread imports a module waits for ever when it imports that too."""
    code = """
import sys
from securefs.audit import Entry, Journal
journal = Journal(sys.argv[1])
before = set(sys.modules)
journal.record(Entry("key.use"))
assert set(sys.modules) == before, set(sys.modules) - before
"""
    run_script(code, folder)


def test_no_record_of_four_processes_with_threads_is_lost(folder):
    code = """
import sys, threading
from securefs.audit import Entry, Journal
journal = Journal(sys.argv[1])
def write(thread):
    for number in range(1250):
        journal.record(Entry("file.decrypt", obj={"size": number, "format": thread}))
threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
journal.close()
"""
    processes = [start_script(code, folder) for _ in range(4)]
    for process in processes:
        finish(process)
    report = verify_journal(folder)
    assert report.exit_code == 3
    written = [
        (record["host"]["pid"], record["obj"]["format"], record["obj"]["size"])
        for record in all_records(folder)
        if record["event"] == "file.decrypt"
    ]
    assert len(written) == len(set(written)) == 20_000


def test_killed_writers_leave_intact_or_torn_chains(folder):
    """Where the kill falls is chance; that it never looks like tampering is not."""
    code = """
import sys
from securefs.audit import Entry, Journal
journal = Journal(sys.argv[1], names="clear")
while True:
    journal.record(Entry("file.encrypt", obj={"name": "\\U0001f600" * 256}, http={"path": "\\U0001f600" * 256}))
"""
    for number in range(10):
        with start_script(code, folder) as process:
            # A little further each time, so that the kills fall on different places.
            wait_until(
                lambda at=number: sum(p.stat().st_size for p in chain_files(folder)[at:]) > 5000 * at,
                "records of this writer",
            )
            process.kill()
            process.communicate(timeout=60)
        report = verify_journal(folder)
        assert report.intact, list(report.lines())
        assert len(report.chains) == number + 1
        assert not any(chain.live or chain.ended for chain in report.chains)
