package notify

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"strings"
)

//go:embed mail.html
var mailHTML string

var mailTemplate = template.Must(template.New("mail").Parse(mailHTML))

// compose writes an Internet message (RFC 5322): multipart/alternative, plain text
// and HTML. Everything in it is made of single lines without control characters,
// and words outside ASCII are encoded, so that no text of a person begins another
// header or another part.
func compose(m Message, from mail.Address, to []mail.Address) ([]byte, error) {
	var b bytes.Buffer
	parts := multipart.NewWriter(&b)
	header := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	addressees := make([]string, len(to))
	for i, a := range to {
		addressees[i] = a.String()
	}
	_, domain, _ := strings.Cut(from.Address, "@")
	header("From", from.String())
	header("To", strings.Join(addressees, ",\r\n\t"))
	header("Subject", encoded(m.headline()))
	header("Date", m.At.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	header("Message-ID", "<"+m.ID+"@"+domain+">")
	if m.Request != nil {
		// Mail programs show all that is about one request as one conversation.
		header("References", "<"+m.Request.ID+"@"+domain+">")
	}
	header("Auto-Submitted", "auto-generated") // RFC 3834: nobody's vacation answers it
	if m.loud() {
		header("Importance", "high")
		header("X-Priority", "1")
	}
	header("MIME-Version", "1.0")
	header("Content-Type", `multipart/alternative; boundary="`+parts.Boundary()+`"`)
	b.WriteString("\r\n")

	var page bytes.Buffer
	err := mailTemplate.Execute(&page, struct {
		Headline, Call, Link string
		Facts                []fact
		Loud                 bool
	}{m.headline(), m.call(), m.Link, m.facts(), m.loud()})
	if err != nil {
		return nil, fmt.Errorf("rendering the mail: %w", err)
	}
	for _, part := range []struct {
		kind string
		text []byte
	}{{"text/plain", plain(m)}, {"text/html", page.Bytes()}} {
		w, err := parts.CreatePart(textproto.MIMEHeader{
			"Content-Type":              {part.kind + "; charset=utf-8"},
			"Content-Transfer-Encoding": {"quoted-printable"},
		})
		if err != nil {
			return nil, err
		}
		q := quotedprintable.NewWriter(w)
		if _, err := q.Write(bytes.ReplaceAll(part.text, []byte("\n"), []byte("\r\n"))); err != nil {
			return nil, err
		}
		if err := q.Close(); err != nil {
			return nil, err
		}
	}
	if err := parts.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// encoded is a text in a header: words that are not ASCII encoded (RFC 2047), each
// on a line of its own, since lines have a limit; and nothing that somebody wrote
// in that form is taken for such a word.
func encoded(text string) string {
	text = mime.QEncoding.Encode("utf-8", strings.ReplaceAll(text, "=?", "= ?"))
	return strings.ReplaceAll(text, "?= =?", "?=\r\n\t=?")
}

// plain is the message for mail programs that show text only.
func plain(m Message) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n\n", m.headline())
	for _, f := range m.facts() {
		fmt.Fprintf(&b, "%-14s %s\n", f.Label+":", f.Value)
	}
	fmt.Fprintf(&b, "\n%s: %s\n", m.call(), m.Link)
	return b.Bytes()
}
