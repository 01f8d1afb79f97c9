-- How a version of the policy comes into force: proposed by one operator,
-- approved by another.
--
-- A proposal and the decision on it are canonical texts, as a request's terms and
-- decisions are, and never change. None of these rows is believed because it is
-- here: beside each text stands a note in which the broker that took it vouches
-- for it with the key of the log, which is not in the database. A version is in
-- force only if such notes say how it came to be, and the log has the event. So
-- whoever has the broker's password can write rows, and changes no decision.

SET LOCAL ROLE sallyport_owner;

CREATE TABLE policy_proposals (
  id             text PRIMARY KEY CHECK (id ~ '^pol-[0-9a-z]{12}$'),
  author_id      text NOT NULL REFERENCES people,
  base_version   bigint NOT NULL REFERENCES policy_versions, -- that was in force when it was made
  document       bytea NOT NULL,
  document_hash  text NOT NULL CHECK (document_hash = encode(sha256(document), 'hex')),
  statement      bytea NOT NULL,
  statement_hash text NOT NULL CHECK (statement_hash = encode(sha256(statement), 'hex')),
  note           bytea NOT NULL, -- vouches for statement_hash
  created_at     timestamptz NOT NULL,

  state          text NOT NULL CHECK (state IN ('open', 'approved', 'denied', 'withdrawn')),

  UNIQUE (id, author_id)
);
CREATE INDEX policy_proposals_by_time ON policy_proposals (created_at DESC, id DESC);
CREATE INDEX policy_proposals_open ON policy_proposals (author_id) WHERE state = 'open';

CREATE TABLE policy_decisions (
  id             text PRIMARY KEY CHECK (id ~ '^dec-[0-9a-z]{12}$'),
  proposal_id    text NOT NULL UNIQUE, -- one decision closes it
  author_id      text NOT NULL,
  approver_id    text NOT NULL REFERENCES people,
  statement      bytea NOT NULL,
  statement_hash text NOT NULL CHECK (statement_hash = encode(sha256(statement), 'hex')),
  note           bytea NOT NULL, -- vouches for statement_hash
  decided_at     timestamptz NOT NULL,

  FOREIGN KEY (proposal_id, author_id) REFERENCES policy_proposals (id, author_id),
  CHECK (approver_id <> author_id) -- P5: the author does not approve it
);
CREATE INDEX policy_decisions_by_approver ON policy_decisions (approver_id);

-- Why a version is in force. A version without a row here never is.
CREATE TABLE policy_activations (
  version     bigint PRIMARY KEY REFERENCES policy_versions,
  proposal_id text UNIQUE REFERENCES policy_proposals, -- null: it came from the broker's own file
  note        bytea NOT NULL,                          -- vouches for all of it
  event_id    uuid NOT NULL UNIQUE                     -- policy.activated, in the log
);

GRANT SELECT, INSERT ON policy_proposals, policy_decisions, policy_activations TO sallyport_app;
GRANT UPDATE (state) ON policy_proposals TO sallyport_app;
GRANT SELECT ON policy_proposals, policy_decisions, policy_activations TO sallyport_audit;

CREATE FUNCTION policy_proposal_moves_on() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.id, NEW.author_id, NEW.base_version, NEW.document, NEW.document_hash, NEW.statement,
      NEW.statement_hash, NEW.note, NEW.created_at)
     IS DISTINCT FROM
     (OLD.id, OLD.author_id, OLD.base_version, OLD.document, OLD.document_hash, OLD.statement,
      OLD.statement_hash, OLD.note, OLD.created_at) THEN
    RAISE EXCEPTION 'the text of proposal % can never change', OLD.id;
  END IF;
  IF OLD.state <> 'open' AND NEW.state <> OLD.state THEN
    RAISE EXCEPTION 'proposal % is %, it cannot become %', OLD.id, OLD.state, NEW.state;
  END IF;
  RETURN NEW;
END
$$;

CREATE TRIGGER policy_proposal_moves_on BEFORE UPDATE ON policy_proposals
  FOR EACH ROW EXECUTE FUNCTION policy_proposal_moves_on();
CREATE TRIGGER rows_stay BEFORE DELETE OR TRUNCATE ON policy_proposals FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON policy_decisions FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON policy_activations FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
-- Also where session_replication_role would skip triggers.
ALTER TABLE policy_proposals ENABLE ALWAYS TRIGGER policy_proposal_moves_on, ENABLE ALWAYS TRIGGER rows_stay;
ALTER TABLE policy_decisions ENABLE ALWAYS TRIGGER rows_stay;
ALTER TABLE policy_activations ENABLE ALWAYS TRIGGER rows_stay;

RESET ROLE;
