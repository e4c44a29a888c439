-- A plain query on tag values uses the index, and index entries no longer depend on how a row is compressed.

-- STRICT lets PostgreSQL conclude from `tagvalues_index(tagvalues) @> …` that tagvalues IS NOT NULL, the
-- condition of the partial index. Before, only queries that contained that condition used the index. The size
-- is now that of the characters. pg_column_size() of a stored value is its size after compression, so a row
-- could be compared with another text than the one in its index entry. Existing index entries stay valid:
-- both versions shorten exactly the values of more than 256 bytes.
CREATE OR REPLACE FUNCTION tagvalues_index(tagvalues text[]) RETURNS text[] LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF octet_length(array_to_string(tagvalues, '')) <= 256 THEN RETURN tagvalues; END IF;
    RETURN ARRAY(SELECT CASE WHEN octet_length(v) <= 256 THEN v ELSE left(v, 50) || '#' || encode(sha256(convert_to(v, 'UTF8')), 'hex') END
                 FROM unnest(tagvalues) v);
END $$;
COMMENT ON FUNCTION tagvalues_index(text[]) IS
    'entries of the index on events.tagvalues: values of up to 256 bytes unchanged, longer values as their first 50 characters, # and a SHA-256';
