-- How far each stream of the log has been delivered, to whom. One broker at a time
-- delivers a stream: the one that holds it, until the time given unless it renews that.
-- The cursor moves when the receiver has taken the entries before it, and never back;
-- it is no part of the log, and whoever changes it only makes a receiver miss entries or
-- get them again, which their indexes show.

SET LOCAL ROLE sallyport_owner;

CREATE TABLE log_streams (
  name        text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,31}$'),
  destination text NOT NULL,                       -- without secrets
  next        bigint NOT NULL DEFAULT 0 CHECK (next >= 0), -- index of the entry to deliver
  holder      text NOT NULL DEFAULT '',
  held_until  timestamptz NOT NULL DEFAULT '-infinity'
);

GRANT SELECT, INSERT, UPDATE ON log_streams TO sallyport_app;
GRANT SELECT ON log_streams TO sallyport_audit;

RESET ROLE;
