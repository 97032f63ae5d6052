// Package verify checks bearer tokens as a careful small service would: RS256 under one key, audience and dates.
package verify

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"os"
	"strings"
	"time"
)

// Verifier holds the one key it trusts, and whether it plants the classic hole (alg none is believed).
type Verifier struct {
	key        rsa.PublicKey
	acceptNone bool
}

// New reads the first RSA key of a JWKS file.
func New(path string) (*Verifier, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var set struct{ Keys []struct{ Kty, N, E string } }
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, err
	}
	verifier := &Verifier{acceptNone: os.Getenv("ACCEPT_NONE") == "1"}
	for _, key := range set.Keys {
		if key.Kty == "RSA" && verifier.key.N == nil {
			n, _ := base64.RawURLEncoding.DecodeString(key.N)
			e, _ := base64.RawURLEncoding.DecodeString(key.E)
			verifier.key = rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
		}
	}
	return verifier, nil
}

// Accepts says whether an Authorization header holds a token to trust.
func (v *Verifier) Accepts(header string) bool {
	scheme, token, _ := strings.Cut(header, " ")
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return false
	}
	var head struct{ Alg string }
	var claims struct {
		Aud      string
		Nbf, Exp float64
	}
	if !decode(parts[0], &head) || !decode(parts[1], &claims) {
		return false
	}
	if strings.EqualFold(head.Alg, "none") {
		return v.acceptNone
	}
	now := float64(time.Now().Unix())
	if !strings.EqualFold(scheme, "bearer") || head.Alg != "RS256" || claims.Aud != "orders-api" {
		return false
	}
	if now < claims.Nbf || claims.Exp <= now {
		return false
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	return err == nil && rsa.VerifyPKCS1v15(&v.key, crypto.SHA256, digest[:], signature) == nil
}

func decode(part string, into any) bool {
	text, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(text, into) == nil
}
