-- Deployments by agents.
--
-- A deployment's terms are a canonical text that can never change, like a request's. How
-- it stands is one document, which the program reads and writes as a whole under the
-- row's lock, so that every replica can go on where another has stopped; the columns
-- beside it are there to find rows. Every host belongs to one deployment that is not
-- over, which an index sees to. What is over stays as it is, and nothing goes.

SET LOCAL ROLE sallyport_owner;

CREATE TABLE deployments (
  id             text PRIMARY KEY CHECK (id ~ '^dep-[0-9a-z]{12}$'),
  entry          text NOT NULL, -- of the policy's deployments
  service        text NOT NULL,
  environment    text NOT NULL,
  digest         text NOT NULL CHECK (digest ~ '^sha256:[0-9a-f]{64}$'),
  run_id         text NOT NULL REFERENCES agent_runs, -- that opened it
  policy_version bigint NOT NULL REFERENCES policy_versions,
  terms          bytea NOT NULL,
  terms_hash     text NOT NULL CHECK (terms_hash = encode(sha256(terms), 'hex')),
  groups         text[] NOT NULL, -- that the terms name, or that control it: their members may see it
  opened_at      timestamptz NOT NULL,

  phase          text NOT NULL CHECK (phase IN ('planned', 'awaiting_approval', 'active', 'held', 'verifying',
                   'complete', 'aborted', 'rolling_back', 'rolled_back', 'rollback_failed')),
  state          jsonb NOT NULL CHECK (jsonb_typeof(state) = 'object'),
  epoch          bigint NOT NULL CHECK (epoch >= 0),
  due_at         timestamptz, -- when somebody must look at it; null: when something happens
  ended_at       timestamptz,
  CHECK ((phase IN ('complete', 'aborted', 'rolled_back', 'rollback_failed')) = (ended_at IS NOT NULL))
);
CREATE INDEX deployments_by_time ON deployments (opened_at DESC, id DESC);
CREATE INDEX deployments_due ON deployments (due_at) WHERE ended_at IS NULL;
CREATE INDEX deployments_groups ON deployments USING gin (groups);
-- One deployment of a service in an environment at a time.
CREATE UNIQUE INDEX deployments_running ON deployments (service, environment) WHERE ended_at IS NULL;

CREATE TABLE deployment_hosts (
  deployment_id text NOT NULL REFERENCES deployments,
  host_id       text NOT NULL REFERENCES hosts,
  batch         integer NOT NULL CHECK (batch > 0),
  released_at   timestamptz, -- the deployment has ended
  PRIMARY KEY (deployment_id, host_id)
);
-- The lock of a host, over all deployments.
CREATE UNIQUE INDEX deployment_hosts_held ON deployment_hosts (host_id) WHERE released_at IS NULL;

CREATE TABLE deployment_decisions (
  id             text PRIMARY KEY CHECK (id ~ '^dec-[0-9a-z]{12}$'),
  deployment_id  text NOT NULL REFERENCES deployments,
  position       integer NOT NULL CHECK (position > 0),
  about          text NOT NULL, -- start, override/<n>, or gate/<batch>/<times judged>/<name>
  person_id      text NOT NULL REFERENCES people,
  statement      bytea NOT NULL,
  statement_hash text NOT NULL CHECK (statement_hash = encode(sha256(statement), 'hex')),
  note           bytea NOT NULL, -- by which the log's key vouches for the statement
  decided_at     timestamptz NOT NULL,
  id_token       text,           -- with assurance provider, as of decisions on requests
  keys_hash      text REFERENCES provider_keys,
  CHECK ((id_token IS NULL) = (keys_hash IS NULL)),
  UNIQUE (deployment_id, position),
  UNIQUE (deployment_id, about, person_id) -- one person, one decision
);

-- A draft may be about a deployment, too.
ALTER TABLE decision_drafts
  ADD COLUMN deployment_id text REFERENCES deployments,
  DROP CONSTRAINT decision_drafts_check,
  ADD CHECK (num_nonnulls(request_id, proposal_id, deployment_id) = 1);

-- A row is the intent to sign, as in certificates.
CREATE TABLE deployment_certificates (
  serial          bigint PRIMARY KEY CHECK (serial > 0),
  deployment_id   text NOT NULL,
  batch           integer NOT NULL CHECK (batch > 0),
  epoch           bigint NOT NULL CHECK (epoch > 0),
  run_id          text NOT NULL REFERENCES agent_runs,
  host_id         text NOT NULL,
  key_id          text NOT NULL CHECK (key_id = deployment_id || '/' || batch || '/' || epoch || '/' || run_id),
  principal       text NOT NULL CHECK (principal ~ '^[a-z_][a-z0-9_-]{0,31}@host-[0-9a-hjkmnp-tv-z]{12}$'
                                       AND split_part(principal, '@', 2) = host_id),
  fingerprint     text NOT NULL CHECK (fingerprint LIKE 'SHA256:%'),
  uses            integer NOT NULL CHECK (uses > 0),
  issued_at       timestamptz NOT NULL,
  valid_after     timestamptz NOT NULL CHECK (valid_after >= issued_at - interval '60 seconds'),
  valid_before    timestamptz NOT NULL CHECK (valid_before > issued_at AND valid_before <= issued_at + interval '5 minutes'),
  pre_certificate bytea NOT NULL,
  event_id        uuid NOT NULL UNIQUE,
  FOREIGN KEY (deployment_id, host_id) REFERENCES deployment_hosts
);
CREATE INDEX deployment_certificates_by_host ON deployment_certificates (deployment_id, host_id, batch);

-- The artifact that was verified on a service's hosts last.
CREATE TABLE verified_artifacts (
  service       text NOT NULL,
  environment   text NOT NULL,
  digest        text NOT NULL CHECK (digest ~ '^sha256:[0-9a-f]{64}$'),
  deployment_id text NOT NULL UNIQUE REFERENCES deployments,
  verified_at   timestamptz NOT NULL
);
CREATE INDEX verified_artifacts_last ON verified_artifacts (service, environment, verified_at DESC);

GRANT SELECT, INSERT ON deployments, deployment_hosts, deployment_decisions, deployment_certificates, verified_artifacts TO sallyport_app;
GRANT UPDATE (phase, state, epoch, due_at, ended_at) ON deployments TO sallyport_app;
GRANT UPDATE (released_at) ON deployment_hosts TO sallyport_app;
GRANT SELECT ON deployments, deployment_hosts, deployment_decisions, deployment_certificates, verified_artifacts TO sallyport_audit;

-- The terms stay, the epoch grows, and what is over is over.
CREATE FUNCTION deployment_moves_on() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.id, NEW.entry, NEW.service, NEW.environment, NEW.digest, NEW.run_id, NEW.policy_version, NEW.terms, NEW.terms_hash, NEW.groups, NEW.opened_at)
     IS DISTINCT FROM
     (OLD.id, OLD.entry, OLD.service, OLD.environment, OLD.digest, OLD.run_id, OLD.policy_version, OLD.terms, OLD.terms_hash, OLD.groups, OLD.opened_at) THEN
    RAISE EXCEPTION 'the terms of deployment % never change', OLD.id;
  END IF;
  IF OLD.ended_at IS NOT NULL THEN
    RAISE EXCEPTION 'deployment % is over', OLD.id;
  END IF;
  IF NEW.epoch < OLD.epoch THEN
    RAISE EXCEPTION 'the epoch of deployment % does not go back', OLD.id;
  END IF;
  RETURN NEW;
END
$$;
CREATE FUNCTION deployment_host_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.released_at IS NOT NULL OR (NEW.deployment_id, NEW.host_id, NEW.batch) IS DISTINCT FROM (OLD.deployment_id, OLD.host_id, OLD.batch) THEN
    RAISE EXCEPTION 'host % of deployment % stays as it is', OLD.host_id, OLD.deployment_id;
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER deployment_moves_on BEFORE UPDATE ON deployments FOR EACH ROW EXECUTE FUNCTION deployment_moves_on();
CREATE TRIGGER deployment_host_stays BEFORE UPDATE ON deployment_hosts FOR EACH ROW EXECUTE FUNCTION deployment_host_stays();
CREATE TRIGGER rows_stay BEFORE DELETE OR TRUNCATE ON deployments FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
CREATE TRIGGER rows_stay BEFORE DELETE OR TRUNCATE ON deployment_hosts FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON deployment_decisions FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON deployment_certificates FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
CREATE TRIGGER rows_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON verified_artifacts FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();

-- Also where session_replication_role would skip triggers.
ALTER TABLE deployments ENABLE ALWAYS TRIGGER deployment_moves_on, ENABLE ALWAYS TRIGGER rows_stay;
ALTER TABLE deployment_hosts ENABLE ALWAYS TRIGGER deployment_host_stays, ENABLE ALWAYS TRIGGER rows_stay;
ALTER TABLE deployment_decisions ENABLE ALWAYS TRIGGER rows_stay;
ALTER TABLE deployment_certificates ENABLE ALWAYS TRIGGER rows_stay;
ALTER TABLE verified_artifacts ENABLE ALWAYS TRIGGER rows_stay;

RESET ROLE;
