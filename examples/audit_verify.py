#!/usr/bin/env python3
"""Verifies an audit log of priorgate without any of its code: python3 audit_verify.py audit.pub FILE... [SEQ:HEAD...]
All public keys, where the key was replaced. Files oldest first; SEQ:HEAD from the gate's log. Needs OpenSSL's library.
docs/audit.md explains the bytes and the rules."""
import base64, calendar, ctypes.util, hashlib, json, re, struct, sys
crypto, pointer = ctypes.CDLL(ctypes.util.find_library("crypto")), ctypes.c_void_p
crypto.EVP_PKEY_new_raw_public_key.restype = crypto.EVP_MD_CTX_new.restype = pointer
NUMBER, TEXT = "(?:0|-?[1-9][0-9]{0,17})", r'"(?:[ !#-\[\]-~]|\\["\\]|\\u(?!00[2-6]|007[0-9a-e])[0-9a-f]{4})*"'
RECORD = re.compile((r'\{"seq":(?:0|[1-9][0-9]{0,17}),"at":"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"'
    rf',"boot":{TEXT},"journal":(?:null,"after":0|"[0-9a-f]{{16}}","(?:row|after)":{NUMBER}),"event":"[a-z_]+"'
    rf'(?:,"[a-z0-9_]+":(?:{TEXT}|{NUMBER}|true))*,"prev":"[0-9a-f]{{64}}","hash":"[0-9a-f]{{64}}"\}}\n').encode())

class log:  # what is known so far; `gone` is the number of the record before the first one here
    seq = head = covered = unsigned = gone = ended = tail = None
    faults, hashes, keys, used = 0, {}, {}, []

def fits(key, message, signature):
    public, context = pointer(crypto.EVP_PKEY_new_raw_public_key(1087, None, key, pointer(32))), pointer(crypto.EVP_MD_CTX_new())
    crypto.EVP_DigestVerifyInit(context, None, None, None, public)  # 1087 is Ed25519
    fit = crypto.EVP_DigestVerify(context, signature, pointer(64), message, pointer(len(message))) == 1
    crypto.EVP_MD_CTX_free(context), crypto.EVP_PKEY_free(public)
    return fit

def once(members):
    return dict(members) if len(dict(members)) == len(members) else {}

def checkpoint(record, of, head):
    texts = [record.get(name, "") for name in ("head", "before_head", "signature")]
    numbers = [record.get(name) for name in ("of", "signed_at", "signatures", "before")]
    if type(numbers[0]) is not int or (numbers[0], texts[0]) != (of, head):
        return "a checkpoint of another record"
    if "signature" not in record:
        log.unsigned = log.unsigned or record["seq"]
        return "cut back: the signer had signed more" if "signed before" in str(record.get("unsigned")) else None
    key, before, before_head = log.keys.get(record.get("key_id")), numbers[3], texts[1]
    form = {type(number) for number in numbers} == {int} and re.fullmatch("[0-9a-f]{256}", "".join(texts)) and len(before_head) == 64
    if not (key and form and min(numbers) >= 0 and fits(key, b"priorgate audit checkpoint v2\0" + struct.pack(
            ">Q32sQQQ32s", of, bytes.fromhex(head), *numbers[1:], bytes.fromhex(before_head)), bytes.fromhex(texts[2]))):
        return "forged: the signature does not fit the public key"
    log.used += [] if log.used[-1:] == [key] else [key]
    if key in log.used[:-1]:
        return "forged: signed by a key that another one had replaced"
    ended = log.covered is None and before < log.gone and (before or before_head == "0" * 64)
    if not ended and log.hashes.get(before) != before_head:
        return f"rewritten: the signer had signed record {before} of another history"
    log.covered, log.unsigned, log.tail, log.hashes = of, None, None, {of: head}

def fault(line, record, second):
    seq, prev = record["seq"], record["prev"]
    if hashlib.sha256(bytes.fromhex(prev) + line[:-76] + b"}").hexdigest() != record["hash"]:
        return "edited"
    if log.seq is None:  # the first record of all follows on nothing
        log.seq = log.gone = max(seq - 1, 0)
        log.head = log.hashes[log.seq] = prev if seq > 1 else "0" * 64
    if seq != log.seq + 1:
        return f"records {log.seq + 1} to {seq - 1} are missing" if seq > log.seq else f"out of order: {seq} after {log.seq}"
    if prev != log.head:
        return "not chained to the record before it"
    if record["event"] == "ended" and type(record.get("last")) is int and record["last"] == log.gone:
        log.ended = log.ended or seq
    found = checkpoint(record, log.seq, log.head) if record["event"] == "checkpoint" else None
    if record["event"] != "checkpoint" or "signature" not in record:
        log.tail = (log.tail or [second])[0], second
    return found

def take(line):
    record = json.loads(line, object_pairs_hook=once) if RECORD.fullmatch(line) else None
    if not record:
        return "no record: it has not the form of one, has a member twice, or is cut off"
    found = fault(line, record, calendar.timegm([int(part) for part in re.findall("[0-9]+", record["at"])][:6]))
    log.seq, log.head = record["seq"], record["hash"]
    log.hashes[log.seq] = log.head
    log.hashes.pop(log.seq - (1 << 18), None)
    return found

def tell(place, found):
    log.faults += bool(found)
    print(ascii(f"{place}: {found}")[1:-1]) if found else None

anchors, files = set(), []
for argument in sys.argv[1:]:
    if re.fullmatch("[0-9]+:[0-9a-f]{64}", argument):
        anchors.add((int(argument[:-65]), argument[-64:]))
    elif (start := open(argument, "rb").read(1024)).startswith(b"-----BEGIN PUBLIC KEY-----"):
        der = base64.b64decode(start.split(b"-----")[2])
        log.keys[hashlib.sha256(der).hexdigest()[:16]] = der[-32:] if len(der) == 44 else sys.exit("no Ed25519 key")
    else:
        files.append(argument)
for name in files:
    first = re.search(r"\.([0-9]{16})\Z", name)
    for place, line in enumerate(iter(lambda file=open(name, "rb"): file.readline((1 << 14) + 1), b""), 1):
        try:
            found = take(line)
        except Exception as error:
            found = f"no record: {error}"
        renamed = first and place == 1 and log.seq != int(first[1])
        tell(f"{name}:{place}", found or (renamed and "the file's name is of another first record"))
        anchors -= set() if found else {(log.seq, log.head)}
for anchor in sorted(anchors):
    tell("the end", f"record {anchor[0]} was noted elsewhere and is not here, or is another one")
if log.gone and not 0 < (log.ended or 0) <= (log.covered or 0):
    tell("the beginning", f"records 1 to {log.gone} are not here, and no signed `ended` record says that their time was over")
records = (log.seq or 0) - (-1 if log.covered is None else log.covered) - 1
if log.tail and (records > 300 or log.tail[1] - log.tail[0] > 120):
    tell("the end", f"{records} records have no signature after them: more than a signer that works leaves")
print(f"{log.faults} faults; signed up to record {log.covered}; the end is {log.seq}:{log.head}; compare it with the log's last `audit head`")
sys.exit(1 if log.faults or log.covered is None or log.unsigned else 0)
