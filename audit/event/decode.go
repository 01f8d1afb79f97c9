package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
)

// ErrUnknown is wrapped by Decode's error for an event of a type or version
// that this program's catalogue does not have: a newer program wrote it.
var ErrUnknown = errors.New("not in this program's catalogue of events")

// kind is what tells one struct of the catalogue from all others.
type kind struct {
	name    string
	version int
}

func kindOf(d Data) kind {
	name, version := d.EventType()
	return kind{name, version}
}

// Catalogue is an empty event of every type and version, in the order of the
// documentation. Old versions stay in it.
func Catalogue() []Data {
	return []Data{
		PersonSignedIn{}, SignInFailed{}, PersonSignedOut{}, TokenReused{}, PersonRemoved{}, PersonRestored{},
		RequestCreated{}, RequestRefused{}, RequestDecided{}, DecisionRefused{}, DecisionVoided{}, RequestClosed{},
		GrantStarted{}, GrantEnded{}, DelegationMade{}, DelegationEnded{},
		EmergencyStarted{}, ReviewGiven{}, ReviewRefused{}, ReviewOverdue{},
		CertificateIssued{}, CertificateRefused{}, CertificateSigned{}, HostCertificateSigned{},
		AgentAdmitted{}, AgentRefused{}, AgentTokenShared{}, AgentRevoked{},
		MessageFailed{},
		HostRegistered{}, HostChanged{}, HostRemoved{}, HostCertificateIssued{},
		JoinTokenMade{}, JoinTokenWithdrawn{}, EnrolmentRefused{}, HostEnrolled{}, HostAlarm{}, ReportsLost{}, ReportRefused{},
		PostureChanged{}, HostProbed{}, HostQuarantined{}, HostReleased{},
		SessionStarted{}, SessionEnded{}, SessionAlarm{}, CertificateRevoked{},
		SessionRecorded{}, RecordingExpired{}, RecordingDisclosed{},
		PolicyProposed{}, PolicyDecided{}, PolicyWithdrawn{}, PolicyRefused{}, PolicyActivated{},
		KeysLoaded{}, ProviderKeysSeen{}, AccessRefused{},
		DeploymentOpened{}, DeploymentRefused{}, DeploymentDecided{}, DeploymentMoved{}, DeploymentHeld{}, DeploymentResumed{},
		DeploymentLeased{}, DeploymentReleased{}, DeploymentUnfrozen{}, BatchMoved{}, BatchReported{}, BatchVerified{}, GateDecided{},
		DeploymentCertificateIssued{}, DeploymentCertificateSigned{},
		PackRequested{}, PackMade{}, PackFailed{}, PackDownloaded{},
		WitnessesLag{}, WitnessesCaughtUp{}, WitnessContradicts{},
		StreamStarted{}, StreamLagging{}, StreamCaughtUp{},
		BrokerStarted{}, BrokerConfigured{}, DatabaseMigrated{},
		SearchDisclosed{}, EventDisclosed{}, EntriesDisclosed{}, RequestDisclosed{}, RequestsDisclosed{}, PeopleDisclosed{}, SessionsDisclosed{}, MessagesDisclosed{},
		RetentionPruned{},
	}
}

// registry finds the struct of a type and version.
var registry = func() map[kind]reflect.Type {
	types := make(map[kind]reflect.Type)
	for _, d := range Catalogue() {
		types[kindOf(d)] = reflect.TypeOf(d)
	}
	return types
}()

// Decode reads a leaf. It accepts exactly what Encode writes: an unknown type or
// version, an unknown field, or any other spelling of the same JSON is an error.
func Decode(leaf []byte) (Event, error) {
	if len(leaf) > MaxSize {
		return Event{}, fmt.Errorf("decoding event: more than %d bytes", MaxSize)
	}
	type plain Event // the same fields, without what Data is
	var wire struct {
		plain
		Data json.RawMessage `json:"data"`
	}
	if err := strict(leaf, &wire); err != nil {
		return Event{}, fmt.Errorf("decoding event: %w", err)
	}
	e := Event(wire.plain)
	t, ok := registry[kind{e.Type, e.Version}]
	if !ok {
		return Event{}, fmt.Errorf("decoding event: type %q version %d: %w", e.Type, e.Version, ErrUnknown)
	}
	data := reflect.New(t)
	if err := strict(wire.Data, data.Interface()); err != nil {
		return Event{}, fmt.Errorf("decoding event: data of %s: %w", e.Type, err)
	}
	e.Data = data.Elem().Interface().(Data)

	again, err := e.Encode()
	if err != nil {
		return Event{}, fmt.Errorf("decoding event: %w", err)
	}
	if !bytes.Equal(again, leaf) {
		return Event{}, fmt.Errorf("decoding event: %s is not in its only form", e.Type)
	}
	return e, nil
}

// strict unmarshals one JSON value without unknown fields.
func strict(text []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("something follows the JSON")
	}
	return nil
}
