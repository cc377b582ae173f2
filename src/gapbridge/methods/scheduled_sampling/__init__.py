"""Scheduled sampling (Bengio et al. 2015): train on contexts that are sampled again at every step."""

DISPLAY_NAME = "scheduled sampling"
EXPORTS = {"ScheduledSamplingConfig": "trainer", "ScheduledSamplingTrainer": "trainer"}
