"""What "right" means for one item: one small registered metric each, built in, from a plug-in or from a user's file."""
