// The order service of api.py on Node's own http module. It knows nothing of Tokenscope.
//
// usage: node api.js PORT JWKS      environment: HOST, ACCEPT_NONE=1
"use strict";
const crypto = require("node:crypto");
const fs = require("node:fs");
const http = require("node:http");

const [port, jwks] = process.argv.slice(2);
const jwk = JSON.parse(fs.readFileSync(jwks, "utf8")).keys.find((key) => key.kty === "RSA");
const key = crypto.createPublicKey({ key: jwk, format: "jwk" });
const acceptNone = process.env.ACCEPT_NONE === "1";

function accepts(header) {
  const [scheme, token] = (header ?? "").split(" ");
  try {
    const [head, payload, signature] = token.split(".");
    const { alg } = JSON.parse(Buffer.from(head, "base64url"));
    const claims = JSON.parse(Buffer.from(payload, "base64url"));
    if (alg.toLowerCase() === "none") return acceptNone;
    if (scheme.toLowerCase() !== "bearer" || alg !== "RS256" || claims.aud !== "orders-api") return false;
    if (!(claims.nbf * 1000 <= Date.now() && Date.now() < claims.exp * 1000)) return false;
    return crypto.verify("sha256", Buffer.from(`${head}.${payload}`), key, Buffer.from(signature, "base64url"));
  } catch {
    return false;
  }
}

function answer(response, status, value) {
  const headers = { "Content-Type": "application/json" };
  if (status === 401) headers["WWW-Authenticate"] = "Bearer";
  response.writeHead(status, headers);
  response.end(JSON.stringify(value));
}

function route(request, response, body) {
  const path = request.url.split("?")[0];
  const what = `${request.method} ${path}`;
  if (what === "GET /health") return answer(response, 200, { status: "ok" });
  if (what === "POST /login") {
    let right = false;
    try {
      right = JSON.parse(body).password === "correct horse";
    } catch {}
    return answer(response, right ? 200 : 401, { ok: right });
  }
  const good = accepts(request.headers.authorization);
  if (what === "POST /upload") return answer(response, good ? 200 : 401, { bytes: body.length });
  if (request.method === "GET" && (path.startsWith("/orders/") || path === "/reports")) {
    return good ? answer(response, 200, { path, total: 42 }) : answer(response, 401, { error: "invalid_token" });
  }
  return answer(response, 404, { error: "not found" });
}

http
  .createServer((request, response) => {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => route(request, response, Buffer.concat(parts)));
  })
  .on("upgrade", (request, socket) => {
    socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    socket.on("data", () => socket.write("\x81\x01x"));
  })
  .listen(Number(port), process.env.HOST ?? "127.0.0.1");
