#!/usr/bin/env python3
"""A small order service on Python's own http.server. It knows nothing of Tokenscope.

usage: api.py PORT JWKS      environment: HOST, ACCEPT_NONE=1

GET /health               anyone
POST /login               {"username": ..., "password": ...}; 401 unless the password is right
GET /orders/ID, /reports  a bearer token, RS256 under the key in JWKS, meant for us, now
POST /upload              the same; answers how many bytes came
ACCEPT_NONE=1 plants the classic hole: whatever says "alg": "none" is believed.
"""
import base64
import hashlib
import json
import os
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")  # SHA-256, RFC 8017 section 9.2


def unbase64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Verifier:
    def __init__(self, path):
        keys = json.load(open(path, encoding="utf-8"))["keys"]
        key = next(key for key in keys if key["kty"] == "RSA")
        self.n = int.from_bytes(unbase64(key["n"]), "big")
        self.e = int.from_bytes(unbase64(key["e"]), "big")
        self.accept_none = os.environ.get("ACCEPT_NONE") == "1"

    def accepts(self, header):
        scheme, _, token = header.partition(" ")
        try:
            head, payload, signature = token.split(".")
            algorithm = json.loads(unbase64(head))["alg"]
            claims = json.loads(unbase64(payload))
            if algorithm.lower() == "none":
                return self.accept_none
            if scheme.lower() != "bearer" or algorithm != "RS256" or claims["aud"] != "orders-api":
                return False
            if not claims["nbf"] <= time.time() < claims["exp"]:
                return False
            return self.signature_fits((head + "." + payload).encode(), unbase64(signature))
        except Exception:
            return False

    def signature_fits(self, message, signature):
        size = (self.n.bit_length() + 7) // 8
        digest = DIGEST_INFO + hashlib.sha256(message).digest()
        wanted = b"\0\1" + b"\xff" * (size - len(digest) - 3) + b"\0" + digest
        return pow(int.from_bytes(signature, "big"), self.e, self.n) == int.from_bytes(wanted, "big")


class Orders(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    verifier = None

    def log_message(self, *_):
        pass

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(body)

    def read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self):
        self.read_body()
        path = self.path.split("?")[0]
        if path == "/health":
            return self.answer(200, {"status": "ok"})
        if not (path.startswith("/orders/") or path == "/reports"):
            return self.answer(404, {"error": "not found"})
        if not self.verifier.accepts(self.headers.get("Authorization", "")):
            return self.answer(401, {"error": "invalid_token"})
        return self.answer(200, {"path": path, "total": 42})

    def do_POST(self):
        body = self.read_body()
        if self.path == "/login":
            try:
                right = json.loads(body).get("password") == "correct horse"
            except (ValueError, AttributeError):
                right = False
            return self.answer(200 if right else 401, {"ok": right})
        if self.path == "/upload":
            good = self.verifier.accepts(self.headers.get("Authorization", ""))
            return self.answer(200 if good else 401, {"bytes": len(body)})
        return self.answer(404, {"error": "not found"})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main():
    Orders.verifier = Verifier(sys.argv[2])
    host = os.environ.get("HOST", "127.0.0.1")
    Server.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
    Server((host, int(sys.argv[1])), Orders).serve_forever()


main()
