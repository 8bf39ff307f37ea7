"""demo: the product's main job as a story that anybody can watch.

Belongs here: setting the scene (sandbox, proxy, traffic, receivers), following the daemon through it, the timeline
and the verdict at the end. Does not belong here: anything the daemon would need without an audience. It exists
beside ``cli`` because the same story is run by tests, and beside ``sandbox`` because it needs every room above that.
"""

from agent.demo.story import DemoOptions, FaultChoice, Story
from agent.demo.timeline import Check, Entry, Timeline

__all__ = ["Check", "DemoOptions", "Entry", "FaultChoice", "Story", "Timeline"]
