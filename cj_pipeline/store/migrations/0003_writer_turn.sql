-- One row that every writer of a served store changes first, so that they come one by one.
CREATE TABLE writer_turn (
    n_taken             BIGINT NOT NULL
);
INSERT INTO writer_turn VALUES (0);
