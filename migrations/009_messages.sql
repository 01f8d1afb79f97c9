-- What people are told, through which channel, and what became of it.
--
-- A row is one delivery of one notice: to a channel's own addressees, or to one
-- person. The texts are made when it is sent, from the request as it is then,
-- and are not kept: what was told can always be read where the link leads.

SET LOCAL ROLE sallyport_owner;

CREATE TABLE messages (
  id         text PRIMARY KEY CHECK (id ~ '^msg-[0-9a-z]{12}$'), -- receivers drop duplicates by it
  notice     text NOT NULL CHECK (notice <> ''), -- what happened; the same in all messages about it
  kind       text NOT NULL CHECK (kind <> ''),
  request_id text REFERENCES requests,           -- null: it is about no request
  channel    text NOT NULL,
  person_id  text REFERENCES people,             -- null: to the channel's own addressees
  created_at timestamptz NOT NULL,

  state      text NOT NULL CHECK (state IN ('waiting', 'sending', 'retrying', 'sent', 'dropped', 'failed')),
  attempts   integer NOT NULL DEFAULT 0,         -- begun, also those whose outcome is unknown
  ended_at   timestamptz,                        -- when it was sent, dropped or given up
  error      text NOT NULL DEFAULT '',           -- of the last attempt; never a secret (P11)

  -- A job that runs twice tells nobody twice.
  UNIQUE NULLS NOT DISTINCT (notice, channel, person_id),
  CHECK ((state IN ('sent', 'dropped', 'failed')) = (ended_at IS NOT NULL))
);
CREATE INDEX messages_by_time ON messages (created_at DESC, id DESC);
CREATE INDEX messages_by_request ON messages (request_id);
CREATE INDEX messages_failed ON messages (created_at DESC, id DESC) WHERE state = 'failed';

GRANT SELECT, INSERT ON messages TO sallyport_app;
GRANT UPDATE (state, attempts, ended_at, error) ON messages TO sallyport_app;
GRANT SELECT ON messages TO sallyport_audit;

CREATE TRIGGER rows_stay BEFORE DELETE OR TRUNCATE ON messages FOR EACH STATEMENT EXECUTE FUNCTION rows_stay();
ALTER TABLE messages ENABLE ALWAYS TRIGGER rows_stay;

RESET ROLE;
