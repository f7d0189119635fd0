"""A witness written from C2SP tlog-witness.md alone, on loopback."""

from __future__ import annotations

import base64
import hashlib
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from support import trees
from support.logs import cosignature_line, new_key, vkey


class Witness:
    """``trusted``: for each origin the verification keys of its log. ``seen``: the last size and root."""

    def __init__(self, name="witness.example/w1"):
        self.name = name
        self.key = new_key()
        self.trusted = {}
        self.seen = {}
        self.time = 1_790_000_000
        self.requests = []
        self.answer = None  # in place of what the specification says: (status, body)

    @property
    def vkey(self):
        return vkey(self.name, self.key, 4)

    def add_checkpoint(self, body):  # noqa: PLR0911 - one for each status
        """Return (status, body), in the order of the specification."""
        self.requests.append(body)
        if self.answer is not None:
            return self.answer
        head, _, note = body.decode().partition("\n\n")
        first, *proof = head.split("\n")
        word, old = first.split(" ")
        if word != "old" or str(int(old)) != old or len(proof) > 63:
            return 400, b""
        old, proof = int(old), [base64.b64decode(line, validate=True) for line in proof]
        text, _, lines = note.rpartition("\n\n")
        text += "\n"
        origin, size, root = text.split("\n")[:3]
        size, root = int(size), base64.b64decode(root, validate=True)
        if origin not in self.trusted:
            return 404, b""
        if not self.signed(text, lines, self.trusted[origin]):
            return 403, b""
        if old > size:
            return 400, b""
        seen, seen_root = self.seen.get(origin, (0, b""))
        if old != seen:
            return 409, f"{seen}\n".encode()
        if not self.consistent(old, seen_root, size, root, proof):
            return 422, b""
        self.seen[origin] = (size, root)
        return 200, cosignature_line(self.name, self.key, text, self.time).encode()

    def signed(self, text, lines, vkeys):
        known = {}
        for one in vkeys:
            name, key_id, data = one.split("+", 2)
            known[name, bytes.fromhex(key_id)] = base64.b64decode(data)[1:]
        good = False
        for line in lines.splitlines():
            _, name, data = line.split(" ")
            data = base64.b64decode(data, validate=True)
            public = known.get((name, data[:4]))
            if public is not None:
                try:
                    Ed25519PublicKey.from_public_bytes(public).verify(data[4:], text.encode())
                except InvalidSignature:
                    return False
                good = True
        return good

    def consistent(self, old, old_root, size, root, proof):
        if old == 0:
            return not proof and (size or root == hashlib.sha256().digest())
        if old == size:
            return not proof and old_root == root
        rest = list(proof)
        try:
            found = rebuild(old, size, rest, True, old_root)
        except IndexError:
            return False
        return not rest and found == (old_root, root)


def rebuild(m, n, proof, complete, old_root):
    """The old and the new root that PROOF(m, D[n]) of RFC 6962 leads to, from its last hash inwards."""
    if m == n:
        found = old_root if complete else proof.pop()
        return found, found
    k = trees.split(n)
    other = proof.pop()
    if m <= k:
        old, new = rebuild(m, k, proof, complete, old_root)
        return old, node(new, other)
    old, new = rebuild(m - k, n - k, proof, False, old_root)
    return node(other, old), node(other, new)


def node(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


@contextmanager
def serving(witness, prefix="/w"):
    """Serve it; yield its submission prefix."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = (
                witness.add_checkpoint(body) if self.path == f"{prefix}/add-checkpoint" else (405, b"")
            )
            self.send_response(status)
            if status == 409:
                self.send_header("Content-Type", "text/x.tlog.size")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{prefix}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
