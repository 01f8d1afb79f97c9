// Package web is what people see of Sallyport: templates, one stylesheet, one
// script and the icons, all embedded, and the function that renders them. There
// is no build step, and every page works without the script.
//
// The package decides nothing and knows no other room: it gets data and makes
// HTML of it. What every page shows of the person who looks at it comes from the
// request's context (WithChrome).
//
// A page has no inline script and no inline style, so that its
// Content-Security-Policy (Policy) can forbid both: whatever text a person puts
// into a reason or a name stays text.
package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

//go:embed templates static icons
var files embed.FS

// StaticPath is where Static must be mounted.
const StaticPath = "/static/"

// asset is one embedded file as it is served.
type asset struct {
	url, contentType string
	body             []byte
}

// assets by their name in the folder static. A URL contains a hash of the
// contents, so that a browser may keep the file for ever.
var assets = load()

func load() map[string]asset {
	all := map[string]asset{}
	err := fs.WalkDir(files, "static", func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		body, err := files.ReadFile(file)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(file, "static/")
		sum, ext := sha256.Sum256(body), path.Ext(name)
		all[name] = asset{
			url:         StaticPath + strings.TrimSuffix(name, ext) + "." + hex.EncodeToString(sum[:6]) + ext,
			contentType: mime.TypeByExtension(ext),
			body:        body,
		}
		return nil
	})
	if err != nil {
		panic("web: " + err.Error()) // embedded: cannot happen after the build
	}
	return all
}

// Static serves the files that pages refer to, below StaticPath.
func Static() http.Handler {
	byURL := map[string]asset{}
	for _, a := range assets {
		byURL[a.url] = a
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := byURL[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", a.contentType)
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		w.Write(a.body)
	})
}
