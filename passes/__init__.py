"""From a graph to a plan: Graph -> Graph passes, and the planner. Imports ir."""
