-- Who is asking: people, their sign-ins, and what browsers and the sally
-- command show to prove that they act for one.
--
-- A person is (issuer, subject); name, address and groups are what the provider
-- last said. A sign-in belongs to one browser or one sally and is what every
-- cookie and token leads to: when its row has ended, none of them opens anything
-- any more, whatever they say of themselves.
--
-- Secrets (codes, refresh tokens, cookies) are here as SHA-256 only, so that
-- whoever reads a backup cannot act for anybody. What a cookie leads to holds,
-- for the minutes that a person is at the provider, the state, nonce and PKCE
-- verifier of that one attempt; they open nothing without the code that only that
-- browser gets. The auditors' role sees people and sign-ins, but not the tables
-- with hashes.
--
-- Rows that are worth nothing any more are deleted a hundred at a time by
-- approvals/identity (Store.Sweep) whenever a new sign-in starts, so that the
-- tables do not grow faster than they shrink.

SET LOCAL ROLE sallyport_owner;

CREATE TABLE people (
  id                 text PRIMARY KEY CHECK (id ~ '^per-[0-9a-z]{12}$'),
  issuer             text NOT NULL CHECK (issuer <> ''),
  subject            text NOT NULL CHECK (subject <> ''),
  name               text NOT NULL,
  email              text NOT NULL,
  groups             text[] NOT NULL,
  first_signed_in_at timestamptz NOT NULL,
  signed_in_at       timestamptz NOT NULL,
  UNIQUE (issuer, subject)
);
CREATE INDEX people_by_group ON people USING gin (groups);

-- Identity is immutable: only what the provider says of the person changes.
GRANT SELECT, INSERT, UPDATE (name, email, groups, signed_in_at) ON people TO sallyport_app;
GRANT SELECT ON people TO sallyport_audit;

CREATE TABLE sign_ins (
  id         text PRIMARY KEY CHECK (id ~ '^fam-[0-9a-z]{12}$'),
  person_id  text NOT NULL REFERENCES people ON DELETE CASCADE,
  via        text NOT NULL CHECK (via IN ('web', 'cli', 'device')),
  auth_time  timestamptz NOT NULL, -- when the provider authenticated the person
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL, -- absolute; nothing moves it
  seen_at    timestamptz NOT NULL,
  ended_at   timestamptz           -- signed out, or a refresh token was reused
);
CREATE INDEX sign_ins_by_person ON sign_ins (person_id);
CREATE INDEX sign_ins_by_expiry ON sign_ins (expires_at);

-- An end is for good and a life cannot be prolonged, even by the broker.
GRANT SELECT, INSERT, UPDATE (seen_at, ended_at), DELETE ON sign_ins TO sallyport_app;
GRANT SELECT ON sign_ins TO sallyport_audit;

CREATE FUNCTION sign_in_stays_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'sign-in % has ended', OLD.id;
END
$$;
CREATE TRIGGER sign_in_stays_ended BEFORE UPDATE ON sign_ins
  FOR EACH ROW WHEN (OLD.ended_at IS NOT NULL AND NEW.ended_at IS DISTINCT FROM OLD.ended_at)
  EXECUTE FUNCTION sign_in_stays_ended();

-- What alexedwards/scs keeps for browsers; its pgxstore fixes names and columns.
-- token is a hash (HashTokenInStore).
CREATE TABLE sessions (
  token  text PRIMARY KEY,
  data   bytea NOT NULL,
  expiry timestamptz NOT NULL
);
CREATE INDEX sessions_by_expiry ON sessions (expiry);
GRANT SELECT, INSERT, UPDATE, DELETE ON sessions TO sallyport_app;

-- Authorization codes (RFC 6749 section 4.1, PKCE RFC 7636). family is the
-- sign-in that the code became, so that a replay can end it.
CREATE TABLE authorization_codes (
  code_hash    bytea PRIMARY KEY CHECK (octet_length(code_hash) = 32),
  sign_in      text NOT NULL REFERENCES sign_ins ON DELETE CASCADE, -- the browser's
  redirect_uri text NOT NULL,
  challenge    text NOT NULL,
  expires_at   timestamptz NOT NULL,
  used_at      timestamptz,
  family       text REFERENCES sign_ins ON DELETE CASCADE
);
CREATE INDEX authorization_codes_by_expiry ON authorization_codes (expires_at);
CREATE INDEX authorization_codes_by_sign_in ON authorization_codes (sign_in);
CREATE INDEX authorization_codes_by_family ON authorization_codes (family);
GRANT SELECT, INSERT, UPDATE (used_at, family), DELETE ON authorization_codes TO sallyport_app;

-- Device authorizations (RFC 8628). source is shown to the person who is asked.
CREATE TABLE device_authorizations (
  device_hash    bytea PRIMARY KEY CHECK (octet_length(device_hash) = 32),
  user_code_hash bytea NOT NULL UNIQUE CHECK (octet_length(user_code_hash) = 32),
  source         text NOT NULL,
  created_at     timestamptz NOT NULL,
  expires_at     timestamptz NOT NULL,
  interval_s     integer NOT NULL,
  polled_at      timestamptz,
  approved       boolean,
  sign_in        text REFERENCES sign_ins ON DELETE CASCADE, -- the browser's
  used_at        timestamptz,
  CHECK (approved IS NULL OR sign_in IS NOT NULL)
);
CREATE INDEX device_authorizations_by_expiry ON device_authorizations (expires_at);
CREATE INDEX device_authorizations_by_sign_in ON device_authorizations (sign_in);
GRANT SELECT, INSERT, UPDATE (interval_s, polled_at, approved, sign_in, used_at), DELETE
  ON device_authorizations TO sallyport_app;

-- Refresh tokens; those of one sign-in are a family, of which one at most lives.
CREATE TABLE refresh_tokens (
  token_hash bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
  family     text NOT NULL REFERENCES sign_ins ON DELETE CASCADE,
  created_at timestamptz NOT NULL,
  used_at    timestamptz
);
CREATE INDEX refresh_tokens_by_family ON refresh_tokens (family);
CREATE UNIQUE INDEX refresh_tokens_one_lives ON refresh_tokens (family) WHERE used_at IS NULL;
GRANT SELECT, INSERT, UPDATE (used_at) ON refresh_tokens TO sallyport_app;

RESET ROLE;
