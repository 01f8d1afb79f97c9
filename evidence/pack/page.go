package pack

import (
	_ "embed"
	"html/template"
	"strings"

	"sallyport/evidence/controls"
	"sallyport/evidence/populations"
	"sallyport/evidence/reconcile"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"time": populations.Time, "means": reconcile.Means, "join": strings.Join,
}).Parse(pageText))

// pageData is what the one printable page says.
type pageData struct {
	Manifest
	Controls   []pageControl
	Lists      []pageList
	Codes      []pageCode
	Exceptions []reconcile.Exception
	More       int64 // exceptions that are not on the page
	Read       int64
	InPeriod   int64
	Missing    int64
	Last       string // when the log was last heard of
}

type pageControl struct {
	controls.Control
	Lists []pageList
}

type pageList struct {
	Name, About, Statement, SHA256 string
	Rows                           int64
	Samples                        int
	LeftOut                        bool
}

type pageCode struct {
	Code, Means string
	Count       int64
}

// page makes README.html.
func (d *deriver) page() error {
	data := pageData{Manifest: d.m, Exceptions: d.shown, More: d.exceptionCount() - int64(len(d.shown)), Read: d.read, InPeriod: d.inPeriod,
		Missing: d.missing, Last: populations.Time(d.engine.Now())}
	of := func(l *list) pageList {
		p := pageList{Name: l.Name, About: l.About, Statement: d.statement(l), SHA256: l.file.SHA256, Rows: l.file.Rows, LeftOut: l.out == nil}
		if len(controls.Of(l.Name)) > 0 && l.sampler != nil {
			p.Samples = len(l.sampler.chosen)
		}
		return p
	}
	for _, l := range d.lists {
		data.Lists = append(data.Lists, of(l))
	}
	for _, c := range d.wanted() {
		pc := pageControl{Control: c}
		for _, name := range c.Populations {
			pc.Lists = append(pc.Lists, of(d.list(name)))
		}
		data.Controls = append(data.Controls, pc)
	}
	for _, c := range reconcile.Codes {
		if n := d.codes[c.Code]; n > 0 {
			data.Codes = append(data.Codes, pageCode{c.Code, c.Means, n})
		}
	}
	out, err := newOutput(d.to, readmeName)
	if err != nil {
		return err
	}
	if err := pageTemplate.Execute(out, data); err != nil {
		return err
	}
	f, err := out.end(0)
	d.files = append(d.files, f)
	return err
}
