package identity_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"sallyport/approvals/identity"
)

// Sign-ins are read together with those that others ask for. Whoever comes after one
// has ended sees that it has, while others are still being told what was.
func TestP9_ASharedReadHidesNoSignOut(t *testing.T) {
	k := newKit(t)
	ctx := t.Context()
	var all sync.WaitGroup
	for range 8 { // who keep the reads shared
		in := k.erin()
		all.Go(func() {
			for range 100 {
				if _, err := k.Resume(ctx, in.ID, 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 5 {
		in := k.erin()
		stop := make(chan struct{})
		for range 4 {
			all.Go(func() {
				for over := false; !over; {
					select {
					case <-stop:
						over = true
					default:
					}
					if _, err := k.Resume(ctx, in.ID, 0); over && !errors.Is(err, identity.ErrSignedOut) {
						t.Errorf("after the sign-out: %v", err)
					}
				}
			})
		}
		if err := k.SignOut(ctx, in, here); err != nil {
			t.Fatal(err)
		}
		close(stop)
	}
	all.Wait()
}

// Who hangs up, and ids that are none, are nobody else's trouble.
func TestASharedReadFailsForNobodyElse(t *testing.T) {
	k := newKit(t)
	in := k.erin()
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 50 {
				if _, err := k.Resume(t.Context(), in.ID, 0); err != nil {
					t.Errorf("a good one: %v", err)
				}
			}
		})
		all.Go(func() {
			for _, id := range []string{"", "\x00", "\xff", "'", fmt.Sprint(i)} {
				if _, err := k.Resume(t.Context(), id, 0); !errors.Is(err, identity.ErrSignedOut) {
					t.Errorf("%q: %v", id, err)
				}
			}
			if _, err := k.Resume(gone, in.ID, 0); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("who has hung up: %v", err)
			}
		})
	}
	all.Wait()
}

// What one caller does with what they got is not seen by others who got the same.
func TestASharedReadIsNobodysToChange(t *testing.T) {
	k := newKit(t)
	in := k.erin()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				got, err := k.Resume(t.Context(), in.ID, 0)
				if err != nil || len(got.Person.Groups) != 1 || got.Person.Groups[0] != "engineers" {
					t.Errorf("%v, %v", got.Person.Groups, err)
					return
				}
				got.Person.Groups[0] = "operators"
			}
		})
	}
	all.Wait()
}
