-- A mebibyte more, which ends with the transaction: the server refuses it where its disk is full.
CREATE TEMPORARY TABLE m3_doctor ON COMMIT DROP AS
SELECT repeat(md5(row::text), 32) AS something FROM generate_series(1, 1024) AS row
