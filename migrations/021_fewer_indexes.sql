-- What each entry of the log costs to write.
--
-- Searches by person go through blocks since 015, and could not use an index on one
-- column since they also look at on whose behalf something was done. Nothing else looks
-- for entries by who did them or whom they concern: two indexes fewer are written with
-- each.

SET LOCAL ROLE sallyport_owner;
SET LOCAL lock_timeout = '10s'; -- as in 020

DROP INDEX audit.entries_actor_id_index_idx, audit.entries_person_id_index_idx;

RESET ROLE;
