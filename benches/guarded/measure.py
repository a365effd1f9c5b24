"""Drives guarded operations through the gate from 1, 8 and 64 callers, and compares them with bare syncs of the same disk.

The bank is the sandbox, on the same machine: what it costs is in the figures. Each operation is three works of the
journal (reserve, sent, outcome); how many commits they shared is the gate's own count.
"""

import json
import os
import pwd
import socket
import subprocess
import sys
import tempfile
import threading
import time

OPERATIONS = 1200
BODY = json.dumps({"order_ref": "%s", "amount": "10.00", "currency": "BYN", "term": 12,
                   "items": [{"name": "x", "qty": 1, "price": "10.00"}]})  # fmt: skip

CONFIG = """\
banks:
  - name: bench
    url: https://localhost:{port}
    dns: {{addresses: [127.0.0.1]}}
    trust: {{ca_file: {pki}/bank-ca.pem, server_name: localhost}}
    identity: {{cert_file: {pki}/client.crt, key_file: {pki}/client.key}}
    listen: [{{unix: gate.sock, callers: [{me}]}}]
    routes:
      - {{name: create, method: POST, path: /installment/create, idempotency: optional, connection: {connection}}}
    limits: {{concurrency: 64}}
hardening: best-effort
journal: {{sqlite: journal.db, allow_volatile: true}}
admin: {{unix: admin.sock, operators: [{uid}]}}
log: {{level: warn}}
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
        return json.loads(admin.makefile("rb").readline())


def wait_until_ready(gate, path):
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if gate.poll() is not None:
            raise SystemExit(f"the gate ended with {gate.returncode}")
        try:
            return ask(path, b'{"command":"status"}\n')["result"]
        except (OSError, ValueError, KeyError):
            time.sleep(0.02)
    raise SystemExit("the gate was not ready within 30 s")


def caller(path, keys, failed):
    try:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(60)
            stream.connect(path)
            reader = stream.makefile("rb")
            for key in keys:
                body = (BODY % key).encode()
                stream.sendall(
                    f"POST /installment/create HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    f"Idempotency-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
                )
                status = reader.readline()
                length = 0
                while (line := reader.readline()) != b"\r\n":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                reader.read(length)
                if b" 201 " not in status:
                    raise ValueError(status)
    except (OSError, ValueError) as error:
        failed.append(error)


def measure(binary, directory, bank, callers, connection, environment=None):
    """Operations per second, and works per commit."""
    with tempfile.TemporaryDirectory(prefix="guarded-", dir=directory) as place:
        config = os.path.join(place, "config.yaml")
        with open(config, "w") as file:
            file.write(CONFIG.format(port=bank["port"], pki=bank["pki"], uid=os.getuid(), me=pwd.getpwuid(os.getuid()).pw_name, connection=connection))
        journal = os.path.join(place, "journal.db")
        env = dict(os.environ, **{name: value.format(journal=journal) for name, value in (environment or {}).items()})
        with open(os.path.join(place, "log"), "w") as log:
            gate = subprocess.Popen([binary, "run", "--config", config], env=env, stderr=log, stdout=log)
        try:
            admin = os.path.join(place, "admin.sock")
            before = wait_until_ready(gate, admin)["journal"]
            bank["runs"] += 1
            keys = [f"run{bank['runs']}-{number}" for number in range(OPERATIONS)]
            failed = []
            threads = [
                threading.Thread(target=caller, args=(os.path.join(place, "gate.sock"), keys[n::callers], failed))
                for n in range(callers)
            ]
            started = time.monotonic()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took = time.monotonic() - started
            if failed:
                raise SystemExit(f"not the bank's answer: {failed[0]}")
            after = ask(admin, b'{"command":"status"}\n')["result"]["journal"]
            works = after["works"] - before["works"]
            if works < 3 * OPERATIONS:
                raise SystemExit(f"{works} works for {OPERATIONS} operations")
            return OPERATIONS / took, works / (after["commits"] - before["commits"])
        finally:
            gate.terminate()
            gate.wait(60)


def main():
    binary, shim, directory = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3] or None
    with tempfile.TemporaryDirectory(prefix="priorgate-bench-", dir=directory) as place:
        pki = os.path.join(place, "pki")
        sandbox = subprocess.Popen(
            [binary, "sandbox", "--dir", pki, "--quiet"], stdout=subprocess.PIPE, text=True
        )
        try:
            told = ""
            while "https://" not in told:
                line = sandbox.stdout.readline()
                if not line:
                    raise SystemExit("the sandbox did not start")
                told += line
            port = int(told.split("https://")[1].split()[0].strip("/").rsplit(":", 1)[1])
            bank = {"port": port, "pki": pki, "runs": 0}
            print(f"{OPERATIONS} guarded creates each; the bank is the sandbox on the same machine")
            for connection in ("pooled", "fresh"):
                for callers in (1, 8, 64):
                    rate = syncs(place)
                    operations, shared = measure(binary, place, bank, callers, connection)
                    print(f"{connection}, {callers:2} callers: {operations:6.0f} operations/s, {shared:5.1f} works per "
                          f"commit; this disk: {rate:6.0f} syncs/s; {operations / rate:.2f} operations per sync",
                          flush=True)  # fmt: skip
            slow = {"LD_PRELOAD": shim, "SHIM_JOURNAL": "{journal}",
                    "SHIM_FAULT": "wal-sync:slow:5:always,db-sync:slow:5:always"}  # fmt: skip
            for callers in (1, 64):
                operations, shared = measure(binary, place, bank, callers, "pooled", slow)
                print(f"syncs of 5 ms, pooled, {callers:2} callers: {operations:6.0f} operations/s, "
                      f"{shared:5.1f} works per commit", flush=True)  # fmt: skip
        finally:
            sandbox.terminate()
            sandbox.wait(10)


main()
