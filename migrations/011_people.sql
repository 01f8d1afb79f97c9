-- People who were removed, and those who decide for others for a while.
--
-- A person is never deleted: requests, decisions and the log name them. Who is
-- removed stays here and is let in no more, whatever the identity provider says,
-- until an operator restores them; what happened when is in the log.

SET LOCAL ROLE sallyport_owner;

ALTER TABLE people
  ADD COLUMN removed_at  timestamptz,
  ADD COLUMN removed_by  text REFERENCES people,
  ADD COLUMN removed_why text NOT NULL DEFAULT '',
  ADD CHECK ((removed_at IS NULL) = (removed_by IS NULL)),
  ADD CHECK ((removed_at IS NULL) = (removed_why = '')),
  ADD CHECK (removed_by <> id); -- nobody removes themselves: somebody stays who can restore
CREATE INDEX people_by_name ON people (lower(name), id);

GRANT UPDATE (removed_at, removed_by, removed_why) ON people TO sallyport_app;

-- Decisions that count no more, because whoever gave them was removed before
-- they had opened anything. They stay as they are, and in the log.
CREATE TABLE void_decisions (
  decision_id text PRIMARY KEY CHECK (decision_id ~ '^dec-[0-9a-z]{12}$'), -- one that there is not takes nothing away
  voided_at   timestamptz NOT NULL
);
GRANT SELECT, INSERT ON void_decisions TO sallyport_app;
GRANT SELECT ON void_decisions TO sallyport_audit;
CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON void_decisions FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
ALTER TABLE void_decisions ENABLE ALWAYS TRIGGER rows_stay;

-- That one person decides for another for a while. The note is what was said, as
-- the broker vouches for it with the log's key: without that a row lends nothing.
-- The other columns are there to find it, and to refuse what no note can make good.
CREATE TABLE delegations (
  id           text PRIMARY KEY CHECK (id ~ '^del-[0-9a-z]{12}$'),
  delegator_id text NOT NULL REFERENCES people,
  delegate_id  text NOT NULL REFERENCES people,
  made_by      text NOT NULL REFERENCES people, -- the delegator, or an operator
  note         bytea NOT NULL,
  made_at      timestamptz NOT NULL,
  from_at      timestamptz NOT NULL,
  until_at     timestamptz NOT NULL,
  ended_at     timestamptz,
  ended_by     text REFERENCES people,
  UNIQUE (id, delegate_id, delegator_id),
  CHECK (delegate_id NOT IN (delegator_id, made_by)), -- nobody takes another's say for themselves
  CHECK (made_at <= from_at AND from_at < until_at AND until_at <= from_at + interval '2160 hours'),
  CHECK ((ended_at IS NULL) = (ended_by IS NULL)),
  CHECK (ended_at >= made_at)
);
CREATE INDEX delegations_to ON delegations (delegate_id, until_at);
CREATE INDEX delegations_of ON delegations (delegator_id, until_at);
CREATE INDEX delegations_by_time ON delegations (made_at DESC, id DESC);

GRANT SELECT, INSERT, UPDATE (ended_at, ended_by) ON delegations TO sallyport_app;
GRANT SELECT ON delegations TO sallyport_audit;

CREATE FUNCTION delegation_ends_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.ended_at IS NOT NULL
     OR (NEW.id, NEW.delegator_id, NEW.delegate_id, NEW.made_by, NEW.note, NEW.made_at, NEW.from_at, NEW.until_at)
     IS DISTINCT FROM
     (OLD.id, OLD.delegator_id, OLD.delegate_id, OLD.made_by, OLD.note, OLD.made_at, OLD.from_at, OLD.until_at) THEN
    RAISE EXCEPTION 'delegation %: its rows never change, but for one end', OLD.id;
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER delegation_ends_once BEFORE UPDATE ON delegations FOR EACH ROW EXECUTE FUNCTION delegation_ends_once();
CREATE TRIGGER rows_stay BEFORE DELETE OR TRUNCATE ON delegations FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
ALTER TABLE delegations ENABLE ALWAYS TRIGGER delegation_ends_once, ENABLE ALWAYS TRIGGER rows_stay;

-- For whom a decision was given, and what let the approver. Who stands behind one
-- that counts does not stand behind another (P5).
ALTER TABLE decisions
  ADD COLUMN for_id        text REFERENCES people,
  ADD COLUMN delegation_id text,
  ADD CHECK ((for_id IS NULL) = (delegation_id IS NULL)),
  ADD CHECK (for_id NOT IN (approver_id, requester_id)),
  ADD FOREIGN KEY (delegation_id, approver_id, for_id) REFERENCES delegations (id, delegate_id, delegator_id);
CREATE INDEX decisions_by_delegator ON decisions (for_id) WHERE for_id IS NOT NULL;

CREATE FUNCTION decision_of_distinct_people() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (
      SELECT FROM decisions d WHERE d.request_id = NEW.request_id AND (d.approver_id = NEW.for_id
        OR d.for_id IN (NEW.approver_id, NEW.for_id) AND NOT EXISTS (SELECT FROM void_decisions v WHERE v.decision_id = d.id))) THEN
    RAISE EXCEPTION 'somebody would stand behind two decisions on request %', NEW.request_id;
  END IF;
  IF NEW.for_id IS NOT NULL AND NOT EXISTS (
      SELECT FROM delegations d WHERE d.id = NEW.delegation_id AND d.made_by <> NEW.requester_id
        AND d.from_at <= NEW.decided_at AND NEW.decided_at < d.until_at AND d.ended_at IS NULL) THEN
    RAISE EXCEPTION 'no delegation lets % decide on request %', NEW.approver_id, NEW.request_id;
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER decision_of_distinct_people BEFORE INSERT ON decisions FOR EACH ROW EXECUTE FUNCTION decision_of_distinct_people();
ALTER TABLE decisions ENABLE ALWAYS TRIGGER decision_of_distinct_people;

RESET ROLE;
