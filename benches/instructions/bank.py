"""The bank of the instruction count: mutual TLS 1.3, keep-alive, one fixed answer, and a count of what it saw.

It is not under valgrind and shares no code with the gate or with its sandbox.
"""

import os
import socket
import ssl
import subprocess
import threading

NAME = "bank.bench.example"
ANSWER = b'{"session_id":"%s","payment_url":"https://pay.bank.example/s/%s"}' % (b"7" * 88, b"7" * 96)


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


def make_pki(directory):
    """ca.crt, bank.crt, bank.key, client.crt, client.key: P-256, thrown away with the directory."""
    at = lambda name: os.path.join(directory, name)
    extensions = {
        "ca": "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n",
        "bank": f"subjectAltName=DNS:{NAME}\nextendedKeyUsage=serverAuth\n",
        "client": "extendedKeyUsage=clientAuth\n",
    }
    for name, extension in extensions.items():
        with open(at(f"{name}.ext"), "w") as file:
            file.write("basicConstraints=critical,CA:FALSE\n" * (name != "ca") + extension)
        with open(at(f"{name}.cnf"), "w") as file:
            file.write(f"[req]\nprompt=no\ndistinguished_name=dn\n[dn]\nCN={name}.bench.example\n")
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", at(f"{name}.key"))
        os.chmod(at(f"{name}.key"), 0o600)
        openssl("req", "-new", "-config", at(f"{name}.cnf"), "-key", at(f"{name}.key"), "-out", at(f"{name}.csr"))
        signer = ["-signkey", at("ca.key")]
        if name != "ca":
            signer = ["-CA", at("ca.crt"), "-CAkey", at("ca.key"), "-CAcreateserial"]
        openssl(
            "x509", "-req", "-in", at(f"{name}.csr"), *signer, "-days", "365", "-sha256",
            "-extfile", at(f"{name}.ext"), "-out", at(f"{name}.crt"),
        )  # fmt: skip


def read_message(stream):
    """One HTTP/1.1 message with a Content-Length from a buffered stream; None at its end."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline(65536)
        if not line:
            return None
        head += line
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    body = stream.read(length)
    return None if len(body) < length else (head, body)


class Bank:
    def __init__(self, directory):
        self.connections = 0
        self.requests = 0
        self.received = set()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.load_verify_locations(os.path.join(directory, "ca.crt"))
        self.context.load_cert_chain(os.path.join(directory, "bank.crt"), os.path.join(directory, "bank.key"))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.context.wrap_socket(connection, server_side=True) as tls:
                self.connections += 1
                stream = tls.makefile("rb")
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                while message := read_message(stream):
                    self.requests += 1
                    self.received.add(message[1])
                    tls.sendall(head % len(ANSWER) + ANSWER)
        except OSError:
            pass  # The gate closed it, or never finished the handshake: the counts tell.
