"""A key that lives elsewhere: a small class of another kind of slot and of another size works wherever a keyring goes."""

from __future__ import annotations

import hashlib
import hmac
import io

import pytest
from support.sealing import KEY, OTHER_KEY, SUITES, keys_of, pattern, read_all, stream_all
from support.wsgi_client import call, multipart

from securefs import (
    ConfigurationError,
    Encryptor,
    IntegrityError,
    Keyring,
    UnknownKeyError,
    open_encrypted,
    rewrap,
    verify,
)
from securefs.audit import Journal
from securefs.header import KIND_KEY_SERVICE, parse_header
from securefs.middleware import Policy, SecureFS

TEXT = pattern(100_000)


class Service:
    """A key service, as a program of its users would reach it: it encrypts, and checks what the ciphertext is bound to."""

    kind = KIND_KEY_SERVICE

    def __init__(self, name: str, size: int = 300) -> None:
        self.key_id = hashlib.sha256(name.encode()).digest()[:16]
        self.payload_size = size
        self.asked = 0

    def _stream(self, bound: bytes) -> bytes:
        return hmac.digest(self.key_id, bound, "sha256")

    def wrap(self, dek, bound, draw):
        sealed = bytes(a ^ b for a, b in zip(dek, self._stream(bound), strict=True))
        tag = hmac.digest(self.key_id, sealed + bound, "sha256")
        return (b"\x04test" + sealed + tag + draw(4)).ljust(self.payload_size, b".")

    def unwrap(self, slot, bound):
        if (slot.kind, slot.key_id) != (self.kind, self.key_id):
            return None
        self.asked += 1
        sealed, tag = slot.payload[5:37], slot.payload[37:69]
        if not hmac.compare_digest(tag, hmac.digest(self.key_id, sealed + bound, "sha256")):
            raise IntegrityError("the key service refused")
        return bytes(a ^ b for a, b in zip(sealed, self._stream(bound), strict=True))


def ring_of(service: Service, *others) -> Keyring:
    return Keyring.of(service, service, *others)


def sealed(ring: Keyring, suite=SUITES[0].values[0], context=b"") -> bytes:
    encryptor = Encryptor(ring, suite, context, {"name": "n"})
    data = encryptor.update(TEXT) + encryptor.finalize()
    assert len(data) == encryptor.stored_length(len(TEXT))
    return data


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize(("size", "slot_size"), [(73, 160), (136, 160), (137, 164), (300, 324), (4072, 4096)])
def test_a_file_is_sealed_and_opened(suite, size, slot_size):
    service = Service("one", size)
    data = sealed(ring_of(service), suite)
    header = parse_header(data)
    assert (header.slot_count, header.slot_size) == (2, slot_size)
    assert [(slot.kind, slot.key_id, slot.generation) for slot in header.slots] == [(2, service.key_id, 1)]
    for reader in (read_all, stream_all):
        assert reader(data, ring_of(service)) == TEXT
    assert verify(io.BytesIO(data), ring_of(service)).key_id == service.key_id.hex()
    with pytest.raises(UnknownKeyError):
        read_all(data, ring_of(Service("two")))
    with pytest.raises(UnknownKeyError):
        read_all(data, Keyring(KEY))


def test_a_changed_slot_is_refused_by_the_service():
    service = Service("one")
    data = bytearray(sealed(ring_of(service)))
    data[56 + 24 + 40] ^= 1
    with pytest.raises(IntegrityError, match="no key slot unwraps"):
        read_all(bytes(data), ring_of(service))


def test_the_service_is_asked_once_for_a_file():
    service = Service("one")
    data = sealed(ring_of(service))
    service.asked = 0
    read_all(data, ring_of(service))
    assert service.asked == 1


ROTATIONS = {
    "from a file key to a service": (
        Keyring(KEY),
        ring_of(Service("one")),
        ring_of(Service("one"), Keyring(KEY)),
    ),
    "from a service to a file key": (
        ring_of(Service("one")),
        Keyring(KEY),
        Keyring.of(Keyring(KEY).wrapper(), Keyring(KEY), Service("one")),
    ),
    "from one service to another": (
        ring_of(Service("one")),
        ring_of(Service("two", 80)),
        ring_of(Service("two", 80), Service("one")),
    ),
    "to one with larger slots": (
        ring_of(Service("one", 80)),
        ring_of(Service("two", 999)),
        ring_of(Service("two", 999), Service("one")),
    ),
}


@pytest.mark.parametrize(("old", "new", "both"), ROTATIONS.values(), ids=ROTATIONS)
@pytest.mark.parametrize("suite", SUITES)
def test_files_are_rewrapped_between_kinds(tmp_path, old, new, both, suite):
    path = tmp_path / "file"
    path.write_bytes(sealed(old, suite, b"tenant"))
    before = path.read_bytes()
    result = rewrap(path, both, b"tenant")
    assert (result.changed, result.key_id) == (True, new.wrapper().key_id.hex())
    assert result.removed == (old.wrapper().key_id.hex(),)
    with open_encrypted(path, new, b"tenant") as file:
        assert file.read() == TEXT
    with pytest.raises(UnknownKeyError):
        open_encrypted(path, old, b"tenant")
    assert path.read_bytes()[-50_000:] == before[-50_000:]
    assert rewrap(path, both, b"tenant").changed is False


def test_a_planted_slot_of_a_service_is_passed_over_and_named(tmp_path):
    path, one, two = tmp_path / "file", Service("one"), Service("two")
    data = sealed(ring_of(one))
    head = bytes([2, 0]) + (300).to_bytes(2, "big") + (9).to_bytes(4, "big") + two.key_id
    planted = head + two.wrap(bytes(range(32)), data[:48] + head, bytes)
    path.write_bytes(data[: 56 + 324] + planted + data[56 + 2 * 324 :])
    both = ring_of(one, two)
    with open_encrypted(path, both) as file:
        assert file.read() == TEXT
        assert file.passed_over == ((1, two.key_id.hex()),)
    with pytest.raises(IntegrityError, match=r"slot 1 .* was planted"):
        rewrap(path, both)


class Liar(Service):
    """Says one size and gives another; or gives a data key of another size."""

    def wrap(self, dek, bound, draw):
        return super().wrap(dek, bound, draw) + b"?"


class Short(Service):
    def unwrap(self, slot, bound):
        dek = super().unwrap(slot, bound)
        return None if dek is None else dek[:16]


class Odd(Service):
    """Wraps into, or unwraps to, what it is told to."""

    def __init__(self, answer):
        super().__init__("one")
        self.answer = answer

    def wrap(self, dek, bound, draw):
        return self.answer

    def unwrap(self, slot, bound):
        return self.answer if slot.kind == self.kind else None


@pytest.mark.parametrize("payload", [None, "x" * 300, b"x" * 299, b"x" * 301, bytearray(300), 300])
def test_a_provider_that_wraps_into_something_else_is_told(payload):
    with pytest.raises(ConfigurationError, match="Odd wrapped a key into"):
        Encryptor(ring_of(Odd(payload)))


@pytest.mark.parametrize("dek", ["x" * 32, b"x" * 31, b"x" * 33, 5, [1] * 32, bytearray(32)], ids=repr)
def test_a_provider_that_unwraps_to_no_key_is_a_slot_that_does_not_unwrap(dek):
    data = sealed(ring_of(Service("one")))
    with pytest.raises(IntegrityError, match="no key slot unwraps"):
        read_all(data, ring_of(Odd(dek)))


ODD_WRAPPERS = {
    "kind 0": {"kind": 0},
    "kind 4": {"kind": 4},
    "kind 1 of another size": {"kind": 1, "payload_size": 60},
    "kind 3 of another size": {"kind": 3, "payload_size": 300},
    "no kind": {"kind": None},
    "a short key id": {"key_id": bytes(15)},
    "a long key id": {"key_id": bytes(17)},
    "a key id of text": {"key_id": "x" * 16},
    "no payload": {"payload_size": 0},
    "less than a name and a byte": {"payload_size": 2},
    "too large for a slot": {"payload_size": 4073},
    "far too large": {"payload_size": 70_000},
    "a negative size": {"payload_size": -1},
    "no size": {"payload_size": None},
}


@pytest.mark.parametrize("fields", ODD_WRAPPERS.values(), ids=ODD_WRAPPERS)
def test_a_provider_whose_slots_no_reader_takes_is_told_before_anything_is_written(fields, tmp_path):
    """When the ring is made; and where it changes its mind after that, when a file is sealed or rewrapped."""
    service = Service("one")
    path = tmp_path / "file"
    path.write_bytes(sealed(Keyring(KEY)))
    before = path.read_bytes()
    ring = Keyring.of(service, service, Keyring(KEY))
    for name, value in fields.items():
        setattr(service, name, value)
    for action in (
        lambda: Keyring.of(service, service),
        lambda: Encryptor(ring),
        lambda: rewrap(path, ring),
    ):
        with pytest.raises(ConfigurationError, match="Service"):
            action()
    assert path.read_bytes() == before
    assert read_all(before, Keyring(KEY)) == TEXT


def test_a_ring_that_can_t_open_what_it_seals_rewraps_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(sealed(Keyring(KEY)))
    before = path.read_bytes()
    with pytest.raises(IntegrityError, match="does not give the key"):
        rewrap(path, Keyring.of(Service("one"), Keyring(KEY)))
    assert path.read_bytes() == before


def test_a_keyring_is_no_wrapper():
    with pytest.raises(ConfigurationError, match=r"Keyring\.key_id must be 16 bytes"):
        Keyring.of(Keyring(KEY), Keyring(KEY))


def test_a_ring_that_can_only_open_seals_nothing():
    ring = Keyring.of(None, Service("one"))
    assert read_all(sealed(ring_of(Service("one"))), ring) == TEXT
    with pytest.raises(ConfigurationError, match="no key of the ring seals"):
        Encryptor(ring)
    assert (ring.key_ids, repr(ring)) == ((), "<Keyring primary= previous=[]>")
    with pytest.raises(ConfigurationError, match="no key of the ring seals"):
        _ = ring.primary_id


def test_format_1_knows_file_keys_alone(tmp_path):
    ring = ring_of(Service("one"))
    for action in (ring.format_1_sealer, ring.format_1_verifier):
        with pytest.raises(ConfigurationError, match="holds no file key"):
            action()
    assert keys_of(Keyring(OTHER_KEY)) == [OTHER_KEY]


@pytest.mark.parametrize("suite", SUITES)
def test_the_middleware_needs_to_know_nothing_of_it(tmp_path, suite):
    store: dict[str, bytes] = {}

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        if environ["REQUEST_METHOD"] == "POST":
            store["body"] = environ["wsgi.input"].read()
            return [environ["securefs"].uploads[0].key_id.encode()]
        return environ["wsgi.file_wrapper"](io.BytesIO(store["file"]))

    service = Service("one")
    journal = Journal(tmp_path / "journal")
    wrapped = SecureFS(app, keyring=ring_of(service), journal=journal, policy=Policy(suite=suite))
    kind, body = multipart(("file", "a.txt", TEXT))
    assert (
        call(wrapped, "POST", body=body, headers=[("Content-Type", kind)]).body
        == service.key_id.hex().encode()
    )
    assert TEXT[:100] not in store["body"]
    start = store["body"].index(b"\x89SFS2")
    store["file"] = store["body"][start : store["body"].rindex(b"\x5a\r\n--") + 1]
    assert call(wrapped).body == TEXT
    journal.close()


def test_the_ring_of_a_service_tells_the_id_of_the_key_that_seals():
    """Of the keys that only open it tells none: they are the service's to list."""
    one, other = Service("one"), Service("other")
    ring = Keyring.of(one, other, one)
    assert (ring.key_ids, ring.primary_id) == ((one.key_id,), one.key_id)
    assert repr(ring) == f"<Keyring primary={one.key_id.hex()} previous=[]>"
