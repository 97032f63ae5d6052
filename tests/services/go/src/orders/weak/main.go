// An order service on Gin with holes that can be opened one by one. It knows nothing of Tokenscope.
//
// usage: weak PORT JWKS     environment: HOST, HOLES=none,confusion,audience,issuer,expiry,secret,key,kid,signature,
// revocation,bola,bfla
//
// GET /health         anyone
// POST /login         {"username": ..., "password": ...}; 401 unless the password is right
// POST /logout        a token; it is refused afterwards, unless revocation is a hole
// GET /orders/:id     a token; order N belongs to user N % 10, and others get 403, unless bola is a hole
// GET /admin/users    a token with the role ADMIN, unless bfla is a hole
package main

import (
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/gin-gonic/gin"

	"orders/weakjwt"
)

func login(c *gin.Context) {
	var form struct{ Password string }
	if c.ShouldBindJSON(&form) == nil && form.Password == "correct horse" {
		c.JSON(http.StatusOK, gin.H{"ok": true})
		return
	}
	c.JSON(http.StatusUnauthorized, gin.H{"ok": false})
}

// Whether order id belongs to the subject: user3 owns 3, 13, 23, ...
func owns(subject, id string) bool {
	number, err := strconv.Atoi(id)
	return err == nil && strings.HasSuffix(subject, strconv.Itoa(number%10))
}

func main() {
	holes := map[string]bool{}
	for _, hole := range strings.Split(os.Getenv("HOLES"), ",") {
		holes[hole] = true
	}
	verifier, err := weakjwt.New(os.Args[2], holes)
	if err != nil {
		log.Fatal(err)
	}
	var revoked sync.Map
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.GET("/health", func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"status": "ok"}) })
	engine.POST("/login", login)
	guarded := engine.Group("/", func(c *gin.Context) {
		claims := verifier.Read(c.GetHeader("Authorization"))
		if claims != nil && !holes["revocation"] {
			if _, over := revoked.Load(claims.Jti); over {
				claims = nil
			}
		}
		if claims == nil {
			c.Header("WWW-Authenticate", "Bearer")
			c.AbortWithStatusJSON(http.StatusUnauthorized, gin.H{"error": "invalid_token"})
			return
		}
		c.Set("claims", claims)
	})
	guarded.POST("/logout", func(c *gin.Context) {
		revoked.Store(c.MustGet("claims").(*weakjwt.Claims).Jti, true)
		c.Status(http.StatusNoContent)
	})
	guarded.GET("/orders/:id", func(c *gin.Context) {
		if !holes["bola"] && !owns(c.MustGet("claims").(*weakjwt.Claims).Sub, c.Param("id")) {
			c.JSON(http.StatusForbidden, gin.H{"error": "not yours"})
			return
		}
		c.JSON(http.StatusOK, gin.H{"total": 42})
	})
	guarded.GET("/admin/users", func(c *gin.Context) {
		if !holes["bfla"] && !c.MustGet("claims").(*weakjwt.Claims).Has("ADMIN") {
			c.JSON(http.StatusForbidden, gin.H{"error": "not for you"})
			return
		}
		c.JSON(http.StatusOK, gin.H{"users": []string{"alice"}})
	})
	host := os.Getenv("HOST")
	if host == "" {
		host = "127.0.0.1"
	}
	log.Fatal(http.ListenAndServe(net.JoinHostPort(host, os.Args[1]), engine))
}
