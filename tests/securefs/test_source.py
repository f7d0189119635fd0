"""Sources that misbehave end in an error of the library's own, and never in a part that is taken for the whole."""

from __future__ import annotations

import io
import mmap

import pytest
from support.sealing import PRIMITIVES, RING, SUITES, ExchangedFile, pattern, seal, seal_1

from securefs import (
    ConfigurationError,
    Decryptor,
    Encryptor,
    IntegrityError,
    SecureFSError,
    SourceError,
    Suite,
    decrypt_file,
    encrypt_file,
    open_encrypted,
    verify,
)
from securefs.files import copy_sealed

PLAIN = pattern(200_000)
FILES = {
    "suite 1": (seal(PLAIN), False),
    "suite 2": (seal(PLAIN, Suite.GCM), False),
    "format 1": (seal_1(PLAIN), True),
}
KINDS = [pytest.param(*value, id=name) for name, value in FILES.items()]


class Odd(io.BytesIO):
    """A file that answers the read with the given number, and those behind it, with what ``change`` makes of the bytes."""

    def __init__(self, data, change, number=0):
        super().__init__(data)
        self.change, self.left = change, number

    def read(self, size=-1, /):
        data = super().read(size)
        if self.left:
            self.left -= 1
            return data
        return self.change(data)


SOURCE_ERRORS = {
    "more than asked for": lambda data: data + b"?",
    "twice as much": lambda data: data * 2 or b"??",
    "None": lambda data: None,
    "text": lambda data: data.decode("latin-1"),
    "a negative number": lambda data: -1,
    "a number": len,
    "a list": list,
    "an object": lambda data: object(),
}


TOO_MUCH = (SOURCE_ERRORS["more than asked for"], SOURCE_ERRORS["twice as much"])


def read_whole(data, format_1, change, number):
    source = Odd(data, change, number)
    with open_encrypted(source, RING, format_1=format_1) as file:
        return b"".join(iter(lambda: file.read(10_000), b""))


@pytest.mark.parametrize("change", SOURCE_ERRORS.values(), ids=SOURCE_ERRORS)
@pytest.mark.parametrize(("data", "format_1"), KINDS)
def test_a_file_that_gives_what_no_file_may_give_is_a_source_error(data, format_1, change):
    """At whichever of its reads."""
    reads = 0
    while True:
        try:
            assert read_whole(data, format_1, change, reads) == PLAIN
            break
        except SourceError as error:
            expected = "were asked for" if change in TOO_MUCH else "bytes are needed"
            assert expected in str(error)  # noqa: PT017  # one error for each read
        reads += 1
    assert reads >= 3


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: b"", id="nothing"),
        pytest.param(lambda data: data[:-1], id="less"),
        pytest.param(lambda data: data[:1], id="a byte"),
        pytest.param(bytearray, id="a bytearray"),
        pytest.param(memoryview, id="a view"),
    ],
)
@pytest.mark.parametrize(("data", "format_1"), KINDS)
@pytest.mark.parametrize("number", range(6))
def test_a_file_that_gives_less_is_cut_or_read_on(data, format_1, change, number):
    try:
        assert read_whole(data, format_1, change, number) == PLAIN
    except SecureFSError as error:
        assert not isinstance(error, SourceError)  # noqa: PT017  # either is right


class Length(io.BytesIO):
    """A file that says something else of its length than what it holds."""

    def __init__(self, data, length):
        super().__init__(data)
        self.claimed = length

    def tell(self):
        return self.claimed


@pytest.mark.parametrize("length", [-1, None, "100", 1.5, b"1"])
@pytest.mark.parametrize(("data", "format_1"), KINDS)
def test_a_length_that_is_no_number_is_a_source_error(data, format_1, length):
    with pytest.raises(SourceError, match="its length is"):
        open_encrypted(Length(data, length), RING, format_1=format_1)


@pytest.mark.parametrize(("data", "format_1"), KINDS)
@pytest.mark.parametrize("more", [1, 65_600 * 7, 2**40, 2**62])
def test_a_file_that_is_short_for_ever_is_refused_at_once(data, format_1, more):
    """It says that it is longer, up to four exabytes, and has nothing to show for it."""
    length = len(data) + more + (16 - more) % 16 * format_1
    with pytest.raises(SecureFSError) as caught:
        verify(Length(data, length), RING, format_1=format_1)
    assert not isinstance(caught.value, SourceError)


class Closed(io.BytesIO):
    def __init__(self, data):
        super().__init__(data)
        self.close()


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(io.StringIO("text"), id="a text file"),
        pytest.param(Closed(b""), id="a closed file"),
        pytest.param(object(), id="no file"),
        pytest.param(None, id="None"),
        pytest.param(b"bytes", id="bytes"),
        pytest.param(7, id="a number"),
        pytest.param(iter([b"a"]), id="an iterator"),
    ],
)
@pytest.mark.parametrize("format_1", [False, True])
def test_what_is_no_binary_file_is_a_source_error(source, format_1):
    with pytest.raises(SourceError):
        open_encrypted(source, RING, format_1=format_1)


def test_a_file_that_is_closed_while_it_is_read_is_a_source_error():
    source = io.BytesIO(FILES["suite 1"][0])
    with open_encrypted(source, RING) as file:
        file.read(1)
        source.close()
        with pytest.raises(SourceError, match="closed"):
            file.read()


class Waiting(io.RawIOBase):
    """A raw file that has nothing yet, as a non-blocking pipe: Python's own buffered reader then says None."""

    def __init__(self, data):
        super().__init__()
        self.data = io.BytesIO(data)
        self.waits = False

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=0):
        return self.data.seek(offset, whence)

    def tell(self):
        return self.data.tell()

    def readinto(self, buffer):
        return None if self.waits else self.data.readinto(buffer)


def test_a_file_that_does_not_block_is_a_source_error_and_not_a_cut_one():
    raw = Waiting(FILES["suite 1"][0])
    with open_encrypted(io.BufferedReader(raw, 64), RING) as file:
        raw.waits = True
        with pytest.raises(SourceError, match="nothing to read yet"):
            file.read(1)


NO_BYTES = [None, "text", 5, -1, 1.5, [1, 2], object()]


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("data", NO_BYTES, ids=lambda data: type(data).__name__)
def test_what_is_no_bytes_is_neither_sealed_nor_opened(suite, data, primitives):
    encryptor = Encryptor(RING, suite, primitives=primitives)
    decryptor = Decryptor(RING, primitives=primitives)
    for feed in (encryptor.update, decryptor.update, RING.format_1_sealer(primitives).update):
        with pytest.raises(SourceError, match=type(data).__name__):
            feed(data)
    stored = encryptor.update(b"good") + encryptor.finalize()
    assert decryptor.update(stored) + decryptor.finalize() == b"good"


@pytest.mark.parametrize("primitives", PRIMITIVES)
@pytest.mark.parametrize("suite", SUITES)
def test_any_buffer_is_bytes(suite, primitives):
    strided = memoryview(PLAIN)[::2]
    wide = memoryview(PLAIN).cast("I")
    for data in (bytearray(PLAIN), memoryview(PLAIN), strided, wide):
        encryptor = Encryptor(RING, suite, primitives=primitives)
        stored = encryptor.update(data) + encryptor.finalize()
        decryptor = Decryptor(RING, primitives=primitives)
        # Every second of twice as many bytes.
        spread = memoryview(b"".join(bytes([byte, 0]) for byte in stored))[::2]
        assert decryptor.update(spread) + decryptor.finalize() == memoryview(data).tobytes()


@pytest.mark.parametrize("data", [None, "text", -1, [1]], ids=repr)
@pytest.mark.parametrize("format_1", [False, True])
def test_a_source_that_has_nothing_yet_is_not_at_its_end(data, format_1):
    """What was sealed so far is not finished: nobody can take it for the whole."""

    class Source:
        reads = 0

        def read(self, size):
            self.reads += 1
            return b"the beginning" if self.reads == 1 else data

    target = io.BytesIO()
    sealer = RING.format_1_sealer() if format_1 else Encryptor(RING)
    with pytest.raises(SourceError):
        copy_sealed(Source(), target, sealer)
    with pytest.raises(SecureFSError):
        verify(io.BytesIO(target.getvalue()), RING, format_1=format_1)


def test_a_stream_that_was_fed_no_bytes_is_still_cut():
    decryptor = Decryptor(RING)
    decryptor.update(FILES["suite 1"][0][:-100])
    with pytest.raises(SourceError):
        decryptor.update(None)
    with pytest.raises(IntegrityError):
        decryptor.finalize()


class Raising(io.BytesIO):
    def __init__(self, data, error):
        super().__init__(data)
        self.error = error

    def read(self, size=-1, /):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [KeyError("k"), EOFError(), BufferError(), OverflowError(), RuntimeError("r"), ValueError("v")],
    ids=repr,
)
def test_whatever_a_file_raises_but_an_oserror_is_a_source_error(error):
    with pytest.raises(SourceError) as caught:
        open_encrypted(Raising(FILES["suite 1"][0], error), RING)
    assert caught.value.__cause__ is error
    with pytest.raises(SourceError):
        copy_sealed(Raising(b"", error), io.BytesIO(), Encryptor(RING))
    with pytest.raises(OSError, match="the disk"):
        open_encrypted(Raising(b"", OSError("the disk")), RING)


def released():
    view = memoryview(b"bytes")
    view.release()
    return view


def closed_map():
    area = mmap.mmap(-1, 10)
    area.close()
    return area


@pytest.mark.parametrize("make", [released, closed_map])
def test_bytes_that_are_gone_are_no_bytes(make):
    for feed in (Encryptor(RING).update, Decryptor(RING).update, RING.format_1_sealer().update):
        with pytest.raises(SourceError):
            feed(make())


def test_a_path_with_a_nul_byte_is_told(tmp_path):
    name = "a\0b"
    for action in (
        lambda: open_encrypted(name, RING),
        lambda: verify(name, RING),
        lambda: decrypt_file(name, tmp_path / "x", RING),
    ):
        with pytest.raises(SourceError, match="null byte"):
            action()
    with pytest.raises(ConfigurationError, match="NUL character"):
        encrypt_file(name, tmp_path / "x", RING)


@pytest.mark.parametrize("context", [None, "tenant", 7, ["t"]])
def test_a_context_that_is_no_bytes_is_told(context):
    data = FILES["suite 1"][0]
    for action in (
        lambda: Encryptor(RING, context=context),
        lambda: open_encrypted(io.BytesIO(data), RING, context),
    ):
        with pytest.raises(ConfigurationError, match="a context is bytes"):
            action()


@pytest.mark.parametrize("suite", SUITES)
def test_a_file_that_is_exchanged_for_one_that_ends_sooner_does_not_hang(suite):
    """In suite 1 the length leaves some bytes open; whoever holds the file's key can make a shorter one of the same length."""
    longer, shorter = seal(PLAIN[:100_015], suite), seal(PLAIN[:100_001], suite)
    source = ExchangedFile(longer)
    with open_encrypted(source, RING) as file:
        file.read(10)
        source.exchange(shorter)
        # The last segment was verified when the file was opened, and is not read again.
        assert file.read() == PLAIN[10:100_015]


@pytest.mark.parametrize("format_1", [False, True])
def test_a_sealer_is_spent_when_it_is_finished(format_1):
    sealer = RING.format_1_sealer() if format_1 else Encryptor(RING)
    sealer.finalize()
    for action in (lambda: sealer.update(b"x"), sealer.finalize):
        with pytest.raises(ValueError, match="finalized"):
            action()


def test_a_format_1_file_that_is_exchanged_while_it_is_open_is_not_decrypted():
    """Its tag was compared when it was opened; each later read is compared with what was read then."""
    plain = PLAIN * (-(-(2**21) // len(PLAIN)) + 1)
    sealer = RING.format_1_sealer()
    stored = sealer.update(plain) + sealer.finalize()
    source = ExchangedFile(stored)
    with open_encrypted(source, RING, format_1=True) as file:
        assert file.read(10) == plain[:10]
        source.exchange(stored[: 2**20 + 100] + b"?" + stored[2**20 + 101 :])
        assert file.read(2**20 - 10) == plain[10 : 2**20], "the block that was changed is the second"
        with pytest.raises(IntegrityError, match="block 1 changed while the file was open") as caught:
            file.read()
        assert (caught.value.segment, len(caught.value.digest)) == (1, 64)
        source.exchange(stored[: 2**20 + 100])
        with pytest.raises(IntegrityError, match="the file ends before its length says"):
            file.read()
