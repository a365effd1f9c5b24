"""Sends signed notifications to the gate from 1, 8 and 64 connections, and compares the accepted ones with bare syncs of
the same disk. The shop is away: what is measured is proof, journal and answer, beside one failed delivery for each."""

import json
import os
import pwd
import socket
import subprocess
import sys
import tempfile
import threading
import time

CONFIG = """\
banks:
  - name: bench
    url: http://127.0.0.1:1
    allow_plaintext_loopback: true
    listen: [{{unix: gate.sock, callers: [{me}]}}]
    routes: [{{name: create, method: POST, path: /installment/create}}]
callbacks:
  - name: bench
    listen: [{{unix: callback.sock, mode: "0600"}}]
    path: /callback
    signature: {{header: X-Signature, keys: [{{id: bank, algorithm: ed25519, file: bank.pub}}]}}
    event: {{id: [/event_id], session: /session_id, status: /status}}
    deliver: {{url: "http://127.0.0.1:1/", host: shop.example, secret_files: [deliver.secret], retry: [1h]}}
hardening: best-effort
journal: {{sqlite: journal.db, allow_volatile: true}}
admin: {{unix: admin.sock, operators: [{uid}]}}
log: {{level: error}}
"""


def syncs(directory):
    """Syncs per second of a file that grows by 4 KiB each time."""
    path = os.path.join(directory, "syncs")
    with open(path, "wb", buffering=0) as file:
        until, count = time.monotonic() + 2, 0
        while time.monotonic() < until:
            file.write(bytes(4096))
            os.fsync(file.fileno())
            count += 1
    os.remove(path)
    return count / 2


def ask(path, line):
    with socket.socket(socket.AF_UNIX) as admin:
        admin.settimeout(10)
        admin.connect(path)
        admin.sendall(line)
        return json.loads(admin.makefile("rb").readline())["result"]


def wait_until_ready(gate, path):
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if gate.poll() is not None:
            raise SystemExit(f"the gate ended with {gate.returncode}")
        try:
            return ask(path, b'{"command":"status"}\n')
        except (OSError, ValueError, KeyError):
            time.sleep(0.02)
    raise SystemExit("the gate was not ready within 30 s")


def bank(path, notifications, failed):
    try:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(60)
            stream.connect(path)
            reader = stream.makefile("rb")
            for line in notifications:
                signature, body = line.split(" ", 1)
                body = body.encode()
                stream.sendall(
                    f"POST /callback HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    f"X-Signature: {signature}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
                )
                status, length = reader.readline(), 0
                while (header := reader.readline()) != b"\r\n":
                    if header.lower().startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                reader.read(length)
                if b" 200 " not in status:
                    raise ValueError(status)
    except (OSError, ValueError) as error:
        failed.append(error)


def measure(binary, directory, key, notifications, connections):
    """Accepted callbacks per second."""
    with tempfile.TemporaryDirectory(prefix="callbacks-", dir=directory) as place:
        for name, text in (("config.yaml", CONFIG.format(uid=os.getuid(), me=pwd.getpwuid(os.getuid()).pw_name)), ("bank.pub", key),
                           ("deliver.secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")):  # fmt: skip
            with open(os.open(os.path.join(place, name), os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(text)
        with open(os.path.join(place, "log"), "w") as log:
            config = os.path.join(place, "config.yaml")
            gate = subprocess.Popen([binary, "run", "--config", config], stderr=log, stdout=log)
        try:
            wait_until_ready(gate, os.path.join(place, "admin.sock"))
            failed, path = [], os.path.join(place, "callback.sock")
            threads = [
                threading.Thread(target=bank, args=(path, notifications[n::connections], failed))
                for n in range(connections)
            ]
            started = time.monotonic()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took = time.monotonic() - started
            accepted = ask(os.path.join(place, "admin.sock"), b'{"command":"status"}\n')["callbacks"][0]["accepted"]
            if failed or accepted != len(notifications):
                raise SystemExit(f"{accepted} accepted; {failed[:1]}")
            return accepted / took
        finally:
            gate.terminate()
            gate.wait(60)


def main():
    binary, signed, directory = os.path.abspath(sys.argv[1]), sys.argv[2], sys.argv[3] or None
    with open(signed) as file:
        key, *notifications = file.read().splitlines()
    with tempfile.TemporaryDirectory(prefix="priorgate-bench-", dir=directory) as place:
        print(f"{len(notifications) // 3} signed notifications each (Ed25519), the shop away")
        for index, connections in enumerate((1, 8, 64)):
            rate = syncs(place)
            accepted = measure(binary, place, key, notifications[index::3], connections)
            print(f"{connections:2} connections: {accepted:6.0f} callbacks/s; this disk: {rate:6.0f} syncs/s; "
                  f"{accepted / rate:.2f} callbacks per sync", flush=True)  # fmt: skip


main()
