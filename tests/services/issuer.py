#!/usr/bin/env python3
"""An issuer of opaque tokens on Python's own http.server. It knows nothing of Tokenscope.

usage: issuer.py PORT     environment: HOST

POST /login         {"username": ..., "password": ...}; 401 unless the password is right. The answer is 4 KiB long, and
                    its tokens stand at the end: what it calls tokens are numbers, which is its hole
POST /oauth/token   refresh_token=...; answers in chunks with a new one; the old one stays good, which is another
GET /news           anyone
GET /orders/ID      a token that was issued
"""
import json
import os
import secrets
import sys
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Issuer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    tokens = set()
    refresh = set()

    def log_message(self, *_):
        pass

    def answer(self, status, value, chunked=False):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not chunked:
            self.wfile.write(body)
            return
        for at in range(0, len(body), 40):
            part = body[at : at + 40]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def issue(self, **more):
        token, refresh = f"shop-{41 + len(self.tokens):09}", secrets.token_urlsafe(24)
        self.tokens.add(token)
        self.refresh.add(refresh)
        return {**more, "access_token": token, "token_type": "Bearer", "expires_in": 900, "refresh_token": refresh}

    def do_GET(self):
        if self.path == "/news":
            return self.answer(200, {"news": []})
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        good = token in self.tokens and self.path.startswith("/orders/")
        return self.answer(200 if good else 401, {"total": 42})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.path == "/login":
            if json.loads(body).get("password") != "correct horse":
                return self.answer(401, {"error": "invalid"})
            return self.answer(200, self.issue(profile="x" * 4096))
        if self.path == "/oauth/token":
            given = urllib.parse.parse_qs(body).get("refresh_token", [""])[0]
            if given not in self.refresh:
                return self.answer(400, {"error": "invalid_grant"})
            return self.answer(200, self.issue(), chunked=True)
        return self.answer(404, {"error": "not found"})


class Server(ThreadingHTTPServer):
    daemon_threads = True


Server((os.environ.get("HOST", "127.0.0.1"), int(sys.argv[1])), Issuer).serve_forever()
