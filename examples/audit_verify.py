#!/usr/bin/env python3
"""Verifies an audit log of priorgate without any of its code: python3 audit_verify.py audit.pub FILE... [SEQ:HEAD...]
The files oldest first; SEQ:HEAD from the gate's log. Needs the openssl program. docs/audit.md explains the bytes."""
import hashlib, json, struct, subprocess, sys, tempfile

DOMAIN = b"priorgate audit checkpoint v1\0"
TAIL = len(',"hash":""}') + 64

def fits(public_key, message, signature):
    with tempfile.NamedTemporaryFile() as m, tempfile.NamedTemporaryFile() as s:
        m.write(message), s.write(signature), m.flush(), s.flush()
        command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public_key, "-rawin"]
        command += ["-in", m.name, "-sigfile", s.name]
        return subprocess.run(command, capture_output=True).returncode == 0

def fault(line, record, last_seq, last_hash, public_key):
    body = line[:-TAIL] + b"}"
    end = f',"hash":"{record["hash"]}"}}'.encode()
    if line[-TAIL:] != end or hashlib.sha256(bytes.fromhex(record["prev"]) + body).hexdigest() != record["hash"]:
        return "edited"
    if last_seq is None:  # an older file may be gone; the first record of all follows on nothing
        last_seq, last_hash = record["seq"] - 1, "0" * 64 if record["seq"] == 1 else record["prev"]
    if record["seq"] > last_seq + 1:
        return f"records {last_seq + 1} to {record['seq'] - 1} are missing"
    if record["seq"] <= last_seq:
        return f"out of order: record {record['seq']} after {last_seq}"
    if record["prev"] != last_hash:
        return "not chained to the record before it"
    if record["event"] == "checkpoint":
        if (record["of"], record["head"]) != (last_seq, last_hash):
            return "a checkpoint of another record"
        if "signature" in record:
            numbers = struct.pack(">QQ", record["signed_at"], record["signatures"])
            message = DOMAIN + struct.pack(">Q", record["of"]) + bytes.fromhex(record["head"]) + numbers
            if not fits(public_key, message, bytes.fromhex(record["signature"])):
                return "forged: the signature does not fit the public key"

public_key, arguments = sys.argv[1], sys.argv[2:]
anchors = dict(a.split(":") for a in arguments if len(a.rpartition(":")[2]) == 64)
seq, head, covered, unsigned, faults, seen = None, None, None, None, 0, {}
for name in [a for a in arguments if len(a.rpartition(":")[2]) != 64]:
    for number, line in enumerate(open(name, "rb"), 1):
        try:
            record = json.loads(line)
            found = fault(line.rstrip(b"\n"), record, seq, head, public_key) if line.endswith(b"\n") else "cut off"
            seq, head = record["seq"], record["hash"]
            seen.update({str(seq): head} if str(seq) in anchors else {})
            if record["event"] == "checkpoint" and not found:
                covered, unsigned = (record["of"], None) if "signature" in record else (covered, unsigned or seq)
        except (ValueError, KeyError, TypeError) as error:
            found = f"no record: {error}"
        if found:
            faults += 1
            print(f"{name}:{number}: {found}")
for number in (number for number in anchors if seen.get(number) != anchors[number]):
    faults += 1
    print(f"record {number} was noted elsewhere and is not here, or is another one")
print(f"{faults} faults; signed up to record {covered}; the end is {seq}:{head}; compare it with the log's last `audit head`")
sys.exit(1 if faults or covered is None or unsigned else 0)
