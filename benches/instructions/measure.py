"""Drives the gate under callgrind and prints the instructions that one proxied request costs.

Each figure is a difference: a run of 2 N requests less a run of N, over N. What both runs do once (start-up, loading,
the handshake, the drain) falls out. A run whose pool was not used is no result, and fails.
"""

import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import time

import bank

TOKEN = "bench-token-of-no-value-whatever"
BODY = json.dumps(
    {
        "order_ref": "4711",
        "amount": "1499.00",
        "currency": "BYN",
        "term": 12,
        "items": [{"name": f"Холодильник {n}", "qty": 1, "price": "149.90"} for n in range(10)],
        "customer": {"phone": "+375290000000"},
        "callback_url": "https://shop.example/bank/priorbank/callback",
    },
    ensure_ascii=False,
).encode()

CONFIG = """\
banks:
  - name: bench
    url: https://{name}:{port}
    trust: {{ca_file: ca.crt}}
    identity: {{cert_file: client.crt, key_file: client.key}}
    listen:
      - {{unix: gate.sock, mode: "0600", callers: [{me}]}}
      - {{tcp: "127.0.0.1:0", token_files: [token]}}
    routes:
      - {{name: create, method: POST, path: /installment/create}}
    timeouts: {{connect: 30s, response: 60s, total: 90s, idle: 90s}}
    pool: {{idle_timeout: 60s, max_age: 10m}}
    dns: {{addresses: [127.0.0.1]}}
admin: {{unix: admin.sock, mode: "0600", operators: [{uid}]}}
hardening: disabled
log: {{format: json, level: info}}
"""


def status(directory):
    """The gate's status document, or None while it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(30)
            admin.connect(os.path.join(directory, "admin.sock"))
            admin.sendall(b'{"command":"status"}\n')
            return json.loads(admin.makefile("rb").readline()).get("result")
    except (OSError, ValueError):
        return None


def wait_until_ready(gate, directory):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if gate.poll() is not None:
            raise SystemExit(f"the gate ended with {gate.returncode} before it was ready")
        document = status(directory)
        if document and document.get("phase") == "ready":
            return document
        time.sleep(0.1)
    raise SystemExit("the gate was not ready within 120 s")


def connect(directory, document, listener):
    """A connected caller, and the header lines that only this listener needs."""
    if listener == "unix":
        caller = socket.socket(socket.AF_UNIX)
        caller.connect(os.path.join(directory, "gate.sock"))
        return caller, "Host: localhost\r\n"
    address = next(entry["tcp"] for entry in document["banks"][0]["listen"] if "tcp" in entry)
    host, _, port = address.rpartition(":")
    caller = socket.create_connection((host, int(port)))
    caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return caller, f"Host: {address}\r\nPriorgate-Token: {TOKEN}\r\n"


def drive(caller, lines, requests):
    request = (
        "POST /installment/create HTTP/1.1\r\n" + lines + "User-Agent: bench\r\nAccept: */*\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY
    caller.settimeout(120)
    stream = caller.makefile("rb")
    for _ in range(requests):
        caller.sendall(request)
        message = bank.read_message(stream)
        if message is None or not message[0].startswith(b"HTTP/1.1 200 ") or message[1] != bank.ANSWER:
            raise SystemExit(f"not the bank's answer: {message}")


def run(binary, listener, requests):
    """Instructions of a whole life of the gate with so many requests, and the connections that the bank saw."""
    with tempfile.TemporaryDirectory(prefix="priorgate-bench-") as directory:
        at = lambda name: os.path.join(directory, name)
        bank.make_pki(directory)
        remote = bank.Bank(directory)
        with open(at("token"), "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(TOKEN + "\n")
        with open(at("config.yaml"), "w") as file:
            file.write(CONFIG.format(name=bank.NAME, port=remote.port, uid=os.getuid(), me=pwd.getpwuid(os.getuid()).pw_name))
        # In the form of two units: under valgrind the gate cannot start this program once more. Nothing is confined, since
        # callgrind writes its profile when the process ends; what the kernel does is not counted anyhow.
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sign, open(at("keyholder.log"), "w") as log:
            sign.bind(at("sign.sock"))
            sign.listen()
            keyholder = subprocess.Popen(
                [binary, "keyholder", "--config", at("config.yaml")], stdin=sign, stdout=log, stderr=log
            )
        environment = dict(os.environ, PRIORGATE_KEYHOLDER_SOCKET=at("sign.sock"))
        with open(at("log"), "w") as log:
            gate = subprocess.Popen(
                ["valgrind", "--tool=callgrind", f"--callgrind-out-file={at('callgrind.out')}",
                 binary, "run", "--config", at("config.yaml")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
            )  # fmt: skip
        try:
            document = wait_until_ready(gate, directory)
            caller, lines = connect(directory, document, listener)
            with caller:
                drive(caller, lines, requests)
            gate.send_signal(signal.SIGTERM)
            if gate.wait(timeout=120) != 0:
                raise SystemExit(f"the gate ended with {gate.returncode}")
        except BaseException:
            with open(at("log")) as log:
                sys.stderr.write("".join(log.readlines()[-20:]))
            raise
        finally:
            if gate.poll() is None:
                gate.kill()
                gate.wait()
            keyholder.terminate()
            keyholder.wait()
        if remote.requests != requests or remote.received != {BODY}:
            raise SystemExit(f"{requests} requests were sent, the bank saw {remote.requests}")
        with open(at("callgrind.out")) as profile:
            totals = [line.split()[1] for line in profile if line.startswith("totals:")]
        if not totals:
            raise SystemExit("callgrind wrote no totals")
        return int(totals[-1]), remote.connections


def main():
    binary, requests = os.path.abspath(sys.argv[1]), int(sys.argv[2])
    print(f"POST {len(BODY)} bytes, answer {len(bank.ANSWER)} bytes, TLS 1.3, keep-alive on both sides", flush=True)
    figures = []
    for listener in ("tcp", "unix"):
        few, few_connections = run(binary, listener, requests)
        many, many_connections = run(binary, listener, 2 * requests)
        if few_connections != many_connections:
            raise SystemExit("the pool was not used alike: the difference would count handshakes")
        figures.append(round((many - few) / requests))
        print(f"over {listener}: {figures[-1]} (from {requests} and {2 * requests} requests)", flush=True)
    print(f"instructions per proxied request: {round(sum(figures) / len(figures))}")


main()
