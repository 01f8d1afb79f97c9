-- Enrolled hosts, the sessions that they report, and what has ended before its time.
--
-- A host is known by its SSH host key. It gets in with a join token, of which only
-- the SHA-256 is kept and which is good once, or after an operator let it in. What a
-- host reports is numbered by it, and each number is taken once.
--
-- Revocations are one list with one number, which only grows. Each entry is made by
-- the transaction that ended something, by triggers that run when it commits: so
-- nobody forgets one, its number is held only from then on, and no transaction waits
-- for the number while it has one and wants another row. The broker's role can add to
-- the list what a function lets it, and take nothing from it.

SET LOCAL ROLE sallyport_owner;

CREATE TABLE join_tokens (
  id           text PRIMARY KEY CHECK (id ~ '^join-[0-9a-z]{12}$'),
  secret_hash  text NOT NULL UNIQUE CHECK (secret_hash ~ '^[0-9a-f]{64}$'),
  name         text NOT NULL, -- of the host that it makes, or of the one that it is for
  host_id      text REFERENCES hosts, -- an existing host, which enrols with it; null: a new one
  address      text NOT NULL, -- of the host, if the operator knows it; empty: as the host proposes
  labels       jsonb NOT NULL CHECK (jsonb_typeof(labels) = 'object'),
  logins       text[] NOT NULL,
  made_by      text NOT NULL REFERENCES people,
  made_by_name text NOT NULL,
  made_at      timestamptz NOT NULL,
  expires_at   timestamptz NOT NULL CHECK (expires_at > made_at AND expires_at <= made_at + interval '24 hours'),
  used_at      timestamptz,
  used_by      text REFERENCES hosts,
  withdrawn_at timestamptz,
  CHECK ((used_at IS NULL) = (used_by IS NULL)),
  CHECK (used_at IS NULL OR withdrawn_at IS NULL)
);
CREATE INDEX join_tokens_by_time ON join_tokens (made_at);

CREATE TABLE enrolments ( -- of hosts without a token
  id          text PRIMARY KEY CHECK (id ~ '^enr-[0-9a-z]{12}$'),
  host_key    text NOT NULL CHECK (host_key <> ''),
  name        text NOT NULL, -- this and the next two as the host proposes; none is anybody's word
  address     text NOT NULL,
  logins      text[] NOT NULL,
  facts       jsonb NOT NULL,
  source      text NOT NULL, -- address that it came from
  asked_at    timestamptz NOT NULL,
  expires_at  timestamptz NOT NULL,
  state       text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'approved', 'refused', 'expired')),
  host_id     text REFERENCES hosts,
  decided_by  text REFERENCES people,
  decided_at  timestamptz,
  CHECK ((state = 'approved') = (host_id IS NOT NULL))
);
CREATE UNIQUE INDEX enrolments_waiting ON enrolments (host_key) WHERE state = 'waiting';
CREATE INDEX enrolments_by_key ON enrolments (host_key, asked_at);

CREATE TABLE enrolled_hosts (
  host_id        text PRIMARY KEY REFERENCES hosts,
  host_key       text NOT NULL CHECK (host_key <> ''), -- with which it enrolled; counts while the registry has the same
  facts          jsonb NOT NULL,
  enrolled_at    timestamptz NOT NULL,
  let_in_by      text NOT NULL REFERENCES people, -- who made the token, or approved
  let_in_by_name text NOT NULL,
  proposed       text NOT NULL, -- the address that it proposed itself; as long as the registry has it, it is nobody's word
  last_report    bigint NOT NULL DEFAULT 0 CHECK (last_report >= 0),
  session_report bigint NOT NULL DEFAULT 0, -- number of the last report about a session
  session_at     timestamptz,               -- and when it was taken
  seen_at        timestamptz
);
CREATE INDEX enrolled_hosts_by_key ON enrolled_hosts (host_key);

CREATE TABLE host_reports ( -- of the last ones, what they were
  host_id text NOT NULL REFERENCES hosts,
  number  bigint NOT NULL CHECK (number > 0),
  digest  bytea NOT NULL CHECK (length(digest) = 32),
  PRIMARY KEY (host_id, number)
);

CREATE TABLE host_postures ( -- the last one of each host
  host_id     text PRIMARY KEY REFERENCES hosts,
  number      bigint NOT NULL CHECK (number > 0), -- of the report
  boot_id     text NOT NULL,
  taken_at    timestamptz NOT NULL, -- by the host's clock
  received_at timestamptz NOT NULL,
  checks      jsonb NOT NULL CHECK (jsonb_typeof(checks) = 'array'), -- with those that it left out
  text        text NOT NULL, -- what the host signed
  signature   text NOT NULL
);

CREATE TABLE host_probes ( -- the last look at each host from outside
  host_id    text PRIMARY KEY REFERENCES hosts,
  at         timestamptz, -- null: somebody looks for the first time
  result     text CHECK (result IN ('pass', 'fail', 'unknown')),
  login      text,
  findings   text[],
  turn       bigint NOT NULL DEFAULT 0,
  claimed_at timestamptz,
  CHECK ((at IS NULL) = (result IS NULL))
);

-- A host in quarantine gets no certificates.
ALTER TABLE hosts
  ADD COLUMN quarantined_at timestamptz,
  ADD COLUMN quarantined_by text REFERENCES people,
  ADD COLUMN quarantine     text NOT NULL DEFAULT '', -- why
  ADD CHECK ((quarantined_at IS NULL) = (quarantined_by IS NULL) AND (quarantined_at IS NULL) = (quarantine = ''));
GRANT UPDATE (quarantined_at, quarantined_by, quarantine) ON hosts TO sallyport_app;

CREATE TABLE host_sessions (
  id           text PRIMARY KEY CHECK (id ~ '^ses-[0-9a-z]{12}$'),
  host_id      text NOT NULL REFERENCES hosts,
  host_session text NOT NULL CHECK (host_session ~ '^[0-9a-f]{32}$'), -- the host's own name for it
  request_id   text REFERENCES requests, -- null: it belongs to no certificate that we know
  person_id    text REFERENCES people,
  serial       bigint NOT NULL, -- as the host says; 0: no certificate
  login        text NOT NULL,
  client       text NOT NULL, -- address
  started_at   timestamptz, -- null: its start was lost
  ended_at     timestamptz,
  end_reason   text NOT NULL DEFAULT '',
  alarm        text NOT NULL DEFAULT '', -- code
  reported_at  timestamptz NOT NULL,
  UNIQUE (host_id, host_session),
  CHECK ((ended_at IS NULL) = (end_reason = '')),
  CHECK (started_at IS NOT NULL OR ended_at IS NOT NULL),
  CHECK ((request_id IS NULL) = (person_id IS NULL))
);
CREATE INDEX host_sessions_by_request ON host_sessions (request_id, reported_at);
CREATE INDEX host_sessions_by_host ON host_sessions (host_id, reported_at DESC, id DESC);
CREATE INDEX host_sessions_live ON host_sessions (host_id) WHERE ended_at IS NULL;

CREATE TABLE revocation_head (
  one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
  number  bigint NOT NULL CHECK (number >= 0)
);
INSERT INTO revocation_head (number) VALUES (0);

CREATE TABLE revocations (
  number     bigint PRIMARY KEY,
  what       text NOT NULL CHECK (what IN ('serial', 'ended', 'extended')),
  request_id text NOT NULL REFERENCES requests,
  serial     bigint,
  extends_by text REFERENCES requests,
  at         timestamptz NOT NULL, -- when it ended; of an extension, when that will
  reason     text NOT NULL CHECK (reason IN ('', 'finished', 'revoked')),
  until      timestamptz NOT NULL, -- when no host needs it any more
  CHECK ((what = 'serial') = (serial IS NOT NULL)),
  CHECK ((what = 'extended') = (extends_by IS NOT NULL))
);
CREATE UNIQUE INDEX revocations_serial ON revocations (serial) WHERE what = 'serial';
CREATE UNIQUE INDEX revocations_ended ON revocations (request_id) WHERE what = 'ended';
CREATE UNIQUE INDEX revocations_extended ON revocations (extends_by) WHERE what = 'extended';
CREATE INDEX revocations_until ON revocations (until);

GRANT SELECT, INSERT ON join_tokens, enrolments, enrolled_hosts, host_reports, host_sessions, host_postures, host_probes TO sallyport_app;
GRANT UPDATE (used_at, used_by, withdrawn_at) ON join_tokens TO sallyport_app;
GRANT UPDATE (state, host_id, decided_by, decided_at) ON enrolments TO sallyport_app;
GRANT UPDATE (host_key, facts, enrolled_at, let_in_by, let_in_by_name, last_report, session_report, session_at, seen_at)
  ON enrolled_hosts TO sallyport_app;
GRANT UPDATE (number, boot_id, taken_at, received_at, checks, text, signature) ON host_postures TO sallyport_app;
GRANT UPDATE (at, result, login, findings, turn, claimed_at) ON host_probes TO sallyport_app;
GRANT UPDATE (ended_at, end_reason) ON host_sessions TO sallyport_app;
GRANT DELETE ON host_reports TO sallyport_app;
GRANT SELECT ON revocation_head, revocations TO sallyport_app;
GRANT SELECT ON enrolments, enrolled_hosts, host_sessions, host_postures, host_probes, revocation_head, revocations TO sallyport_audit;
GRANT SELECT (id, name, host_id, address, labels, logins, made_by, made_by_name, made_at, expires_at, used_at, used_by, withdrawn_at) ON join_tokens TO sallyport_audit;

-- A token is good once, an enrolment is decided once, a session ends once, and reports
-- are not taken back, also when the host begins anew.
CREATE FUNCTION fleet_moves_on() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is over, and stays as it was', TG_TABLE_NAME;
END
$$;
CREATE TRIGGER fleet_moves_on BEFORE UPDATE ON join_tokens FOR EACH ROW
  WHEN (OLD.used_at IS NOT NULL OR OLD.withdrawn_at IS NOT NULL) EXECUTE FUNCTION fleet_moves_on();
CREATE TRIGGER fleet_moves_on BEFORE UPDATE ON enrolments FOR EACH ROW
  WHEN (OLD.state <> 'waiting') EXECUTE FUNCTION fleet_moves_on();
CREATE TRIGGER fleet_moves_on BEFORE UPDATE ON host_sessions FOR EACH ROW
  WHEN (OLD.ended_at IS NOT NULL) EXECUTE FUNCTION fleet_moves_on();
CREATE TRIGGER fleet_moves_on BEFORE UPDATE ON enrolled_hosts FOR EACH ROW
  WHEN (NEW.last_report < OLD.last_report) EXECUTE FUNCTION fleet_moves_on();
CREATE TRIGGER fleet_moves_on BEFORE UPDATE ON host_postures FOR EACH ROW
  WHEN (NEW.number <= OLD.number) EXECUTE FUNCTION fleet_moves_on();

CREATE TRIGGER rows_stay BEFORE DELETE OR TRUNCATE ON join_tokens FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
CREATE TRIGGER rows_stay BEFORE DELETE OR TRUNCATE ON enrolments FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
CREATE TRIGGER rows_stay BEFORE DELETE OR TRUNCATE ON host_sessions FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON revocations FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();

-- The list's number never goes back, whoever moves it.
CREATE FUNCTION revocation_number_grows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'UPDATE' OR NEW.number <= OLD.number THEN
    RAISE EXCEPTION 'the number of the list of revocations only grows';
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER revocation_number_grows BEFORE UPDATE OR DELETE ON revocation_head
  FOR EACH ROW EXECUTE FUNCTION revocation_number_grows();
CREATE TRIGGER rows_stay BEFORE TRUNCATE ON revocation_head FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();

-- add_revocation takes the next number, which is the caller's until it commits.
CREATE FUNCTION add_revocation(what text, request_id text, serial bigint, extends_by text, at timestamptz, reason text, until timestamptz)
RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  n bigint;
BEGIN
  UPDATE public.revocation_head AS h SET number = h.number + 1 WHERE h.one_row RETURNING h.number INTO n;
  IF n IS NULL THEN
    RAISE EXCEPTION 'the list of revocations has no head';
  END IF;
  INSERT INTO public.revocations VALUES (n, what, request_id, serial, extends_by, at, reason, until);
  RETURN n;
END
$$;
REVOKE EXECUTE ON FUNCTION add_revocation FROM PUBLIC;

-- For a week after it could last have mattered: as long as a host may have been away
-- and then go on without being told to end what is old (hostapi.Revocations.Oldest).
CREATE FUNCTION grant_ended_early() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM public.add_revocation('ended', NEW.id, NULL, NULL, NEW.ends_at, NEW.end_reason,
    greatest(OLD.ends_at, NEW.ends_at, now()) + interval '7 days');
  RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER grant_ended_early AFTER UPDATE ON requests DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (OLD.state <> 'ended' AND NEW.state = 'ended' AND NEW.end_reason IN ('finished', 'revoked'))
  EXECUTE FUNCTION grant_ended_early();

CREATE FUNCTION grant_extends() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM public.add_revocation('extended', x.extends, NULL, NEW.id, NEW.ends_at, '', NEW.ends_at + interval '7 days')
  FROM public.extensions AS x WHERE x.request_id = NEW.id;
  RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER grant_extends_at_once AFTER INSERT ON requests DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (NEW.starts_at IS NOT NULL) EXECUTE FUNCTION grant_extends();
CREATE CONSTRAINT TRIGGER grant_extends AFTER UPDATE ON requests DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (OLD.starts_at IS NULL AND NEW.starts_at IS NOT NULL) EXECUTE FUNCTION grant_extends();

-- revoke_certificate lists one certificate, once, and says whether it was there.
CREATE FUNCTION revoke_certificate(revoked bigint, at timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- Of two at once, the second waits here and then sees the first one's.
  PERFORM pg_advisory_xact_lock(hashtextextended('revoking certificate ' || revoked, 0));
  IF EXISTS (SELECT FROM public.revocations AS r WHERE r.what = 'serial' AND r.serial = revoked) THEN
    RETURN false;
  END IF;
  PERFORM public.add_revocation('serial', c.request_id, c.serial, NULL, at, 'revoked',
    greatest(c.valid_before, q.ends_at, at) + interval '7 days')
  FROM public.certificates AS c JOIN public.requests AS q ON q.id = c.request_id WHERE c.serial = revoked;
  RETURN FOUND;
END
$$;
REVOKE EXECUTE ON FUNCTION revoke_certificate FROM PUBLIC;
GRANT EXECUTE ON FUNCTION revoke_certificate TO sallyport_app;

-- A host that is no longer ours, or that an operator keeps shut: what could still open
-- it opens nothing.
CREATE FUNCTION host_closed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM public.revoke_certificate(c.serial, closed.at)
  FROM public.certificates AS c, (SELECT coalesce(NEW.removed_at, NEW.quarantined_at) AS at) AS closed
  WHERE c.host_id = NEW.id AND c.valid_before > closed.at ORDER BY c.serial;
  RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER host_closed AFTER UPDATE ON hosts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (OLD.removed_at IS NULL AND NEW.removed_at IS NOT NULL OR OLD.quarantined_at IS NULL AND NEW.quarantined_at IS NOT NULL)
  EXECUTE FUNCTION host_closed();

-- Also where session_replication_role would skip triggers.
ALTER TABLE join_tokens ENABLE ALWAYS TRIGGER fleet_moves_on, ENABLE ALWAYS TRIGGER rows_stay;
ALTER TABLE enrolments ENABLE ALWAYS TRIGGER fleet_moves_on, ENABLE ALWAYS TRIGGER rows_stay;
ALTER TABLE host_sessions ENABLE ALWAYS TRIGGER fleet_moves_on, ENABLE ALWAYS TRIGGER rows_stay;
ALTER TABLE enrolled_hosts ENABLE ALWAYS TRIGGER fleet_moves_on;
ALTER TABLE host_postures ENABLE ALWAYS TRIGGER fleet_moves_on;
ALTER TABLE revocations ENABLE ALWAYS TRIGGER rows_stay;
ALTER TABLE revocation_head ENABLE ALWAYS TRIGGER revocation_number_grows, ENABLE ALWAYS TRIGGER rows_stay;
ALTER TABLE requests ENABLE ALWAYS TRIGGER grant_ended_early, ENABLE ALWAYS TRIGGER grant_extends_at_once,
  ENABLE ALWAYS TRIGGER grant_extends;
ALTER TABLE hosts ENABLE ALWAYS TRIGGER host_closed;

-- Grants that ended early while the version before served, and whose certificates may
-- still be good.
SELECT add_revocation('ended', id, NULL, NULL, ends_at, end_reason, ends_at + interval '8 days')
FROM requests WHERE state = 'ended' AND end_reason IN ('finished', 'revoked') AND ends_at > now() - interval '7 days'
ORDER BY ends_at;

RESET ROLE;
