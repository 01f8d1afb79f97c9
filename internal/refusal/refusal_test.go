package refusal

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestCopiesMatchTheirTemplate(t *testing.T) {
	t.Parallel()
	template := New(Denied, "too-long", "it is too long", "ask for less")
	other := New(Denied, "too-short", "it is too short", "ask for more")
	err := fmt.Errorf("asking: %w", template.With("%d is too long", 3).Hinting("at most %d", 2).On("duration").Because(io.EOF))

	if !errors.Is(err, template) || errors.Is(err, other) || !errors.Is(err, io.EOF) {
		t.Errorf("%v does not match its template and cause alone", err)
	}
	got := As(err)
	if got == nil || got.Detail != "3 is too long" || got.Hint != "at most 2" || got.Field != "duration" {
		t.Errorf("the copy lost something: %+v", got)
	}
	if template.Detail != "it is too long" || template.Hint != "ask for less" || template.Field != "" {
		t.Errorf("the template changed: %+v", template)
	}
	if As(io.EOF) != nil {
		t.Error("an error that is no refusal passes as one")
	}
}
