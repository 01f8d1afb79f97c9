-- The registry of machines that can be asked for.
--
-- A host is never deleted: requests, certificates and the log name its id for
-- years. Removing one sets removed_at, after which its name is free for another
-- host, which has another id, so that no certificate fits both (P2).
--
-- The patterns repeat those of package broker/certs: sshd expands logins
-- unescaped, so a row that some other hand wrote must not bring in worse ones.

SET LOCAL ROLE sallyport_owner;

CREATE TABLE hosts (
  id         text PRIMARY KEY CHECK (id ~ '^host-[0-9a-hjkmnp-tv-z]{12}$'),
  name       text NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$'),
  address    text NOT NULL CHECK (address <> ''), -- host:port
  labels     jsonb NOT NULL CHECK (jsonb_typeof(labels) = 'object'),
  logins     text[] NOT NULL CHECK (
               cardinality(logins) BETWEEN 1 AND 64
               AND array_position(logins, NULL) IS NULL
               AND array_to_string(logins, ',') ~ '^[a-z_][a-z0-9_-]{0,31}(,[a-z_][a-z0-9_-]{0,31})*$'),
  host_key   text NOT NULL, -- authorized_keys format, or empty
  created_at timestamptz NOT NULL,
  changed_at timestamptz NOT NULL,
  removed_at timestamptz
);
CREATE UNIQUE INDEX hosts_live_name ON hosts (name) WHERE removed_at IS NULL;

-- An id is for good, and so is what happened when.
GRANT SELECT, INSERT, UPDATE (name, address, labels, logins, host_key, changed_at, removed_at) ON hosts TO sallyport_app;
GRANT SELECT ON hosts TO sallyport_audit;

-- A removed host stays as it was when it was removed, whoever asks.
CREATE FUNCTION host_stays_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'host % has been removed', OLD.id;
END
$$;
CREATE TRIGGER host_stays_removed BEFORE UPDATE ON hosts
  FOR EACH ROW WHEN (OLD.removed_at IS NOT NULL)
  EXECUTE FUNCTION host_stays_removed();

RESET ROLE;
