// The order service of api.py on Go's own net/http. It knows nothing of Tokenscope.
//
// usage: nethttp PORT JWKS      environment: HOST, ACCEPT_NONE=1
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"

	"orders/verify"
)

func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(status)
	fmt.Fprint(w, body)
}

func login(w http.ResponseWriter, r *http.Request) {
	var form struct{ Password string }
	if json.NewDecoder(r.Body).Decode(&form) == nil && form.Password == "correct horse" {
		answer(w, http.StatusOK, `{"ok":true}`)
		return
	}
	answer(w, http.StatusUnauthorized, `{"ok":false}`)
}

func main() {
	verifier, err := verify.New(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	guarded := func(serve func(http.ResponseWriter, *http.Request)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if !verifier.Accepts(r.Header.Get("Authorization")) {
				answer(w, http.StatusUnauthorized, `{"error":"invalid_token"}`)
				return
			}
			serve(w, r)
		}
	}
	order := func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK, `{"total":42}`) }
	http.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK, `{"status":"ok"}`) })
	http.HandleFunc("/login", login)
	http.HandleFunc("/orders/", guarded(order))
	http.HandleFunc("/reports", guarded(order))
	http.HandleFunc("/upload", guarded(func(w http.ResponseWriter, r *http.Request) {
		length, _ := io.Copy(io.Discard, r.Body)
		answer(w, http.StatusOK, fmt.Sprintf(`{"bytes":%d}`, length))
	}))
	// net/http hands an *os.File to the socket with sendfile(2).
	http.HandleFunc("/file", guarded(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, os.Args[2]) }))
	host := os.Getenv("HOST")
	if host == "" {
		host = "127.0.0.1"
	}
	log.Fatal(http.ListenAndServe(net.JoinHostPort(strings.Trim(host, "[]"), os.Args[1]), nil))
}
