-- The log's second way in, for changes of which there are many at once: the
-- sequencer writes a row and its event in its own transaction, so that the event
-- never waits in audit.pending, and one commit serves all that came meanwhile.
--
-- sequence does what append does, and takes the leaves of such events too. append stays
-- while the version before this one serves.

SET LOCAL ROLE sallyport_owner;

-- sequence gives events the next indexes: first those that wait, in the order given,
-- then those whose leaves are given. It stores the tree hashes that they add, and
-- moves the head. It refuses if the head is not where the caller believes, if an
-- event does not wait, or if one is in the log already.
CREATE FUNCTION audit.sequence(old_size bigint, event_ids uuid[], leaves bytea[], new_hashes bytea[], new_root bytea, new_checkpoint text)
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
    IF EXISTS (SELECT FROM audit.pending AS p JOIN audit.entries AS e ON e.event_id = p.event_id) THEN
      RAISE EXCEPTION 'an event waits, and cannot come in by its leaf as well' USING ERRCODE = 'unique_violation';
    END IF;
  END IF;

  INSERT INTO audit.hashes (index, hash)
  SELECT audit.hash_count(old_size) + u.n - 1, u.hash FROM unnest(new_hashes) WITH ORDINALITY AS u (hash, n);

  UPDATE audit.head SET size = old_size + added, root = new_root, checkpoint = new_checkpoint WHERE one_row;
END
$$;

-- lock_head, as before, and for the rest of the transaction plans are made once for each
-- connection: with a batch in arrays PostgreSQL would plan every statement anew each
-- time, which costs more than running it.
CREATE OR REPLACE FUNCTION audit.lock_head(OUT size bigint, OUT root bytea, OUT checkpoint text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM set_config('idle_in_transaction_session_timeout', '10s', true), set_config('jit', 'off', true),
    set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true);
  SELECT h.size, h.root, h.checkpoint INTO size, root, checkpoint FROM audit.head AS h WHERE h.one_row FOR UPDATE;
END
$$;

REVOKE ALL ON FUNCTION audit.sequence(bigint, uuid[], bytea[], bytea[], bytea, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.sequence(bigint, uuid[], bytea[], bytea[], bytea, text) TO sallyport_app;

RESET ROLE;
