package notify

import "time"

// Alarm is what a host reported that must not be.
type Alarm struct {
	HostID string `json:"host_id"`
	Host   string `json:"host"` // its name
	Code   string `json:"code"`
	Text   string `json:"text"`
}

// AlarmNotice is the notice of an alarm. Of the same host and code there is one an hour:
// a host that reports a thousand tells nobody more.
func AlarmNotice(a Alarm, now time.Time) Notice {
	return Notice{ID: "alarm/" + a.HostID + "/" + a.Code + "/" + now.Format("2006-01-02T15"), Kind: HostAlarm, Due: now, Alarm: &a}
}

func (m Message) alarmFacts() []fact {
	if m.Alarm == nil {
		return nil
	}
	return []fact{{"Host", m.Alarm.Host}, {"What", m.Alarm.Text}, {"Code", m.Alarm.Code}}
}
