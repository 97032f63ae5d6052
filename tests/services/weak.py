#!/usr/bin/env python3
"""The order service with holes of orders/weak (Gin) on Python's own http.server. It knows nothing of Tokenscope.

usage: weak.py PORT JWKS     environment: HOST, HOLES=none,confusion,audience,issuer,expiry,secret,key,kid,signature,
revocation,bola,bfla
"""
import base64
import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")  # SHA-256, RFC 8017 section 9.2
SPKI = bytes.fromhex("300d06092a864886f70d0101010500")  # rsaEncryption, RFC 8017 appendix A.1
HOLES = set(os.environ.get("HOLES", "").split(","))


def unbase64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def der(tag, body):
    size = len(body)
    if size < 128:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def integer(value):
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


class Key:
    def __init__(self, jwk):
        self.n = int.from_bytes(unbase64(jwk["n"]), "big")
        self.e = int.from_bytes(unbase64(jwk["e"]), "big")

    def pem(self):
        bits = der(3, b"\0" + der(0x30, integer(self.n) + integer(self.e)))
        text = base64.b64encode(der(0x30, SPKI + bits)).decode()
        lines = [text[at : at + 64] for at in range(0, len(text), 64)]
        return ("-----BEGIN PUBLIC KEY-----\n" + "\n".join(lines) + "\n-----END PUBLIC KEY-----\n").encode()

    def fits(self, message, signature):
        size = (self.n.bit_length() + 7) // 8
        digest = DIGEST_INFO + hashlib.sha256(message).digest()
        wanted = b"\0\1" + b"\xff" * (size - len(digest) - 3) + b"\0" + digest
        return pow(int.from_bytes(signature, "big"), self.e, self.n) == int.from_bytes(wanted, "big")


class Verifier:
    def __init__(self, path):
        keys = json.load(open(path, encoding="utf-8"))["keys"]
        self.key = Key(next(key for key in keys if key["kty"] == "RSA"))
        self.revoked = set()

    def read(self, header):
        scheme, _, token = header.partition(" ")
        try:
            head, payload, signature = token.split(".")
            claims = json.loads(unbase64(payload))
            good = scheme.lower() == "bearer" and self.signed(
                json.loads(unbase64(head)), (head + "." + payload).encode(), unbase64(signature)
            )
            issuer = claims["iss"] == "https://idp.example/" or HOLES & {"issuer", "secret"}
            audience = claims["aud"] == "orders-api" or "audience" in HOLES
            dates = claims["nbf"] <= time.time() < claims["exp"] or "expiry" in HOLES
            over = claims.get("jti") in self.revoked and "revocation" not in HOLES
            return claims if good and issuer and audience and dates and not over else None
        except Exception:
            return None

    def signed(self, head, message, signature):
        alg, kid = head["alg"], head.get("kid", "")
        if alg.lower() == "none":
            return "none" in HOLES
        if "signature" in HOLES:
            return True
        if alg == "RS256":
            own = "jwk" in head and "key" in HOLES
            return (Key(head["jwk"]) if own else self.key).fits(message, signature)
        if alg != "HS256":
            return False

        def fits(secret):
            return hmac.compare_digest(hmac.new(secret, message, hashlib.sha256).digest(), signature)

        if "/" in kid and "kid" in HOLES:
            with open("/" + kid.replace("../", "").lstrip("/"), "rb") as file:
                return fits(file.read())
        return "confusion" in HOLES and fits(self.key.pem()) or "secret" in HOLES and fits(b"secret")


class Orders(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    verifier = None

    def log_message(self, *_):
        pass

    def answer(self, status, value):
        body = b"" if status == 204 else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/health":
            return self.answer(200, {"status": "ok"})
        claims = self.verifier.read(self.headers.get("Authorization", ""))
        if claims is None:
            return self.answer(401, {"error": "invalid_token"})
        if path.startswith("/orders/"):
            owns = claims["sub"].endswith(path[-1])
            return self.answer(200 if owns or "bola" in HOLES else 403, {"total": 42})
        if path == "/admin/users":
            may = "ADMIN" in claims.get("roles", []) or "bfla" in HOLES
            return self.answer(200 if may else 403, {"users": ["alice"]})
        return self.answer(404, {"error": "not found"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/login":
            try:
                right = json.loads(body).get("password") == "correct horse"
            except (ValueError, AttributeError):
                right = False
            return self.answer(200 if right else 401, {"ok": right})
        claims = self.verifier.read(self.headers.get("Authorization", ""))
        if claims is None:
            return self.answer(401, {"error": "invalid_token"})
        if self.path == "/logout":
            self.verifier.revoked.add(claims.get("jti"))
            return self.answer(204, {})
        return self.answer(404, {"error": "not found"})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Orders.verifier = Verifier(sys.argv[2])
Server((os.environ.get("HOST", "127.0.0.1"), int(sys.argv[1])), Orders).serve_forever()
