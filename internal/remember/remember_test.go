package remember

import (
	"fmt"
	"testing"
)

func TestWhatIsAskedForStays(t *testing.T) {
	t.Parallel()
	m := Memory[int]{Size: 8}
	used := Of([]byte("used"))
	m.Put(used, 7)
	for i := range 100 {
		m.Put(Of(fmt.Append(nil, i)), i)
		if v, ok := m.Get(used); !ok || v != 7 {
			t.Fatalf("after %d others: %d, %t", i, v, ok)
		}
		if n := len(m.young) + len(m.old); n > 16 {
			t.Fatalf("%d results are remembered", n)
		}
	}
	if _, ok := m.Get(Of([]byte("0"))); ok {
		t.Error("what nobody asked for is remembered for ever")
	}
}
