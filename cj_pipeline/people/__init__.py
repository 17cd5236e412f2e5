"""People in a batch: who judges, what they answered, what they decided, and who released it.

Everything here adds rows and changes none, but for `comparisons`, which holds the verdicts that
count now. Which pairs people get is planned in `steps.plan_people`; the judging page is `service`.
"""
