-- What people asked for and what others said to it.
--
-- A request's terms and a decision's statement are canonical texts; everything
-- that can be checked is checked against those, and the other columns are there
-- to find rows and to say how far a request has come. So the texts can never
-- change (P4): the broker's role may not update them, a CHECK ties each to its
-- hash, and triggers refuse the owner of the tables too. Nothing is deleted:
-- history never disappears.

SET LOCAL ROLE sallyport_owner;

-- Each document that was in force, exactly. A number is never used twice.
CREATE TABLE policy_versions (
  version      bigint PRIMARY KEY CHECK (version > 0),
  hash         text NOT NULL CHECK (hash = encode(sha256(document), 'hex')),
  document     bytea NOT NULL,
  activated_at timestamptz NOT NULL
);

CREATE TABLE requests (
  id              text PRIMARY KEY CHECK (id ~ '^req-[0-9a-z]{12}$'),
  person_id       text NOT NULL REFERENCES people,
  host_id         text NOT NULL,
  policy_version  bigint NOT NULL REFERENCES policy_versions,
  terms           bytea NOT NULL,
  terms_hash      text NOT NULL CHECK (terms_hash = encode(sha256(terms), 'hex')),
  approver_groups text[] NOT NULL, -- that any slot of the terms names: their members may see the request
  created_at      timestamptz NOT NULL,
  approve_by      timestamptz NOT NULL,

  state           text NOT NULL CHECK (state IN
                    ('requested', 'approved', 'active', 'ended', 'denied', 'cancelled', 'expired')),
  waiting_groups  text[] NOT NULL, -- of these, one more person could fill a place now
  starts_at       timestamptz,
  ends_at         timestamptz,
  use_by          timestamptz, -- a grant without a first use ends here; null: at ends_at
  end_reason      text NOT NULL DEFAULT '' CHECK (end_reason IN ('', 'time', 'finished', 'revoked', 'unused')),
  key             text NOT NULL, -- fingerprint of the one key that the grant is for; empty before the first

  UNIQUE (id, person_id),
  CHECK ((state IN ('approved', 'active', 'ended')) = (starts_at IS NOT NULL)),
  CHECK ((starts_at IS NULL) = (ends_at IS NULL)),
  CHECK ((state = 'ended') = (end_reason <> '')),
  CHECK (state <> 'active' OR key <> '')
);
-- The lists: everything, one's own, those one could decide on, a host's.
CREATE INDEX requests_by_time ON requests (created_at DESC, id DESC);
CREATE INDEX requests_by_person ON requests (person_id, created_at DESC, id DESC);
CREATE INDEX requests_by_host ON requests (host_id, created_at DESC, id DESC);
CREATE INDEX requests_by_approvers ON requests USING gin (approver_groups);
CREATE INDEX requests_waiting ON requests USING gin (waiting_groups) WHERE state = 'requested';
CREATE INDEX requests_granted ON requests (host_id) WHERE state IN ('approved', 'active');

CREATE TABLE decisions (
  id             text PRIMARY KEY CHECK (id ~ '^dec-[0-9a-z]{12}$'),
  request_id     text NOT NULL,
  position       integer NOT NULL CHECK (position > 0), -- the order in which they were taken
  requester_id   text NOT NULL,
  approver_id    text NOT NULL REFERENCES people,
  statement      bytea NOT NULL,
  statement_hash text NOT NULL CHECK (statement_hash = encode(sha256(statement), 'hex')),
  decided_at     timestamptz NOT NULL,

  UNIQUE (request_id, approver_id), -- P5: one person, one decision
  UNIQUE (request_id, position),
  FOREIGN KEY (request_id, requester_id) REFERENCES requests (id, person_id),
  CHECK (approver_id <> requester_id) -- P5: never on one's own request
);
CREATE INDEX decisions_by_approver ON decisions (approver_id);

-- UPDATE is granted for what says how far a request has come, and DELETE not at all.
GRANT SELECT, INSERT ON policy_versions, requests, decisions TO sallyport_app;
GRANT UPDATE (state, waiting_groups, starts_at, ends_at, use_by, end_reason, key) ON requests TO sallyport_app;
GRANT SELECT ON policy_versions, requests, decisions TO sallyport_audit;

CREATE FUNCTION rows_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% on % is refused: its rows never change or go', TG_OP, TG_TABLE_NAME;
END
$$;

-- What may happen to a request. The states' order is that of DESIGN.md; a grant
-- starts once, can only become shorter, and keeps the first key that it had.
CREATE FUNCTION request_moves_on() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.id, NEW.person_id, NEW.host_id, NEW.policy_version, NEW.terms, NEW.terms_hash,
      NEW.approver_groups, NEW.created_at, NEW.approve_by)
     IS DISTINCT FROM
     (OLD.id, OLD.person_id, OLD.host_id, OLD.policy_version, OLD.terms, OLD.terms_hash,
      OLD.approver_groups, OLD.created_at, OLD.approve_by) THEN
    RAISE EXCEPTION 'the terms of request % never change', OLD.id;
  END IF;
  IF NEW.state <> OLD.state AND (OLD.state, NEW.state) NOT IN (
      ('requested', 'approved'), ('requested', 'denied'), ('requested', 'cancelled'), ('requested', 'expired'),
      ('approved', 'active'), ('approved', 'ended'), ('active', 'ended')) THEN
    RAISE EXCEPTION 'request % is %, it cannot become %', OLD.id, OLD.state, NEW.state;
  END IF;
  IF (OLD.starts_at IS NOT NULL AND NEW.starts_at IS DISTINCT FROM OLD.starts_at)
     OR NEW.ends_at > OLD.ends_at
     OR (OLD.starts_at IS NOT NULL AND NEW.use_by IS DISTINCT FROM OLD.use_by)
     OR (OLD.state = 'ended' AND (NEW.ends_at, NEW.end_reason) IS DISTINCT FROM (OLD.ends_at, OLD.end_reason)) THEN
    RAISE EXCEPTION 'the grant of request % cannot get another time', OLD.id;
  END IF;
  IF OLD.key <> '' AND NEW.key <> OLD.key THEN
    RAISE EXCEPTION 'the grant of request % is bound to another key', OLD.id;
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER request_moves_on BEFORE UPDATE ON requests FOR EACH ROW EXECUTE FUNCTION request_moves_on();
CREATE TRIGGER rows_stay BEFORE DELETE OR TRUNCATE ON requests FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON decisions FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON policy_versions FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
-- Also where session_replication_role would skip triggers.
ALTER TABLE requests ENABLE ALWAYS TRIGGER request_moves_on, ENABLE ALWAYS TRIGGER rows_stay;
ALTER TABLE decisions ENABLE ALWAYS TRIGGER rows_stay;
ALTER TABLE policy_versions ENABLE ALWAYS TRIGGER rows_stay;

RESET ROLE;
