package debug

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"path"
	"sync"
)

//go:embed files
var files embed.FS

// templates are parsed when the first page is asked for.
var templates = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"count":    count[uint64],
		"duration": duration,
	}).ParseFS(files, "files/page.html"))
})

// render returns a template of page.html, filled in.
func render(name string, s snapshot) []byte {
	var b bytes.Buffer
	if err := templates().ExecuteTemplate(&b, name, s); err != nil {
		panic(err) // the template is wrong
	}
	return b.Bytes()
}

var contentTypes = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

// serveFile answers with one of the files that the page consists of.
func serveFile(w http.ResponseWriter, r *http.Request, name string) {
	contentType := contentTypes[path.Ext(name)]
	body, err := files.ReadFile("files/" + name)
	if contentType == "" || err != nil {
		http.NotFound(w, r)
		return
	}
	answer(w, contentType, body)
}
