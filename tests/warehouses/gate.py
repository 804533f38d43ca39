"""A gate before a real PostgreSQL: it takes TLS only, asks for the password in clear text as RDS and Redshift do, and judges it itself.

https://www.postgresql.org/docs/current/protocol-flow.html
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from warehouses.sigv4 import Refused

_SSL_REQUEST, _PROTOCOL_3 = 80877103, 196608

# Judges a user, a database and a password. Raises Refused, whose code is a SQLSTATE.
Judge = Callable[[str, str, str], None]


class Gate:
    """Serves connections to one database server.

    Args:
        upstream: the server's Unix socket.
        certificate: a PEM file with key and certificate.
        judge: asked at every login.
        server_version: what the gate says the server is, where it is to be taken for another one.
    """

    def __init__(self, upstream: str, certificate: Path, judge: Judge, server_version: str | None = None) -> None:
        self._upstream = upstream
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._judge = judge
        self._version = server_version
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Accepts until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connection, args=(client,), daemon=True).start()

    def close(self) -> None:
        # accept() does not notice a close.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _connection(self, raw: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error), raw:
            length, code = struct.unpack("!ii", _read(raw, 8))
            if code != _SSL_REQUEST:
                _refuse(raw, Refused("28000", "no pg_hba.conf entry for this host: no encryption"))
                return
            raw.sendall(b"S")
            with self._context.wrap_socket(raw, server_side=True) as client:
                length, code = struct.unpack("!ii", _read(client, 8))
                words = _read(client, length - 8).decode().split("\0")
                given = dict(zip(words[0::2], words[1::2], strict=False))
                client.sendall(b"R" + struct.pack("!ii", 8, 3))
                _, length = _read(client, 1), struct.unpack("!i", _read(client, 4))[0]
                password = _read(client, length - 4).rstrip(b"\0").decode()
                try:
                    self._judge(given["user"], given["database"], password)
                except Refused as exc:
                    _refuse(client, exc)
                    return
                self._relay(client, given)

    def _relay(self, client: ssl.SSLSocket, given: Mapping[str, str]) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(self._upstream)
            # What only Redshift knows does not go along.
            words = [*("user", given["user"], "database", given["database"]), "client_encoding", "UTF8", ""]
            startup = "\0".join(words).encode() + b"\0"
            server.sendall(struct.pack("!ii", len(startup) + 8, _PROTOCOL_3) + startup)
            up = threading.Thread(target=_pipe, args=(client, server), daemon=True)
            up.start()
            if self._version is not None:
                self._pretend(client, server)
            _pipe(server, client)

    def _pretend(self, client: ssl.SSLSocket, server: socket.socket) -> None:
        """Passes the server's first messages on, up to its version, and that in other words."""
        while True:
            kind, length = _read(server, 1), struct.unpack("!i", _read(server, 4))[0]
            body = _read(server, length - 4)
            found = kind == b"S" and body.startswith(b"server_version\0")
            if found:
                body = b"server_version\0" + str(self._version).encode() + b"\0"
            client.sendall(kind + struct.pack("!i", len(body) + 4) + body)
            if found or kind == b"Z":
                return


@contextlib.contextmanager
def gate(upstream: str, certificate: Path, judge: Judge, server_version: str | None = None) -> Iterator[int]:
    """A gate that is open for as long as the context lasts; yields its port."""
    made = Gate(upstream, certificate, judge, server_version)
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield made.port
    finally:
        made.close()
        thread.join()


def certificate(folder: Path) -> Path:
    """A self-signed certificate for localhost and its key, in one file; the certificate is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "localhost.pem"
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()) + made.public_bytes(encoding))
    return path


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise ConnectionResetError
        data += piece
    return data


def _pipe(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


def _refuse(connection: socket.socket, refused: Refused) -> None:
    body = f"SFATAL\0VFATAL\0C{refused.code}\0M{refused.message}\0".encode() + b"\0"
    connection.sendall(b"E" + struct.pack("!i", len(body) + 4) + body)
