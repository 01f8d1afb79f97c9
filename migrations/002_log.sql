-- The log (package audit). Its promises are kept here as far as a database can:
--
--   * The broker's role may read, and may EXECUTE four functions: start an empty
--     log, let an event wait, lock the head, append what waits. It has no
--     INSERT, UPDATE, DELETE or TRUNCATE on any table of this schema (P7).
--   * Triggers refuse the owner too. They are ENABLE ALWAYS, or else
--     session_replication_role = replica would skip them.
--   * Indexes come from the locked head, never from a sequence, which would leave
--     gaps when a transaction rolls back (P8).
--
-- The functions that run for every event forbid sequential scans: their plans are
-- made while the tables are still empty, and would stay in use while they grow.
-- They forbid JIT, which such plans would otherwise set off.
--
-- Whoever can drop triggers can still do anything; the signed checkpoints kept
-- outside of the database show it when that happens.

CREATE SCHEMA audit AUTHORIZATION sallyport_owner;

SET LOCAL ROLE sallyport_owner;

-- Events that are committed, with the state change that they describe, and have
-- no index yet.
CREATE TABLE audit.pending (
  event_id   uuid        PRIMARY KEY,
  -- The order in which they are appended. It has gaps, and means nothing later.
  arrival    bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
  type       text        COLLATE "C" NOT NULL,
  time       timestamptz NOT NULL,
  actor_id   text,
  person_id  text,
  request_id text,
  host_id    text,
  leaf       bytea       NOT NULL CHECK (octet_length(leaf) BETWEEN 1 AND 65535),
  leaf_hash  bytea       NOT NULL CONSTRAINT hash_of_leaf CHECK (leaf_hash = sha256('\x00'::bytea || leaf)),
  data       jsonb       NOT NULL
) WITH (
  -- A queue: nearly every row is soon dead.
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000
);
CREATE INDEX ON audit.pending (request_id) WHERE request_id IS NOT NULL;

-- The leaves of the tree. leaf is the truth; the other columns are copies of
-- what it says, made by audit.enqueue, for queries only.
CREATE TABLE audit.entries (
  index      bigint      PRIMARY KEY CHECK (index >= 0),
  event_id   uuid        NOT NULL UNIQUE,
  type       text        COLLATE "C" NOT NULL,
  time       timestamptz NOT NULL,
  actor_id   text,
  person_id  text,
  request_id text,
  host_id    text,
  leaf       bytea       NOT NULL CHECK (octet_length(leaf) BETWEEN 1 AND 65535),
  leaf_hash  bytea       NOT NULL CONSTRAINT hash_of_leaf CHECK (leaf_hash = sha256('\x00'::bytea || leaf)),
  data       jsonb       NOT NULL
);
CREATE INDEX ON audit.entries (type, index);
CREATE INDEX ON audit.entries (time);
CREATE INDEX ON audit.entries (actor_id, index) WHERE actor_id IS NOT NULL;
CREATE INDEX ON audit.entries (person_id, index) WHERE person_id IS NOT NULL;
-- By type, so that the start of a grant is found beside its thousandth certificate.
CREATE INDEX ON audit.entries (request_id, type, index) WHERE request_id IS NOT NULL;
CREATE INDEX ON audit.entries (host_id, index) WHERE host_id IS NOT NULL;

-- The tree's hashes in the order of golang.org/x/mod/sumdb/tlog.StoredHashIndex,
-- which only ever grows at its end.
CREATE TABLE audit.hashes (
  index bigint PRIMARY KEY CHECK (index >= 0),
  hash  bytea  NOT NULL CHECK (octet_length(hash) = 32)
);

-- The newest signed tree head: one row.
CREATE TABLE audit.head (
  one_row    boolean PRIMARY KEY DEFAULT true CHECK (one_row),
  size       bigint  NOT NULL CHECK (size >= 0),
  root       bytea   NOT NULL CHECK (octet_length(root) = 32),
  checkpoint text    NOT NULL -- c2sp.org/tlog-checkpoint
);

-- How many hashes a tree of n leaves has (tlog.StoredHashCount). Its body was
-- resolved when it was made, and needs no search_path; with one, PostgreSQL could
-- not write it into the statements that use it for each row.
CREATE FUNCTION audit.hash_count(n bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE
RETURN 2 * n - bit_count(n::bit(64));

CREATE FUNCTION audit.refuse() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION '% on audit.% is refused: the log is append-only', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege';
END
$$;

-- Statement triggers also refuse statements that hit no row; row triggers also
-- refuse logical replication, which fires no others.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.entries
  FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER append_only_row BEFORE UPDATE OR DELETE ON audit.entries
  FOR EACH ROW EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.hashes
  FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER append_only_row BEFORE UPDATE OR DELETE ON audit.hashes
  FOR EACH ROW EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON audit.head
  FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER append_only_row BEFORE DELETE ON audit.head
  FOR EACH ROW EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER append_only BEFORE UPDATE OR TRUNCATE ON audit.pending
  FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER append_only_row BEFORE UPDATE ON audit.pending
  FOR EACH ROW EXECUTE FUNCTION audit.refuse();

-- An event stops waiting only by having its place. One check for the whole
-- statement: it runs for every batch.
CREATE FUNCTION audit.leave_only_when_sequenced() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  IF EXISTS (SELECT FROM gone AS g WHERE NOT EXISTS (
      SELECT FROM audit.entries AS e WHERE e.event_id = g.event_id AND e.leaf_hash = g.leaf_hash)) THEN
    RAISE EXCEPTION 'DELETE on audit.pending is refused: an event is not in the log yet'
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER leave_only_when_sequenced AFTER DELETE ON audit.pending
  REFERENCING OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION audit.leave_only_when_sequenced();

-- The head begins at 0 before all entries, and then moves forward only, onto
-- entries and hashes that are all there.
CREATE FUNCTION audit.forward_only() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  was bigint := CASE TG_OP WHEN 'INSERT' THEN 0 ELSE OLD.size END;
BEGIN
  IF TG_OP = 'UPDATE' AND NEW.size <= was THEN
    RAISE EXCEPTION 'the log''s head at % cannot move to %', was, NEW.size
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  IF (SELECT count(*) FROM audit.entries WHERE index >= was) <> NEW.size - was
    OR (SELECT max(index) + 1 FROM audit.entries) IS DISTINCT FROM nullif(NEW.size, 0)
    OR (SELECT count(*) FROM audit.hashes WHERE index >= audit.hash_count(was))
      <> audit.hash_count(NEW.size) - audit.hash_count(was)
    OR (SELECT max(index) + 1 FROM audit.hashes) IS DISTINCT FROM nullif(audit.hash_count(NEW.size), 0) THEN
    RAISE EXCEPTION 'the log''s head cannot be %: the entries or hashes are not those of such a log', NEW.size
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER forward_only BEFORE INSERT OR UPDATE ON audit.head
  FOR EACH ROW EXECUTE FUNCTION audit.forward_only();

ALTER TABLE audit.entries ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE audit.entries ENABLE ALWAYS TRIGGER append_only_row;
ALTER TABLE audit.hashes ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE audit.hashes ENABLE ALWAYS TRIGGER append_only_row;
ALTER TABLE audit.head ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE audit.head ENABLE ALWAYS TRIGGER append_only_row;
ALTER TABLE audit.head ENABLE ALWAYS TRIGGER forward_only;
ALTER TABLE audit.pending ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE audit.pending ENABLE ALWAYS TRIGGER append_only_row;
ALTER TABLE audit.pending ENABLE ALWAYS TRIGGER leave_only_when_sequenced;

-- start makes the head of an empty log, if there is none.
CREATE FUNCTION audit.start(root bytea, checkpoint text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO audit.head (size, root, checkpoint)
  SELECT 0, $1, $2 WHERE NOT EXISTS (SELECT FROM audit.head) AND NOT EXISTS (SELECT FROM audit.entries)
  ON CONFLICT DO NOTHING -- somebody starts it at the same time
$$;

-- enqueue lets events wait, in the caller's transaction, and returns the head's
-- size. An event that waits already, or has its place, is left as it is, so that
-- a retry is harmless; the same id with other bytes is refused.
CREATE FUNCTION audit.enqueue(leaves bytea[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  added     bigint;
  ids       uuid[];
  size      bigint;
  sequenced boolean;
BEGIN
  -- With an older snapshot, the check below for events that were sequenced a
  -- moment ago would not see them.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'events must be staged in a READ COMMITTED transaction';
  END IF;

  -- OFFSET 0 keeps the document from being parsed once for each column.
  WITH docs AS (
    SELECT n, leaf, doc, (doc->>'id')::uuid AS id
    FROM (SELECT n, leaf, convert_from(leaf, 'UTF8')::jsonb AS doc
          FROM unnest(leaves) WITH ORDINALITY AS u (leaf, n) OFFSET 0) AS parsed
  ), inserted AS (
    INSERT INTO audit.pending (event_id, type, time, actor_id, person_id, request_id, host_id, leaf, leaf_hash, data)
    SELECT id, doc->>'type', (doc->>'time')::timestamptz, doc->'actor'->>'id', doc->'subject'->>'person_id',
      doc->'subject'->>'request_id', doc->'subject'->>'host_id', leaf, sha256('\x00'::bytea || leaf), doc
    FROM docs ORDER BY n
    ON CONFLICT (event_id) DO NOTHING
    RETURNING event_id
  )
  SELECT (SELECT count(*) FROM inserted), (SELECT array_agg(id) FROM docs) INTO added, ids;

  -- A statement of its own, which sees what was sequenced while the one above
  -- waited for the sequencer.
  SELECT h.size, EXISTS (SELECT FROM audit.entries AS e WHERE e.event_id = ANY (ids))
  INTO size, sequenced FROM audit.head AS h WHERE h.one_row;
  IF added = cardinality(leaves) AND NOT sequenced THEN
    RETURN size;
  END IF;

  -- Some were here before: a retry, or else a forgery.
  DELETE FROM audit.pending AS p USING audit.entries AS e
  WHERE p.event_id = ANY (ids) AND e.event_id = p.event_id AND e.leaf_hash = p.leaf_hash;
  IF EXISTS (SELECT FROM audit.entries AS e WHERE e.event_id = ANY (ids) AND NOT e.leaf = ANY (leaves))
    OR EXISTS (
      SELECT FROM unnest(leaves) AS u (leaf)
      WHERE NOT EXISTS (SELECT FROM audit.pending AS p WHERE p.event_id = ANY (ids) AND p.leaf = u.leaf)
        AND NOT EXISTS (SELECT FROM audit.entries AS e WHERE e.event_id = ANY (ids) AND e.leaf = u.leaf)) THEN
    RAISE EXCEPTION 'an event with this id and other contents is in the log already'
      USING ERRCODE = 'unique_violation';
  END IF;
  RETURN size;
END
$$;

-- lock_head returns the head and keeps others from moving it until the
-- transaction ends. A sequencer that stops in between is disconnected, so that
-- another one can go on.
CREATE FUNCTION audit.lock_head(OUT size bigint, OUT root bytea, OUT checkpoint text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN -- not LANGUAGE sql, which would be planned anew for every batch
  PERFORM set_config('idle_in_transaction_session_timeout', '10s', true);
  SELECT h.size, h.root, h.checkpoint INTO size, root, checkpoint FROM audit.head AS h WHERE h.one_row FOR UPDATE;
END
$$;

-- append gives waiting events the next indexes, in the order given, stores the
-- tree hashes that they add, and moves the head. It refuses if the head is not
-- where the caller believes, or if an event does not wait.
CREATE FUNCTION audit.append(old_size bigint, event_ids uuid[], new_hashes bytea[], new_root bytea, new_checkpoint text)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  added bigint;
BEGIN
  PERFORM FROM audit.head AS h WHERE h.one_row AND h.size = old_size FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the log''s head is not at %', old_size USING ERRCODE = 'serialization_failure';
  END IF;

  INSERT INTO audit.entries (index, event_id, type, time, actor_id, person_id, request_id, host_id, leaf, leaf_hash, data)
  SELECT old_size + u.n - 1, p.event_id, p.type, p.time, p.actor_id, p.person_id, p.request_id, p.host_id,
    p.leaf, p.leaf_hash, p.data
  FROM unnest(event_ids) WITH ORDINALITY AS u (event_id, n) JOIN audit.pending AS p ON p.event_id = u.event_id;
  GET DIAGNOSTICS added = ROW_COUNT;
  IF added <> cardinality(event_ids) THEN
    RAISE EXCEPTION 'only % of % events wait', added, cardinality(event_ids);
  END IF;
  DELETE FROM audit.pending WHERE event_id = ANY (event_ids);

  INSERT INTO audit.hashes (index, hash)
  SELECT audit.hash_count(old_size) + u.n - 1, u.hash FROM unnest(new_hashes) WITH ORDINALITY AS u (hash, n);

  UPDATE audit.head SET size = old_size + added, root = new_root, checkpoint = new_checkpoint WHERE one_row;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA audit FROM PUBLIC;
GRANT USAGE ON SCHEMA audit TO sallyport_app, sallyport_audit;
GRANT SELECT ON ALL TABLES IN SCHEMA audit TO sallyport_app, sallyport_audit;
GRANT EXECUTE ON FUNCTION audit.start(bytea, text), audit.enqueue(bytea[]), audit.lock_head(),
  audit.append(bigint, uuid[], bytea[], bytea, text) TO sallyport_app;

RESET ROLE;
