-- Requests for several hosts at once, which share their grant and its key.
--
-- The terms say which hosts; more_host_ids, those after host_id, is there to find
-- the request by each of them, and changes as little as host_id does. A program
-- of the version before writes requests for one host, which the default fits, and
-- refuses to read those for several, as terms that it does not know: it lists and
-- certifies nothing for them.
--
-- Events about such a request name all of its hosts; the log is searched for them
-- by an index that has nothing else in it. Making it reads the log once; meanwhile
-- events wait for their places.

SET LOCAL ROLE sallyport_owner;

ALTER TABLE requests ADD COLUMN more_host_ids text[] NOT NULL DEFAULT '{}'
  CHECK (array_position(more_host_ids, NULL) IS NULL AND NOT host_id = ANY (more_host_ids));
CREATE INDEX requests_by_more_hosts ON requests USING gin (more_host_ids);

CREATE INDEX entries_by_hosts ON audit.entries USING gin ((data->'subject'->'host_ids'))
  WHERE (data->'subject'->'host_ids') IS NOT NULL;

-- As it was, and more_host_ids among what never changes.
CREATE OR REPLACE FUNCTION request_moves_on() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.id, NEW.person_id, NEW.host_id, NEW.more_host_ids, NEW.policy_version, NEW.terms, NEW.terms_hash,
      NEW.approver_groups, NEW.created_at, NEW.approve_by)
     IS DISTINCT FROM
     (OLD.id, OLD.person_id, OLD.host_id, OLD.more_host_ids, OLD.policy_version, OLD.terms, OLD.terms_hash,
      OLD.approver_groups, OLD.created_at, OLD.approve_by) THEN
    RAISE EXCEPTION 'the terms of request % never change', OLD.id;
  END IF;
  IF NEW.state <> OLD.state AND (OLD.state, NEW.state) NOT IN (
      ('requested', 'approved'), ('requested', 'denied'), ('requested', 'cancelled'), ('requested', 'expired'),
      ('approved', 'active'), ('approved', 'ended'), ('active', 'ended')) THEN
    RAISE EXCEPTION 'request % is %, it cannot become %', OLD.id, OLD.state, NEW.state;
  END IF;
  IF (OLD.starts_at IS NOT NULL AND NEW.starts_at IS DISTINCT FROM OLD.starts_at)
     OR NEW.ends_at > OLD.ends_at
     OR (OLD.starts_at IS NOT NULL AND NEW.use_by IS DISTINCT FROM OLD.use_by)
     OR (OLD.state = 'ended' AND (NEW.ends_at, NEW.end_reason) IS DISTINCT FROM (OLD.ends_at, OLD.end_reason)) THEN
    RAISE EXCEPTION 'the grant of request % cannot get another time', OLD.id;
  END IF;
  IF OLD.key <> '' AND NEW.key <> OLD.key THEN
    RAISE EXCEPTION 'the grant of request % is bound to another key', OLD.id;
  END IF;
  RETURN NEW;
END
$$;

RESET ROLE;
