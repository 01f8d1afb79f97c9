package notify

import (
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
)

// slack posts to a Slack incoming webhook, in Block Kit
// (https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks).
// There is a button that leads to the page and none that decides: a decision in
// chat would prove nothing of who took it.
type slack struct {
	url    string // whoever knows it can post
	client *http.Client
}

// Send implements Channel.
func (s *slack) Send(ctx context.Context, m Message) error {
	body, err := json.Marshal(slackPayload(m))
	if err != nil {
		return permanent{err}
	}
	return post(ctx, s.client, s.url, http.Header{"Content-Type": {"application/json; charset=utf-8"}}, body, slackReason)
}

type (
	slackMessage struct {
		Text      string       `json:"text"` // for notifications, where blocks are not shown
		LinkNames bool         `json:"link_names"`
		Parse     string       `json:"parse"`
		Blocks    []slackBlock `json:"blocks"`
	}
	slackBlock struct {
		Type     string         `json:"type"`
		Text     *slackText     `json:"text,omitempty"`
		Fields   []slackText    `json:"fields,omitempty"`
		Elements []slackElement `json:"elements,omitempty"`
	}
	slackText struct {
		Type  string `json:"type"`
		Text  string `json:"text"`
		Emoji *bool  `json:"emoji,omitempty"` // only in plain_text
	}
	slackElement struct {
		Type string    `json:"type"`
		Text slackText `json:"text"`
		URL  string    `json:"url"`
	}
)

// Slack's limits; it refuses the whole message that exceeds one.
const (
	maxFields = 10 // of a section
	maxHeader = 150
	maxField  = 2000
	maxButton = 75
)

// slackPayload is the message in blocks. All texts of people stand in plain_text,
// where Slack sees neither links nor mentions; control characters of mrkdwn are
// escaped there, too.
func slackPayload(m Message) slackMessage {
	out := slackMessage{Text: slackEscape(m.headline()), Parse: "none"}
	out.Blocks = append(out.Blocks, slackBlock{Type: "header", Text: plainText(m.headline(), maxHeader)})
	if m.loud() {
		out.Blocks = append(out.Blocks, slackBlock{Type: "section", Text: &slackText{Type: "mrkdwn",
			Text: "<!channel> A door was opened before anybody approved."}})
	}
	var fields []slackText
	for _, f := range m.facts() {
		fields = append(fields, *plainText(f.Label+":\n"+f.Value, maxField))
	}
	for len(fields) > 0 {
		n := min(len(fields), maxFields)
		out.Blocks = append(out.Blocks, slackBlock{Type: "section", Fields: fields[:n]})
		fields = fields[n:]
	}
	out.Blocks = append(out.Blocks, slackBlock{Type: "actions", Elements: []slackElement{
		{Type: "button", Text: *plainText(m.call(), maxButton), URL: m.Link}}})
	return out
}

// plainText cuts the text so that it has at most so many bytes when it is escaped:
// nobody's name shall make a message that Slack refuses.
func plainText(s string, most int) *slackText {
	emoji := false
	var b strings.Builder
	for _, r := range s {
		c := slackEscape(string(r))
		if b.Len()+len(c) > most {
			break
		}
		b.WriteString(c)
	}
	return &slackText{Type: "plain_text", Text: b.String(), Emoji: &emoji}
}

// slackEscape escapes the three characters that Slack gives a meaning to
// (https://docs.slack.dev/messaging/formatting-message-text#escaping).
var slackEscape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace

// slackError is what Slack answers when it refuses, such as no_service.
var slackError = regexp.MustCompile(`^[a-z_]{1,60}$`)

// slackReason repeats what Slack says only if it is one of its own words: the
// address that it was sent to is a secret.
func slackReason(body []byte) string {
	if text := strings.TrimSpace(string(body)); slackError.MatchString(text) {
		return text
	}
	return ""
}
