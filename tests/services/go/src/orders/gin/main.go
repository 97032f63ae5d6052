// The order service of api.py on Gin. It knows nothing of Tokenscope.
//
// usage: gin PORT JWKS      environment: HOST, ACCEPT_NONE=1
package main

import (
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/gin-gonic/gin"

	"orders/verify"
)

func login(c *gin.Context) {
	var form struct{ Password string }
	if c.ShouldBindJSON(&form) == nil && form.Password == "correct horse" {
		c.JSON(http.StatusOK, gin.H{"ok": true})
		return
	}
	c.JSON(http.StatusUnauthorized, gin.H{"ok": false})
}

func main() {
	verifier, err := verify.New(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.GET("/health", func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"status": "ok"}) })
	engine.POST("/login", login)
	guarded := engine.Group("/", func(c *gin.Context) {
		if !verifier.Accepts(c.GetHeader("Authorization")) {
			c.Header("WWW-Authenticate", "Bearer")
			c.AbortWithStatusJSON(http.StatusUnauthorized, gin.H{"error": "invalid_token"})
		}
	})
	order := func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"total": 42}) }
	guarded.GET("/orders/:id", order)
	guarded.GET("/reports", order)
	guarded.POST("/upload", func(c *gin.Context) {
		length, _ := io.Copy(io.Discard, c.Request.Body)
		c.JSON(http.StatusOK, gin.H{"bytes": length})
	})
	host := os.Getenv("HOST")
	if host == "" {
		host = "127.0.0.1"
	}
	log.Fatal(http.ListenAndServe(net.JoinHostPort(host, os.Args[1]), engine))
}
