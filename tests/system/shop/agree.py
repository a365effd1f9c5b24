"""agree.py ORDER STATUS SUM...: whether shop and bank say the same of an order, and whether money moved just so.

STATUS is what must have become of the order's only session, each SUM a refund that must have been made, in this order.
Looks again until all agree and nothing is under way any more, for twenty seconds, and then says what does not.
"""

import json
import ssl
import subprocess
import sys
import time
import urllib.request

SHOP = "https://shop.example"
BANK = "http://127.0.0.1:9444"
TRUST = ssl.create_default_context(cafile="/etc/shop-ca.pem")


def get(url):
    context = TRUST if url.startswith("https") else None
    with urllib.request.urlopen(url, timeout=15, context=context) as answer:
        return json.load(answer)


def kopecks(text):
    whole, fraction = text.split(".")
    return int(whole) * 100 + int(fraction)


def saved(field):
    """What the shop has written down as given back: the larger of the total and the sum of the parts."""
    if not field:
        return 0
    total, parts = (part.split("=")[1] for part in field.split()[2:4])
    return max(int(total), sum(int(part.split(":")[1]) for part in parts.split(",") if part))


def under_way(session):
    """Callbacks of which something is still to become, at the bank and in the gate."""
    at_bank = [
        event["status"]
        for event in get(f"{BANK}/control/callbacks")["events"]
        if event["session_id"] == session and event["state"] not in ("accepted", "given-up")
    ]
    listed = subprocess.run(
        ["priorgate", "callbacks", "list", "--session", session, "--json"], capture_output=True, text=True, check=True
    )
    events = json.loads(listed.stdout)["events"]
    in_gate = [event["status"] for event in events if event["state"] in ("waiting", "head", "claimed")]
    return at_bank + in_gate


def differences(order, status, refunds):
    sessions = [one for one in get(f"{BANK}/control/state")["sessions"] if one["order_ref"] == order]
    if len(sessions) != 1:
        return [f"the bank has {len(sessions)} sessions of this order"]
    session = sessions[0]
    shop = get(f"{SHOP}/state?order={order}")
    given = [one["amount"] for one in session["refunds"]]
    approved = status in ("APPROVED", "REFUNDED")
    whole = status == "REFUNDED"
    back = sum(map(kopecks, refunds))
    expected = {
        "the bank's status": (session["status"], status),
        "the bank's refunds": (given, refunds),
        "refunds that the bank was asked for": (session["refund_requests"], len(refunds)),
        "the shop's session": (shop["PS_INVOICE_ID"], session["session_id"]),
        "PAID": (shop["PAID"], "Y" if status == "APPROVED" else "N"),
        "IS_RETURN": (shop["IS_RETURN"], "P" if whole else "N"),
        "what the shop has as given back": (saved(shop["PS_STATUS_MESSAGE"]), back),
        "receipts": (shop["receipts"], int(approved)),
        "receipts of the return": (shop["returns"], int(whole)),
        "under way": (under_way(session["session_id"]), []),
    }
    if not back:
        expected["the shop's status"] = (shop["PS_STATUS_CODE"], status)
    return [f"{what}: {is_!r}, not {should!r}" for what, (is_, should) in expected.items() if is_ != should]


def main(order, status, *refunds):
    end = time.monotonic() + 20
    while True:
        found = differences(order, status, list(refunds))
        if not found:
            return
        if time.monotonic() > end:
            sys.exit("\n".join(found))
        time.sleep(0.2)


main(*sys.argv[1:])
