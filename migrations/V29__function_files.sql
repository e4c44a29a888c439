-- The current text of each function is in functions/, which is applied together with the implementation's
-- procedures whenever one of the two changes.

COMMENT ON TABLE implementation_log IS 'journal: when functions and an implementation''s procedures were applied, and which';
COMMENT ON COLUMN implementation_log.procedures_sha256 IS 'SHA-256 of the text that was applied, 32 bytes: functions/*.sql of the binary, then the implementation''s 05_procedures.sql. Rows from before V29: of 05_procedures.sql alone';
