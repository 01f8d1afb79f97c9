-- The provider's signature on what is said of emergencies and of policies, as on
-- decisions on requests (007): the ID token is kept with the review or the
-- decision, and with the hash of the note about the keys that it verifies with.
--
-- Nothing is believed because it is here. A review counts, and a version of the
-- policy is in force, only if package approvals/evidence finds it proved.

SET LOCAL ROLE sallyport_owner;

-- The defaults are for the version that serves while this migration runs.
ALTER TABLE reviews
  ADD COLUMN assurance text NOT NULL DEFAULT 'session' CHECK (assurance <> ''),
  ADD COLUMN id_token text,
  ADD COLUMN keys_hash text REFERENCES provider_keys,
  ADD CHECK ((assurance = 'provider') = (id_token IS NOT NULL)),
  ADD CHECK ((assurance = 'provider') = (keys_hash IS NOT NULL));

ALTER TABLE policy_decisions
  ADD COLUMN assurance text NOT NULL DEFAULT 'session' CHECK (assurance <> ''),
  ADD COLUMN id_token text,
  ADD COLUMN keys_hash text REFERENCES provider_keys,
  ADD CHECK ((assurance = 'provider') = (id_token IS NOT NULL)),
  ADD CHECK ((assurance = 'provider') = (keys_hash IS NOT NULL));

-- A draft is about a request or about a proposal; what it says of it, its
-- statement does.
ALTER TABLE decision_drafts
  ALTER COLUMN request_id DROP NOT NULL,
  ADD COLUMN proposal_id text REFERENCES policy_proposals,
  ADD CHECK (num_nonnulls(request_id, proposal_id) = 1);

RESET ROLE;
