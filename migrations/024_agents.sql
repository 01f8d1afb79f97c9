-- Runs of deploy agents: jobs whose token was taken, once, and the key that they go on by.
--
-- A row is also what keeps the token from being taken again, so that it stays. What is
-- unique here is decided by the database, for all brokers: one token, one run; one key,
-- one run. A run is revoked at most once, and nothing else of it ever changes.

SET LOCAL ROLE sallyport_owner;

CREATE TABLE agent_runs (
  id          text PRIMARY KEY CHECK (id ~ '^run-[0-9a-z]{12}$'),
  entry       text NOT NULL,             -- of the policy
  entry_hash  text NOT NULL CHECK (entry_hash ~ '^[0-9a-f]{64}$'), -- of what it trusted then
  provider    text NOT NULL,
  issuer      text NOT NULL,
  subject     text NOT NULL,
  token_id    text NOT NULL,             -- jti, or the hash of what is signed
  token_hash  text NOT NULL CHECK (token_hash ~ '^[0-9a-f]{64}$'),
  claims      jsonb NOT NULL,            -- for people who look
  key         text NOT NULL,             -- as in authorized_keys
  fingerprint text NOT NULL UNIQUE,
  policy_version bigint NOT NULL,
  policy_hash text NOT NULL,
  source      text NOT NULL,
  created_at  timestamptz NOT NULL,
  expires_at  timestamptz NOT NULL,
  revoked_at  timestamptz,
  revoked_why text NOT NULL DEFAULT '',
  UNIQUE (issuer, token_id),
  CHECK (created_at < expires_at AND expires_at <= created_at + interval '6 hours'),
  CHECK ((revoked_at IS NULL) = (revoked_why = ''))
);
CREATE INDEX agent_runs_by_time ON agent_runs (created_at DESC, id DESC);

GRANT SELECT, INSERT, UPDATE (revoked_at, revoked_why) ON agent_runs TO sallyport_app;
GRANT SELECT ON agent_runs TO sallyport_audit;

CREATE FUNCTION agent_run_is_revoked_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.revoked_at IS NOT NULL
     OR (to_jsonb(NEW) - 'revoked_at' - 'revoked_why') IS DISTINCT FROM (to_jsonb(OLD) - 'revoked_at' - 'revoked_why') THEN
    RAISE EXCEPTION 'run %: its row never changes, but for being revoked once', OLD.id;
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER agent_run_is_revoked_once BEFORE UPDATE ON agent_runs FOR EACH ROW EXECUTE FUNCTION agent_run_is_revoked_once();
CREATE TRIGGER rows_stay BEFORE DELETE OR TRUNCATE ON agent_runs FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
ALTER TABLE agent_runs ENABLE ALWAYS TRIGGER agent_run_is_revoked_once, ENABLE ALWAYS TRIGGER rows_stay;

-- Calls that agents made of late, by what each must say anew: none counts twice. A call
-- says when it was made, so that rows are of no use when that is too long ago.
CREATE TABLE agent_calls (
  run_id text NOT NULL REFERENCES agent_runs,
  nonce  text NOT NULL,
  at     timestamptz NOT NULL,
  PRIMARY KEY (run_id, nonce)
);
CREATE INDEX agent_calls_by_time ON agent_calls (at);

-- UPDATE is for locking the rows to delete (FOR UPDATE SKIP LOCKED).
GRANT SELECT, INSERT, DELETE, UPDATE (at) ON agent_calls TO sallyport_app;
GRANT SELECT ON agent_calls TO sallyport_audit;

RESET ROLE;
