-- Batches scored before there was a choice had no position effects and no discriminations: so that
-- reports and gradings of them stay as they were, their settings say so now.
UPDATE batches
SET settings = json_merge_patch(
        settings, '{"position_effect": "off", "judge_discrimination": "off"}'
    ),
    settings_origins = json_merge_patch(
        settings_origins, '{"position_effect": "built-in", "judge_discrimination": "built-in"}'
    )
WHERE json_extract(settings, '$.scoring_engine') IS NOT NULL;
