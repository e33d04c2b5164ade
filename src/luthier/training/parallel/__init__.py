"""Many processes, same program: the group, the share of rows, the summed step, sharded weights, and the launcher."""
