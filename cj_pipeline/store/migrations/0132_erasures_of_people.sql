-- People who judge, moderate or release may ask to be forgotten as well as those who wrote.
ALTER TABLE erasures ADD COLUMN person VARCHAR;
COMMENT ON COLUMN erasures.person IS 'The name of a person who judged or decided, where that is what is to go; null otherwise';
