"""Scheduled sampling (Bengio et al. 2015), online: contexts are mixed again in every step, by the current weights."""

EXPORTS = {"ScheduledSamplingConfig": "trainer", "ScheduledSamplingTrainer": "trainer"}
