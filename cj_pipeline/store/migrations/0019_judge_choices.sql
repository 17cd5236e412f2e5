-- Whom a wave's pairs were asked of where judges are chosen by worth, and what that rested on.
CREATE TABLE judge_choices (
    batch_id            VARCHAR NOT NULL,
    wave                INTEGER NOT NULL,
    judge_id            VARCHAR NOT NULL,
    share               DOUBLE NOT NULL,   -- of the wave's pairs
    information         DOUBLE NOT NULL,   -- expected of a comparison, failures counted as none
    information_per_usd DOUBLE NOT NULL,
    usd_per_comparison     DOUBLE NOT NULL,   -- billed so far
    discrimination      DOUBLE NOT NULL,   -- how strongly it tells essays apart; the panel's mean is 1
    position_effect     DOUBLE NOT NULL,   -- logits for being shown first
    success_rate        DOUBLE NOT NULL,   -- share of its comparisons with a verdict
    PRIMARY KEY (batch_id, wave, judge_id)
);
