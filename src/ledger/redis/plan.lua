-- Writes one batch down before the checkpoint that will pass it.
-- KEYS  1 campaign  2 batch  3 meta  4 open
-- ARGV  1 number  2 meta
return create(KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1], ARGV[2])
