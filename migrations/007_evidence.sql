-- What proves a decision: the provider's signature over it, and the keys that the
-- provider had then.
--
-- Under rules that want it, an approver's decision is drafted first, the approver
-- goes to the identity provider with the draft's hash as the nonce, and the ID
-- token that comes back is kept with the decision. None of this is believed
-- because it is here: package approvals/evidence checks it each time before a
-- certificate is issued, and a note about the provider's keys is worth nothing
-- without the signature of the log's key, which is not in the database. An ID
-- token opens nothing: it is a statement about a person, good for minutes.

SET LOCAL ROLE sallyport_owner;

-- How the provider says that it authenticated the person of a sign-in.
ALTER TABLE sign_ins
  ADD COLUMN amr text[] NOT NULL DEFAULT '{}',
  ADD COLUMN acr text NOT NULL DEFAULT '';

-- Notes about the provider's keys. They are kept for good: decisions are checked
-- with them when the provider has long had other keys.
CREATE TABLE provider_keys (
  hash    text PRIMARY KEY CHECK (hash = encode(sha256(note), 'hex')),
  note    bytea NOT NULL,
  seen_at timestamptz NOT NULL
);
CREATE INDEX provider_keys_by_time ON provider_keys (seen_at);

-- The default is for the version that serves while this migration runs.
ALTER TABLE decisions
  ADD COLUMN assurance text NOT NULL DEFAULT 'session' CHECK (assurance <> ''),
  ADD COLUMN id_token text,
  ADD COLUMN keys_hash text REFERENCES provider_keys,
  ADD CHECK ((assurance = 'provider') = (id_token IS NOT NULL)),
  ADD CHECK ((assurance = 'provider') = (keys_hash IS NOT NULL));

-- Decisions that somebody has said and the provider has not signed yet. A draft
-- belongs to one sign-in of a browser, is used once, and is worth nothing by itself.
CREATE TABLE decision_drafts (
  id         text PRIMARY KEY CHECK (id ~ '^dft-[0-9a-z]{12}$'),
  sign_in    text NOT NULL REFERENCES sign_ins ON DELETE CASCADE,
  request_id text NOT NULL REFERENCES requests,
  statement  bytea NOT NULL,
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  used_at    timestamptz
);
CREATE INDEX decision_drafts_by_expiry ON decision_drafts (expires_at);
CREATE INDEX decision_drafts_by_sign_in ON decision_drafts (sign_in);

GRANT SELECT, INSERT ON provider_keys TO sallyport_app;
GRANT SELECT, INSERT, UPDATE (used_at), DELETE ON decision_drafts TO sallyport_app;
GRANT SELECT ON provider_keys TO sallyport_audit;

CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON provider_keys FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
ALTER TABLE provider_keys ENABLE ALWAYS TRIGGER rows_stay;

-- A draft that was used is used for good.
CREATE FUNCTION draft_stays_used() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'draft % has been used', OLD.id;
END
$$;
CREATE TRIGGER draft_stays_used BEFORE UPDATE ON decision_drafts
  FOR EACH ROW WHEN (OLD.used_at IS NOT NULL)
  EXECUTE FUNCTION draft_stays_used();

RESET ROLE;
