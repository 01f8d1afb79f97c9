-- The log, partitioned by index: the second step (019 is the first).
--
-- The entries that there are become the first partition as they are; nothing is
-- copied. What takes long is done while events go on getting their places: writing
-- down the ids of the events that there are, and looking whether all entries are
-- within the first partition. The rest takes a moment. If something, such as a dump,
-- keeps it from the table for ten seconds, it gives up and can be run again.
--
-- Later partitions are made ahead by audit.extend, which the broker's role may call
-- and which can do no more than that. If none is made, the log takes no entry beyond
-- the last one: nothing is granted then (P9), and nothing is lost.
--
-- Entries leave the database in one way only: their whole partition is dropped by the
-- owner of the tables, by audit.remove, after they were archived and the log has an
-- event that says so. Tree hashes stay, and so do the ids of the events.

SET LOCAL ROLE sallyport_owner;

INSERT INTO audit.event_ids (event_id, index)
SELECT e.event_id, e.index FROM audit.entries AS e
ON CONFLICT DO NOTHING; -- those since 019 are there

ALTER TABLE audit.entries VALIDATE CONSTRAINT in_first_partition;

SET LOCAL lock_timeout = '10s';
DROP TRIGGER remember_ids ON audit.entries;
DROP TRIGGER append_only_row ON audit.entries; -- comes again with all partitions'
ALTER TABLE audit.entries RENAME TO entries_0;
DO $$
DECLARE
  i record;
BEGIN
  FOR i IN SELECT c.relname FROM pg_index AS x JOIN pg_class AS c ON c.oid = x.indexrelid
    WHERE x.indrelid = 'audit.entries_0'::regclass LOOP
    EXECUTE format('ALTER INDEX audit.%I RENAME TO %I', i.relname, regexp_replace(i.relname, '^entries', 'entries_0'));
  END LOOP;
END
$$;

-- As it was, constraints' names included; but for the event's id, which
-- audit.event_ids keeps unique.
CREATE TABLE audit.entries (
  index      bigint      PRIMARY KEY CONSTRAINT entries_index_check CHECK (index >= 0),
  event_id   uuid        NOT NULL,
  type       text        COLLATE "C" NOT NULL,
  time       timestamptz NOT NULL,
  actor_id   text,
  person_id  text,
  request_id text,
  host_id    text,
  leaf       bytea       NOT NULL CONSTRAINT entries_leaf_check CHECK (octet_length(leaf) BETWEEN 1 AND 65535),
  leaf_hash  bytea       NOT NULL CONSTRAINT hash_of_leaf CHECK (leaf_hash = sha256('\x00'::bytea || leaf)),
  data       jsonb       NOT NULL
) PARTITION BY RANGE (index);
CREATE INDEX ON audit.entries (type, index);
CREATE INDEX ON audit.entries (time);
CREATE INDEX ON audit.entries (actor_id, index) WHERE actor_id IS NOT NULL;
CREATE INDEX ON audit.entries (person_id, index) WHERE person_id IS NOT NULL;
CREATE INDEX ON audit.entries (request_id, type, index) WHERE request_id IS NOT NULL;
CREATE INDEX ON audit.entries (host_id, index) WHERE host_id IS NOT NULL;
CREATE INDEX entries_by_hosts ON audit.entries USING gin ((data->'subject'->'host_ids'))
  WHERE (data->'subject'->'host_ids') IS NOT NULL;

DO $$
DECLARE
  until text := substring(pg_get_constraintdef(c.oid) FROM '\d+') FROM pg_constraint AS c
    WHERE c.conrelid = 'audit.entries_0'::regclass AND c.conname = 'in_first_partition';
BEGIN
  EXECUTE format('ALTER TABLE audit.entries ATTACH PARTITION audit.entries_0 FOR VALUES FROM (0) TO (%s)', until);
END
$$;
ALTER TABLE audit.entries_0 DROP CONSTRAINT in_first_partition;
-- The version before this one looks for events in the entries themselves while it
-- serves, so that the first partition keeps the index for that; but not of a new log.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM audit.entries) THEN
    ALTER TABLE audit.entries_0 DROP CONSTRAINT entries_0_event_id_key;
  END IF;
END
$$;
REVOKE ALL ON audit.entries_0 FROM sallyport_app, sallyport_audit; -- which read the whole
GRANT SELECT ON audit.entries TO sallyport_app, sallyport_audit;

-- Triggers for rows are each partition's as well; those for statements are not, so
-- that each partition has one of its own for statements that name it.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.entries
  FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER append_only_row BEFORE UPDATE OR DELETE ON audit.entries
  FOR EACH ROW EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER remember_ids AFTER INSERT ON audit.entries
  REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION audit.remember_ids();
ALTER TABLE audit.entries ENABLE ALWAYS TRIGGER append_only, ENABLE ALWAYS TRIGGER append_only_row,
  ENABLE ALWAYS TRIGGER remember_ids;

-- partitions are those that there are: first is within, until is not.
CREATE FUNCTION audit.partitions() RETURNS TABLE (name text, first bigint, until bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT p.relname::text, bounds[1]::bigint, bounds[2]::bigint
  FROM pg_inherits AS i JOIN pg_class AS p ON p.oid = i.inhrelid
  CROSS JOIN LATERAL regexp_match(pg_get_expr(p.relpartbound, p.oid), 'FROM \(''(\d+)''\) TO \(''(\d+)''\)') AS bounds
  WHERE i.inhparent = 'audit.entries'::regclass
  ORDER BY 2
$$;

-- partition_width is how many entries the next partition is for: about as many as
-- came in 90 days, so that a small log can be pruned by months and a large one has few
-- partitions, which every search by anything but the index has to go through.
CREATE FUNCTION audit.partition_width() RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT least(4194304, greatest(65536, 2 ^ ceil(log(2, greatest(1, h.size - e.index)))))::bigint
  FROM audit.head AS h CROSS JOIN LATERAL (
    SELECT coalesce((SELECT a.index FROM audit.entries AS a
      WHERE a.time >= now() - interval '90 days' ORDER BY a.time LIMIT 1), h.size) AS index) AS e
  WHERE h.one_row
$$;

-- extend makes partitions until there is room for four times as many entries as the
-- next one is for: for some ten seconds of the fastest log that was measured, and it is
-- called every two. It says how many it made. Nobody waits for it: making and
-- attaching an empty table lets the log go on.
CREATE FUNCTION audit.extend() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
  made  integer := 0;
  width bigint  := coalesce(audit.partition_width(), 65536);
  ahead bigint  := coalesce((SELECT h.size FROM audit.head AS h WHERE h.one_row), 0) + 4 * width;
  until bigint;
  name  text;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('audit.extend', 0)) THEN
    RETURN 0; -- somebody else is at it
  END IF;
  SELECT coalesce(max(p.until), 0) INTO until FROM audit.partitions() AS p;
  WHILE until < ahead LOOP
    name := 'entries_' || until;
    EXECUTE format('CREATE TABLE audit.%I (LIKE audit.entries INCLUDING CONSTRAINTS)', name);
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.%I
      FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse()', name);
    EXECUTE format('ALTER TABLE audit.%I ENABLE ALWAYS TRIGGER append_only', name);
    EXECUTE format('ALTER TABLE audit.entries ATTACH PARTITION audit.%I FOR VALUES FROM (%s) TO (%s)', name, until, until + width);
    until := until + width;
    made := made + 1;
  END LOOP;
  RETURN made;
END
$$;
SELECT audit.extend();

-- remove drops the partitions whose entries are all before the index, if the log says
-- that they were pruned, and what was summed up of them for searches. It says how many
-- partitions there were. The owner of the tables calls it, and nobody else may: that
-- there is an archive is for the caller to see to (package evidence).
CREATE FUNCTION audit.remove(before bigint, event uuid) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  p       record;
  removed integer := 0;
BEGIN
  IF NOT EXISTS (
      SELECT FROM audit.event_ids AS i JOIN audit.entries AS e ON e.index = i.index
      WHERE i.event_id = event AND i.index >= before AND e.type = 'retention.pruned'
        AND e.data->'data'->>'before' = before::text) THEN
    RAISE EXCEPTION 'the log has no event % that says that entries before % were pruned', event, before
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  FOR p IN SELECT q.name FROM audit.partitions() AS q WHERE q.until <= before LOOP
    EXECUTE format('DROP TABLE audit.%I', p.name);
    removed := removed + 1;
  END LOOP;
  ALTER TABLE audit.blocks DISABLE TRIGGER append_only;
  DELETE FROM audit.blocks AS b WHERE 256 * b.block + 255 < before;
  ALTER TABLE audit.blocks ENABLE ALWAYS TRIGGER append_only;
  RETURN removed;
END
$$;

-- As it was (002), with one look at the entries instead of two, each of which would go
-- to every partition.
CREATE OR REPLACE FUNCTION audit.forward_only() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  was    bigint := CASE TG_OP WHEN 'INSERT' THEN 0 ELSE OLD.size END;
  added  bigint;
  within bigint;
BEGIN
  IF TG_OP = 'UPDATE' AND NEW.size <= was THEN
    RAISE EXCEPTION 'the log''s head at % cannot move to %', was, NEW.size
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  SELECT count(*), count(*) FILTER (WHERE e.index < NEW.size) INTO added, within FROM audit.entries AS e WHERE e.index >= was;
  IF added <> NEW.size - was OR within <> added
    OR (SELECT count(*) FROM audit.hashes WHERE index >= audit.hash_count(was))
      <> audit.hash_count(NEW.size) - audit.hash_count(was)
    OR (SELECT max(index) + 1 FROM audit.hashes) IS DISTINCT FROM nullif(audit.hash_count(NEW.size), 0) THEN
    RAISE EXCEPTION 'the log''s head cannot be %: the entries or hashes are not those of such a log', NEW.size
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN NEW;
END
$$;

-- As it was (002), by way of audit.event_ids.
CREATE OR REPLACE FUNCTION audit.leave_only_when_sequenced() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  IF EXISTS (SELECT FROM gone AS g WHERE NOT EXISTS (
      SELECT FROM audit.event_ids AS i JOIN audit.entries AS e ON e.index = i.index
      WHERE i.event_id = g.event_id AND e.leaf_hash = g.leaf_hash)) THEN
    RAISE EXCEPTION 'DELETE on audit.pending is refused: an event is not in the log yet'
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN NULL;
END
$$;

-- As it was (002), by way of audit.event_ids. A retry of an event whose entry was
-- pruned is refused like one with other contents: nobody waits for so long.
CREATE OR REPLACE FUNCTION audit.enqueue(leaves bytea[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  added     bigint;
  ids       uuid[];
  size      bigint;
  sequenced bigint[];
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
  SELECT h.size, ARRAY(SELECT i.index FROM audit.event_ids AS i WHERE i.event_id = ANY (ids))
  INTO size, sequenced FROM audit.head AS h WHERE h.one_row;
  IF added = cardinality(leaves) AND coalesce(cardinality(sequenced), 0) = 0 THEN
    RETURN size;
  END IF;

  -- Some were here before: a retry, or else a forgery.
  DELETE FROM audit.pending AS p USING audit.event_ids AS i, audit.entries AS e
  WHERE p.event_id = ANY (ids) AND i.event_id = p.event_id AND e.index = i.index AND e.leaf_hash = p.leaf_hash;
  IF EXISTS (SELECT FROM unnest(sequenced) AS s (index)
      WHERE NOT EXISTS (SELECT FROM audit.entries AS e WHERE e.index = s.index AND e.leaf = ANY (leaves)))
    OR EXISTS (
      SELECT FROM unnest(leaves) AS u (leaf)
      WHERE NOT EXISTS (SELECT FROM audit.pending AS p WHERE p.event_id = ANY (ids) AND p.leaf = u.leaf)
        AND NOT EXISTS (SELECT FROM audit.entries AS e WHERE e.index = ANY (sequenced) AND e.leaf = u.leaf)) THEN
    RAISE EXCEPTION 'an event with this id and other contents is in the log already'
      USING ERRCODE = 'unique_violation';
  END IF;
  RETURN size;
END
$$;

-- As it was (017), by way of audit.event_ids.
CREATE OR REPLACE FUNCTION audit.sequence(old_size bigint, event_ids uuid[], leaves bytea[], new_hashes bytea[], new_root bytea, new_checkpoint text)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  added bigint := 0;
BEGIN
  PERFORM FROM audit.head AS h WHERE h.one_row AND h.size = old_size FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the log''s head is not at %', old_size USING ERRCODE = 'serialization_failure';
  END IF;

  IF cardinality(event_ids) > 0 THEN
    INSERT INTO audit.entries (index, event_id, type, time, actor_id, person_id, request_id, host_id, leaf, leaf_hash, data)
    SELECT old_size + u.n - 1, p.event_id, p.type, p.time, p.actor_id, p.person_id, p.request_id, p.host_id,
      p.leaf, p.leaf_hash, p.data
    FROM unnest(event_ids) WITH ORDINALITY AS u (event_id, n) JOIN audit.pending AS p ON p.event_id = u.event_id;
    GET DIAGNOSTICS added = ROW_COUNT;
    IF added <> cardinality(event_ids) THEN
      RAISE EXCEPTION 'only % of % events wait', added, cardinality(event_ids);
    END IF;
    DELETE FROM audit.pending WHERE event_id = ANY (event_ids);
  END IF;

  IF cardinality(leaves) > 0 THEN
    -- OFFSET 0 keeps the document from being parsed once for each column.
    INSERT INTO audit.entries (index, event_id, type, time, actor_id, person_id, request_id, host_id, leaf, leaf_hash, data)
    SELECT old_size + added + n - 1, (doc->>'id')::uuid, doc->>'type', (doc->>'time')::timestamptz, doc->'actor'->>'id',
      doc->'subject'->>'person_id', doc->'subject'->>'request_id', doc->'subject'->>'host_id',
      leaf, sha256('\x00'::bytea || leaf), doc
    FROM (SELECT n, leaf, convert_from(leaf, 'UTF8')::jsonb AS doc
          FROM unnest(leaves) WITH ORDINALITY AS u (leaf, n) OFFSET 0) AS parsed;
    added := added + cardinality(leaves);
    IF EXISTS (SELECT FROM audit.pending AS p JOIN audit.event_ids AS i ON i.event_id = p.event_id) THEN
      RAISE EXCEPTION 'an event waits, and cannot come in by its leaf as well' USING ERRCODE = 'unique_violation';
    END IF;
  END IF;

  INSERT INTO audit.hashes (index, hash)
  SELECT audit.hash_count(old_size) + u.n - 1, u.hash FROM unnest(new_hashes) WITH ORDINALITY AS u (hash, n);

  UPDATE audit.head SET size = old_size + added, root = new_root, checkpoint = new_checkpoint WHERE one_row;
END
$$;

-- As it was (015), but for a beginning where the entries begin.
CREATE OR REPLACE FUNCTION audit.digest(most integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
DECLARE
  made integer;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('audit.digest', 0)) THEN
    RETURN 0;
  END IF;
  WITH todo AS (
    SELECT b AS block FROM generate_series(
      greatest((SELECT max(d.block) + 1 FROM audit.blocks AS d),
        (SELECT e.index / 256 FROM audit.entries AS e ORDER BY e.index LIMIT 1), 0),
      (SELECT h.size / 256 - 1 FROM audit.head AS h WHERE h.one_row)) AS b
    LIMIT least(most, 64)
  )
  INSERT INTO audit.blocks (block, since, until, keys, words)
  SELECT t.block, e.since, e.until,
    ARRAY(SELECT DISTINCT k FROM audit.entries AS a, unnest(audit.keys(a.data)) AS k
      WHERE a.index >= 256 * t.block AND a.index < 256 * t.block + 256),
    array_to_tsvector(ARRAY(SELECT DISTINCT w FROM audit.entries AS a, unnest(tsvector_to_array(audit.words(a.data))) AS w
      WHERE a.index >= 256 * t.block AND a.index < 256 * t.block + 256))
  -- OFFSET 0, or the minimum would be looked for from the log's first time on.
  FROM todo AS t CROSS JOIN LATERAL (
    SELECT min(a.time) AS since, max(a.time) AS until FROM (
      SELECT b.time FROM audit.entries AS b
      WHERE b.index >= 256 * t.block AND b.index < 256 * t.block + 256 OFFSET 0) AS a) AS e;
  GET DIAGNOSTICS made = ROW_COUNT;
  RETURN made;
END
$$;

REVOKE ALL ON FUNCTION audit.partitions(), audit.partition_width(), audit.extend(), audit.remove(bigint, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.extend() TO sallyport_app;
GRANT EXECUTE ON FUNCTION audit.partitions() TO sallyport_app, sallyport_audit;

RESET ROLE;
