-- Recordings of sessions, as hosts bring them: ciphertext that nothing here can read.
--
-- They are in the database, and not in files, so that each replica has them, and that
-- whoever puts the database back has the recordings that the log names. A recording is
-- only added to, at its end, by one transaction at a time, and forgotten as a whole.
-- hashed is the state of SHA-256 after the bytes that there are: so the digest that the
-- host put into the log is compared without reading them again.
--
-- What should come is known from certificates.record: an expected recording is a session
-- that had to be recorded and has ended. When it has all come, the row goes.

SET LOCAL ROLE sallyport_owner;

CREATE TABLE session_recordings (
  session_id  text NOT NULL REFERENCES host_sessions,
  number      int NOT NULL CHECK (number BETWEEN 1 AND 9999), -- in the session
  bytes       bigint NOT NULL CHECK (bytes >= 0), -- that there are, or were
  hashed      bytea NOT NULL,
  began_at    timestamptz NOT NULL, -- when the broker first heard of it
  -- What the host's report of its end says, which is in the log:
  event_id    uuid,
  claimed     bigint CHECK (claimed >= 0),
  digest      text CHECK (digest ~ '^[0-9a-f]{64}$'),
  started_at  timestamptz,
  ended_at    timestamptz,
  terminal    boolean NOT NULL DEFAULT false,
  cut         text NOT NULL DEFAULT '',
  differs     boolean NOT NULL DEFAULT false, -- the bytes are not what the report says
  removed_at  timestamptz,
  PRIMARY KEY (session_id, number),
  CHECK ((event_id IS NULL) = (claimed IS NULL) AND (event_id IS NULL) = (digest IS NULL)
    AND (event_id IS NULL) = (started_at IS NULL) AND (event_id IS NULL) = (ended_at IS NULL))
);
CREATE INDEX session_recordings_kept ON session_recordings (began_at) INCLUDE (bytes) WHERE removed_at IS NULL;

CREATE TABLE recording_pieces (
  session_id text NOT NULL,
  number     int NOT NULL,
  at         bigint NOT NULL CHECK (at >= 0), -- of its first byte
  data       bytea NOT NULL CHECK (length(data) BETWEEN 1 AND 262144),
  PRIMARY KEY (session_id, number, at),
  FOREIGN KEY (session_id, number) REFERENCES session_recordings
);
ALTER TABLE recording_pieces ALTER COLUMN data SET STORAGE EXTERNAL; -- ciphertext does not get smaller

-- Certificates of the version before open no session of a rule that wants a recording.
ALTER TABLE certificates ADD COLUMN record boolean NOT NULL DEFAULT false;

CREATE TABLE expected_recordings (
  session_id text PRIMARY KEY REFERENCES host_sessions,
  due_at     timestamptz NOT NULL,
  told_at    timestamptz -- that not all had come by then
);
CREATE INDEX expected_recordings_due ON expected_recordings (due_at);

GRANT SELECT, INSERT ON session_recordings, recording_pieces, expected_recordings TO sallyport_app;
GRANT UPDATE (told_at) ON expected_recordings TO sallyport_app;
GRANT UPDATE (bytes, hashed, event_id, claimed, digest, started_at, ended_at, terminal, cut, differs, removed_at) ON session_recordings TO sallyport_app;
GRANT DELETE ON recording_pieces, expected_recordings TO sallyport_app;
GRANT SELECT ON session_recordings, expected_recordings TO sallyport_audit;

-- What was said of a recording's end stays, and what was forgotten does not come back.
CREATE TRIGGER fleet_moves_on BEFORE UPDATE ON session_recordings FOR EACH ROW
  WHEN (OLD.removed_at IS NOT NULL AND NEW.removed_at IS DISTINCT FROM OLD.removed_at
    OR OLD.event_id IS NOT NULL AND (NEW.event_id, NEW.claimed, NEW.digest, NEW.cut) IS DISTINCT FROM (OLD.event_id, OLD.claimed, OLD.digest, OLD.cut)
    OR NEW.bytes < OLD.bytes OR OLD.differs AND NOT NEW.differs)
  EXECUTE FUNCTION fleet_moves_on();
CREATE TRIGGER rows_stay BEFORE DELETE OR TRUNCATE ON session_recordings FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
CREATE TRIGGER rows_stay BEFORE UPDATE OR TRUNCATE ON recording_pieces FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();

RESET ROLE;
