"""Both ends of one HTTP exchange over a socket of an unusual kind: sockets.py KIND PORT TOKEN.

Prints the client's port. Exits with 77 if this kernel has no such sockets.
"""

import os
import socket
import sys

KIND, PORT, TOKEN = sys.argv[1], int(sys.argv[2]), sys.argv[3]
REQUEST = f"GET /orders/7 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
REPLY = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
IPPROTO_MPTCP, SO_ZEROCOPY, MSG_ZEROCOPY = 262, 60, 0x4000000


FAMILY, HOST = (socket.AF_INET6, "::1") if KIND == "ipv6-options" else (socket.AF_INET, "127.0.0.1")
# A destination options header of eight bytes (RFC 8200 section 4.6): next header, length, PadN of four.
OPTIONS = bytes([0, 0, 1, 4, 0, 0, 0, 0])


def make():
    try:
        made = socket.socket(FAMILY, socket.SOCK_STREAM, IPPROTO_MPTCP if KIND == "mptcp" else 0)
        if KIND == "ipv6-options":
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, OPTIONS)
        if KIND == "zero-copy":
            made.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
        return made
    except OSError:
        sys.exit(77)


def answer(peer):
    seen = b""
    while b"\r\n\r\n" not in seen:
        seen += peer.recv(65536)
    peer.send(REPLY, MSG_ZEROCOPY if KIND == "zero-copy" else 0)


listener = make()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((HOST, PORT))
listener.listen()
client = make()
client.connect((HOST, PORT))
peer, _ = listener.accept()
child = 0
if KIND == "passed-on":
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        _, descriptors, _, _ = socket.recv_fds(theirs, 1, 1)
        answer(socket.socket(fileno=descriptors[0]))
        os._exit(0)
    socket.send_fds(ours, [b"x"], [peer.fileno()])
    peer.close()
if KIND == "urgent":
    client.send(b"!", socket.MSG_OOB)
if KIND == "zero-copy":
    peer.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
client.send(REQUEST, MSG_ZEROCOPY if KIND == "zero-copy" else 0)
if KIND == "passed-on":
    os.waitpid(child, 0)
else:
    answer(peer)
assert client.recv(65536).startswith(b"HTTP/1.1 401")
print(client.getsockname()[1])
