package pack

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/audit/event"
	"sallyport/evidence/controls"
	"sallyport/evidence/populations"
	"sallyport/evidence/reconcile"
)

// sink receives the files that are made from the log: a writer keeps them, a
// verifier compares them with those that it was given. Several are open at once.
type sink interface {
	// create begins a file.
	create(name string) (io.Writer, error)
	// close ends one.
	close(name string) error
	// open reads a file that was ended.
	open(name string) (io.ReadCloser, error)
}

// output is one file on its way.
type output struct {
	name string
	to   sink
	w    *bufio.Writer
	sum  hash.Hash
	n    int64
}

func newOutput(to sink, name string) (*output, error) {
	w, err := to.create(name)
	if err != nil {
		return nil, err
	}
	o := &output{name: name, to: to, sum: sha256.New()}
	o.w = bufio.NewWriterSize(io.MultiWriter(w, o.sum, (*counter)(&o.n)), 32<<10)
	return o, nil
}

func (o *output) Write(p []byte) (int, error) { return o.w.Write(p) }

func (o *output) end(rows int64) (File, error) {
	if err := o.w.Flush(); err != nil {
		return File{}, err
	}
	return File{Name: o.name, Bytes: o.n, SHA256: hex.EncodeToString(o.sum.Sum(nil)), Rows: rows}, o.to.close(o.name)
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// deriver makes all that a pack says about the log from its entries, in one pass,
// in memory that does not grow with them.
type deriver struct {
	m      Manifest // without files
	to     sink
	engine *reconcile.Engine
	lists  []*list
	listOf map[string]*list // by type of event

	types      map[string]*typeCount
	exceptions *output
	table      *populations.Table // of exceptions
	shown      []reconcile.Exception
	codes      map[string]int64
	files      []File
	proofs     []int64 // of emergencies, then of samples too
	read       int64   // entries
	inPeriod   int64
	firstIn    int64 // index of the first entry of the period; -1: none
	asked      error // what the log says of who asked for the pack
	before     int64 // of an archive: the first entry that stays, and the others' times
	earliest   time.Time
	latest     time.Time
	missing    int64
	cells      []string
}

// list is a population, or a register, on its way.
type list struct {
	populations.Population
	register *populations.Register // nil: a population
	out      *output               // nil: left out, as it serves none of the criteria
	table    *populations.Table
	sampler  *sampler // nil: nothing is chosen from it
	events   int64
	file     File
}

// typeCount counts the events of a type in the period, apart from rows.
type typeCount struct {
	list        *list
	events      int64
	first, last int64
}

func newDeriver(m Manifest, key string, document func(string) ([]byte, error), to sink) (*deriver, error) {
	d := &deriver{m: m, to: to, listOf: map[string]*list{}, types: map[string]*typeCount{}, codes: map[string]int64{}, firstIn: -1,
		asked: ErrNotAsked}
	_, d.before, _ = m.archive()
	var err error
	d.engine, err = reconcile.New(reconcile.Config{From: m.Period.From, To: m.Period.To, First: m.Log.First, LogKey: key,
		Document: document, Report: d.exception, Row: d.row})
	if err != nil {
		return nil, err
	}
	for _, p := range populations.All {
		if err := d.begin(&list{Population: p, sampler: newSampler(m.Seed, p.Name)}, p.Header()); err != nil {
			return nil, err
		}
	}
	for _, r := range populations.Registers {
		l := &list{Population: populations.Population{Name: r.Name, About: r.About, Empty: r.Empty}, register: r}
		if r.Sampled {
			l.sampler = newSampler(m.Seed, r.Name)
		}
		if err := d.begin(l, r.Header()); err != nil {
			return nil, err
		}
	}
	if d.exceptions, err = newOutput(to, exceptionsName); err != nil {
		return nil, err
	}
	d.table, err = populations.NewTable(d.exceptions, []string{"code", "means", "index", "related_index", "time", "request_id", "person_id", "detail"})
	return d, err
}

// begin begins a list's file, if the list serves one of the criteria.
func (d *deriver) begin(l *list, header []string) (err error) {
	d.lists = append(d.lists, l)
	if !controls.Serves(l.Name, d.m.Controls) {
		return nil
	}
	if l.out, err = newOutput(d.to, populationDir+l.Name+".csv"); err != nil {
		return err
	}
	l.table, err = populations.NewTable(l.out, header)
	return err
}

// row takes a row of a register.
func (d *deriver) row(r *populations.Register, e *populations.Event, cells []string) error {
	l := d.list(r.Name)
	if l.out == nil {
		return nil
	}
	if l.sampler != nil {
		l.sampler.add(e)
	}
	return l.table.Row(append([]string{place(e.Index), populations.Time(e.Time), e.Type}, cells...)...)
}

func (d *deriver) exception(x reconcile.Exception) error {
	if d.codes[x.Code]++; len(d.shown) < maxShown {
		d.shown = append(d.shown, x)
	}
	return d.table.Row(x.Code, reconcile.Means(x.Code), place(x.Index), place(x.Related), populations.Time(x.Time), x.Request, x.Person, x.Detail)
}

func place(index int64) string {
	if index < 0 {
		return ""
	}
	return strconv.FormatInt(index, 10)
}

// add takes the next entry.
func (d *deriver) add(e *populations.Event, idToken string) error {
	d.read++
	if err := d.engine.Add(e, idToken); err != nil {
		return err
	}
	if r, ok := e.Known.(event.PackRequested); ok && r.PackID == d.m.ID {
		d.asked = d.m.asked(e, r)
	}
	if e.Index < d.before {
		d.span(e.Time)
	}
	if e.Time.Before(d.m.Period.From) || !e.Time.Before(d.m.Period.To) {
		return nil
	}
	if d.inPeriod++; d.firstIn < 0 {
		d.firstIn = e.Index
	}
	l := d.count(e)
	l.events++
	if l.out == nil {
		return nil
	}
	if e.Type == "emergency.started" || e.Type == "review.given" {
		d.proofs = append(d.proofs, e.Index)
	}
	l.sampler.add(e)
	d.cells = l.Row(d.cells[:0], e)
	return l.table.Row(d.cells...)
}

// count counts an event by its type, and finds its list.
func (d *deriver) count(e *populations.Event) *list {
	name := e.Type
	t := d.types[name]
	if t == nil && len(d.types) >= maxTypes {
		name = "(types beyond the first " + strconv.Itoa(maxTypes) + ")"
		t = d.types[name]
	}
	if t == nil {
		t = &typeCount{list: d.lists[populations.Of(e.Type)], first: e.Index}
		d.types[name] = t
	}
	t.events++
	t.last = e.Index
	if name != e.Type {
		return d.lists[populations.Of(e.Type)]
	}
	return t.list
}

// absent says that the next entry is not in the database.
func (d *deriver) absent(index int64) error {
	d.missing++
	return d.engine.Missing(index)
}

// finish makes what can only be made at the end.
func (d *deriver) finish() error {
	if err := d.engine.Finish(); err != nil {
		return err
	}
	for _, l := range d.lists {
		if l.out == nil {
			continue
		}
		err := l.table.Flush()
		if err == nil {
			l.file, err = l.out.end(l.table.Rows())
		}
		if err != nil {
			return err
		}
		d.files = append(d.files, l.file)
	}
	if err := d.endTable(d.exceptions, d.table); err != nil {
		return err
	}
	for _, make := range []func() error{d.reconciliation, d.samples, d.controls, d.page, d.workbook} {
		if err := make(); err != nil {
			return err
		}
	}
	slices.Sort(d.proofs)
	d.proofs = slices.Compact(d.proofs)
	return nil
}

// write makes one small table.
func (d *deriver) write(name string, header []string, rows func(row func(...string) error) error) error {
	out, err := newOutput(d.to, name)
	if err != nil {
		return err
	}
	t, err := populations.NewTable(out, header)
	if err != nil {
		return err
	}
	if err := rows(t.Row); err != nil {
		return err
	}
	return d.endTable(out, t)
}

func (d *deriver) endTable(out *output, t *populations.Table) error {
	if err := t.Flush(); err != nil {
		return err
	}
	f, err := out.end(t.Rows())
	d.files = append(d.files, f)
	return err
}

// reconciliation holds the lists against the log: for each type of event how many
// there were, and for each list how many rows it has.
func (d *deriver) reconciliation() error {
	header := []string{"list", "event", "events_in_log", "rows_in_list", "difference", "first_index", "last_index", "statement"}
	return d.write(reconcileName, header, func(row func(...string) error) error {
		number := func(n int64) string { return strconv.FormatInt(n, 10) }
		for _, l := range d.lists {
			for _, name := range slices.Sorted(keysOf(d.types)) {
				if t := d.types[name]; t.list == l {
					if err := row(l.Name, name, number(t.events), "", "", number(t.first), number(t.last), ""); err != nil {
						return err
					}
				}
			}
			if l.register != nil {
				rows := ""
				if l.out != nil {
					rows = number(l.file.Rows)
				}
				if err := row(l.Name, "(under way)", "", rows, "", "", "", d.statement(l)); err != nil {
					return err
				}
				continue
			}
			rows, difference := "", ""
			if l.out != nil {
				rows, difference = number(l.file.Rows), number(l.events-l.file.Rows)
			}
			if err := row(l.Name, "(all)", number(l.events), rows, difference, "", "", d.statement(l)); err != nil {
				return err
			}
		}
		read := d.read + d.missing
		said := fmt.Sprintf("entries %d to %d of %s, of which %d are dated in the period; last heard of at %s", d.m.Log.First, d.m.Log.End-1,
			d.m.Log.Origin, d.inPeriod, populations.Time(d.engine.Now()))
		return row("(the log)", "(all entries)", number(read), number(d.read), number(d.missing), number(d.m.Log.First), number(d.m.Log.End-1), said)
	})
}

// statement says what it means that a list has no rows.
func (d *deriver) statement(l *list) string {
	switch {
	case l.out == nil:
		return "left out: it serves none of the criteria asked for"
	case l.file.Rows == 0:
		return "empty: " + l.Empty
	case l.register != nil:
		return "each row is put together from the events about one thing that was under way in the period, as the log has them at its end"
	}
	return ""
}

func (d *deriver) samples() error {
	header := []string{"list", "controls", "rows_in_list", "sha256_of_list", "samples", "seed", "method", "index", "time", "event", "sha256"}
	return d.write(samplesName, header, func(row func(...string) error) error {
		for _, l := range d.lists {
			if l.out == nil || l.sampler == nil || len(controls.Of(l.Name)) == 0 {
				continue
			}
			chosen := l.sampler.inOrder()
			for _, s := range chosen {
				d.proofs = append(d.proofs, s.index)
				err := row(l.Name, strings.Join(controls.Of(l.Name), " "), strconv.FormatInt(l.file.Rows, 10), l.file.SHA256,
					strconv.Itoa(len(chosen)), d.m.Seed, samplesMethod, strconv.FormatInt(s.index, 10), s.time, s.event, s.hex())
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (d *deriver) controls() error {
	header := []string{"criterion", "concerns", "tested", "list", "rows", "statement"}
	return d.write(controlsName, header, func(row func(...string) error) error {
		for _, c := range d.wanted() {
			for _, name := range c.Populations {
				l := d.list(name)
				if err := row(c.ID, c.Concerns, c.Tested, l.Name, strconv.FormatInt(l.file.Rows, 10), d.statement(l)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// wanted are the criteria asked for.
func (d *deriver) wanted() []controls.Control {
	if len(d.m.Controls) == 0 {
		return controls.All
	}
	var out []controls.Control
	for _, c := range controls.All {
		if slices.Contains(d.m.Controls, c.ID) {
			out = append(out, c)
		}
	}
	return out
}

func (d *deriver) list(name string) *list {
	return d.lists[slices.IndexFunc(d.lists, func(l *list) bool { return l.Name == name })]
}

// Exceptions are how many there are of each code.
func (d *deriver) exceptionCount() (n int64) {
	for _, of := range d.codes {
		n += of
	}
	return n
}

func keysOf[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
