package pack

import (
	"archive/zip"
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The workbook has the tables as sheets of an Office Open XML spreadsheet (ECMA-376),
// for people who would rather not open fifteen files. It is written by hand, and not
// with a library, so that it is the same bytes wherever it is made: parts are stored,
// not compressed, without times, and every cell is text, so that no program
// calculates anything. Long tables are cut, and say so: the CSV is what counts.

const (
	maxCell   = 32_767 // characters, Excel's limit
	sheetHead = `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>` + "\n" +
		`<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetViews><sheetView workbookViewId="0">` +
		`<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/></sheetView></sheetViews><sheetData>`
	sheetTail = `</sheetData></worksheet>`
	xmlHead   = `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>` + "\n"
)

// part is one part of the workbook, which is made twice: to know its length and sum,
// and to be written.
type part struct {
	name string
	make func(io.Writer) error
}

func (d *deriver) workbook() error {
	out, err := newOutput(d.to, workbookName)
	if err != nil {
		return err
	}
	names := []string{exceptionsName, reconcileName, samplesName, controlsName}
	for _, l := range d.lists {
		if l.out != nil {
			names = append(names, populationDir+l.Name+".csv")
		}
	}
	archive := zip.NewWriter(out)
	for _, p := range d.parts(names) {
		sum, n := crc32.NewIEEE(), new(counter)
		if err := p.make(io.MultiWriter(sum, n)); err != nil {
			return err
		}
		w, err := archive.CreateRaw(&zip.FileHeader{Name: p.name, Method: zip.Store, CRC32: sum.Sum32(),
			CompressedSize64: uint64(*n), UncompressedSize64: uint64(*n)})
		if err == nil {
			err = p.make(w)
		}
		if err != nil {
			return err
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	f, err := out.end(0)
	d.files = append(d.files, f)
	return err
}

func (d *deriver) parts(tables []string) []part {
	text := func(name, format string, args ...any) part {
		s := xmlHead + fmt.Sprintf(format, args...)
		return part{name, func(w io.Writer) error { _, err := io.WriteString(w, s); return err }}
	}
	var types, sheets, links strings.Builder
	for i, name := range tables {
		title := strings.TrimSuffix(strings.TrimPrefix(name, populationDir), ".csv")
		fmt.Fprintf(&types, `<Override PartName="/xl/worksheets/sheet%d.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>`, i+1)
		fmt.Fprintf(&sheets, `<sheet name="%s" sheetId="%d" r:id="rId%d"/>`, title, i+1, i+1)
		fmt.Fprintf(&links, `<Relationship Id="rId%d" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet%d.xml"/>`, i+1, i+1)
	}
	parts := []part{
		text("[Content_Types].xml", `<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">`+
			`<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/>`+
			`<Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>%s</Types>`, types.String()),
		text("_rels/.rels", `<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">`+
			`<Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>`),
		text("xl/workbook.xml", `<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" `+
			`xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets>%s</sheets></workbook>`, sheets.String()),
		text("xl/_rels/workbook.xml.rels", `<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">%s</Relationships>`, links.String()),
	}
	for i, name := range tables {
		parts = append(parts, part{fmt.Sprintf("xl/worksheets/sheet%d.xml", i+1), func(w io.Writer) error { return d.sheet(w, name) }})
	}
	return parts
}

// sheet writes one table as a sheet.
func (d *deriver) sheet(to io.Writer, name string) error {
	file, err := d.to.open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	w := bufio.NewWriter(to)
	w.WriteString(sheetHead)
	rows := csv.NewReader(file)
	rows.ReuseRecord = true
	for n := 1; ; n++ {
		cells, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("the workbook: %s: %w", name, err)
		}
		if n > maxSheetRows {
			cells = []string{"…", "further rows are in " + name}
		}
		w.WriteString(`<row r="` + strconv.Itoa(n) + `">`)
		for _, c := range cells {
			w.WriteString(`<c t="inlineStr"><is><t xml:space="preserve">`)
			writeXML(w, c)
			w.WriteString(`</t></is></c>`)
		}
		w.WriteString(`</row>`)
		if n > maxSheetRows {
			break
		}
	}
	w.WriteString(sheetTail)
	return w.Flush()
}

// writeXML escapes text; what XML cannot have becomes U+FFFD.
func writeXML(w *bufio.Writer, s string) {
	n := 0
	for _, r := range s {
		if n++; n >= maxCell {
			w.WriteRune('…')
			return
		}
		switch {
		case r == '&':
			w.WriteString("&amp;")
		case r == '<':
			w.WriteString("&lt;")
		case r == '>':
			w.WriteString("&gt;")
		case r == '\n' || r == '\t':
			w.WriteRune(r)
		case r < ' ' || r == 0xFFFE || r == 0xFFFF:
			w.WriteRune(utf8.RuneError)
		default:
			w.WriteRune(r)
		}
	}
}
