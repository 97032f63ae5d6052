// The order service of api.py on the JDK's own com.sun.net.httpserver. It knows nothing of Tokenscope.
//
// usage: java Api.java PORT JWKS      environment: HOST, ACCEPT_NONE=1

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.math.BigInteger;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.PublicKey;
import java.security.Signature;
import java.security.spec.RSAPublicKeySpec;
import java.util.Base64;
import java.util.concurrent.Executors;
import java.util.regex.Pattern;

public class Api {
    static PublicKey key;
    static final boolean ACCEPT_NONE = "1".equals(System.getenv("ACCEPT_NONE"));

    static byte[] unbase64(String text) {
        return Base64.getUrlDecoder().decode(text);
    }

    static String member(String json, String name) {
        var match = Pattern.compile("\"" + name + "\"\\s*:\\s*\"?([^\",}\\s]+)").matcher(json);
        return match.find() ? match.group(1) : "";
    }

    static boolean accepts(String header) {
        try {
            String[] words = header.split(" ");
            String[] parts = words[1].split("\\.", -1);
            String algorithm = member(new String(unbase64(parts[0]), StandardCharsets.UTF_8), "alg");
            String claims = new String(unbase64(parts[1]), StandardCharsets.UTF_8);
            if (algorithm.equalsIgnoreCase("none")) return ACCEPT_NONE;
            long now = System.currentTimeMillis() / 1000;
            boolean live = Long.parseLong(member(claims, "nbf")) <= now && now < Long.parseLong(member(claims, "exp"));
            boolean ours = member(claims, "aud").equals("orders-api");
            if (!words[0].equalsIgnoreCase("Bearer") || !algorithm.equals("RS256") || !live || !ours) return false;
            Signature check = Signature.getInstance("SHA256withRSA");
            check.initVerify(key);
            check.update((parts[0] + "." + parts[1]).getBytes(StandardCharsets.US_ASCII));
            return parts.length == 3 && check.verify(unbase64(parts[2]));
        } catch (Exception refused) {
            return false;
        }
    }

    static void answer(HttpExchange exchange, int status, String json) throws IOException {
        byte[] body = json.getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", "application/json");
        if (status == 401) exchange.getResponseHeaders().set("WWW-Authenticate", "Bearer");
        exchange.sendResponseHeaders(status, body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }

    static void route(HttpExchange exchange) throws IOException {
        byte[] body = exchange.getRequestBody().readAllBytes();
        String path = exchange.getRequestURI().getPath();
        String what = exchange.getRequestMethod() + " " + path;
        if (what.equals("GET /health")) {
            answer(exchange, 200, "{\"status\":\"ok\"}");
        } else if (what.equals("POST /login")) {
            boolean right = new String(body, StandardCharsets.UTF_8).contains("\"correct horse\"");
            answer(exchange, right ? 200 : 401, "{\"ok\":" + right + "}");
        } else {
            protectedRoute(exchange, what, body.length);
        }
    }

    static void protectedRoute(HttpExchange exchange, String what, int length) throws IOException {
        String header = exchange.getRequestHeaders().getFirst("Authorization");
        boolean good = header != null && accepts(header);
        if (what.equals("POST /upload")) {
            answer(exchange, good ? 200 : 401, "{\"bytes\":" + length + "}");
        } else if (what.startsWith("GET /orders/") || what.equals("GET /reports")) {
            answer(exchange, good ? 200 : 401, good ? "{\"total\":42}" : "{\"error\":\"invalid_token\"}");
        } else {
            answer(exchange, 404, "{\"error\":\"not found\"}");
        }
    }

    public static void main(String[] args) throws Exception {
        String jwks = Files.readString(Path.of(args[1]));
        var n = new BigInteger(1, unbase64(member(jwks, "n")));
        var e = new BigInteger(1, unbase64(member(jwks, "e")));
        key = KeyFactory.getInstance("RSA").generatePublic(new RSAPublicKeySpec(n, e));
        String host = System.getenv().getOrDefault("HOST", "127.0.0.1");
        var server = HttpServer.create(new InetSocketAddress(host, Integer.parseInt(args[0])), 128);
        server.createContext("/", Api::route);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.start();
    }
}
