#!/usr/bin/env python3
"""A network between two interfaces that misbehaves in one chosen way, always the same way for one seed.

usage: wire.py MODE CLIENT_SIDE SERVER_SIDE

clean         passes everything
lossy         loses 5 %, repeats 5 % and swaps 25 % of the frames, both ways
bad-checksum  sends an altered copy with a wrong TCP checksum before every segment with payload
window        the same with a right checksum, far outside the receiver's window
rst           sends a reset with an impossible sequence number before every segment with payload
overlap       cuts every payload in two that overlap, first half first
overlap-back  the same, second half first
conflict      sends another text for the second half of every payload, too early, then the whole
conflict-won  sends every request without its token first, then as it was: the receiver keeps the first
Prints "ready" when frames are being passed.
"""
import random
import select
import socket
import struct
import sys

OUTGOING = 4  # PACKET_OUTGOING of linux/if_packet.h
HOLD_S = 0.005  # how long a swapped frame waits for one to overtake it


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Packet:
    """An Ethernet frame taken apart; only IPv4 with TCP and payload is `interesting`."""

    def __init__(self, frame):
        self.frame = frame
        self.interesting = False
        if frame[12:14] != b"\x08\x00" or frame[23] != 6:
            return
        self.ip_len = (frame[14] & 15) * 4
        self.end = 14 + struct.unpack("!H", frame[16:18])[0]
        self.tcp_at = 14 + self.ip_len
        self.payload_at = self.tcp_at + (frame[self.tcp_at + 12] >> 4) * 4
        self.seq = struct.unpack("!I", frame[self.tcp_at + 4 : self.tcp_at + 8])[0]
        self.payload = frame[self.payload_at : self.end]
        self.interesting = len(self.payload) > 0

    def rebuilt(self, seq, payload, flags=None, spoil=0):
        """This packet with another sequence number, payload and flags, and checksums to match (or not)."""
        ip = bytearray(self.frame[14 : self.tcp_at])
        tcp = bytearray(self.frame[self.tcp_at : self.payload_at])
        tcp[4:8] = struct.pack("!I", seq % 2**32)
        if flags is not None:
            tcp[13] = flags
        ip[2:4] = struct.pack("!H", len(ip) + len(tcp) + len(payload))
        ip[10:12] = b"\0\0"
        ip[10:12] = struct.pack("!H", checksum(bytes(ip)))
        tcp[16:18] = b"\0\0"
        pseudo = bytes(ip[12:20]) + struct.pack("!HH", 6, len(tcp) + len(payload))
        tcp[16:18] = struct.pack("!H", checksum(pseudo + bytes(tcp) + payload) ^ spoil)
        return self.frame[:14] + bytes(ip) + bytes(tcp) + payload


def decoy(payload):
    """What a fooled sensor would believe: the same request without its token."""
    return payload.replace(b"Authorization: Bearer ", b"X-Nothing-At-All: nil ")


def misbehave(mode, frame, rng):
    """The frames to send instead of this one; None holds it back for the next to overtake."""
    if mode == "lossy":
        dice = rng.random()
        if dice < 0.05:
            return []
        if dice < 0.10:
            return [frame, frame]
        return None if dice < 0.35 else [frame]
    packet = Packet(frame)
    if mode == "clean" or not packet.interesting:
        return [frame]
    if mode == "bad-checksum":
        return [packet.rebuilt(packet.seq, decoy(packet.payload), spoil=0x5A5A), frame]
    if mode == "window":
        return [packet.rebuilt(packet.seq + 2**30, decoy(packet.payload)), frame]
    if mode == "rst":
        return [packet.rebuilt(packet.seq + 2**30, b"", flags=0x04), frame]
    if mode == "conflict-won":
        return [packet.rebuilt(packet.seq, decoy(packet.payload)), frame]
    if mode == "conflict":
        half = len(packet.payload) // 2
        return [packet.rebuilt(packet.seq + half, packet.payload[half:].swapcase()), frame]
    middle, extra = len(packet.payload) // 2, min(10, len(packet.payload) // 2)
    first = packet.rebuilt(packet.seq, packet.payload[: middle + extra])
    second = packet.rebuilt(packet.seq + middle - extra, packet.payload[middle - extra :])
    return [second, first] if mode == "overlap-back" else [first, second]


def open_side(name):
    side = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    side.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    side.bind((name, 0))
    return side


def main():
    mode, sides = sys.argv[1], [open_side(name) for name in sys.argv[2:4]]
    rng = random.Random(20261121)
    other = {sides[0]: sides[1], sides[1]: sides[0]}
    held = {side: [] for side in sides}
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select(sides, [], [], HOLD_S if any(held.values()) else None)
        for side in ready:
            frame, address = side.recvfrom(65536)
            if address[2] == OUTGOING:
                continue
            frames = misbehave(mode, frame, rng)
            if frames is None:
                held[side].append(frame)
                continue
            # Whatever was held back goes out after the frame that overtook it.
            for out in frames + held[side]:
                other[side].send(out)
            held[side].clear()
        if not ready:
            for side in sides:
                for out in held[side]:
                    other[side].send(out)
                held[side].clear()


main()
