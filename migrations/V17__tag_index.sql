-- The plain query on tag values uses its index, and what the index holds no longer depends on how a row is compressed.

-- STRICT lets PostgreSQL conclude from `tagvalues_index(tagvalues) @> …` that tagvalues IS NOT NULL, which is the condition of
-- the partial index; before, the index was used only by queries that wrote that condition out.
-- The size is that of the characters. pg_column_size() of a stored value is its size after compression, so that a row could be
-- compared with another text than the one in its index entry. Index entries made before are unchanged: in both versions exactly
-- the values of more than 256 bytes are cut.
CREATE OR REPLACE FUNCTION tagvalues_index(tagvalues text[]) RETURNS text[] LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF octet_length(array_to_string(tagvalues, '')) <= 256 THEN RETURN tagvalues; END IF;
    RETURN ARRAY(SELECT CASE WHEN octet_length(v) <= 256 THEN v ELSE left(v, 50) || '#' || encode(sha256(convert_to(v, 'UTF8')), 'hex') END
                 FROM unnest(tagvalues) v);
END $$;
COMMENT ON FUNCTION tagvalues_index(text[]) IS
    'what the index over events.tagvalues holds: values of up to 256 bytes as they are, longer ones as their first 50 characters, # and a SHA-256';
