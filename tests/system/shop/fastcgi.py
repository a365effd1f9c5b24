"""fastcgi.py SOCKET: one FastCGI request to PHP-FPM, of the script and the query in the environment; prints its answer."""

import os
import socket
import struct
import sys


def record(kind, content):
    return struct.pack(">BBHHBx", 1, kind, 1, len(content), 0) + content


def pair(name, value):
    return struct.pack(">BB", len(name), len(value)) + name.encode() + value.encode()


def main(path):
    names = ("SCRIPT_FILENAME", "REQUEST_METHOD", "QUERY_STRING")
    params = b"".join(pair(name, os.environ[name]) for name in names)
    # A responder, whose connection ends with its answer.
    begin = struct.pack(">HB5x", 1, 0)
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(10)
        stream.connect(path)
        stream.sendall(record(1, begin) + record(4, params) + record(4, b"") + record(5, b""))
        answer = b"".join(iter(lambda: stream.recv(65536), b""))
    while len(answer) >= 8:
        _, kind, _, length, padding = struct.unpack(">BBHHBx", answer[:8])
        if kind == 6:
            sys.stdout.buffer.write(answer[8 : 8 + length])
        answer = answer[8 + length + padding :]


main(sys.argv[1])
