-- The certificates that people were issued, and the keys that sign.
--
-- A row is the intent to sign, committed together with its certificate.issued
-- event and before the CA's key is used (P1): there may be a row without a
-- certificate, when the process died in between, but never a certificate
-- without its row and its event. Nothing in a row can change, and none goes.

SET LOCAL ROLE sallyport_owner;

-- Serials are sequential, so that a revocation list (KRL) of many is short; a
-- rolled-back transaction leaves a gap, which is no certificate. The CAs of
-- people and hosts count each for itself.
CREATE SEQUENCE certificate_serial;
CREATE SEQUENCE host_certificate_serial;

CREATE TABLE certificates (
  serial          bigint PRIMARY KEY CHECK (serial > 0),
  request_id      text NOT NULL,
  person_id       text NOT NULL,
  host_id         text NOT NULL, -- not a reference: the host's row is locked while one is issued
  key_id          text NOT NULL CHECK (key_id = request_id || ':' || person_id),
  -- Exactly one principal (P2), spelled out as in package broker/certs.
  principal       text NOT NULL CHECK (principal ~ '^[a-z_][a-z0-9_-]{0,31}@host-[0-9a-hjkmnp-tv-z]{12}$'
                                       AND split_part(principal, '@', 2) = host_id),
  fingerprint     text NOT NULL CHECK (fingerprint LIKE 'SHA256:%'),
  issued_at       timestamptz NOT NULL,
  valid_after     timestamptz NOT NULL CHECK (valid_after >= issued_at - interval '60 seconds'), -- P3
  valid_before    timestamptz NOT NULL CHECK (valid_before > issued_at),
  pre_certificate bytea NOT NULL, -- everything but the signature
  event_id        uuid NOT NULL UNIQUE, -- one event for each certificate, one certificate for each event
  FOREIGN KEY (request_id, person_id) REFERENCES requests (id, person_id)
);
CREATE INDEX certificates_by_request ON certificates (request_id, serial);
CREATE INDEX certificates_by_host ON certificates (host_id, serial);

-- Each set of keys that a broker has signed with; a row for each broker.keys_loaded
-- event, so that a restart with the same keys is no news.
CREATE TABLE signing_keys (
  user_ca   text NOT NULL, -- fingerprint
  host_ca   text NOT NULL, -- fingerprint
  log       text NOT NULL, -- the log's verifier key
  loaded_at timestamptz NOT NULL,
  PRIMARY KEY (user_ca, host_ca, log)
);

GRANT SELECT, INSERT ON certificates, signing_keys TO sallyport_app;
GRANT USAGE ON SEQUENCE certificate_serial, host_certificate_serial TO sallyport_app;
GRANT SELECT ON certificates, signing_keys TO sallyport_audit;

-- The owner is refused too, also where session_replication_role would skip triggers.
CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON certificates FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON signing_keys FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
ALTER TABLE certificates ENABLE ALWAYS TRIGGER rows_stay;
ALTER TABLE signing_keys ENABLE ALWAYS TRIGGER rows_stay;

RESET ROLE;
