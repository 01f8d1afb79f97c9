package policy

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"sallyport/internal/refusal"
)

// Text says what a reason or ticket must be like.
type Text struct {
	Required  bool
	MinLength int            // in characters
	Pattern   *regexp.Regexp // RE2, must match the whole text; nil: anything
	Message   string         // for whoever does not comply
}

// check applies the rule to a text: an empty one is fine unless required, any
// other must have the length and match the pattern as a whole.
func (t Text) check(s string, refused *refusal.Error) error {
	s = strings.TrimSpace(s)
	var err *refusal.Error
	switch {
	case s == "" && !t.Required:
		return nil
	case s == "":
		err = refused
	case utf8.RuneCountInString(s) < t.MinLength:
		err = refused.With("the %s is shorter than %d characters", refused.Field, t.MinLength)
	case t.Pattern != nil && !t.Pattern.MatchString(s):
		err = refused.With("the %s does not have the form that the rule requires", refused.Field)
	default:
		return nil
	}
	if t.Message != "" {
		err = err.Hinting("%s", t.Message)
	}
	return err
}
