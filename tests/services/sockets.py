"""Both ends of one HTTP exchange over a socket of an unusual kind: sockets.py KIND PORT TOKEN.

Prints the client's port. Exits with 77 if this kernel has no such sockets.
"""

import ctypes
import os
import socket
import subprocess
import sys

KIND, PORT, TOKEN = sys.argv[1], int(sys.argv[2]), sys.argv[3]
REQUEST = f"GET /orders/7 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
REPLY = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
IPPROTO_MPTCP, SO_ZEROCOPY, MSG_ZEROCOPY = 262, 60, 0x4000000


FAMILY, HOST = (socket.AF_INET6, "::1") if KIND in ("ipv6-options", "big-tcp") else (socket.AF_INET, "127.0.0.1")
# A destination options header of eight bytes (RFC 8200 section 4.6): next header, length, PadN of four.
OPTIONS = bytes([0, 0, 1, 4, 0, 0, 0, 0])


def enter_big_network():
    """A network of its own whose packets may be larger than 64 KiB (BIG TCP, Linux 5.19)."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000) != 0:  # CLONE_NEWNET
        sys.exit(77)
    sizes = ["gso_max_size", "300000", "gro_max_size", "300000"]
    if subprocess.run(["ip", "link", "set", "lo", "up", *sizes], stderr=subprocess.DEVNULL).returncode != 0:
        sys.exit(77)
    for name in ("tcp_rmem", "tcp_wmem"):
        with open(f"/proc/sys/net/ipv4/{name}", "w") as setting:
            setting.write("4096 4000000 8000000")


class Watch:
    """Sees the size of every packet on the loopback device."""

    def __init__(self):
        self.tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.tap.bind(("lo", 0))
        self.tap.settimeout(1)

    def largest(self):
        largest = 0
        try:
            while True:
                largest = max(largest, self.tap.recv_into(bytearray(1), 0, socket.MSG_TRUNC))
        except TimeoutError:
            return largest


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
    seen, heads = b"", 2 if KIND == "big-tcp" else 1
    while seen.count(b"\r\n\r\n") < heads:
        seen += peer.recv(1 << 20)
    if KIND == "big-tcp":
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    peer.send(REPLY, MSG_ZEROCOPY if KIND == "zero-copy" else 0)


if KIND == "big-tcp":
    enter_big_network()
    watch = Watch()
    # The forged request lies beyond the first 64 KiB of a packet.
    REQUEST = b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000 + REQUEST
listener = make()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((HOST, PORT))
listener.listen()
client = make()
client.connect((HOST, PORT))
peer, _ = listener.accept()
if KIND == "big-tcp":
    # Windows grow with use.
    client.sendall(b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 1500000\r\n\r\n" + b"x" * 1500000)
    seen = 0
    while seen < 1500000:
        seen += len(peer.recv(1 << 20))
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    client.recv(65536)
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
replies = b""
while b"HTTP/1.1 401" not in replies:
    replies += client.recv(65536)
if KIND == "big-tcp" and (size := watch.largest()) <= 65535:
    sys.exit(f"the largest packet had {size} bytes")
print(client.getsockname()[1])
