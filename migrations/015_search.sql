-- Search: what blocks of the log are about.
--
-- One index for each thing that auditors look for would be written with every
-- event, and still find the newest of many only by sorting all of them. Instead,
-- 256 entries at a time are summed up once they are in the log: who and what they
-- are about, their words, their times. The few thousand blocks that could hold
-- what is looked for are found by one index; the entries in them are then read
-- newest first, and compared one by one, until the page is full.
--
-- Blocks are for finding only. They are made here from the entries, so that the
-- broker's role cannot make them leave anything out; what is newer than the last
-- one is searched too. Issuing never waits for them.

SET LOCAL ROLE sallyport_owner;

-- words are those of an event's texts: its type, the actor's name, the source and
-- its own fields, but for encoded bytes and whole documents, whose texts are there
-- besides. Ids are keys.
CREATE FUNCTION audit.words(doc jsonb) RETURNS tsvector
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN strip(jsonb_to_tsvector('pg_catalog.simple'::regconfig,
  jsonb_build_array(doc->'type', doc->'actor'->'name', doc->'source',
    (doc->'data') - ARRAY['pre_certificate', 'terms', 'evidence', 'note', 'proposal']), '["string"]'));

-- keys are what an event can be found by exactly: its type and what that begins
-- with, its people as actors, subjects and those acted for, its hosts, its request.
CREATE FUNCTION audit.keys(doc jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN array_remove(ARRAY[
    'type:' || (doc->>'type'),
    'type:' || split_part(doc->>'type', '.', 1) || '.',
    'person:' || (doc->'actor'->>'id'),
    'person:' || (doc->'on_behalf_of'->>'id'),
    'person:' || (doc->'subject'->>'person_id'),
    'host:' || (doc->'subject'->>'host_id'),
    'request:' || (doc->'subject'->>'request_id')
  ], NULL) || ARRAY(
    SELECT 'host:' || id FROM jsonb_array_elements_text(doc->'subject'->'host_ids') AS id
  );

CREATE TABLE audit.blocks (
  block bigint      PRIMARY KEY CHECK (block >= 0), -- of the entries from 256 * block on
  since timestamptz NOT NULL, -- the earliest of their times
  until timestamptz NOT NULL, -- the latest
  keys  text[]      NOT NULL,
  words tsvector    NOT NULL
);
CREATE INDEX ON audit.blocks USING gin (keys, words);

-- digest sums up the next full blocks, at most so many, and says how many they
-- were. Of several at the same time one does it.
CREATE FUNCTION audit.digest(most integer) RETURNS integer
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
      (SELECT coalesce(max(d.block) + 1, 0) FROM audit.blocks AS d),
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

-- What is told of blocks that no longer fit their entries, which only the owner
-- of the tables could bring about, is told by package evidence: it reads the log.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.blocks
  FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();
ALTER TABLE audit.blocks ENABLE ALWAYS TRIGGER append_only;

REVOKE ALL ON FUNCTION audit.digest(integer) FROM PUBLIC;
GRANT SELECT ON audit.blocks TO sallyport_app, sallyport_audit;
GRANT EXECUTE ON FUNCTION audit.digest(integer) TO sallyport_app;
GRANT EXECUTE ON FUNCTION audit.words(jsonb), audit.keys(jsonb) TO sallyport_app, sallyport_audit;

RESET ROLE;
