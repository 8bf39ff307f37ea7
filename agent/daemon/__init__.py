"""daemon: everything put together and kept running.

Belongs here: wiring (the only place that constructs), the rule loop, the change under watch, evidence for decisions,
what a recovery does to the world, worker entry, start, stop, reload and signals. Does not belong here: judgement
(decisions), procedure (recovery), words (notifications) or anything a room below could know by itself.
"""
