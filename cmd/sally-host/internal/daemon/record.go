package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"sallyport/api/hostapi"
	cast "sallyport/audit/recording"
	"sallyport/cmd/sally-host/internal/recording"
	"sallyport/cmd/sally-host/internal/session"
)

const (
	// recordAtOnce is how many shells and commands are recorded at a time, and asked for.
	recordAtOnce = 256
	// strangersAtOnce is how many others are heard at a time. They take nobody's place.
	strangersAtOnce = 16
	// bringEvery is how often the broker gets what was recorded since.
	bringEvery = 2 * time.Second
)

// recorder is what the daemon knows of recordings.
type recorder struct {
	listener *net.UnixListener
	store    *recording.Store
	bring    chan struct{}
	places   chan struct{} // taken by those who are recorded
	refusals chan struct{} // taken by strangers

	// Guarded by Daemon.mu:
	live map[string]*recording.Writer // that are being made
	lost map[string]string            // sessions that are not recorded any more, and why
}

func (d *Daemon) openRecorder() error {
	store, err := recording.Open(d.Place.Recordings(), d.Now())
	if err != nil {
		return err
	}
	l, err := recording.Listen(d.Place.Recorder())
	if err != nil {
		return fmt.Errorf("listening for what has to be recorded: %w", err)
	}
	d.recorder = recorder{listener: l, store: store, bring: make(chan struct{}, 1), places: make(chan struct{}, recordAtOnce), refusals: make(chan struct{}, strangersAtOnce),
		live: map[string]*recording.Writer{}, lost: map[string]string{}}
	all, _ := d.store.All() // what cannot be read is told soon
	for _, s := range all {
		if d.tree.Follow(&s); s.Record && d.tree.Recorded(s) > 0 {
			d.lost[s.ID] = "the daemon that recorded it ended"
		}
	}
	return nil
}

// record answers those who ask to be recorded.
func (d *Daemon) record(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { d.listener.Close() })
	defer stop()
	for {
		conn, err := d.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if d.complain("listening for what has to be recorded", err); err != nil {
			if !sleep(ctx, time.Second) {
				return
			}
			continue
		}
		peer, err := recording.PeerOf(conn)
		if err != nil {
			conn.Close()
			continue
		}
		places, answer := d.refusals, d.refuse
		if s := d.askedFor(peer); s != nil {
			places, answer = d.places, func(r *recording.Request) { d.recordOne(s, r, conn) }
		}
		select {
		case places <- struct{}{}:
			go func() {
				defer func() { <-places }()
				defer conn.Close()
				if r, err := recording.Receive(conn, peer); err == nil { // or they only looked whether anybody listens
					answer(r)
				}
			}()
		default:
			conn.Close() // nothing begins
		}
	}
}

func (d *Daemon) refuse(r *recording.Request) {
	r.Refuse("this is no session of Sallyport that has to be recorded")
}

// recordOne records one shell or command, to its end.
func (d *Daemon) recordOne(s *session.Session, r *recording.Request, conn *net.UnixConn) {
	began := d.Now()
	w, err := d.begin(s, r, began)
	if err != nil {
		d.complain("recording sessions", err)
		r.Refuse("your session has to be recorded, and this host cannot: " + err.Error())
		return
	}
	d.complain("recording sessions", nil)
	conn.SetDeadline(time.Time{})
	c, err := r.Grant()
	if err == nil {
		err = c.Relay(w, began, d.Now)
	}
	conn.Close()
	e, cerr := w.Close(d.Now(), err)
	d.mu.Lock()
	delete(d.live, key(e))
	if err != nil {
		d.lost[s.ID] = err.Error()
	}
	d.mu.Unlock()
	d.complain("recording sessions", errors.Join(err, cerr, d.tell(e)))
	nudge(d.ends)
	nudge(d.bring)
}

// askedFor is the session whose channel asks: sshd started it there, and it runs this
// program. Nobody else can ask for themselves.
func (d *Daemon) askedFor(p recording.Peer) *session.Session {
	if !d.tree.Program(p.PID) {
		return nil
	}
	all, _ := d.store.All() // what cannot be read is told elsewhere
	for _, s := range all {
		if s.Record && s.Problem == "" && s.BootID == d.boot && d.tree.Channel(s, p.PID) {
			d.tree.Follow(&s)
			return &s
		}
	}
	return nil
}

// begin begins the recording of a channel.
func (d *Daemon) begin(s *session.Session, r *recording.Request, now time.Time) (*recording.Writer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if why := d.lost[s.ID]; why != "" {
		return nil, errors.New(why)
	}
	number := d.tree.Recorded(*s) + 1
	if number > recording.MaxNumber {
		return nil, errors.New("this connection has had too many sessions: make another one")
	}
	if err := d.tree.Record(*s, r.PID, number); err != nil {
		return nil, err
	}
	width, height := r.Size()
	w, err := d.recorder.store.Create(hostapi.SessionRecorded{Session: s.ID, Number: number, Serial: s.Serial, Request: s.Request, Login: s.Login,
		Recipients: d.settings.Settings.AuditorKeys, StartedAt: now.UTC(), Terminal: r.Terminal()},
		cast.Header{Version: 2, Width: width, Height: height, Timestamp: now.Unix(), Command: r.Command, Env: map[string]string{"TERM": r.Term},
			Title: s.Login + "@" + d.settings.Name, Sallyport: cast.About{Host: d.settings.HostID, Name: d.settings.Name, Login: s.Login, Session: s.ID,
				Number: number, Serial: s.Serial, Request: s.Request, Terminal: r.Terminal()}})
	if err != nil {
		return nil, err
	}
	d.live[fmt.Sprintf("%s-%d", s.ID, number)] = w
	return w, nil
}

// unrecorded says why a session that has to be recorded must end, if it must, and alarms
// once.
func (d *Daemon) unrecorded(s session.Session) string {
	d.mu.Lock()
	why := d.lost[s.ID]
	d.mu.Unlock()
	if why != "" {
		return why
	}
	why, err := d.tree.Unrecorded(s)
	if err != nil {
		why = "it cannot be seen whether all of it is recorded: " + err.Error()
	}
	if why == "" {
		return ""
	}
	d.alarm("unrecorded", fmt.Sprintf("the session of %s from %s, certificate %d, has to be recorded, and %s", s.Login, s.Peer, s.Serial, why))
	d.mu.Lock()
	d.lost[s.ID] = why
	d.mu.Unlock()
	return why
}

// tell puts the end of a recording into the spool. What was told twice is the same.
func (d *Daemon) tell(e recording.Entry) error {
	if _, err := d.Spool.Append(hostapi.KindSessionRecorded, e.SessionRecorded); err != nil {
		return err
	}
	e.Told = true
	return d.recorder.store.Put(e)
}

func key(e recording.Entry) string { return fmt.Sprintf("%s-%d", e.Session, e.Number) }

// bringRecordings brings the broker what was recorded, while it is and afterwards.
func (d *Daemon) bringRecordings(ctx context.Context) {
	brought := map[string]int64{}
	failures := 0
	for {
		err := d.bringAll(ctx, brought)
		if ctx.Err() != nil {
			return
		}
		d.complain("bringing recordings to the broker", err)
		pause := bringEvery
		if failures++; err == nil {
			failures = 0
		} else {
			pause = max(pause, backoff(failures))
		}
		if !sleepOr(ctx, pause, d.bring) {
			return
		}
	}
}

func (d *Daemon) bringAll(ctx context.Context, brought map[string]int64) error {
	all, wrong := d.recorder.store.All()
	if d.complain("recordings that cannot be read", wrong) && wrong != nil {
		d.alarm("recordings-unreadable", "recordings of this host cannot be brought, because what was written down of them cannot be read: "+wrong.Error())
	}
	var err error
	for _, e := range all {
		if e.Over && !e.Told {
			if terr := d.tell(e); terr != nil {
				err = errors.Join(err, terr)
				continue
			}
			e.Told = true
		}
		if berr := d.bringOne(ctx, e, brought); berr != nil {
			err = errors.Join(err, berr)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}

func (d *Daemon) bringOne(ctx context.Context, e recording.Entry, brought map[string]int64) error {
	size := e.Bytes
	if !e.Over {
		d.mu.Lock()
		w := d.live[key(e)]
		d.mu.Unlock()
		if w == nil {
			return nil // it begins, or ends
		}
		size = w.Size()
	}
	for brought[key(e)] < size {
		have := brought[key(e)]
		piece, err := d.recorder.store.Read(e, have, int(min(size-have, hostapi.MaxPiece)))
		if e.Over && (errors.Is(err, os.ErrNotExist) || err == nil && len(piece) == 0) {
			d.alarm("recording-tampered", fmt.Sprintf("of recording %s only %d bytes of %d are on this host any more", key(e), have, size))
			delete(brought, key(e))
			return d.recorder.store.Remove(e)
		}
		if err != nil {
			return err
		}
		said, err := d.client.Record(ctx, e.Session, e.Number, have, piece)
		if coded(err, hostapi.CodeRecordingRefused) || err == nil && said.Bytes > size && e.Over {
			d.alarm("recording-refused", fmt.Sprintf("the broker does not take recording %s: %v", key(e), cmp(err, "it has another one")))
			delete(brought, key(e))
			return d.recorder.store.Remove(e)
		}
		if err != nil {
			return err
		}
		if said.Bytes == have || len(piece) == 0 {
			return errors.New("the broker takes none of a recording")
		}
		brought[key(e)] = said.Bytes
	}
	if !e.Over {
		return nil
	}
	delete(brought, key(e))
	if err := d.recorder.store.Remove(e); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func cmp(err error, otherwise string) string {
	if err != nil {
		return err.Error()
	}
	return otherwise
}
